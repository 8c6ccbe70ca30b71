//! The transport between nodes: one listener a node, connections that begin with a hello.
//!
//! A connection has one purpose: `control` (requests and replies of Raft, leases and proposals,
//! served by the metadata layer) or `data` (records, served by the log layer). The hello names the
//! cluster, the node and its run; another cluster is refused before anything else is read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};

pub(crate) mod control;
pub(crate) mod hello;

use self::control::Incoming;
use self::hello::{Answer, Hello, Purpose, Verdict};
use crate::net::{self, DetachedStream, TcpListener, TcpStream};

/// Longest wait for a connection to be opened.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Connections from other nodes at a time; a cluster needs a few for each of its nodes.
const CONNECTIONS_MAX: usize = 1024;
/// Data connections that nobody has taken yet.
const DATA_BACKLOG: usize = 64;

/// Why another node could not be reached.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// Metadata know no such node.
    #[error("there is no node {0}")]
    UnknownNode(u64),
    /// The connection failed or was cut.
    #[error("node {node_id} at {address} cannot be reached: {reason}")]
    Unreachable {
        /// Which node.
        node_id: u64,
        /// Where it was expected.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// The other side does not belong to this cluster, or is not the node that was meant.
    #[error("node {node_id} at {address} refused: {reason}")]
    Refused {
        /// Which node was meant.
        node_id: u64,
        /// Where it was expected.
        address: String,
        /// What it said.
        reason: &'static str,
    },
}

/// A connection for records, after both hellos. Whoever holds it owns what is said on it.
#[derive(Debug)]
pub struct DataConnection {
    /// The node at the other end.
    pub node_id: u64,
    /// The run of that node.
    pub run_id: u64,
    /// The bytes after the hellos.
    pub stream: TcpStream,
}

/// A data connection on its way from the runtime that accepted it to the one that uses it.
struct Accepted {
    node_id: u64,
    run_id: u64,
    stream: DetachedStream,
}

/// Data connections that other nodes have opened.
pub struct PeerListener {
    accepted: mpsc::Receiver<Accepted>,
}

impl PeerListener {
    /// The next connection, on the caller's runtime; `None` once the node stops.
    pub async fn accept(&mut self) -> Option<DataConnection> {
        loop {
            let Accepted { node_id, run_id, stream } = self.accepted.recv().await?;
            match net::attach(stream) {
                Ok(stream) => return Some(DataConnection { node_id, run_id, stream }),
                Err(error) => tracing::warn!(node_id, %error, "a connection could not be taken over"),
            }
        }
    }
}

/// Who this node is to others.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) node_id: u64,
    pub(crate) run_id: u64,
    /// Where it listens.
    pub(crate) address: String,
    /// Not known before the node has initialised or joined a cluster.
    pub(crate) cluster_id: OnceLock<u128>,
}

type Resolve = dyn Fn(u64) -> Option<String> + Send + Sync;

/// Opens connections to other nodes. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    local: Arc<Local>,
    /// Addresses as the metadata have them.
    resolve: Arc<Resolve>,
    /// Addresses that nodes gave of themselves in this run, which may be newer.
    told: Arc<Mutex<HashMap<u64, String>>>,
}

impl Peers {
    pub(crate) fn new(local: Arc<Local>, resolve: Arc<Resolve>) -> Self {
        Peers { local, resolve, told: Arc::default() }
    }

    /// Opens a connection for records to a node, on the caller's runtime. Does not retry.
    pub async fn connect_data(&self, node_id: u64) -> Result<DataConnection, PeerError> {
        self.connect(node_id, Purpose::Data).await
    }

    /// Opens a connection to a node wherever it may be.
    pub(crate) async fn connect(&self, node_id: u64, purpose: Purpose) -> Result<DataConnection, PeerError> {
        let mut last = PeerError::UnknownNode(node_id);
        for address in self.addresses(node_id) {
            match self.connect_to(&address, node_id, purpose).await {
                Ok((stream, answer)) => {
                    return Ok(DataConnection { node_id, run_id: answer.run_id, stream });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Does nothing listen at any address of the node, as its system says? Then its process is gone.
    /// Silence is no such answer.
    pub(crate) async fn is_gone(&self, node_id: u64) -> bool {
        let addresses = self.addresses(node_id);
        for address in &addresses {
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, net::connect(address)).await;
            if !matches!(connected, Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused) {
                return false;
            }
        }
        !addresses.is_empty()
    }

    /// Where a node may be, the newest first.
    fn addresses(&self, node_id: u64) -> Vec<String> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).get(&node_id).cloned();
        let known = (self.resolve)(node_id).filter(|address| told.as_ref() != Some(address));
        told.into_iter().chain(known).collect()
    }

    /// Opens a connection to an address. `node_id` 0: whoever is there.
    pub(crate) async fn connect_to(
        &self,
        address: &str,
        node_id: u64,
        purpose: Purpose,
    ) -> Result<(TcpStream, Answer), PeerError> {
        let unreachable = |reason: String| PeerError::Unreachable { node_id, address: address.to_owned(), reason };
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, net::connect(address)).await;
        let mut stream = connected
            .map_err(|_| unreachable("it does not answer".into()))?
            .map_err(|error| unreachable(error.to_string()))?;
        let hello = Hello {
            purpose,
            cluster_id: self.local.cluster_id.get().copied().unwrap_or(0),
            from: self.local.node_id,
            run_id: self.local.run_id,
            to: node_id,
            address: self.local.address.clone(),
        };
        let answer = hello::greet(&mut stream, &hello).await.map_err(|error| unreachable(error.to_string()))?;
        let refused = |reason| PeerError::Refused { node_id, address: address.to_owned(), reason };
        match answer.verdict {
            Verdict::Welcome => Ok((stream, answer)),
            Verdict::OtherCluster => Err(refused("it belongs to another cluster")),
            Verdict::OtherNode => Err(refused("another node listens there")),
        }
    }

