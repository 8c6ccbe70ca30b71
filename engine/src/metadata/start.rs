//! The Raft thread: how a node founds, joins or finds its cluster, and which tasks then run.
//!
//! ```text
//! directory        --join   what happens
//! has a cluster    any      it starts as the member that it is
//! empty            given    it asks to be let in, under a new generation of its node id
//! empty            none     it founds a cluster, unless a member of one takes it for its own
//!                           within a moment: then its disk was lost, and it asks to be let in there
//! ```

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use openraft::{BasicNode, SnapshotPolicy};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::timeout;

use super::MetadataError;
use super::agent::Agent;
use super::identity::{self, Identity, Origin};
use super::lease::{Granter, Lease};
use super::raft_log::RaftLog;
use super::raft_net::Nodes;
use super::raft_types::{Raft, raft_id};
use super::rounds::{self, Rounds};
use super::state::NodeInfo;
use super::state_machine::StateMachine;
use super::{leader, member, succession};
use crate::clock::Clock;
use crate::net::{self, DetachedListener};
use crate::peer::hello::Hello;
use crate::peer::{Acceptor, Local, PeerListener, Peers};
use crate::random::{random_u64, random_u128};

/// Raft's heartbeats, in milliseconds.
const HEARTBEAT_MS: u64 = 50;
/// A follower stands for election after the longest timeout without a heartbeat and one between
/// these, in milliseconds. With the lease's length on top this must stay below two seconds.
pub const ELECTION_MS: std::ops::Range<u64> = 150..300;
/// Longest wait for one piece of a snapshot, in milliseconds.
const SNAPSHOT_PIECE_MS: u64 = 2000;
/// Bytes of a piece of a snapshot.
const SNAPSHOT_PIECE_BYTES: u64 = 256 << 10;
/// How long an empty directory without `--join` listens for a cluster that it was a member of.
/// Members look for one that is missing about every 100 ms.
const FOUNDING_PAUSE: Duration = Duration::from_millis(400);

/// What the metadata of a node need to start.
pub struct Setup {
    /// Directory of their own.
    pub dir: PathBuf,
    /// What leases are measured by.
    pub clock: Arc<dyn Clock>,
    /// This node.
    pub node_id: u64,
    /// Disk id of the data directory, in hexadecimal.
    pub disk_id: String,
    /// Where other nodes connect to. `None`: this node stays alone.
    pub listener: Option<DetachedListener>,
    /// Its address as others reach it.
    pub peer_address: String,
    /// Address for clients.
    pub client_address: String,
    /// Members of a cluster to join.
    pub join: Vec<String>,
    /// Others may know this address from an earlier life of this node: an empty directory waits a
    /// moment whether they call, before it founds a cluster.
    pub address_is_known: bool,
    /// Between which election timeouts one is drawn, in milliseconds: [`ELECTION_MS`], but for tests.
    pub election_ms: std::ops::Range<u64>,
}

/// What the thread has once it runs.
pub(super) struct Started {
    pub(super) agent: Arc<Agent>,
    pub(super) listener: PeerListener,
    pub(super) foreign: watch::Receiver<Option<Hello>>,
}

/// How the start ended: what runs, and the runtime on which it does.
pub(super) type Begun = Result<(Started, tokio::runtime::Handle), MetadataError>;

/// The files, opened before anything runs, so that a damaged one is told at once.
struct Files {
    identity_path: PathBuf,
    identity: Option<Identity>,
    log: RaftLog,
    machine: StateMachine,
}

impl Files {
    fn open(dir: &Path, node_id: u64) -> Result<Self, MetadataError> {
        std::fs::create_dir_all(dir).map_err(|error| MetadataError::io("create", dir, error))?;
        let log = RaftLog::open(&dir.join("log"))?;
        let identity_path = identity::path_in(dir);
        let identity = Identity::read(&identity_path)?;
        let pristine = log.is_pristine();
        match &identity {
            None if !pristine => return Err(MetadataError::corrupt(&identity_path, "it is missing")),
            Some(is) if is.node_id != node_id => {
                return Err(MetadataError::OtherNode { path: dir.to_owned(), node_id: is.node_id });
            }
            Some(Identity { claimed_by: Some(member), .. }) => {
                return Err(MetadataError::Claimed { path: identity_path, member: member.clone() });
            }
            Some(is) if is.origin == Origin::Founder && pristine => {
                return Err(MetadataError::corrupt(&dir.join("log"), "it is empty"));
            }
            _ => {}
        }
        Ok(Files { identity_path, identity, log, machine: StateMachine::open(&dir.join("snapshot"))? })
    }
}

