//! Metadata: which nodes, topics and segments exist, who leads them, where they end.
//!
//! ```text
//!  any thread            the Raft thread (its own runtime and connections)
//!  ┌──────────┐ propose  ┌───────┐ forward  ┌────────────────────────────┐
//!  │ Metadata │─────────▶│ agent │─────────▶│ Raft leader: fill in, batch │
//!  │  view    │ catch_up │       │          └──────────────┬─────────────┘
//!  │  lease   │          │       │ openraft: log, votes ◀──┘ replicate, commit
//!  └────▲─────┘          └───┬───┘
//!       └────── state ◀──────┘ apply
//! ```
//! [`state`] is the pure state machine; [`Metadata`] is the handle that the rest of the broker holds:
//! it reads the state and proposes changes. A node that is alone is a group of one on the same code.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

mod agent;
mod command;
mod identity;
mod intake;
mod leader;
pub mod lease;
mod log_file;
mod member;
mod placement;
mod raft_log;
mod raft_net;
mod raft_types;
mod renewal;
mod resign;
mod rounds;
mod rpc;
mod start;
pub mod state;
mod state_machine;
mod succession;

use self::agent::Agent;
use self::lease::Lease;
use self::placement::TooFew;
use self::start::Started;
pub use self::start::{ELECTION_MS, Setup};
use self::state::{Command, Outcome, State};
use crate::peer::hello::Hello;
use crate::peer::{PeerListener, Peers};

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
    /// The log is full and the disk has no space for a snapshot.
    #[error("the metadata log is full and the disk has no space to compact it")]
    Full,
    /// The command is larger than the log takes.
    #[error("a metadata command of {bytes} bytes is too large")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The directory belongs to another node.
    #[error("{path} belongs to node {node_id}; use another --data-dir, or --node-id {node_id}")]
    OtherNode {
        /// Which directory.
        path: PathBuf,
        /// The node that it belongs to.
        node_id: u64,
    },
    /// A member of a cluster counts this node as one of its own, but the directory founded another
    /// cluster: the node's disk was lost. The directory never serves again.
    #[error(
        "the node at {member} counts this node as a member of its cluster, but {path} is of another one that it founded: \
         the node's disk was probably lost. Move the data directory away and start with --join {member}. \
         (If it is that node which errs, take `claimed_by` out of the file.)"
    )]
    Claimed {
        /// The file that says so.
        path: PathBuf,
        /// Address of the member that called.
        member: String,
    },
    /// The node id is taken by a node that is running.
    #[error("node id {0} belongs to a node that is running; choose another --node-id")]
    NodeIdInUse(u64),
    /// A member of a cluster has no port for the other nodes.
    #[error("this node is a member of a cluster, but cannot listen on {0}; choose another --raft-host or --raft-port")]
    NoListener(String),
    /// Raft cannot work any more; only a restart helps.
    #[error("Raft has stopped: {0}")]
    Raft(Arc<str>),
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
}

impl From<TooFew> for MetadataError {
    fn from(TooFew { needed, live }: TooFew) -> Self {
        MetadataError::TooFewNodes { needed, live }
    }
}

/// The handle: a view of the state, and proposals. Cheap to clone.
#[derive(Clone)]
pub struct Metadata {
    agent: Arc<Agent>,
    /// Where they are kept.
    dir: PathBuf,
    /// The Raft thread's runtime.
    runtime: Handle,
    foreign: watch::Receiver<Option<Hello>>,
    thread: Arc<Mutex<Thread>>,
}

/// How to end the Raft thread. Dropped, it ends as well, unwatched.
struct Thread {
    stop: Option<oneshot::Sender<()>>,
    handle: Option<JoinHandle<()>>,
}

impl Metadata {
    /// Opens or creates the metadata and starts the Raft thread. With `--join` and an empty
    /// directory it returns only once the cluster has let the node in; dropped before that, it has
    /// started nothing.
    pub async fn open(setup: Setup) -> Result<(Self, PeerListener), MetadataError> {
        let dir = setup.dir.clone();
        let (started, start) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let handle =
            spawn(setup, started, stopped).map_err(|error| MetadataError::io("start the thread for", &dir, error))?;
        let begun = start.await.unwrap_or(Err(MetadataError::Stopped))?;
        let (Started { agent, listener, foreign }, runtime) = begun;
        let thread = Arc::new(Mutex::new(Thread { stop: Some(stop), handle }));
        Ok((Metadata { agent, dir, runtime, foreign, thread }, listener))
    }

    /// Reads the state. Keep it short: changes wait meanwhile.
    pub fn view<R>(&self, read: impl FnOnce(&State) -> R) -> R {
        self.agent.view.read(read)
    }

    /// The run id of this process: random, drawn at its start.
    pub fn run_id(&self) -> u64 {
        self.agent.info.run_id
    }

    /// `host:port` under which other nodes reach this one.
    pub fn peer_address(&self) -> String {
        self.agent.info.peer_address.clone()
    }

    /// This node's lease.
    pub fn lease(&self) -> Lease {
        self.agent.lease.clone()
    }

    /// Connections to the other nodes.
    pub fn peers(&self) -> Peers {
        self.agent.peers.clone()
    }

