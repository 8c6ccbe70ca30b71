//! The real binary, killed or asked to stop in the midst of a pipelined load: every record that
//! was acknowledged is there afterwards, in order.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{PATIENCE, Raw, frame};

struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    fn start(dir: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_walrus"))
            .args(["--node-id", "1", "--client-port", "0", "--raft-port", "0", "--data-dir"])
            .arg(dir)
            .env("RUST_LOG", "info")
            .env("NO_COLOR", "1")
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert!(log.read_line(&mut line).expect("readable") > 0, "the broker ended before it was ready");
            if let Some((_, rest)) = line.split_once("address=") {
                break rest.split_whitespace().next().and_then(|word| word.parse().ok()).expect("an address");
            }
        };
        // Someone must go on reading, or the log would block the broker.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Process { child, address }
    }

    fn signal(&self, signal: i32) {
        // SAFETY: the child was started above and not waited for yet, so its id is its own.
        assert_eq!(unsafe { libc::kill(self.child.id().cast_signed(), signal) }, 0);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone in the good case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends numbered records until the connection breaks; returns how many were acknowledged.
fn load(address: SocketAddr, topic: &str, enough: &std::sync::Barrier) -> u64 {
    let stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let mut writer = stream.try_clone().expect("a second handle");
    let topic = topic.to_owned();
    let sending = std::thread::spawn(move || {
        let mut n = 0u64;
        loop {
            let burst: Vec<u8> = (n..n + 100).flat_map(|n| frame(format!("PUT {topic} {n:0200}").as_bytes())).collect();
            n += 100;
            if writer.write_all(&burst).is_err() {
                return;
            }
        }
    });
    let mut reader = BufReader::new(stream);
    let (mut acked, mut reply) = (0, [0; 6]);
    while reader.read_exact(&mut reply).is_ok() && &reply == b"\x02\0\0\0OK" {
        acked += 1;
        if acked == 20_000 {
            enough.wait();
        }
    }
    assert!(acked >= 20_000, "only {acked} records were acknowledged");
    sending.join().expect("the sender ends");
    acked
}

fn everything_acknowledged_survives(signal: i32, expect_success: bool) {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut process = Process::start(dir.path());
    let mut client = Raw::connect(process.address);
    let topics = ["a", "b"];
    // One topic rolls over many times, the other never.
    assert_eq!(client.call("REGISTER a segment_entries=1500"), "OK");
    assert_eq!(client.call("REGISTER b"), "OK");
    let enough = std::sync::Barrier::new(topics.len() + 1);
    let acked: Vec<u64> = std::thread::scope(|scope| {
        let (address, enough) = (process.address, &enough);
        let loads: Vec<_> = topics.iter().map(|topic| scope.spawn(move || load(address, topic, enough))).collect();
        enough.wait();
        process.signal(signal);
        loads.into_iter().map(|load| load.join().expect("a load ends")).collect()
    });
    let status = process.child.wait().expect("the process ends");
    assert_eq!(status.success(), expect_success);
    let process = Process::start(dir.path());
    let mut client = Raw::connect(process.address);
    for (topic, acked) in topics.iter().zip(acked) {
        let records = client.fetch_all(topic, 0);
        assert!(records.len() as u64 >= acked, "{topic}: {} records, {acked} acknowledged", records.len());
        for (offset, record) in records {
            assert_eq!(String::from_utf8_lossy(&record), format!("{offset:0200}"));
        }
        let state = client.json(&format!("STATE {topic}"));
        assert_eq!(state["possible_loss"], serde_json::json!([]));
    }
    assert_eq!(client.call("PUT a goes on"), "OK");
}

#[test]
fn sigkill_loses_nothing_acknowledged() {
    everything_acknowledged_survives(libc::SIGKILL, false);
}

#[test]
fn sigterm_loses_nothing_and_is_a_success() {
    everything_acknowledged_survives(libc::SIGTERM, true);
}
