//! What only the Raft leader does: it orders proposals, grants leases, and takes the segments of
//! lost nodes away.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{ClientWriteError, RaftError};
use openraft::raft::ClientWriteResponse;
use openraft::{BasicNode, ServerState};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::agent::{Agent, NEXT_GENERATION};
use super::placement::{self, Live};
use super::raft_types::{Batch, NodeId, TypeConfig};
use super::rpc::Refused;
use super::state::{Command, Outcome, Phase, Run, SegmentAt, State};
use crate::types::SegmentUid;

/// Commands in one entry at most.
const GROUP_COMMANDS_MAX: usize = 256;
/// An entry takes no more commands once they have this many bytes.
const GROUP_BYTES: usize = 256 << 10;
/// A larger command is refused.
const COMMAND_BYTES_MAX: usize = 1 << 20;
/// Entries on the way at a time; what comes meanwhile shares the next one.
const ENTRIES_IN_FLIGHT: usize = 4;
/// How often the leader looks for lost nodes.
const LOOK: Duration = Duration::from_millis(25);
/// A look that is so late proves that this process was paused, not that others are gone.
const LOOK_LATE: Duration = Duration::from_millis(150);
/// Between two tries to let a leaving node go.
const FAREWELL_RETRY: Duration = Duration::from_millis(200);
/// How long a node that leads no more waits to hear what became of its entries.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// Segments in one `BeginSeal`.
const SEALS_MAX: usize = 1000;

/// A proposal in the leader's queue.
pub(super) struct Queued {
    pub(super) command: Command,
    /// Gets the entry's log index and the command's outcome.
    pub(super) reply: oneshot::Sender<Result<(u64, Outcome), Refused>>,
}

impl Queued {
    fn answer(self, result: Result<(u64, Outcome), Refused>) {
        // A proposer that no longer waits does not mind.
        let _ = self.reply.send(result);
    }
}

/// Takes what has queued up, and makes one entry of it.
pub(super) async fn run_queue(agent: Arc<Agent>, mut queue: mpsc::UnboundedReceiver<Queued>) {
    let slots = Arc::new(Semaphore::new(ENTRIES_IN_FLIGHT));
    while let Some(first) = queue.recv().await {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let mut group = Group::default();
        let mut next = Some(first);
        while let Some(queued) = next.take() {
            group.add(&agent, queued);
            if group.queued.len() < GROUP_COMMANDS_MAX && group.bytes < GROUP_BYTES {
                next = queue.try_recv().ok();
            }
        }
        if !group.queued.is_empty() {
            let agent = Arc::clone(&agent);
            tokio::spawn(async move {
                group.commit(&agent).await;
                drop(slot);
            });
        }
    }
}

/// Commands that share an entry.
#[derive(Default)]
struct Group {
    queued: Vec<Queued>,
    bytes: usize,
}

impl Group {
    /// Fills a command in and takes it, or refuses it.
    fn add(&mut self, agent: &Agent, mut queued: Queued) {
        if queued.reply.is_closed() {
            return;
        }
        let turn = self.queued.len() as u64;
        match fill_in(agent, &mut queued.command, turn) {
            Ok(bytes) => {
                self.bytes += bytes;
                self.queued.push(queued);
            }
            Err(refused) => queued.answer(Err(refused)),
        }
    }

    async fn commit(self, agent: &Agent) {
        let commands = self.queued.iter().map(|queued| queued.command.clone()).collect();
        match write(agent, None, commands).await {
            Ok((index, outcomes)) => {
                for (queued, outcome) in self.queued.into_iter().zip(outcomes) {
                    queued.answer(Ok((index, outcome)));
                }
            }
            Err(refused) => {
                for queued in self.queued {
                    queued.answer(Err(refused.clone()));
                }
            }
        }
    }
}

