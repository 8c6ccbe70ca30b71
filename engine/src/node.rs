//! One node: puts the parts together, starts them in order, and stops them in the reverse order.
//!
//! ```text
//! start   store (lock, files) → metadata → topics in step with it → listen → serve
//! stop    leadership handed over → no new requests → owed replies sent → cursors committed → other nodes → metadata → store flushed
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::admin;
use crate::broker::{self, Broker};
use crate::clock::{BootClock, Clock};
use crate::config::{Config, ConfigError};
use crate::exec;
use crate::log::{cursor, peer_server, reconciler, repair, retention, rollover, watchdog};
use crate::metadata::{ELECTION_MS, Metadata, MetadataError, Setup};
use crate::net::{self, DetachedListener, TcpListener};
use crate::peer::PeerListener;
use crate::server;
use crate::status;
use crate::store::disk::{Disk, RealDisk};
use crate::store::{Store, StoreError};

/// Longest wait, at a stop, for other nodes to take over what this one leads.
const LEAVE_TIME: Duration = Duration::from_secs(5);

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// A setting cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The metadata cannot be used.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A port cannot be used.
    #[error("cannot listen on {address}: {error}; choose another {flags}")]
    Listen {
        /// The flags that choose it.
        flags: &'static str,
        /// `host:port` as it was asked for.
        address: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// The start was broken off.
    #[error("the start was given up")]
    Aborted,
}

/// A running node. Stop it with [`Node::stop`]; a node that is merely dropped stops like a
/// process that is killed, and loses nothing that it acknowledged.
pub struct Node {
    broker: Arc<Broker>,
    address: SocketAddr,
    admin_address: Option<SocketAddr>,
    peer_address: String,
    /// Tasks that serve clients.
    tasks: Vec<JoinHandle<()>>,
    /// Tasks that other nodes, and the tasks above, depend on, and the admin port.
    internal: Vec<JoinHandle<()>>,
}

/// How long a member of a cluster waits before it serves without a lease.
const READY_PATIENCE: Duration = Duration::from_secs(2);

/// What a node has of the machine under it, beside the network. Tests put twins in their places.
#[derive(Clone)]
pub struct Machine {
    /// What leases are measured by.
    pub clock: Arc<dyn Clock>,
    /// Where records and promises are kept.
    pub disk: Arc<dyn Disk>,
}

impl Default for Machine {
    /// The real one.
    fn default() -> Self {
        Machine { clock: BootClock::shared(), disk: Arc::new(RealDisk) }
    }
}

impl Node {
    /// Recovers the data directory and begins to serve.
    pub async fn start(config: Config) -> Result<Node, NodeError> {
        Self::start_on(config, Machine::default()).await
    }

    /// As [`Node::start`], on a machine with other parts.
    pub async fn start_on(config: Config, machine: Machine) -> Result<Node, NodeError> {
        config.validate()?;
        let address = format!("{}:{}", config.client_host, config.client_port);
        // Before the recovery, which may take long: a taken port is found at once. Clients that
        // come early wait in the backlog.
        let flags = "--client-host or --client-port";
        let cannot = |error| NodeError::Listen { flags, address: address.clone(), error };
        let listener = net::bind(&address).await.map_err(cannot)?;
        let local = listener.local_addr().map_err(cannot)?;
        let admin = open_admin_port(&config).await?;
        let peer_listener = bind_peers(&config).await?;
        let (broker, data_connections) = open(config, machine, local, peer_listener).await?;
        let broker = Arc::new(broker);
        let mut internal = vec![
            tokio::spawn(reconciler::run(Arc::clone(&broker))),
            tokio::spawn(watchdog::run(Arc::clone(&broker))),
            tokio::spawn(repair::run(Arc::clone(&broker))),
            tokio::spawn(peer_server::run(data_connections, Arc::clone(&broker))),
        ];
        let mut admin_address = None;
        if let Some((listener, address)) = admin {
            internal.push(tokio::spawn(admin::run(listener, Arc::clone(&broker))));
            admin_address = Some(address);
            tracing::info!("status page: http://{address}/");
        }
        // A node alone is ready in a moment, and nobody else could serve meanwhile. A member of a
        // cluster may have to wait for others: until then it says so, and serves what it can.
        let settled = tokio::spawn(settle(Arc::clone(&broker), local));
        let alone = broker.metadata.view(|state| state.nodes.len() <= 1);
        let patience = if alone { Duration::MAX } else { READY_PATIENCE };
        if let Ok(settled) = tokio::time::timeout(patience, settled).await {
            settled.unwrap_or(Err(NodeError::Aborted))?;
        } else {
            let reason = status::not_ready(&broker).unwrap_or("topics are being opened");
            tracing::warn!(reason, "not ready yet");
        }
        let tasks = vec![
            tokio::spawn(server::run(listener, Arc::clone(&broker))),
            tokio::spawn(cursor::Committer::run(Arc::clone(&broker))),
            tokio::spawn(retention::run(Arc::clone(&broker))),
        ];
        let peer_address = broker.metadata.peer_address();
        Ok(Node { broker, address: local, admin_address, peer_address, tasks, internal })
    }

