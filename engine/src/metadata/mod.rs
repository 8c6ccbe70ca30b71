//! Metadata: which topics and segments exist, who leads them, where they end.
//!
//! [`state`] is the pure state machine, `log` makes its commands durable, and [`Metadata`] is the
//! handle that the rest of the broker holds: it reads the state and proposes changes. On one node
//! one thread orders the proposals; nobody else needs to know.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

mod log;
pub mod state;

use self::log::MetadataLog;
use self::state::{Command, Outcome, State};

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

/// A command and where its outcome goes.
struct Proposal {
    command: Command,
    reply: oneshot::Sender<Result<Outcome, MetadataError>>,
}

/// The handle: a view of the state, and proposals. Cheap to clone.
#[derive(Clone)]
pub struct Metadata {
    state: Arc<RwLock<State>>,
    proposals: Arc<Mutex<Option<Sender<Proposal>>>>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Metadata {
    /// Opens or creates the metadata in `dir` and starts its thread.
    pub fn open(dir: &Path) -> Result<Self, MetadataError> {
        let (log, state) = MetadataLog::open(dir)?;
        let state = Arc::new(RwLock::new(state));
        let (sender, receiver) = channel();
        let proposer = Proposer { log, state: Arc::clone(&state), receiver };
        let thread = std::thread::Builder::new()
            .name("metadata".into())
            .spawn(move || proposer.run())
            .map_err(|error| MetadataError::io("start the thread for", dir, error))?;
        Ok(Metadata {
            state,
            proposals: Arc::new(Mutex::new(Some(sender))),
            thread: Arc::new(Mutex::new(Some(thread))),
        })
    }

    /// Reads the state. Keep it short: changes wait meanwhile.
    pub fn view<R>(&self, read: impl FnOnce(&State) -> R) -> R {
        read(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Proposes a change; returns once it is durable and applied.
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
        let first_index = self.read_state(|state| state.applied) + 1;
        let commands: Vec<&Command> = group.iter().map(|proposal| &proposal.command).collect();
        match self.log.append(first_index, &commands) {
            Ok(()) => self.apply(first_index, group),
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

    fn apply(&self, first_index: u64, group: Vec<Proposal>) {
        let mut answers = Vec::with_capacity(group.len());
        {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            for (index, proposal) in (first_index..).zip(group) {
                answers.push((proposal.reply, state.apply(index, &proposal.command)));
            }
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