/// Starts everything on the current runtime, which must be the Raft thread's.
async fn start(mut setup: Setup, files: Files) -> Result<Started, MetadataError> {
    let run_id = random_u64().map_err(|error| MetadataError::io("draw a run id for", &setup.dir, error))?;
    let local = Arc::new(Local {
        node_id: setup.node_id,
        run_id,
        address: setup.peer_address.clone(),
        cluster_id: OnceLock::new(),
    });
    if let Some(identity) = &files.identity {
        // It was made just now and is empty.
        let _ = local.cluster_id.set(identity.cluster_id());
    }
    let view = files.machine.view();
    if setup.listener.is_none() && view.read(|state| state.nodes.len() > 1) {
        return Err(MetadataError::NoListener(setup.peer_address.clone()));
    }
    let peers = {
        let view = Arc::clone(&view);
        Peers::new(
            Arc::clone(&local),
            Arc::new(move |node_id| view.read(|state| state.nodes.get(&node_id).map(|node| node.peer_address.clone()))),
        )
    };
    let (acceptor, incoming, listener, foreign) = Acceptor::new(peers.clone());
    let is_alone = setup.listener.is_none();
    if let Some(listener) = setup.listener.take() {
        let listener = net::attach_listener(listener);
        tokio::spawn(
            acceptor.run(listener.map_err(|error| MetadataError::io("listen for the nodes of", &setup.dir, error))?),
        );
    }
    let info = NodeInfo {
        generation: 0,
        disk_id: setup.disk_id.clone(),
        run_id,
        peer_address: setup.peer_address.clone(),
        client_address: setup.client_address.clone(),
    };
    let identity = match files.identity.clone() {
        Some(identity) => identity,
        None => find_cluster(&setup, is_alone, &files, &peers, &info, foreign.clone()).await?,
    };
    // Set already if the directory had one.
    let _ = local.cluster_id.set(identity.cluster_id());
    let info = NodeInfo { generation: identity.generation, ..info };
    let (agent, queue) = start_raft(&setup, files, identity, peers, info).await?;
    spawn_tasks(&agent, queue, incoming, setup.join);
    Ok(Started { agent, listener, foreign })
}

/// Joins or founds a cluster, for an empty directory.
async fn find_cluster(
    setup: &Setup,
    is_alone: bool,
    files: &Files,
    peers: &Peers,
    info: &NodeInfo,
    mut foreign: watch::Receiver<Option<Hello>>,
) -> Result<Identity, MetadataError> {
    let mut join = setup.join.clone();
    if join.is_empty() && setup.address_is_known && !is_alone {
        let called = timeout(FOUNDING_PAUSE, foreign.wait_for(Option::is_some)).await;
        if let Ok(Ok(hello)) = called
            && let Some(hello) = &*hello
        {
            tracing::warn!(
                node_id = setup.node_id, member = %hello.address,
                "the data directory is empty, but a cluster knows this node: it joins again instead of founding another"
            );
            join.push(hello.address.clone());
        }
    }
    let identity = if join.is_empty() {
        let cluster_id =
            random_u128().map_err(|error| MetadataError::io("draw a cluster id for", &setup.dir, error))?;
        Identity::new(cluster_id, setup.node_id, 0, Origin::Founding)
    } else {
        let joined = member::join(peers, &join, setup.node_id, info).await?;
        let cluster_id = u128::from_str_radix(&joined.cluster_id, 16).unwrap_or(0);
        Identity::new(cluster_id, setup.node_id, joined.generation, Origin::Joined)
    };
    identity.write(&files.identity_path)?;
    Ok(identity)
}

type Queue = mpsc::UnboundedReceiver<leader::Queued>;

