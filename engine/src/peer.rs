//! The transport between nodes: one listener a node, connections that begin with a hello.
//!
//! A connection has one purpose: `control` (requests and replies of Raft, leases and proposals,
//! served by the metadata layer) or `data` (records, served by the log layer). The hello names the
//! cluster, the node and its run; another cluster is refused before anything else is read.

use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::metadata::Metadata;

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
        reason: String,
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

/// Data connections that other nodes have opened.
#[derive(Debug)]
pub struct PeerListener {
    accepted: mpsc::Receiver<DataConnection>,
}

impl PeerListener {
    /// A listener to which nobody connects.
    pub fn closed() -> Self {
        PeerListener { accepted: mpsc::channel(1).1 }
    }

    /// The next connection; `None` once the node stops.
    pub async fn accept(&mut self) -> Option<DataConnection> {
        self.accepted.recv().await
    }
}

/// Opens connections to other nodes, at the addresses that metadata have for them.
#[derive(Clone)]
pub struct Peers {
    metadata: Metadata,
}

impl Peers {
    /// Opens connections on behalf of the node that `metadata` belongs to.
    pub fn new(metadata: Metadata) -> Self {
        Peers { metadata }
    }

    /// Opens a connection for records to a node. Does not retry.
    pub async fn connect_data(&self, node_id: u64) -> Result<DataConnection, PeerError> {
        let address = self.metadata.view(|state| state.nodes.get(&node_id).map(|info| info.peer_address.clone()));
        let address = address.ok_or(PeerError::UnknownNode(node_id))?;
        let reason = "this version serves one node".into();
        std::future::ready(Err(PeerError::Unreachable { node_id, address, reason })).await
    }
}