    /// Index of the last Raft log entry that is applied here. It moves after each change of the
    /// state, so that a task can compare the state with what it knew.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.agent.view.index()
    }

    /// Node id of the Raft leader, if there is one as far as this node knows.
    pub fn leader(&self) -> Option<u64> {
        self.agent.leader()
    }

    /// Returns once everything that was committed before the call is applied here. Concurrent
    /// callers share one question to the Raft leader. `NoLeader`: nobody answered in time.
    pub async fn catch_up(&self) -> Result<(), MetadataError> {
        self.agent.catch_up().await
    }

    /// Returns once this run of the node is registered and has a lease. Then the state here holds
    /// everything that was committed when the lease was granted.
    pub async fn ready(&self) {
        self.wait_leased(|agent| agent.lease.is_valid()).await;
    }

    /// Returns once this run has had a lease, whether it runs now or not. Then the state here is no
    /// older than this run.
    pub async fn was_ready(&self) {
        self.wait_leased(|agent| agent.was_leased.load(Ordering::Acquire)).await;
    }

    async fn wait_leased(&self, enough: impl Fn(&Agent) -> bool) {
        loop {
            let mut leased = std::pin::pin!(self.agent.leased.notified());
            // Listening begins before the look, so that no renewal falls in between.
            leased.as_mut().enable();
            if enough(&self.agent) {
                return;
            }
            leased.await;
        }
    }

    /// openraft's metrics in the form in which they serialise.
    pub fn raft_metrics_json(&self) -> serde_json::Value {
        let metrics = self.agent.raft.metrics();
        // They are numbers, texts and maps with number keys: nothing that JSON could not hold.
        serde_json::to_value(&*metrics.borrow()).unwrap_or_default()
    }

    /// Proposes a change, through the Raft leader wherever it is; returns once it is durable on a
    /// quorum and applied *on this node*. `NoLeader` and `TooFewNodes`: nothing was changed.
    /// `Unknown`: it may have been.
    pub async fn propose(&self, command: Command) -> Result<Outcome, MetadataError> {
        self.start_proposal(command).await.unwrap_or(Err(MetadataError::Stopped))
    }

    /// As [`Metadata::propose`], for threads that may block.
    pub fn propose_blocking(&self, command: Command) -> Result<Outcome, MetadataError> {
        self.start_proposal(command).blocking_recv().unwrap_or(Err(MetadataError::Stopped))
    }

    /// Returns when another cluster has taken this node for its own while this one is a cluster of
    /// one: its disk was lost, and it must not go on beside the cluster that it belongs to. From
    /// then on it acknowledges nothing, and no later start from this directory does. Gives the error
    /// to end with.
    pub async fn claimed(&self) -> MetadataError {
        let mut foreign = self.foreign.clone();
        loop {
            let address = foreign.borrow_and_update().as_ref().map(|hello| hello.address.clone());
            if let Some(address) = address
                && self.view(|state| state.nodes.len() <= 1)
            {
                self.agent.lease.revoke();
                let path = identity::path_in(&self.dir);
                if let Err(error) = identity::give_up(&path, &address) {
                    tracing::warn!(%error, "the next start has to be told again that it must not serve");
                }
                return MetadataError::Claimed { path, member: address };
            }
            if foreign.changed().await.is_err() {
                // Nobody listens any more: the node is stopping.
                return std::future::pending().await;
            }
        }
    }

    /// If this node is the Raft leader, has another one elected, which takes about 0.3 s. Before a
    /// stop; it never leads again in this process.
    pub async fn resign(&self) {
        let agent = Arc::clone(&self.agent);
        let resigned = self.runtime.spawn(async move { agent.resign().await });
        // An error means that the thread has stopped, which comes to the same.
        let _ = resigned.await;
    }

    /// Stops the Raft thread. Later proposals answer `Stopped`. Blocks.
    pub fn shutdown(&self) {
        let (stop, handle) = {
            let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
            (thread.stop.take(), thread.handle.take())
        };
        drop(stop);
        if let Some(handle) = handle {
            // A panic there was already printed, and there is nothing left to stop.
            let _ = handle.join();
        }
    }

    fn start_proposal(&self, command: Command) -> oneshot::Receiver<Result<Outcome, MetadataError>> {
        let (reply, outcome) = oneshot::channel();
        let agent = Arc::clone(&self.agent);
        self.runtime.spawn(async move {
            // A proposer that no longer waits does not mind.
            let _ = reply.send(agent.propose(command).await);
        });
        outcome
    }
}

#[cfg(not(feature = "sim"))]
fn spawn(
    setup: Setup,
    started: oneshot::Sender<start::Begun>,
    stopped: oneshot::Receiver<()>,
) -> std::io::Result<Option<JoinHandle<()>>> {
    std::thread::Builder::new().name("raft".into()).spawn(move || start::run(setup, started, stopped)).map(Some)
}

/// In the simulation there is one thread for everything.
#[cfg(feature = "sim")]
#[expect(clippy::unnecessary_wraps, reason = "a thread may fail to start")]
fn spawn(
    setup: Setup,
    started: oneshot::Sender<start::Begun>,
    stopped: oneshot::Receiver<()>,
) -> std::io::Result<Option<JoinHandle<()>>> {
    tokio::spawn(start::run_here(setup, started, stopped));
    Ok(None)
}