    /// A node said where it listens.
    pub(crate) fn learn(&self, node_id: u64, address: &str) {
        if !address.is_empty() {
            self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(node_id, address.to_owned());
        }
    }
}

/// Where accepted connections go.
pub(crate) struct Acceptor {
    peers: Peers,
    requests: mpsc::Sender<Incoming>,
    data: mpsc::Sender<Accepted>,
    /// The last hello of another cluster that took this node for its own.
    foreign: watch::Sender<Option<Hello>>,
}

impl Acceptor {
    /// An acceptor, and the other ends of its channels.
    pub(crate) fn new(peers: Peers) -> (Self, mpsc::Receiver<Incoming>, PeerListener, watch::Receiver<Option<Hello>>) {
        let (requests, incoming) = mpsc::channel(DATA_BACKLOG);
        let (data, accepted) = mpsc::channel(DATA_BACKLOG);
        let (foreign, foreign_hellos) = watch::channel(None);
        (Acceptor { peers, requests, data, foreign }, incoming, PeerListener { accepted }, foreign_hellos)
    }

    /// Accepts for as long as the runtime lives.
    pub(crate) async fn run(self, listener: TcpListener) {
        let (this, slots) = (Arc::new(self), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let this = Arc::clone(&this);
                    tokio::spawn(async move {
                        if let Err(error) = this.welcome(stream).await {
                            tracing::debug!(%error, "a connection from another node ended before it began");
                        }
                        drop(slot);
                    });
                }
                Err(error) => {
                    // Too many open files, most likely: others may be closed meanwhile.
                    tracing::warn!(%error, "a connection from another node could not be accepted");
                    tokio::time::sleep(CONNECT_TIMEOUT).await;
                }
            }
        }
    }

    async fn welcome(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let hello = hello::receive(&mut stream).await?;
        let local = &self.peers.local;
        let cluster_id = local.cluster_id.get().copied().unwrap_or(0);
        let verdict = verdict(&hello, local.node_id, cluster_id);
        let answer = Answer { verdict, cluster_id, node_id: local.node_id, run_id: local.run_id };
        hello::answer(&mut stream, &answer).await?;
        if verdict == Verdict::OtherCluster && hello.cluster_id != 0 && hello.to == local.node_id {
            self.foreign.send_replace(Some(hello.clone()));
        }
        if verdict != Verdict::Welcome {
            return Ok(());
        }
        if hello.purpose != Purpose::Join {
            self.peers.learn(hello.from, &hello.address);
        }
        match hello.purpose {
            Purpose::Control | Purpose::Join => control::serve(stream, hello, self.requests.clone()).await,
            Purpose::Data => {
                let accepted = Accepted { node_id: hello.from, run_id: hello.run_id, stream: net::detach(stream)? };
                // Without a taker the connection is closed.
                let _ = self.data.send(accepted).await;
            }
        }
        Ok(())
    }
}

fn verdict(hello: &Hello, node_id: u64, cluster_id: u128) -> Verdict {
    let joins = hello.purpose == Purpose::Join && hello.cluster_id == 0 && cluster_id != 0;
    if !joins && (hello.cluster_id != cluster_id || cluster_id == 0) {
        Verdict::OtherCluster
    } else if hello.to != 0 && hello.to != node_id {
        Verdict::OtherNode
    } else {
        Verdict::Welcome
    }
}

#[cfg(all(test, not(feature = "sim")))]
mod tests {
    use super::control::Control;
    use super::*;

    fn peers(node_id: u64, address: &str, of_others: &str) -> Peers {
        let local = Local { node_id, run_id: 1, address: address.into(), cluster_id: OnceLock::from(7) };
        let of_others = of_others.to_owned();
        Peers::new(Arc::new(local), Arc::new(move |node_id| (node_id == 1).then(|| of_others.clone())))
    }

    #[tokio::test]
    async fn a_node_is_gone_once_its_port_refuses_and_its_connection_is_lost_by_then() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (acceptor, mut requests, ..) = Acceptor::new(peers(1, &address, ""));
        let node = tokio::spawn(acceptor.run(listener));
        let asker = peers(2, "", &address);
        let control = Control::spawn(asker.clone(), 1);
        let calling = control.clone();
        let call = tokio::spawn(async move { calling.call(Vec::new()).await });
        let asked = requests.recv().await.unwrap();
        assert!(!asker.is_gone(1).await, "it listens");
        assert!(!asker.is_gone(3).await, "nobody knows where it is");
        let lost = control.lost();
        tokio::pin!(lost);
        assert!(is_pending(&mut lost).await, "the connection is open");
        node.abort();
        assert!(node.await.unwrap_err().is_cancelled());
        // What serves the connection ends with the ones who take its requests.
        drop((asked, requests));
        call.abort();
        let _ = control.call(Vec::new()).await;
        lost.await;
        assert!(asker.is_gone(1).await);
    }

    /// Polls once.
    async fn is_pending(future: &mut (impl Future<Output = ()> + Unpin)) -> bool {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending())
        })
        .await
    }
}