/// Fills in what only the leader knows. Returns the size of the command in bytes.
fn fill_in(agent: &Agent, command: &mut Command, turn: u64) -> Result<usize, Refused> {
    if agent.log.is_full() {
        agent.log.look_again();
        return Err(Refused::Full);
    }
    let now = agent.clock.now();
    let mut live = agent.granter().live(now);
    agent.view.read(|state| {
        // A node that has just restarted has registered its new run, but not renewed its lease.
        live.retain(|node_id, run_id| state.nodes.get(node_id).is_some_and(|node| node.run_id == *run_id));
        if let Command::RegisterNode { node_id, info } = command
            && info.generation == NEXT_GENERATION
        {
            info.generation = state.next_generation(*node_id);
            // Another process may be running under this id: only its lease tells.
            if state.nodes.contains_key(node_id) && !agent.granter().is_lost(*node_id, now) {
                return Err(Refused::NodeIdInUse(*node_id));
            }
        }
        let turn = state.commands + turn;
        placement::fill_in(command, state, &live, turn)
            .map_err(|few| Refused::TooFewNodes { needed: few.needed, live: few.live })
    })?;
    let bytes = serde_json::to_vec(command).map_or(usize::MAX, |bytes| bytes.len());
    if bytes > COMMAND_BYTES_MAX { Err(Refused::TooLarge(bytes)) } else { Ok(bytes) }
}

/// Writes an entry; returns its index and outcomes once it is applied on this node.
async fn write(agent: &Agent, term: Option<u64>, commands: Vec<Command>) -> Result<(u64, Vec<Outcome>), Refused> {
    let batch = Batch { term, commands, number: agent.next_batch() };
    let number = batch.number;
    let Some(written) = written(agent, batch).await else { return Err(Refused::Unknown) };
    match written {
        Ok(response) => Ok((response.log_id.index, response.data)),
        // An entry that came into the log may still be committed by another leader.
        Err(_) if agent.log.has_appended(number) => Err(Refused::Unknown),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Err(Refused::NotLeader),
        Err(error) => {
            tracing::error!(%error, "a metadata change could not be made");
            Err(Refused::NotLeader)
        }
    }
}

type Written = Result<ClientWriteResponse<TypeConfig>, RaftError<NodeId, ClientWriteError<NodeId, BasicNode>>>;

/// What became of an entry. `None`: this node leads no more and nobody says. (openraft 0.9 never answers
/// for entries that the snapshot of the next leader has covered.)
async fn written(agent: &Agent, batch: Batch) -> Option<Written> {
    let mut metrics = agent.raft.server_metrics();
    let write = agent.raft.client_write(batch);
    tokio::pin!(write);
    tokio::select! {
        biased;
        written = &mut write => return Some(written),
        _ = metrics.wait_for(|metrics| metrics.state != ServerState::Leader) => {}
    }
    timeout(ANSWER_WAIT, write).await.ok()
}

