//! Ten records a segment: leadership goes round over all nodes, and everything is read back in order.

use std::time::Duration;

use crate::support::cluster::Cluster;
use crate::support::load::Load;

const RECORDS: u64 = 100;

#[test]
fn leadership_goes_round_with_every_segment() {
    let cluster = Cluster::start_with(3, &["--max-segment-entries", "10"]);
    cluster.register("t", &[]);
    let mut client = cluster.client(1);
    for n in 0..RECORDS {
        client.put("t", n.to_string().as_bytes()).expect("PUT");
    }
    let state = cluster.state(2, "t");
    let counts = state["sealed_segments"].as_object().expect("a map");
    assert!(counts.len() >= 9 && counts.values().all(|count| count == 10), "{state}");
    let leaders = state["segment_leaders"].as_object().expect("a map");
    let leader_of = |segment: u64| leaders[&segment.to_string()].as_u64().expect("a node id");
    for segment in 1..counts.len() as u64 {
        assert_eq!(leader_of(segment + 1), leader_of(segment) % 3 + 1, "the next leader is the next node: {state}");
    }
    for id in cluster.ids() {
        let mut client = cluster.client(id);
        let fetched = client.fetch("t", 0, RECORDS, 1 << 20, Duration::ZERO).expect("FETCH");
        let mut next = fetched.next_offset;
        let mut read: Vec<Vec<u8>> = fetched.records.iter().map(<[u8]>::to_vec).collect();
        while next < RECORDS {
            let fetched = client.fetch("t", next, RECORDS, 1 << 20, Duration::ZERO).expect("FETCH");
            next = fetched.next_offset;
            read.extend(fetched.records.iter().map(<[u8]>::to_vec));
        }
        assert!((0..RECORDS).map(|n| n.to_string().into_bytes()).eq(read), "node {id} has everything in order");
    }
}

#[test]
fn a_load_over_many_rollovers_sees_no_error() {
    let cluster = Cluster::start(3);
    cluster.register("t", &["segment_entries=200"]);
    let load = Load::start(&cluster, "t");
    load.wait_acked(6_000);
    let history = load.finish();
    let errors = history.errors.clone();
    cluster.judge("t", history);
    assert!(errors.is_empty(), "clients noticed the rollovers: {errors:?}");
}
