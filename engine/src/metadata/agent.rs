//! What runs on the Raft thread: one agent a node, shared by its tasks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::ServerState;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::MetadataError;
use super::intake;
use super::leader::Queued;
use super::lease::{Granter, Lease};
use super::raft_log::RaftLog;
use super::raft_net::Nodes;
use super::raft_types::{NodeId, Raft, node_of};
use super::renewal::{Event, Renewal};
use super::rounds::Rounds;
use super::rpc::{self, Joined, Refused, Reply, Request};
use super::state::{Command, NodeInfo, Outcome};
use super::state_machine::View;
use crate::clock::Clock;
use crate::peer::Peers;
use crate::peer::control::{CallError, Incoming};
use crate::peer::hello::{Hello, Purpose};

/// From the call of `propose` to its answer.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Nodes renew their leases within this much of an election, so that a proposal that finds too
/// few of them alive is tried again for so long.
const TOO_FEW_PATIENCE: Duration = Duration::from_millis(1500);
/// Between two tries.
const RETRY: Duration = Duration::from_millis(20);
/// From the call of `catch_up` to its failure.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(3);

/// Everything that the tasks of the Raft thread share.
pub(super) struct Agent {
    pub(super) raft: Raft,
    pub(super) raft_id: NodeId,
    pub(super) node_id: u64,
    pub(super) cluster_id: u128,
    /// As whom this run registers.
    pub(super) info: NodeInfo,
    pub(super) log: RaftLog,
    pub(super) view: Arc<View>,
    pub(super) peers: Peers,
    pub(super) nodes: Nodes,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) lease: Lease,
    /// The lease was renewed.
    pub(super) leased: Notify,
    /// This run has had a lease.
    pub(super) was_leased: AtomicBool,
    pub(super) granter: Mutex<Granter>,
    /// It leads no more, whatever Raft still says.
    pub(super) resigned: AtomicBool,
    /// Voters refuse everyone for so long after they heard from a leader: the longest election timeout.
    pub(super) loyalty: Duration,
    pub(super) rounds: Rounds,
    /// Proposals for this node as the Raft leader.
    pub(super) queue: mpsc::UnboundedSender<Queued>,
    /// Number of the last batch that this process proposed.
    pub(super) batches: AtomicU64,
    /// Callers of `catch_up` that share the next question.
    pub(super) catching_up: Mutex<Vec<oneshot::Sender<Result<(), MetadataError>>>>,
    pub(super) catch_up_wanted: Notify,
}

impl Agent {
    /// The Raft leader's node, as far as this node knows.
    pub(super) fn leader(&self) -> Option<u64> {
        self.raft.server_metrics().borrow().current_leader.map(node_of)
    }

    /// Does this node lead, as far as it knows?
    pub(super) fn leads(&self) -> bool {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow();
        metrics.state == ServerState::Leader
            && metrics.current_leader == Some(self.raft_id)
            && !self.resigned.load(Ordering::Acquire)
    }

    pub(super) fn granter(&self) -> MutexGuard<'_, Granter> {
        self.granter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Proposes a change wherever the Raft leader is; returns once it is applied here.
    pub(super) async fn propose(&self, command: Command) -> Result<Outcome, MetadataError> {
        let start = Instant::now();
        let deadline = start + PROPOSE_TIMEOUT;
        loop {
            let refused = match self.propose_once(&command, deadline).await {
                Ok((index, outcome)) => {
                    let applied = timeout_at(deadline, self.wait_applied(index)).await;
                    return applied.map_or(Err(MetadataError::Unknown), |()| Ok(outcome));
                }
                Err(refused) => refused,
            };
            let patience = match refused {
                Refused::NotLeader => PROPOSE_TIMEOUT,
                Refused::TooFewNodes { .. } | Refused::Full => TOO_FEW_PATIENCE,
                _ => Duration::ZERO,
            };
            if start.elapsed() + RETRY > patience {
                return Err(refused.into());
            }
            sleep(RETRY).await;
        }
    }

