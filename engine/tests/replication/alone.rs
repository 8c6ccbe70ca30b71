//! One node of three runs: it answers, serves what is sealed, refuses writes, and can be stopped.

use std::time::{Duration, Instant};

use walrus_engine::client::ClientError;
use walrus_engine::protocol::ErrorCode;

use crate::support::{Cluster, Told, eventually, read_all};

#[test]
fn a_member_without_the_others_says_so_and_serves_what_was_sealed() {
    let mut cluster = Cluster::start(3, &["--max-segment-entries", "10"]);
    cluster.register(1, "t", "");
    let mut told = Told::default();
    let mut client = cluster.client(1);
    for index in 0..25 {
        assert!(told.put(&mut client, "t", format!("record {index}").as_bytes()));
    }
    for node in 1..=3 {
        cluster.kill(node);
    }
    cluster.spawn(2);
    let mut client = cluster.client(2);
    client.ping().unwrap();
    let refused = client.put("t", b"alone").unwrap_err();
    assert!(matches!(&refused, ClientError::Refusal { code: ErrorCode::NotReady, .. }), "{refused}");
    let metrics: serde_json::Value = serde_json::from_str(client.metrics().unwrap()).unwrap();
    assert_eq!(metrics["walrus"]["ready"], false);
    let sealed = client.fetch("t", 0, 20, 1 << 20, Duration::ZERO).unwrap();
    let sealed: Vec<&[u8]> = sealed.records.iter().collect();
    assert!(!sealed.is_empty() && sealed == told.acknowledged[..sealed.len()], "{} records", sealed.len());
    // It can be stopped like any other, also while it waits.
    let stopping = Instant::now();
    cluster.terminate(2);
    assert!(stopping.elapsed() < Duration::from_secs(20), "it took {:?}", stopping.elapsed());
    for node in 1..=3 {
        cluster.spawn(node);
    }
    let mut client = cluster.client(2);
    eventually("writes flow again", || told.put(&mut client, "t", b"together"));
    told.refused = 0;
    told.check(&read_all(&cluster, 3, "t"));
}

#[test]
fn a_node_that_waits_to_be_let_in_can_be_stopped() {
    let mut cluster = Cluster::start(1, &[]);
    cluster.kill(1);
    // Its only contact is gone, so it waits; nothing listens for clients yet, the backlog takes them.
    cluster.spawn(2);
    eventually("it has tried", || cluster.log(2).contains("not joined yet"));
    cluster.terminate(2);
}
