//! A cluster of processes on loopback, and what scenarios do with it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use walrus_engine::client::{Client, ClientError};
use walrus_engine::protocol::{ErrorCode, TopicSettings};

use super::checker::{self, Log};
use super::history::{Answer, Fetch, History, decode, now};
use super::network::Network;
use super::process::Node;
use super::{eventually, within_patience};
use crate::loopback;

/// Raft ids hold the generation above the node id.
const NODE_ID_MASK: u64 = 0xffff;
/// Records that are read at once for the final check.
const FETCH_RECORDS: u64 = 10_000;
/// How many broken promises a failure lists.
const VIOLATIONS_SHOWN: usize = 10;

/// Clusters run one at a time: their leases are a second long, and the machine may be small.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Waits until no other cluster runs, and keeps it so.
pub fn turn() -> MutexGuard<'static, ()> {
    // A scenario that failed leaves nothing behind that could harm the next one.
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running cluster; its processes end and its data go with it.
pub struct Cluster {
    nodes: Vec<Node>,
    dir: Option<TempDir>,
    // Last: the next cluster starts when everything else is gone.
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Starts `count` nodes and waits until they are one healthy cluster.
    pub fn start(count: u64) -> Self {
        Self::start_with(count, &[])
    }

    /// As [`Cluster::start`], with these flags for every node.
    pub fn start_with(count: u64, flags: &[&str]) -> Self {
        let mut cluster = Self::prepare_here(count, flags);
        cluster.start_all_fresh();
        cluster
    }

    /// The same on a network that can be cut.
    pub fn start_on(network: &Network, count: u64, flags: &[&str]) -> Self {
        let mut cluster = Self::prepare(count, flags, |id| network.host(id));
        cluster.nodes.iter_mut().for_each(|node| node.namespace = Some(network.namespace(node.id)));
        cluster.start_all_fresh();
        cluster
    }

    /// Nodes on loopback that are not started yet.
    pub fn prepare_here(count: u64, flags: &[&str]) -> Self {
        let prefix = loopback::prefix();
        Self::prepare(count, flags, |id| format!("{prefix}.{id}"))
    }

    /// Nodes that are not started yet; `host` says where each will be.
    pub fn prepare(count: u64, flags: &[&str], host: impl Fn(u64) -> String) -> Self {
        let turn = turn();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let node = |id| Node::new(id, host(id), dir.path().join(format!("node{id}")), &flags);
        Cluster { nodes: (1..=count).map(node).collect(), dir: Some(dir), _turn: turn }
    }

    /// The first start: node 1 begins the cluster, the others join it.
    pub fn start_all_fresh(&mut self) {
        self.node_mut(1).start(&[]);
        self.node_mut(1).wait_until_serving();
        for id in self.ids().into_iter().skip(1) {
            self.start_node(id);
        }
        self.wait_healthy();
    }

    /// Starts a node, again or for the first time, to join all others.
    pub fn start_node(&mut self, id: u64) {
        let join: Vec<String> = self.nodes.iter().filter(|node| node.id != id).map(Node::peer_address).collect();
        self.node_mut(id).start(&join);
    }

