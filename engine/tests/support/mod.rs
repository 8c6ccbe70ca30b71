//! A real broker in a process of its own, for tests of what users run.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;

/// A running `walrus` on a free port and a temporary directory; killed when it is dropped.
pub struct Broker {
    process: Child,
    addr: String,
    // Removed after the process is gone: fields are dropped after `drop`.
    _data_dir: tempfile::TempDir,
}

impl Broker {
    /// Starts one, and returns when it is ready.
    pub fn start() -> Self {
        let data_dir = tempfile::tempdir().expect("a temporary directory");
        let mut process = Command::new(env!("CARGO_BIN_EXE_walrus"))
            .args(["--node-id", "1", "--client-port", "0", "--raft-port", "0", "--data-dir"])
            .arg(data_dir.path())
            .env("RUST_LOG", "info")
            .env("NO_COLOR", "1")
            .stderr(Stdio::piped())
            .spawn()
            .expect("walrus starts");
        let mut log = BufReader::new(process.stderr.take().expect("a pipe"));
        let addr = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).expect("a log line") > 0, "walrus ended before it was ready");
            if let Some((_, rest)) = line.split_once("address=") {
                break rest.split_whitespace().next().expect("an address").to_owned();
            }
        };
        // A full pipe would stop the broker.
        thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Broker { process, addr, _data_dir: data_dir }
    }

    /// `host:port` for clients.
    pub fn addr(&self) -> &str {
        &self.addr
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Both fail only if the process is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