    /// Where clients connect; useful with port 0.
    pub fn client_address(&self) -> SocketAddr {
        self.address
    }

    /// Where the admin port is, if there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// Where other nodes connect; useful with port 0.
    pub fn peer_address(&self) -> &str {
        &self.peer_address
    }

    /// A look into it.
    #[cfg(feature = "sim")]
    pub fn probe(&self) -> crate::sim::probe::Probe {
        crate::sim::probe::Probe::new(&self.broker)
    }

    /// Returns if the node must stop because its cluster has found that its disk was lost.
    async fn claimed(&self) -> MetadataError {
        self.broker.metadata.claimed().await
    }

    /// Hands over what this node leads, while it still serves: its clients' requests are passed on.
    async fn leave(&self) {
        if self.broker.metadata.view(|state| state.nodes.len() <= 1) {
            return;
        }
        self.broker.stop_leading();
        let left = async {
            loop {
                let led: Vec<_> = self.broker.topics.all().into_iter().filter(|topic| topic.is_led_here()).collect();
                if led.is_empty() {
                    return;
                }
                rollover::hand_over(&self.broker, led).await;
                self.broker.in_step().await;
            }
        };
        // Without a lease nobody is there who could take over.
        let cut_off = async {
            while self.broker.lease.is_valid() {
                tokio::time::sleep(broker::TRY_AGAIN).await;
            }
        };
        let in_time = async {
            tokio::select! {
                () = left => true,
                () = cut_off => false,
            }
        };
        if !tokio::time::timeout(LEAVE_TIME, in_time).await.unwrap_or(false) {
            tracing::warn!("some topics could not be handed over; the others will recover them");
        }
    }

    /// Stops: what was acknowledged is flushed, and reader positions are committed.
    pub async fn stop(self) {
        self.leave().await;
        self.broker.metadata.resign().await;
        self.broker.stop();
        for task in self.tasks {
            // A task that panicked has said so; the others still want to be stopped.
            let _ = task.await;
        }
        cursor::commit_moved(&self.broker).await;
        self.broker.stop_all();
        for task in self.internal {
            let _ = task.await;
        }
        let broker = self.broker;
        let closed = exec::spawn_blocking(move || {
            broker.metadata.shutdown();
            broker.store.shutdown();
        });
        let _ = closed.await;
    }
}

async fn open_admin_port(config: &Config) -> Result<Option<(TcpListener, SocketAddr)>, NodeError> {
    let Some(port) = config.admin_port else { return Ok(None) };
    let flags = "--admin-host or --admin-port";
    let cannot = |error| NodeError::Listen { flags, address: format!("{}:{port}", config.admin_host), error };
    admin::listen(&config.admin_host, port).await.map(Some).map_err(cannot)
}