    pub fn ids(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    pub fn running(&self) -> Vec<u64> {
        self.nodes.iter().filter(|node| node.is_running()).map(|node| node.id).collect()
    }

    pub fn node(&self, id: u64) -> &Node {
        &self.nodes[id as usize - 1]
    }

    pub fn node_mut(&mut self, id: u64) -> &mut Node {
        &mut self.nodes[id as usize - 1]
    }

    /// A node that runs and is none of these.
    pub fn other_than(&self, ids: &[u64]) -> u64 {
        self.running().into_iter().find(|id| !ids.contains(id)).expect("another node runs")
    }

    pub fn client(&self, id: u64) -> Client {
        self.node(id).client()
    }

    /// Client addresses of all nodes, running or not.
    pub fn addresses(&self) -> Vec<(u64, String)> {
        self.nodes.iter().map(|node| (node.id, node.client_address())).collect()
    }

    /// Returns once every running node serves, sees a Raft leader, and counts all nodes as voters.
    pub fn wait_healthy(&mut self) {
        let voters = self.ids();
        for id in self.running() {
            let mut last = None;
            let healthy = within_patience(|| {
                self.nodes.iter_mut().for_each(Node::assert_alive);
                last = self.node(id).metrics();
                let metrics = last.as_ref()?;
                (is_ready(metrics) && voters_of(metrics) == voters).then_some(())
            });
            assert!(
                healthy.is_some(),
                "node {id} never became part of a healthy cluster of {voters:?}; it says {last:?}"
            );
        }
    }

    /// The node that leads Raft, as a majority of the running nodes says.
    pub fn raft_leader(&self) -> u64 {
        eventually("there is a Raft leader", || {
            let says = |id: &u64| Some(self.node(*id).metrics()?["current_leader"].as_u64()? & NODE_ID_MASK);
            let votes: Vec<u64> = self.running().iter().filter_map(says).collect();
            votes.iter().copied().find(|id| 2 * votes.iter().filter(|vote| *vote == id).count() > self.nodes.len())
        })
    }

    /// `STATE`, asked on this node until it answers.
    pub fn state(&self, id: u64, topic: &str) -> Value {
        let mut client = self.client(id);
        eventually(&format!("node {id} answers STATE"), || serde_json::from_str(client.state(topic).ok()?).ok())
    }

    /// The leader of a topic's open segment, as this node knows it.
    pub fn leader(&self, asked: u64, topic: &str) -> u64 {
        self.state(asked, topic)["leader_node"].as_u64().expect("a node id")
    }

    /// Creates a topic with `key=value` settings.
    pub fn register(&self, topic: &str, settings: &[&str]) {
        let mut parsed = TopicSettings::default();
        settings.iter().for_each(|pair| parsed.set(pair).expect("a setting"));
        let mut client = self.client(self.running()[0]);
        eventually("the topic is registered", || match client.register(topic, parsed) {
            Ok(()) => Some(()),
            Err(error) => {
                assert!(error.code() != Some(ErrorCode::TopicExists), "{error}");
                None
            }
        });
    }

    /// Creates a topic that is led as wanted: the leaders of new topics go round.
    pub fn register_led_by(&self, settings: &[&str], wanted: impl Fn(u64) -> bool) -> String {
        let topic = (0..100).map(|number| format!("topic-{number}")).find(|topic| {
            self.register(topic, settings);
            wanted(self.leader(self.running()[0], topic))
        });
        topic.expect("a topic is led as wanted")
    }

    /// The whole judgement over a topic: reads it on every running node and checks the history.
    pub fn judge(&self, topic: &str, mut history: History) {
        let logs: Vec<Log> = self.running().into_iter().map(|id| self.read_all(id, topic, &mut history)).collect();
        let violations = checker::check(&history, &logs);
        let stored: Vec<usize> = logs.iter().map(|log| log.records.len()).collect();
        println!(
            "{topic}: {} sent, {} acknowledged, stored {stored:?}, {} reads, longest pause {} ms, errors {:?}",
            history.sent.len(),
            history.acked(),
            history.fetches.len(),
            history.longest_pause_ms(),
            history.errors
        );
        let shown: String =
            violations.iter().take(VIOLATIONS_SHOWN).map(|violation| format!("  {violation}\n")).collect();
        assert!(violations.is_empty(), "{topic}: {} broken promises:\n{shown}", violations.len());
    }

    fn read_all(&self, id: u64, topic: &str, history: &mut History) -> Log {
        let mut client = self.client(id);
        let mut records = Vec::new();
        loop {
            let (from, asked_at) = (records.len() as u64, now());
            let (first, read) = eventually(&format!("node {id} shows {topic} from {from} on"), || {
                match client.fetch(topic, from, FETCH_RECORDS, 1 << 20, Duration::ZERO) {
                    Ok(fetched) => {
                        Some((fetched.first_offset(), fetched.records.iter().map(decode).collect::<Vec<_>>()))
                    }
                    Err(error) => {
                        assert!(may_pass(&error), "node {id}, offset {from}: {error}");
                        None
                    }
                }
            });
            let done = read.is_empty();
            records.extend(read.iter().copied());
            let answer = Answer::Records { first, records: read };
            history.fetches.push(Fetch { node: id, asked_at, answered_at: now(), from, answer });
            if done {
                return Log { node: id, records };
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.nodes.iter().for_each(|node| eprintln!("{}", node.log_tail()));
            // Kept for whoever looks into it.
            let dir = self.dir.take().map(TempDir::keep);
            eprintln!("the cluster's files are kept in {dir:?}");
        }
        self.nodes.clear();
    }
}

/// Errors that go away by themselves while a cluster recovers.
pub fn may_pass(error: &ClientError) -> bool {
    let passing = [ErrorCode::NotReady, ErrorCode::Timeout, ErrorCode::Overloaded];
    error.code().is_none_or(|code| passing.contains(&code))
}

fn is_ready(metrics: &Value) -> bool {
    metrics["walrus"]["ready"] == true && metrics["current_leader"].is_u64()
}

/// Node ids of the voters; empty while a change of membership is under way.
fn voters_of(metrics: &Value) -> Vec<u64> {
    let configs = &metrics["membership_config"]["membership"]["configs"];
    let Some([config]) = configs.as_array().map(Vec::as_slice) else { return Vec::new() };
    let ids = config.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut voters: Vec<u64> = ids.iter().filter_map(|id| Some(id.as_u64()? & NODE_ID_MASK)).collect();
    voters.sort_unstable();
    voters
}