    async fn propose_once(&self, command: &Command, deadline: Instant) -> Result<(u64, Outcome), Refused> {
        if self.leads() {
            return timeout_at(deadline, self.lead(command.clone())).await.unwrap_or(Err(Refused::Unknown));
        }
        let leader = self.leader().filter(|leader| *leader != self.node_id).ok_or(Refused::NotLeader)?;
        let request = Request::Propose(command.clone());
        match timeout_at(deadline, rpc::call(&self.nodes.control(leader), request)).await {
            Ok(Ok(Reply::Propose(result))) => result,
            Ok(Err(CallError::NotSent(_))) => Err(Refused::NotLeader),
            // Sent, and nobody knows what became of it.
            _ => Err(Refused::Unknown),
        }
    }

    /// Hands a proposal to the queue of this node, which leads as far as it knows.
    async fn lead(&self, command: Command) -> Result<(u64, Outcome), Refused> {
        let (reply, outcome) = oneshot::channel();
        // The queue ends only with the thread; then nobody hears the answer either.
        let _ = self.queue.send(Queued { command, reply });
        outcome.await.unwrap_or(Err(Refused::Unknown))
    }

    /// Returns once the entry is applied here.
    pub(super) async fn wait_applied(&self, index: u64) {
        // An error means that the state machine is gone, and with it everyone who asks.
        let _ = self.view.index().wait_for(|applied| *applied >= index).await;
    }

    /// Returns once everything that was committed before the call is applied here.
    pub(super) async fn catch_up(&self) -> Result<(), MetadataError> {
        let (sender, done) = oneshot::channel();
        self.catching_up.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        self.catch_up_wanted.notify_one();
        done.await.unwrap_or(Err(MetadataError::Stopped))
    }

    /// Asks for the read index, once for all who have come before the question leaves.
    pub(super) async fn answer_catch_up(self: Arc<Self>) {
        loop {
            self.catch_up_wanted.notified().await;
            let waiting = std::mem::take(&mut *self.catching_up.lock().unwrap_or_else(PoisonError::into_inner));
            if waiting.is_empty() {
                continue;
            }
            let caught_up = async {
                let index = self.read_index().await;
                self.wait_applied(index).await;
            };
            let result = timeout(CATCH_UP_TIMEOUT, caught_up).await.map_err(|_| MetadataError::NoLeader);
            for sender in waiting {
                // Whoever no longer waits does not mind.
                let _ = sender.send(result.clone());
            }
        }
    }

    /// The read index of the Raft leader; asks until there is one.
    async fn read_index(&self) -> u64 {
        loop {
            let result = match self.leader() {
                Some(leader) if leader == self.node_id => self.rounds.confirm().await,
                Some(leader) => match rpc::call(&self.nodes.control(leader), Request::ReadIndex).await {
                    Ok(Reply::ReadIndex(result)) => result,
                    _ => Err(Refused::NotLeader),
                },
                None => Err(Refused::NotLeader),
            };
            match result {
                Ok(index) => return index,
                Err(_) => sleep(RETRY).await,
            }
        }
    }

    /// Keeps this node's lease.
    pub(super) async fn hold_lease(self: Arc<Self>) {
        let mut metrics = self.raft.server_metrics();
        let mut applied = self.view.index();
        let mut renewal = Renewal::new(Arc::clone(&self.clock), self.lease.clone());
        let mut refused = false;
        loop {
            tokio::select! {
                event = renewal.next() => match event {
                    Event::Due => {
                        applied.borrow_and_update();
                        refused = false;
                        let agent = Arc::clone(&self);
                        renewal.send(async move { agent.ask_lease().await });
                    }
                    Event::Granted => {
                        self.was_leased.store(true, Ordering::Release);
                        self.leased.notify_waiters();
                    }
                    Event::Refused => refused = true,
                },
                // A new leader does not know of the lease yet.
                _ = metrics.changed(), if metrics.has_changed().is_ok() => {
                    sleep(Duration::from_millis(1)).await;
                    renewal.hurry();
                }
                // The registration may be among what was applied.
                _ = applied.changed(), if refused => renewal.hurry(),
            }
        }
    }

