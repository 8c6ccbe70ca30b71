//! A write that was passed on may come late: after its sender has given it up, and has sent newer
//! records of the same connection. Then it must not be stored behind them.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use walrus_engine::log::messages::Purpose;
use walrus_engine::metadata::state::SegmentAt;
use walrus_engine::types::SegmentUid;

use crate::peer::{Fate, Peer, last_at};
use crate::support::{Cluster, eventually, read_all};

#[test]
fn a_write_is_stored_in_the_segment_that_it_names_or_nowhere() {
    let cluster = Cluster::start(1, &[]);
    cluster.register(1, "t", "segment_entries=2");
    let first = last_at(&cluster, 1, "t");
    let mut peer = Peer::connect(&cluster, 1, 1, Purpose::Forward);
    assert_eq!(peer.write(0, "t", first, b"1"), Fate::Stored);

    let SegmentAt { uid: SegmentUid { topic_id, number }, epoch } = first;
    let other = |topic_id, number, epoch| SegmentAt { uid: SegmentUid { topic_id, number }, epoch };
    let others = [
        other(topic_id + 1, number, epoch),
        other(topic_id, number + 1, epoch),
        other(topic_id, number, epoch + 1),
        other(topic_id, number, epoch - 1),
    ];
    for at in others {
        assert_eq!(peer.write(0, "t", at, b"elsewhere"), Fate::Moved, "{at:?}");
    }

    assert_eq!(peer.write(0, "t", first, b"2"), Fate::Stored);
    eventually("the next segment is open", || cluster.state(1, "t")["phase"] == "open");
    let second = last_at(&cluster, 1, "t");
    assert_ne!(second, first);
    assert_eq!(peer.write(0, "t", second, b"3"), Fate::Stored);
    // The same node leads, as at the time of the first segment, and has records that are newer.
    assert_eq!(peer.write(0, "t", first, b"late"), Fate::Moved);
    assert_eq!(read_all(&cluster, 1, "t"), [b"1", b"2", b"3"]);
}

/// They are counted where they are stored, and not where they came in as well.
#[test]
fn records_that_are_passed_on_count_once() {
    let cluster = Cluster::start(3, &[]);
    cluster.register(1, "t", "");
    let leader = cluster.leader(1, "t");
    let mut client = cluster.client(1 + leader % 3);
    (0..5).for_each(|n: u8| client.put("t", &[n]).unwrap());
    let records_in = |node| {
        let metrics: serde_json::Value = serde_json::from_str(cluster.client(node).metrics().unwrap()).unwrap();
        metrics["walrus"]["records_in"].as_u64().unwrap()
    };
    for node in 1..=3 {
        assert_eq!(records_in(node), if node == leader { 5 } else { 0 }, "node {node}, led by {leader}");
    }
}

/// What waits at another node for the next record is given up, as what waits here is.
#[test]
fn a_reader_that_waits_elsewhere_does_not_hold_up_the_stop() {
    let mut cluster = Cluster::start(3, &[]);
    cluster.register(1, "t", "");
    let node = 1 + cluster.leader(1, "t") % 3;
    let mut reader = TcpStream::connect(cluster.address(node)).unwrap();
    let mut observer = cluster.client(node);
    let mut bytes_in = || {
        let metrics: serde_json::Value = serde_json::from_str(observer.metrics().unwrap()).unwrap();
        metrics["walrus"]["bytes_in"].as_u64().unwrap()
    };
    // The observer's own requests count as well.
    let (first, second) = (bytes_in(), bytes_in());
    let body = b"FETCH t 0 10 1000 60000";
    reader.write_all(&(body.len() as u32).to_le_bytes()).unwrap();
    reader.write_all(body).unwrap();
    let mut others = second;
    eventually("the node has heard it", || {
        others += second - first;
        bytes_in() == others + 4 + body.len() as u64
    });
    let started = Instant::now();
    cluster.terminate(node);
    // Without that it is five seconds; one is for clients that have just asked for something.
    assert!(started.elapsed() < Duration::from_secs(4), "it took {:?}", started.elapsed());
}

/// The node that the client talks to sets memory aside before the leader's cursor moves.
#[test]
fn large_records_are_read_once_through_any_node() {
    const RECORD_BYTES: usize = 3 << 20;
    let cluster = Cluster::start(3, &[]);
    cluster.register(1, "t", "");
    let record = |n: u8| vec![n; RECORD_BYTES];
    let mut client = cluster.client(1);
    (0..3).for_each(|n| client.put("t", &record(n)).unwrap());
    let leader = cluster.leader(1, "t");
    for n in 0..3 {
        let node = 1 + (leader + u64::from(n)) % 3;
        let mut client = cluster.client(node);
        assert_eq!(client.get("t", Some("g")).unwrap(), Some(record(n).as_slice()), "at node {node}");
    }
    assert_eq!(cluster.client(leader).get("t", Some("g")).unwrap(), None);
    for node in 1..=3 {
        assert_eq!(read_all(&cluster, node, "t"), [record(0), record(1), record(2)], "from node {node}");
    }
}

#[test]
fn a_write_that_was_given_up_is_not_stored_behind_newer_ones_of_its_sender() {
    let cluster = Cluster::start(1, &[]);
    cluster.register(1, "t", "");
    let at = last_at(&cluster, 1, "t");
    let connect = |run| Peer::connect(&cluster, 1, run, Purpose::Forward);
    // Both connections are of one sender. What was sent on the first one is late.
    let (mut old, mut new) = (connect(1), connect(1));
    assert_eq!(old.write(0, "t", at, b"1"), Fate::Stored);
    assert_eq!(new.write(1, "t", at, b"2"), Fate::Stored);
    assert_eq!(old.write(0, "t", at, b"late"), Fate::Moved);
    // The connection itself is as good as any other.
    assert_eq!(old.write(1, "t", at, b"3"), Fate::Stored);
    assert_eq!(connect(2).write(0, "t", at, b"4"), Fate::Stored, "another run of the sender counts anew");
    assert_eq!(read_all(&cluster, 1, "t"), [b"1", b"2", b"3", b"4"]);
}
