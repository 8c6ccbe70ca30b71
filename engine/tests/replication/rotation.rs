//! Leadership rotates as segments fill up, and nobody who writes or reads notices.

use crate::support::{Cluster, Told, get_all, read_all};

#[test]
fn ten_records_a_segment_rotate_over_all_nodes_without_an_error() {
    let cluster = Cluster::start(3, &["--max-segment-entries", "10"]);
    cluster.register(2, "t", "");
    let mut told = Told::default();
    for index in 0..120 {
        let mut client = cluster.client(1 + index % 3);
        assert!(told.put(&mut client, "t", format!("record {index}").as_bytes()), "record {index}");
    }
    let state = cluster.state(1, "t");
    let leaders: std::collections::BTreeSet<u64> =
        state["segment_leaders"].as_object().unwrap().values().map(|node| node.as_u64().unwrap()).collect();
    assert_eq!(leaders.into_iter().collect::<Vec<_>>(), [1, 2, 3]);
    assert!(state["sealed_segments"].as_object().unwrap().values().all(|count| count == 10));
    for node in 1..=3 {
        assert_eq!(read_all(&cluster, node, "t"), told.acknowledged, "through node {node}");
        assert_eq!(get_all(&cluster, node, "t", &format!("g{node}")), told.acknowledged);
    }
}

#[test]
fn a_cursor_goes_on_through_other_nodes_and_segments() {
    let cluster = Cluster::start(3, &["--max-segment-entries", "10"]);
    cluster.register(1, "t", "");
    let mut written = Vec::new();
    let mut read = Vec::new();
    for index in 0..60u64 {
        let record = format!("record {index}").into_bytes();
        cluster.client(1 + index % 3).put("t", &record).unwrap();
        written.push(record);
        let mut reader = cluster.client(1 + (index + 1) % 3);
        read.push(reader.get("t", None).unwrap().expect("it was acknowledged").to_vec());
    }
    assert_eq!(read, written);
}
