//! One node: a real `walrus` process that can be killed, paused, stopped and started again.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use walrus_engine::client::{Client, ClientConfig};

use super::eventually;
use crate::signal;

/// Every node has the same ports, each on a loopback address of its own.
pub const CLIENT_PORT: u16 = 9091;
pub const PEER_PORT: u16 = 6001;
pub const ADMIN_PORT: u16 = 8091;

/// Lines of a node's log that are shown when a test fails.
const LOG_LINES: usize = 40;

/// A node of a test cluster, running or not.
pub struct Node {
    pub id: u64,
    /// Its address on this machine.
    pub host: String,
    /// Network namespace that it runs in, if it has its own.
    pub namespace: Option<String>,
    dir: PathBuf,
    flags: Vec<String>,
    child: Option<Child>,
}

impl Node {
    /// A node that was never started. `dir` will hold its data and its log.
    pub fn new(id: u64, host: String, dir: PathBuf, flags: &[String]) -> Self {
        std::fs::create_dir_all(&dir).expect("a directory for the node");
        Node { id, host, namespace: None, dir, flags: flags.to_vec(), child: None }
    }

    pub fn client_address(&self) -> String {
        format!("{}:{CLIENT_PORT}", self.host)
    }

    pub fn peer_address(&self) -> String {
        format!("{}:{PEER_PORT}", self.host)
    }

    pub fn admin_address(&self) -> String {
        format!("{}:{ADMIN_PORT}", self.host)
    }

    /// A client with short timeouts, so that a test does not wait for a dead node.
    pub fn client(&self) -> Client {
        let config = ClientConfig {
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(20),
            ..ClientConfig::new(self.client_address())
        };
        eventually(&format!("node {} accepts a connection", self.id), || Client::with_config(config.clone()).ok())
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Starts the process; it need not serve yet when this returns.
    pub fn start(&mut self, join: &[String]) {
        assert!(self.child.is_none(), "node {} runs already", self.id);
        let log = OpenOptions::new().create(true).append(true).open(self.log()).expect("a log file");
        let mut command = match &self.namespace {
            None => Command::new(env!("CARGO_BIN_EXE_walrus")),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace, env!("CARGO_BIN_EXE_walrus")]);
                command
            }
        };
        command.args(["--node-id", &self.id.to_string(), "--data-dir"]).arg(self.data_dir());
        command.args(["--client-host", &self.host, "--client-port", &CLIENT_PORT.to_string()]);
        command.args(["--raft-host", &self.host, "--raft-port", &PEER_PORT.to_string()]);
        command.args(["--admin-host", &self.host, "--admin-port", &ADMIN_PORT.to_string()]);
        if !join.is_empty() {
            command.args(["--join", &join.join(",")]);
        }
        let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned());
        command.args(&self.flags).env("NO_COLOR", "1").env("RUST_LOG", filter);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().expect("walrus starts"));
    }

    /// Returns once the node answers clients.
    pub fn wait_until_serving(&mut self) {
        let id = self.id;
        eventually(&format!("node {id} serves"), || {
            self.assert_alive();
            let config = ClientConfig {
                connect_timeout: Duration::from_secs(1),
                request_timeout: Duration::from_secs(2),
                ..ClientConfig::new(self.client_address())
            };
            Client::with_config(config).ok()?.ping().ok()
        });
    }

    /// Fails the test if the process ended by itself.
    pub fn assert_alive(&mut self) {
        let id = self.id;
        let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("the child is ours"));
        assert!(ended.is_none(), "node {id} ended by itself: {ended:?}");
    }

    /// SIGKILL, as a crash would end it.
    pub fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        self.wait();
    }

    /// SIGTERM, and waits until it has ended, which must be a success.
    pub fn stop(&mut self) {
        self.signal(libc::SIGTERM);
        let status = self.ends();
        assert!(status.success(), "node {} stopped with {status}", self.id);
    }

    /// Waits, with patience, until it has ended by itself.
    pub fn ends(&mut self) -> ExitStatus {
        let what = format!("node {} ends", self.id);
        let child = self.child.as_mut().expect("it runs");
        let status = eventually(&what, || child.try_wait().expect("the child is ours"));
        self.child = None;
        status
    }

    /// Asks it to stop, and does not wait.
    pub fn ask_to_stop(&self) {
        self.signal(libc::SIGTERM);
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.take().expect("it runs").wait().expect("the child is ours")
    }

    /// Stops it in its tracks, until [`Node::resume`]: nothing moves any more when this returns.
    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
    }

    /// Goes on where it was paused.
    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Removes everything it has stored. The node must not run.
    pub fn wipe(&mut self) {
        assert!(self.child.is_none(), "node {} runs", self.id);
        std::fs::remove_dir_all(self.data_dir()).expect("the data can be removed");
    }

    /// `METRICS`, if the node answers within a second.
    pub fn metrics(&self) -> Option<serde_json::Value> {
        let limit = Duration::from_secs(1);
        let config =
            ClientConfig { connect_timeout: limit, request_timeout: limit, ..ClientConfig::new(self.client_address()) };
        serde_json::from_str(Client::with_config(config).ok()?.metrics().ok()?).ok()
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// The end of its log, for a test that failed.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
        format!("--- node {} ({}):\n{tail}\n", self.id, self.log().display())
    }

    /// Where it keeps its data.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn signal(&self, signal: i32) {
        signal::send(self.child.as_ref().expect("it runs"), signal);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Both fail only if the process is gone already. SIGKILL ends a paused one, too.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