async fn start_raft(
    setup: &Setup,
    files: Files,
    identity: Identity,
    peers: Peers,
    info: NodeInfo,
) -> Result<(Arc<Agent>, Queue), MetadataError> {
    let raft_id = raft_id(identity.generation, setup.node_id);
    let nodes = Nodes::new(peers.clone());
    let view = files.machine.view();
    let stopped = |error: &dyn std::fmt::Display| MetadataError::Raft(error.to_string().into());
    let raft =
        Raft::new(raft_id, Arc::new(raft_config(&setup.election_ms)), nodes.clone(), files.log.clone(), files.machine)
            .await
            .map_err(|error| stopped(&error))?;
    if identity.origin == Origin::Founding {
        if files.log.is_pristine() {
            let member = BasicNode::new(setup.peer_address.clone());
            raft.initialize([(raft_id, member)].into_iter().collect::<std::collections::BTreeMap<_, _>>())
                .await
                .map_err(|error| stopped(&error))?;
        }
        identity.clone().with_origin(Origin::Founder).write(&files.identity_path)?;
    }
    let clock = Arc::clone(&setup.clock);
    let (queue, queued) = mpsc::unbounded_channel();
    let agent = Agent {
        raft,
        raft_id,
        node_id: setup.node_id,
        cluster_id: identity.cluster_id(),
        info,
        log: files.log,
        view,
        peers,
        nodes,
        lease: Lease::new(Arc::clone(&clock)),
        leased: Notify::new(),
        was_leased: AtomicBool::new(false),
        clock,
        granter: Mutex::new(Granter::default()),
        resigned: AtomicBool::new(false),
        loyalty: Duration::from_millis(setup.election_ms.end),
        rounds: Rounds::default(),
        queue,
        batches: AtomicU64::new(0),
        catching_up: Mutex::default(),
        catch_up_wanted: Notify::new(),
    };
    Ok((Arc::new(agent), queued))
}

fn raft_config(election_ms: &std::ops::Range<u64>) -> openraft::Config {
    openraft::Config {
        cluster_name: "walrus".into(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: election_ms.start,
        election_timeout_max: election_ms.end,
        install_snapshot_timeout: SNAPSHOT_PIECE_MS,
        snapshot_max_chunk_size: SNAPSHOT_PIECE_BYTES,
        // Both go by the size of the log: see `member::compact`.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        ..openraft::Config::default()
    }
}

fn spawn_tasks(
    agent: &Arc<Agent>,
    queue: Queue,
    incoming: mpsc::Receiver<crate::peer::control::Incoming>,
    join: Vec<String>,
) {
    tokio::spawn(leader::watch_leadership(Arc::clone(agent)));
    tokio::spawn(rounds::run(Arc::clone(agent)));
    tokio::spawn(leader::run_queue(Arc::clone(agent), queue));
    tokio::spawn(leader::seal_lost(Arc::clone(agent)));
    tokio::spawn(leader::see_off(Arc::clone(agent)));
    tokio::spawn(Arc::clone(agent).serve(incoming));
    tokio::spawn(Arc::clone(agent).answer_catch_up());
    tokio::spawn(Arc::clone(agent).hold_lease());
    tokio::spawn(member::register(Arc::clone(agent)));
    tokio::spawn(member::reconcile(Arc::clone(agent)));
    tokio::spawn(member::watch_elections(Arc::clone(agent), 2 * agent.loyalty));
    tokio::spawn(succession::stand(Arc::clone(agent)));
    tokio::spawn(member::compact(Arc::clone(agent)));
    tokio::spawn(member::introduce(Arc::clone(agent), join));
}

/// The body of the Raft thread: starts, says so, and runs until it is told to stop.
#[cfg(not(feature = "sim"))]
pub(super) fn run(setup: Setup, started: oneshot::Sender<Begun>, stop: oneshot::Receiver<()>) {
    let opened = Files::open(&setup.dir, setup.node_id).and_then(|files| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok((files, runtime.map_err(|error| MetadataError::io("start the runtime of", &setup.dir, error))?))
    });
    let (files, runtime) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            // Whoever no longer waits does not mind.
            let _ = started.send(Err(error));
            return;
        }
    };
    let log = files.log.clone();
    runtime.block_on(serve(setup, files, started, stop));
    drop(runtime);
    log.shutdown();
}

/// The same on the runtime that there is: in the simulation everything is on one thread.
#[cfg(feature = "sim")]
pub(super) async fn run_here(setup: Setup, started: oneshot::Sender<Begun>, stop: oneshot::Receiver<()>) {
    match Files::open(&setup.dir, setup.node_id) {
        Ok(files) => serve(setup, files, started, stop).await,
        Err(error) => drop(started.send(Err(error))),
    }
}

async fn serve(setup: Setup, files: Files, started: oneshot::Sender<Begun>, mut stop: oneshot::Receiver<()>) {
    let begun = tokio::select! {
        begun = start(setup, files) => begun,
        _ = &mut stop => Err(MetadataError::Stopped),
    };
    let raft = begun.as_ref().ok().map(|begun| begun.agent.raft.clone());
    // Whoever no longer waits has dropped the sender of `stop` as well.
    let _ = started.send(begun.map(|begun| (begun, tokio::runtime::Handle::current())));
    if let Some(raft) = raft {
        // An error means that the node was dropped, which is a stop as well.
        let _ = stop.await;
        if let Err(error) = raft.shutdown().await {
            tracing::warn!(%error, "Raft did not stop in order");
        }
    }
}
