//! A group of metadata nodes to test.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use walrus_engine::metadata::state::{Command, Outcome, Placement, State, TopicConfig};
use walrus_engine::metadata::{ELECTION_MS, Metadata, MetadataError, Setup};
use walrus_engine::peer::PeerListener;
use walrus_engine::types::{AckPolicy, Tier};

/// Longest wait for anything; reached only by a test that fails.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Nodes by id; those that are stopped keep their directory.
pub struct Group {
    root: TempDir,
    /// Where each node last listened.
    pub addresses: BTreeMap<u64, String>,
    pub nodes: BTreeMap<u64, Metadata>,
    pub listeners: BTreeMap<u64, PeerListener>,
    /// Raised when a node comes with another disk.
    disks: BTreeMap<u64, u64>,
    /// Election timeouts of nodes that are started.
    election_ms: Range<u64>,
}

impl Group {
    /// A cluster of nodes 1 to `count`; node 1 founds it.
    pub fn start(count: u64) -> Self {
        Self::start_with_timeouts(count, ELECTION_MS)
    }

    /// The same with other election timeouts.
    pub fn start_with_timeouts(count: u64, election_ms: Range<u64>) -> Self {
        let mut group = Group {
            root: tempfile::tempdir().expect("temp dir"),
            addresses: BTreeMap::new(),
            nodes: BTreeMap::new(),
            listeners: BTreeMap::new(),
            disks: BTreeMap::new(),
            election_ms,
        };
        group.start_node(1, &[]);
        for node_id in 2..=count {
            group.start_node(node_id, &[1]);
        }
        eventually("all nodes vote", || group.nodes.values().all(|node| voters(node).len() == count as usize));
        group
    }

    pub fn dir(&self, node_id: u64) -> PathBuf {
        self.root.path().join(node_id.to_string())
    }

    /// What a node needs to start on a free port, joining through others.
    pub fn setup(&self, node_id: u64, join: &[u64]) -> Setup {
        self.setup_at(node_id, join, "127.0.0.1:0")
    }

    pub fn setup_at(&self, node_id: u64, join: &[u64], address: &str) -> Setup {
        let listener = TcpListener::bind(address).expect("the port is free");
        Setup {
            dir: self.dir(node_id),
            clock: walrus_engine::clock::BootClock::shared(),
            node_id,
            disk_id: format!("disk {node_id}.{}", self.disks.get(&node_id).unwrap_or(&0)),
            peer_address: listener.local_addr().expect("is bound").to_string(),
            listener: Some(listener),
            client_address: format!("client {node_id}"),
            join: join.iter().map(|node_id| self.addresses[node_id].clone()).collect(),
            address_is_known: false,
            election_ms: self.election_ms.clone(),
        }
    }

    pub fn start_with(&mut self, setup: Setup) {
        let (node_id, address) = (setup.node_id, setup.peer_address.clone());
        let (node, listener) = open(setup).expect("the node starts");
        self.addresses.insert(node_id, address);
        self.nodes.insert(node_id, node);
        self.listeners.insert(node_id, listener);
    }

    pub fn start_node(&mut self, node_id: u64, join: &[u64]) {
        self.start_with(self.setup(node_id, join));
    }

    pub fn stop_node(&mut self, node_id: u64) {
        self.listeners.remove(&node_id);
        self.nodes.remove(&node_id).expect("it runs").shutdown();
    }

    /// Loses the disk of a stopped node.
    pub fn wipe(&mut self, node_id: u64) {
        std::fs::remove_dir_all(self.dir(node_id)).expect("it has a directory");
        *self.disks.entry(node_id).or_default() += 1;
    }

    pub fn leader(&self) -> u64 {
        let mut leader = 0;
        eventually("the nodes agree on a leader", || {
            let leaders: Vec<Option<u64>> = self.nodes.values().map(Metadata::leader).collect();
            leader = leaders[0].unwrap_or(0);
            self.nodes.contains_key(&leader) && leaders.iter().all(|it| *it == leaders[0])
        });
        leader
    }

    /// Waits until all running nodes have the same state, and returns it.
    pub fn state(&self) -> State {
        let mut states = Vec::new();
        eventually("all nodes have the same state", || {
            states = self.nodes.values().map(|node| node.view(State::clone)).collect();
            states.iter().all(|state| *state == states[0])
        });
        states.swap_remove(0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for node in self.nodes.values() {
            node.shutdown();
        }
    }
}

/// Opens a node's metadata, for a test that waits for it.
pub fn open(setup: Setup) -> Result<(Metadata, PeerListener), MetadataError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    runtime.block_on(Metadata::open(setup))
}

/// Raft ids of the voters as a node sees them; empty while they are changing.
pub fn voters(node: &Metadata) -> Vec<u64> {
    let metrics = node.raft_metrics_json();
    let configs = metrics["membership_config"]["membership"]["configs"].as_array().cloned().unwrap_or_default();
    match &configs[..] {
        [one] => one.as_array().into_iter().flatten().filter_map(serde_json::Value::as_u64).collect(),
        _ => Vec::new(),
    }
}

pub fn create(name: &str) -> Command {
    let config = TopicConfig {
        replicas: 3,
        tier: Tier::PageCache,
        acks: AckPolicy::Quorum,
        segment_entries: 10,
        segment_bytes: 1000,
        retention_bytes: None,
        retention_ms: None,
    };
    Command::CreateTopic { name: name.into(), config, placement: Placement::default(), at_ms: 1 }
}

/// Proposes until it is known what became of it.
pub fn propose(node: &Metadata, command: &Command) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match node.propose_blocking(command.clone()) {
            Ok(outcome) => return outcome,
            Err(MetadataError::NoLeader | MetadataError::TooFewNodes { .. } | MetadataError::Unknown) => {
                assert!(Instant::now() < deadline, "a proposal never got through");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Tries until it holds; fails the test when it never does.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
