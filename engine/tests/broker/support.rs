//! A broker to test, and a client that speaks in bytes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use walrus_engine::config::Config;
use walrus_engine::node::Node;

/// Longest wait for anything; reached only by a test that fails.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Settings for a test: a free port, a small pool.
pub fn config(dir: &Path) -> Config {
    Config {
        data_dir: dir.to_owned(),
        client_port: 0,
        raft_port: 0,
        pool_bytes: 24 << 20,
        monitor_check_ms: 50,
        ..Config::default()
    }
}

/// A broker in this process, on a directory of its own.
pub struct TestBroker {
    pub dir: TempDir,
    pub config: Config,
    runtime: tokio::runtime::Runtime,
    node: Option<Node>,
    address: SocketAddr,
}

impl TestBroker {
    pub fn start() -> Self {
        Self::start_with(|_| {})
    }

    pub fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut config = config(dir.path());
        change(&mut config);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
        let node = runtime.block_on(Node::start(config.clone())).expect("the broker starts");
        let address = node.client_address();
        TestBroker { dir, config, runtime, node: Some(node), address }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.node.as_ref().and_then(Node::admin_address)
    }

    pub fn client(&self) -> Raw {
        Raw::connect(self.address)
    }

    pub fn stop(&mut self) {
        if let Some(node) = self.node.take() {
            self.runtime.block_on(node.stop());
        }
    }

    /// Stops and starts on the same directory.
    pub fn restart(&mut self) {
        self.stop();
        let node = self.runtime.block_on(Node::start(self.config.clone())).expect("the broker starts again");
        self.address = node.client_address();
        self.node = Some(node);
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A connection that sends and receives bytes.
pub struct Raw {
    pub stream: TcpStream,
}

impl Raw {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("nodelay can be set");
        Raw { stream }
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the broker takes it");
    }

    pub fn send(&mut self, body: impl AsRef<[u8]>) {
        self.send_bytes(&frame(body.as_ref()));
    }

    /// The body of the next reply.
    pub fn receive(&mut self) -> Vec<u8> {
        let mut prefix = [0; 4];
        self.stream.read_exact(&mut prefix).expect("a reply comes");
        let mut body = vec![0; u32::from_le_bytes(prefix) as usize];
        self.stream.read_exact(&mut body).expect("the reply is whole");
        body
    }

    pub fn receive_text(&mut self) -> String {
        String::from_utf8(self.receive()).expect("text")
    }

    /// One request and its reply.
    pub fn call(&mut self, body: impl AsRef<[u8]>) -> String {
        self.send(body);
        self.receive_text()
    }

    pub fn json(&mut self, body: &str) -> serde_json::Value {
        serde_json::from_str(&self.call(body)).expect("JSON")
    }

    /// Asserts that the broker has closed the connection.
    pub fn expect_closed(&mut self) {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => {}
            Ok(_) => panic!("another reply instead of the end"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
        }
    }

    /// Fetches everything from `offset` on, as `(offset, record)`.
    pub fn fetch_all(&mut self, topic: &str, mut offset: u64) -> Vec<(u64, Vec<u8>)> {
        let mut all = Vec::new();
        loop {
            self.send(format!("FETCH {topic} {offset} 100000"));
            let (next, records) = parse_fetched(&self.receive());
            if records.is_empty() {
                return all;
            }
            all.extend((offset..).zip(records));
            assert_eq!(all.len() as u64, next - all[0].0, "offsets have no gap");
            offset = next;
        }
    }
}

/// The bytes of one frame.
pub fn frame(body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as u32).to_le_bytes().to_vec();
    frame.extend_from_slice(body);
    frame
}

/// An `APPEND` of these records.
pub fn append_body(topic: &str, records: &[&[u8]]) -> Vec<u8> {
    let mut body = format!("APPEND {topic}\n").into_bytes();
    for record in records {
        body.extend_from_slice(&frame(record));
    }
    body
}

/// Next offset and records of a `FETCH` reply.
pub fn parse_fetched(body: &[u8]) -> (u64, Vec<Vec<u8>>) {
    let line = body.iter().position(|&byte| byte == b'\n');
    let line = line.unwrap_or_else(|| panic!("not a FETCH reply: {}", String::from_utf8_lossy(body)));
    let words: Vec<&str> = std::str::from_utf8(&body[..line]).expect("text").split(' ').collect();
    assert_eq!(words[0], "OK");
    let mut rest = &body[line + 1..];
    let mut records = Vec::new();
    while let Some((prefix, tail)) = rest.split_first_chunk::<4>() {
        let (record, tail) = tail.split_at(u32::from_le_bytes(*prefix) as usize);
        records.push(record.to_vec());
        rest = tail;
    }
    assert_eq!(words[2].parse::<usize>().expect("a count"), records.len());
    (words[1].parse().expect("an offset"), records)
}

/// Tries until it holds; fails the test when it never does.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
