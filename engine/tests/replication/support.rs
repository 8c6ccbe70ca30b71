//! A cluster of processes, and a producer and a reader that remember everything.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use walrus_engine::client::{Client, ClientConfig, ClientError};
use walrus_engine::protocol::TopicSettings;

use crate::{loopback, signal};

/// Longest wait for anything; reached only by a test that fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Every node has the same ports, each on a loopback address of its own.
const CLIENT_PORT: u16 = 9091;
const PEER_PORT: u16 = 6001;

/// Brokers 1 to n. Stopped nodes keep their directories.
pub struct Cluster {
    root: TempDir,
    nodes: BTreeMap<u64, Child>,
    /// The nodes' addresses but for the last number, which is that of the node.
    prefix: String,
    flags: Vec<String>,
}

impl Cluster {
    pub fn start(count: u64, flags: &[&str]) -> Self {
        let mut cluster = Cluster {
            root: tempfile::tempdir().unwrap(),
            nodes: BTreeMap::new(),
            prefix: loopback::prefix(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        };
        for node in 1..=count {
            cluster.spawn(node);
        }
        for node in 1..=count {
            eventually("the node knows all others", || cluster.voters(node) == count as usize);
        }
        cluster
    }

    fn voters(&self, node: u64) -> usize {
        let Ok(mut client) = self.try_client(node) else { return 0 };
        let Ok(metrics) = client.metrics() else { return 0 };
        let metrics: Value = serde_json::from_str(metrics).unwrap();
        let configs = &metrics["membership_config"]["membership"]["configs"];
        configs[0].as_array().map_or(0, Vec::len)
    }

    pub fn dir(&self, node: u64) -> PathBuf {
        self.root.path().join(node.to_string())
    }

    pub fn log(&self, node: u64) -> String {
        let mut text = String::new();
        let path = self.root.path().join(format!("{node}.log"));
        if let Ok(mut file) = File::open(path) {
            file.read_to_string(&mut text).unwrap();
        }
        text
    }

    /// Starts a node (again).
    pub fn spawn(&mut self, node: u64) {
        let log = File::options().create(true).append(true).open(self.root.path().join(format!("{node}.log"))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_walrus"));
        command
            .args(["--node-id", &node.to_string()])
            .args(["--client-host", &self.host(node), "--client-port", &CLIENT_PORT.to_string()])
            .args(["--raft-host", &self.host(node), "--raft-port", &PEER_PORT.to_string()])
            .arg("--data-dir")
            .arg(self.dir(node))
            .args(&self.flags)
            .env("RUST_LOG", "info,walrus_engine=debug,openraft=warn")
            .env("NO_COLOR", "1")
            .stderr(Stdio::from(log));
        if node != 1 {
            command.args(["--join", &self.peer_address(1)]);
        }
        self.nodes.insert(node, command.spawn().unwrap());
    }

    /// Ends a node as a power switch for its process would.
    pub fn kill(&mut self, node: u64) {
        let mut child = self.nodes.remove(&node).expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Ends a node in order, with SIGTERM.
    pub fn terminate(&mut self, node: u64) {
        let mut child = self.nodes.remove(&node).expect("it runs");
        let told = Command::new("kill").arg(child.id().to_string()).status().unwrap();
        assert!(told.success());
        let status = child.wait().unwrap();
        assert!(status.success(), "node {node} ended with {status}");
    }

    /// Sends a signal to a node.
    pub fn signal(&self, node: u64, signal: i32) {
        signal::send(&self.nodes[&node], signal);
    }

    pub fn running(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    fn host(&self, node: u64) -> String {
        format!("{}.{node}", self.prefix)
    }

    pub fn address(&self, node: u64) -> String {
        format!("{}:{CLIENT_PORT}", self.host(node))
    }

    /// Where other nodes reach a node.
    pub fn peer_address(&self, node: u64) -> String {
        format!("{}:{PEER_PORT}", self.host(node))
    }

    fn try_client(&self, node: u64) -> Result<Client, ClientError> {
        Client::with_config(ClientConfig {
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(15),
            ..ClientConfig::new(self.address(node))
        })
    }

    pub fn client(&self, node: u64) -> Client {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.try_client(node) {
                Ok(client) => return client,
                Err(error) => assert!(Instant::now() < deadline, "node {node}: {error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn state(&self, node: u64, topic: &str) -> Value {
        let mut client = self.client(node);
        serde_json::from_str(client.state(topic).unwrap()).unwrap()
    }

    /// Who leads the topic, as node `node` sees it.
    pub fn leader(&self, node: u64, topic: &str) -> u64 {
        self.state(node, topic)["leader_node"].as_u64().unwrap()
    }

    pub fn register(&self, node: u64, topic: &str, settings: &str) {
        let mut parsed = TopicSettings::default();
        settings.split_whitespace().for_each(|word| parsed.set(word).unwrap());
        self.client(node).register(topic, parsed).unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.values_mut() {
            // Already gone in the good case.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            // Also those that were killed; who never ran has no log.
            for (node, log) in (1..10).map(|node| (node, self.log(node))).filter(|(_, log)| !log.is_empty()) {
                let tail: Vec<&str> = log.lines().rev().take(60).collect();
                eprintln!("--- node {node} ---");
                tail.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
    }
}

/// What a producer was told about each record.
#[derive(Debug, Default, Clone)]
pub struct Told {
    pub acknowledged: Vec<Vec<u8>>,
    pub unknown: Vec<Vec<u8>>,
    pub refused: u64,
}

impl Told {
    /// Puts one record through a node and notes what it was told.
    pub fn put(&mut self, client: &mut Client, topic: &str, record: &[u8]) -> bool {
        match client.put(topic, record) {
            Ok(()) => {
                self.acknowledged.push(record.to_vec());
                true
            }
            Err(ClientError::Refusal { code, .. }) if code.retry() == walrus_engine::protocol::Retry::Safe => {
                self.refused += 1;
                false
            }
            Err(_) => {
                self.unknown.push(record.to_vec());
                false
            }
        }
    }

    /// Everything acknowledged is in `found`, once and in order; what else is there was not refused.
    pub fn check(&self, found: &[Vec<u8>]) {
        let mut at = found.iter();
        for record in &self.acknowledged {
            assert!(
                at.any(|found| found == record),
                "{} was acknowledged and is not there, or not in its place",
                String::from_utf8_lossy(record)
            );
        }
        let mut seen = std::collections::HashSet::new();
        for record in found {
            assert!(seen.insert(record), "{} is there twice", String::from_utf8_lossy(record));
            let known = self.acknowledged.contains(record) || self.unknown.contains(record);
            assert!(known, "{} was refused and is there", String::from_utf8_lossy(record));
        }
    }
}

/// Everything in a topic, read by offset through one node.
pub fn read_all(cluster: &Cluster, node: u64, topic: &str) -> Vec<Vec<u8>> {
    let mut client = cluster.client(node);
    let mut records = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let offset = records.len() as u64;
        match client.fetch(topic, offset, 10_000, 1 << 20, Duration::ZERO) {
            Ok(fetched) if fetched.records.is_empty() => return records,
            Ok(fetched) => records.extend(fetched.records.iter().map(<[u8]>::to_vec)),
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

/// Everything that a cursor delivers through one node, until it is at the end.
pub fn get_all(cluster: &Cluster, node: u64, topic: &str, group: &str) -> Vec<Vec<u8>> {
    let mut client = cluster.client(node);
    let mut records = Vec::new();
    while let Some(record) = client.get(topic, Some(group)).unwrap() {
        records.push(record.to_vec());
    }
    records
}

/// Tries until it holds; fails the test when it never does.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
