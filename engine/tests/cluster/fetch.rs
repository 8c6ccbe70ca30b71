//! `FETCH` where it is most easily answered wrongly: at the tail while segments end, and below what is kept.

use std::thread;
use std::time::Duration;

use walrus_engine::client::Client;
use walrus_engine::protocol::ErrorCode;

use crate::support::cluster::Cluster;
use crate::support::eventually;

const RECORDS: u64 = 1_000;
/// A rollover every so many records.
const SEGMENT: &str = "segment_entries=10";

#[test]
fn readers_at_the_tail_notice_no_rollover() {
    let cluster = Cluster::start(3);
    cluster.register("t", &[SEGMENT]);
    thread::scope(|scope| {
        for id in cluster.ids() {
            // One that asks again and again, and one that waits.
            for wait in [Duration::ZERO, Duration::from_secs(5)] {
                let client = cluster.client(id);
                scope.spawn(move || follow(client, wait));
            }
        }
        let mut client = cluster.client(1);
        (0..RECORDS).for_each(|n| client.put("t", n.to_string().as_bytes()).expect("PUT"));
    });
}

/// Reads everything from the tail; every answer is records, or nothing yet.
fn follow(mut client: Client, wait: Duration) {
    let mut next = 0;
    while next < RECORDS {
        let fetched = client.fetch("t", next, RECORDS, 1 << 20, wait);
        let fetched = fetched.unwrap_or_else(|error| panic!("at {next}: {error}"));
        for (offset, record) in (next..).zip(fetched.records.iter()) {
            assert_eq!(record, offset.to_string().as_bytes(), "at {offset}");
        }
        next = fetched.next_offset;
    }
}

#[test]
fn below_what_is_kept_every_node_says_so() {
    let cluster = Cluster::start_with(3, &["--monitor-check-ms", "100"]);
    cluster.register("t", &[SEGMENT, "retention_bytes=20000"]);
    let mut client = cluster.client(1);
    (0..100).for_each(|_| client.put("t", &[b'x'; 1000]).expect("PUT"));
    for id in cluster.ids() {
        eventually("old segments are removed", || (cluster.state(id, "t")["first_offset"].as_u64()? > 0).then_some(()));
        let refusal = cluster.client(id).fetch("t", 0, 1, 1 << 20, Duration::ZERO).expect_err("it is gone");
        assert_eq!(refusal.code(), Some(ErrorCode::OffsetOutOfRange), "node {id}: {refusal}");
    }
}
