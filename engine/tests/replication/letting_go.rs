//! A node leaves for good: what it holds goes to the others first.

use walrus_engine::client::ClientError;
use walrus_engine::protocol::ErrorCode;

use crate::support::{Cluster, Told, eventually, read_all};

#[test]
fn a_node_that_leaves_is_missed_by_nobody() {
    let mut cluster = Cluster::start(4, &["--max-segment-entries", "10"]);
    cluster.register(1, "t", "");
    let mut told = Told::default();
    let mut client = cluster.client(1);
    for index in 0..55 {
        assert!(told.put(&mut client, "t", format!("record {index}").as_bytes()));
    }
    client.leave(3).unwrap();
    eventually("it is no member any more", || {
        assert!(told.put(&mut client, "t", b"meanwhile"), "writes go on");
        let metrics: serde_json::Value = serde_json::from_str(client.metrics().unwrap()).unwrap();
        metrics["membership_config"]["membership"]["configs"] == serde_json::json!([[1, 2, 4]])
    });
    cluster.terminate(3);
    // Each segment has three copies without it: any other node may be lost as well.
    cluster.kill(2);
    let found = read_all(&cluster, 4, "t");
    assert_eq!(found, told.acknowledged);
    let mut client = cluster.client(4);
    eventually("writes flow", || client.put("t", b"after").is_ok());
    let refused = client.leave(3).unwrap_err();
    assert!(matches!(&refused, ClientError::Refusal { code: ErrorCode::BadRequest, .. }), "{refused}");
}

/// Of three copies one is short, since its node was away: until it is whole, nobody may let go of the
/// other two.
#[test]
fn a_leaving_node_is_kept_until_the_other_copies_are_whole() {
    let mut cluster = Cluster::start(3, &["--max-segment-entries", "10"]);
    cluster.register(1, "t", "");
    let mut told = Told::default();
    let mut client = cluster.client(1);
    (0..5).for_each(|index| assert!(told.put(&mut client, "t", format!("all have {index}").as_bytes())));
    // It does not lead: not a recovery, but the leader itself ends the segment.
    let (short, leaving) = if cluster.leader(1, "t") == 3 { (2, 3) } else { (3, 2) };
    cluster.kill(short);
    (0..5).for_each(|index| assert!(told.put(&mut client, "t", format!("one lacks {index}").as_bytes())));
    eventually("the segment is sealed", || cluster.state(1, "t")["sealed_segments"]["1"] == 10);
    client.leave(leaving).unwrap();
    let waits = format!("node {short} does not hold all of it yet");
    eventually("the others are asked", || cluster.log(1).contains(&waits));
    let copy = |node| {
        let files = std::fs::read_dir(cluster.dir(node).join("segments")).unwrap();
        files.flatten().any(|file| file.file_name().to_string_lossy().ends_with("-0000000001.seg"))
    };
    assert!(copy(leaving), "its copy is one of two that are whole");
    cluster.spawn(short);
    let voters = serde_json::json!([[1, short]]);
    eventually("it is no member any more", || {
        let metrics: serde_json::Value = serde_json::from_str(client.metrics().unwrap()).unwrap();
        metrics["membership_config"]["membership"]["configs"] == voters
    });
    cluster.terminate(leaving);
    assert_eq!(read_all(&cluster, short, "t"), told.acknowledged);
}
