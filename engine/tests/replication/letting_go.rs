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