    /// Asks for a lease once. The grant counts only once what it names is applied here.
    async fn ask_lease(&self) -> Result<(), Refused> {
        let index = match self.leader() {
            Some(leader) if leader == self.node_id => self.grant(self.node_id, self.info.run_id).await,
            Some(leader) => {
                let request = Request::Lease { node_id: self.node_id, run_id: self.info.run_id };
                match rpc::call(&self.nodes.control(leader), request).await {
                    Ok(Reply::Lease(result)) => result,
                    _ => Err(Refused::NotLeader),
                }
            }
            None => Err(Refused::NotLeader),
        }?;
        self.wait_applied(index).await;
        Ok(())
    }

    /// Answers what other nodes ask.
    pub(super) async fn serve(self: Arc<Self>, mut incoming: mpsc::Receiver<Incoming>) {
        while let Some(Incoming { from, body, reply }) = incoming.recv().await {
            let this = Arc::clone(&self);
            tokio::spawn(async move {
                let answer = match Request::decode(&body) {
                    Ok(request) => this.answer(&from, request).await,
                    Err(error) => Reply::Bad(error),
                };
                // A connection that is gone takes no reply.
                let _ = reply.send(answer.encode());
            });
        }
    }

    async fn answer(&self, from: &Hello, request: Request) -> Reply {
        if from.purpose == Purpose::Join && !matches!(request, Request::Join { .. }) {
            return Reply::Bad("this connection is for joining".into());
        }
        let meant = |target: NodeId| target == self.raft_id;
        match request {
            Request::Append { target, request } if meant(target) => {
                Reply::Append(intake::append(&self.raft, &self.log, request).await)
            }
            Request::Vote { target, request } if meant(target) => Reply::Vote(self.raft.vote(request).await),
            Request::Snapshot { target, piece } if meant(target) => {
                Reply::Snapshot(self.raft.install_snapshot(piece).await)
            }
            Request::Append { .. } | Request::Vote { .. } | Request::Snapshot { .. } => {
                Reply::Bad("another Raft id was meant".into())
            }
            Request::Propose(command) => {
                Reply::Propose(if self.leads() { self.lead(command).await } else { Err(Refused::NotLeader) })
            }
            Request::ReadIndex => Reply::ReadIndex(self.rounds.confirm().await),
            Request::Lease { node_id, run_id } => Reply::Lease(self.grant(node_id, run_id).await),
            Request::Elect { target } if meant(target) => {
                // It fails only if Raft has stopped.
                let _ = self.raft.trigger().elect().await;
                Reply::Elect
            }
            Request::Elect { .. } => Reply::Bad("another Raft id was meant".into()),
            Request::Join { node_id, info } => Reply::Join(self.let_in(node_id, info).await),
        }
    }

    /// Registers a node with an empty directory under its next generation.
    async fn let_in(&self, node_id: u64, info: NodeInfo) -> Result<Joined, Refused> {
        let command = Command::RegisterNode { node_id, info: NodeInfo { generation: NEXT_GENERATION, ..info } };
        match self.propose(command).await {
            Ok(Outcome::Registered(generation)) => {
                Ok(Joined { cluster_id: format!("{:032x}", self.cluster_id), generation })
            }
            Err(MetadataError::NodeIdInUse(node_id)) => Err(Refused::NodeIdInUse(node_id)),
            Err(MetadataError::Unknown) => Err(Refused::Unknown),
            _ => Err(Refused::NotLeader),
        }
    }

    /// Number for the next batch. Take it and propose without waiting in between.
    pub(super) fn next_batch(&self) -> u64 {
        self.batches.fetch_add(1, Ordering::AcqRel) + 1
    }
}

/// In a proposed `RegisterNode`: the Raft leader fills in the next generation of the node.
pub(super) const NEXT_GENERATION: u64 = u64::MAX;