/// Notices when this node becomes the Raft leader and when it is no more. A restarted process can
/// be leader at once, without an election: its granter is new, so that is an entry as well.
pub(super) async fn watch_leadership(agent: Arc<Agent>) {
    let mut metrics = agent.raft.server_metrics();
    loop {
        let (leads, term) = {
            let metrics = metrics.borrow_and_update();
            (metrics.state == ServerState::Leader, metrics.vote.leader_id.term)
        };
        {
            let mut granter = agent.granter();
            match (leads, granter.term()) {
                (true, entered) if entered != Some(term) => granter.enter(term, agent.clock.now()),
                (false, Some(_)) => granter.leave(),
                _ => {}
            }
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

impl Agent {
    /// Grants a lease to a run of a node. Returns the index that it has to apply first.
    pub(super) async fn grant(&self, node_id: u64, run_id: u64) -> Result<u64, Refused> {
        if self.view.read(|state| state.nodes.get(&node_id).is_none_or(|node| node.run_id != run_id)) {
            return Err(Refused::NotRegistered);
        }
        self.rounds.confirm().await?;
        if !self.granter().grant(node_id, run_id, self.clock.now()) {
            return Err(Refused::NotLeader);
        }
        // After the promise: what is given away before it is in the log already, or `grant` refused.
        Ok(self.log.last_index())
    }
}

/// Proposes `BeginSeal` for whatever hangs on a node that is lost, or on an earlier run of one.
pub(super) async fn seal_lost(agent: Arc<Agent>) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looked = Instant::now();
    let mut seen = 0;
    let mut leadership = agent.raft.server_metrics();
    loop {
        if !agent.leads() {
            if leadership.changed().await.is_err() {
                return;
            }
            looked = Instant::now();
            continue;
        }
        ticks.tick().await;
        let late = looked.elapsed() > LOOK + LOOK_LATE;
        looked = Instant::now();
        if late {
            continue;
        }
        seen = look(&agent, seen).await;
        looked = Instant::now();
    }
}

/// One look. `seen`: index up to which nothing hung on an earlier run. Returns the new one.
async fn look(agent: &Agent, seen: u64) -> u64 {
    let applied = *agent.view.index().borrow();
    let now = agent.clock.now();
    let (term, live, lost) = {
        let granter = agent.granter();
        let nodes: Vec<u64> = agent.view.read(|state| state.nodes.keys().copied().collect());
        let lost: BTreeSet<u64> = nodes.into_iter().filter(|node_id| granter.is_lost(*node_id, now)).collect();
        let Some(term) = granter.term() else { return seen };
        if lost.is_empty() && applied == seen {
            return seen;
        }
        let live = granter.live(now);
        (term, live, lost)
    };
    let (segments, recoverers) = agent.view.read(|state| orphans(state, &live, &lost));
    if segments.is_empty() {
        return applied;
    }
    let lost: Vec<u64> = lost.into_iter().collect();
    tracing::info!(?lost, segments = segments.len(), "segments have lost their node and are being sealed");
    // From the look at the leases to the proposal nothing is waited for, and no grant comes between.
    agent.granter().give_away(&lost);
    let command = Command::BeginSeal { segments, recoverers };
    let written = timeout(Duration::from_secs(1), write(agent, Some(term), vec![command])).await;
    if written.is_err() {
        // The quorum is gone. Whether the entry is in the log is known, but not what will become
        // of it, so the nodes get no lease from this leader until it is.
        while agent.leads() && agent.granter().term() == Some(term) && !written_by_now(agent).await {
            sleep(LOOK).await;
        }
    }
    agent.granter().given_away(&lost);
    seen
}

/// A quorum answers again, so whatever was proposed before is in the log.
async fn written_by_now(agent: &Agent) -> bool {
    agent.rounds.confirm().await.is_ok()
}

/// Lets nodes go that are to leave: removes a node once nothing names it. (Their open segments roll over,
/// what has too few copies is copied, and their names are taken off sealed segments, by those who lead and
/// hold them.)
pub(super) async fn see_off(agent: Arc<Agent>) {
    let mut applied = agent.view.index();
    loop {
        applied.borrow_and_update();
        let commands = if agent.leads() { agent.view.read(farewells) } else { Vec::new() };
        let idle = commands.is_empty();
        for command in commands {
            if let Err(error) = agent.propose(command).await {
                tracing::debug!(%error, "a leaving node still has to wait");
                sleep(FAREWELL_RETRY).await;
            }
        }
        if idle && applied.changed().await.is_err() {
            return;
        }
    }
}

/// Removes nodes that hold nothing any more: the others let go what they held (`log/letting_go.rs`).
fn farewells(state: &State) -> Vec<Command> {
    let free = state.leaving.iter().filter(|node_id| !state.holds_segments(**node_id));
    free.filter_map(|node_id| {
        let generation = state.nodes.get(node_id)?.generation;
        Some(Command::RemoveNode { node_id: *node_id, generation })
    })
    .collect()
}

/// Segments that are not sealed and hang on a lost node or an earlier run, with who recovers them.
fn orphans(state: &State, live: &Live, lost: &BTreeSet<u64>) -> (Vec<SegmentAt>, Vec<Run>) {
    let gone = |node_id: u64, run_id: u64| {
        lost.contains(&node_id) || state.nodes.get(&node_id).is_none_or(|node| node.run_id != run_id)
    };
    state
        .topics
        .values()
        .filter_map(|topic| {
            let last = topic.last();
            let hangs = match last.phase {
                Phase::Open => gone(last.leader, last.leader_run),
                Phase::Sealing { recoverer, recoverer_run } => gone(recoverer, recoverer_run),
                Phase::Sealed { .. } => false,
            };
            let uid = SegmentUid { topic_id: topic.id, number: last.number };
            let at = SegmentAt { uid, epoch: last.epoch };
            // Without a live node of its set nobody could recover it.
            hangs.then(|| Some((at, placement::recoverer(state, live, at)?))).flatten()
        })
        .take(SEALS_MAX)
        .unzip()
}
