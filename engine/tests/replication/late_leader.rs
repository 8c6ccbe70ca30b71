//! A leader that was deposed long ago reaches a replica that has just started, and has forgotten it.

use walrus_engine::log::messages::{Message, Open, Purpose};
use walrus_engine::metadata::state::Replica;
use walrus_engine::store::SegmentSpec;
use walrus_engine::types::Tier;

use crate::peer::{Peer, last_at};
use crate::support::{Cluster, eventually};

/// The disk id of a node's data directory.
fn disk_id(cluster: &Cluster, node: u64) -> String {
    let text = std::fs::read_to_string(cluster.dir(node).join("store.json")).unwrap();
    let identity: serde_json::Value = serde_json::from_str(&text).unwrap();
    identity["disk_id"].as_str().unwrap().to_owned()
}

#[test]
fn a_replica_takes_nothing_before_its_metadata_have_caught_up() {
    let mut cluster = Cluster::start(3, &[]);
    cluster.register(1, "t", "");
    eventually("node 3 has a copy", || cluster.state(3, "t")["phase"] == "open");
    let at = last_at(&cluster, 3, "t");
    let replicas = vec![Replica { node_id: 3, disk_id: disk_id(&cluster, 3) }];
    cluster.kill(3);
    eventually("the topic is deleted", || cluster.client(1).delete("t").is_ok());
    cluster.kill(1);
    cluster.kill(2);

    // It knows of no deletion, and nobody is there to tell it.
    cluster.spawn(3);
    let _ = cluster.client(3);
    let mut leader = Peer::connect(&cluster, 3, 1, Purpose::Replicate);
    let spec =
        SegmentSpec { uid: at.uid, epoch: at.epoch, tier: Tier::PageCache, segment_entries: 10, segment_bytes: 1000 };
    leader.send(&Message::Open(Open { spec: spec.into(), replicas, from: None }));

    cluster.spawn(1);
    cluster.spawn(2);
    assert_eq!(leader.receive(), Message::Refused { at, promised: 0 }, "the first thing that it says");
}