/// The port for other nodes. A node that is told of no cluster does without if it is taken.
async fn bind_peers(config: &Config) -> Result<Option<DetachedListener>, NodeError> {
    let address = format!("{}:{}", config.raft_host, config.raft_port);
    match net::bind_detached(&address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if config.join.is_empty() => {
            tracing::warn!(port = config.raft_port, %error, "no other node can join this one: the port for nodes cannot be used");
            Ok(None)
        }
        Err(error) => Err(NodeError::Listen { address, flags: "--raft-host or --raft-port", error }),
    }
}

async fn open(
    config: Config,
    machine: Machine,
    client_address: SocketAddr,
    peer_listener: Option<DetachedListener>,
) -> Result<(Broker, PeerListener), NodeError> {
    let store_config = config.store_config();
    let store = exec::spawn_blocking(move || Store::open_on(store_config, machine.disk)).await;
    let store = store.map_err(|_| NodeError::Aborted)??;
    let port = peer_listener.as_ref().and_then(|listener| listener.local_addr().ok());
    let setup = Setup {
        dir: config.data_dir.join("metadata"),
        clock: machine.clock,
        node_id: config.node_id,
        disk_id: format!("{:032x}", store.disk_id()),
        peer_address: config.peer_address(port.map_or(config.raft_port, |address| address.port())),
        listener: peer_listener,
        client_address: config.client_address(client_address),
        join: config.join.clone(),
        address_is_known: config.raft_port != 0,
        election_ms: ELECTION_MS,
    };
    let (metadata, data_connections) = Metadata::open(setup).await?;
    Ok((Broker::new(config, store, metadata), data_connections))
}

/// Gets ready, unless the node is stopped before.
async fn settle(broker: Arc<Broker>, local: SocketAddr) -> Result<(), NodeError> {
    let settled = tokio::select! {
        settled = get_ready(&broker) => settled,
        () = broker.stopped() => return Err(NodeError::Aborted),
    };
    match &settled {
        Ok(()) => {
            let (backend, topics) = (broker.store.backend(), broker.topics.all().len());
            tracing::info!(address = %local, backend, topics, "ready");
        }
        Err(error) => tracing::error!(%error, "the node does not get ready"),
    }
    settled
}

/// Waits until the cluster knows this run, and until the topics are in step with the metadata. A
/// node alone also waits until what an earlier run left open is recovered.
async fn get_ready(broker: &Arc<Broker>) -> Result<(), NodeError> {
    broker.metadata.ready().await;
    broker.in_step().await;
    let alone = broker.metadata.view(|state| state.nodes.len() <= 1);
    if alone {
        for topic in broker.topics.all() {
            topic.wait_writable().await;
        }
    }
    broker.settled.store(true, Ordering::Relaxed);
    let cleaner = Arc::clone(broker);
    let cleaned = exec::spawn_blocking(move || reconciler::remove_leftovers(&cleaner)).await;
    cleaned.map_err(|_| NodeError::Aborted)?.map_err(NodeError::Store)
}

/// Runs a node until SIGTERM or SIGINT (Ctrl-C).
pub async fn run(config: Config) -> Result<(), NodeError> {
    use tokio::signal::unix::{SignalKind, signal};
    let handlers = signal(SignalKind::terminate()).and_then(|term| Ok((term, signal(SignalKind::interrupt())?)));
    let (mut term, mut interrupt) = handlers.map_err(|_| NodeError::Aborted)?;
    let node = tokio::select! {
        node = Node::start(config) => node?,
        // Nothing was served yet, so there is nothing to bring to an end.
        _ = term.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let claimed = tokio::select! {
        _ = term.recv() => None,
        _ = interrupt.recv() => None,
        error = node.claimed() => Some(error),
    };
    tracing::info!("stopping");
    node.stop().await;
    tracing::info!("stopped");
    claimed.map_or(Ok(()), |error| Err(NodeError::Metadata(error)))
}
