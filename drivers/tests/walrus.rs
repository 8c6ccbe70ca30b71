//! Our broker over TCP, when its binary was built (`cargo build` does), and the raw server.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::PathBuf;
use std::time::Duration;

use walrus_drivers::walrus::Walrus;
use walrus_drivers::{System, Tier};

/// `walrus` beside this test's own directory, where cargo puts it.
fn walrus_bin() -> Option<PathBuf> {
    let test = std::env::current_exe().unwrap();
    let binary = test.parent().unwrap().parent().unwrap().join("walrus");
    if !binary.is_file() {
        eprintln!("skipped: {} was not built", binary.display());
        return None;
    }
    Some(binary)
}

#[test]
fn acknowledged_records_survive_a_kill() {
    for variant in ["put", "append"] {
        for tier in [Tier::PageCache, Tier::Synced] {
            let dir = tempfile::tempdir().unwrap();
            let mut setup = common::setup(dir.path(), &[variant]);
            setup.tools.walrus_bin = walrus_bin();
            if setup.tools.walrus_bin.is_none() {
                return;
            }
            setup.tier = tier;
            setup.settings = "append_bytes = 20_000\nserver = { max_segment_entries = 1000 }".parse().unwrap();
            common::networked_round_trip(&Walrus, &mut setup).stop().unwrap();
        }
    }
}

#[test]
fn a_cluster_keeps_what_a_majority_has() {
    for variant in ["put", "put-direct"] {
        let dir = tempfile::tempdir().unwrap();
        let mut setup = common::setup(dir.path(), &variant.split('-').collect::<Vec<_>>());
        setup.tools.walrus_bin = walrus_bin();
        if setup.tools.walrus_bin.is_none() {
            return;
        }
        setup.nodes = 3;
        let mut server = common::networked_round_trip(&Walrus, &mut setup);
        assert_eq!(server.pids().len(), 3);
        server.kill_leader_of(&setup.topics[0]).unwrap();
        assert_eq!(server.pids().len(), 2);
        let session = Walrus.open(&setup).unwrap();
        common::read_back(&*session, &setup);
        server.stop().unwrap();
    }
}

#[test]
fn a_consumer_at_the_end_sees_what_comes_after() {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = common::setup(dir.path(), &["put"]);
    setup.tools.walrus_bin = walrus_bin();
    if setup.tools.walrus_bin.is_none() {
        return;
    }
    let server = Walrus.start(&setup).unwrap().unwrap();
    setup.endpoint = Some(server.endpoint().to_owned());
    let session = Walrus.open(&setup).unwrap();
    session.create_topics().unwrap();
    let mut producer = session.producer(0).unwrap();
    let mut send_and_wait = |ticket: u64, record: &[u8]| {
        producer.send(0, ticket, record).unwrap();
        let mut acks = Vec::new();
        while acks.is_empty() {
            producer.poll(Duration::from_secs(1), &mut acks).unwrap();
        }
    };
    send_and_wait(0, b"before");
    let mut consumer = session.consumer(0, true).unwrap();
    send_and_wait(1, b"after");
    let mut seen = Vec::new();
    consumer
        .fetch(Duration::from_secs(5), &mut |record| {
            seen.push(record.to_vec());
        })
        .unwrap();
    assert_eq!(seen, [b"after"]);
}

#[cfg(target_os = "linux")]
#[test]
fn the_raw_server_answers_every_frame() {
    for synced in [false, true] {
        raw_server_answers_every_frame(synced);
    }
}

#[cfg(target_os = "linux")]
fn raw_server_answers_every_frame(synced: bool) {
    use walrus_drivers::raw::server::{RawNetworked, RawServerConfig, run};

    let dir = tempfile::tempdir().unwrap();
    let port = walrus_drivers::ports::free_port().unwrap();
    let config = RawServerConfig { data_dir: dir.path().to_owned(), port, synced, read_bytes: 1 << 20 };
    std::thread::spawn(move || run(&config));
    let mut setup = common::setup(dir.path(), &["put"]);
    setup.endpoint = Some(format!("127.0.0.1:{port}"));
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::yield_now();
    }
    common::produce_all(&*RawNetworked.open(&setup).unwrap(), &setup);
    assert!(walrus_drivers::dir_bytes(dir.path()) > 5_000_000);
}
