//! A node comes back with an empty disk: it joins anew and is filled; a wiped first node does not
//! begin a second cluster.

use std::time::Duration;

use crate::support::cluster::Cluster;
use crate::support::eventually;
use crate::support::load::Load;

#[test]
fn a_follower_comes_back_with_an_empty_disk() {
    let mut cluster = Cluster::start(3);
    let topic = cluster.register_led_by(&["segment_entries=1000"], |leader| leader != 3);
    let load = Load::start(&cluster, &topic);
    load.wait_acked(3_000);
    cluster.node_mut(3).kill();
    cluster.node_mut(3).wipe();
    load.wait_acked(1_000);
    cluster.start_node(3);
    cluster.wait_healthy();
    load.wait_acked(1_000);
    let history = load.finish();
    cluster.judge(&topic, history);
}

#[test]
#[ignore = "long: waits until every segment is copied again, then loses another node's disk"]
fn one_disk_after_the_other_is_replaced() {
    let mut cluster = Cluster::start(3);
    cluster.register("t", &["segment_entries=500"]);
    let load = Load::start(&cluster, "t");
    load.wait_acked(3_000);
    for victim in cluster.ids() {
        cluster.node_mut(victim).kill();
        cluster.node_mut(victim).wipe();
        cluster.start_node(victim);
        cluster.wait_healthy();
        load.wait_acked(500);
        // Only when everything has its copies again may the next disk be lost.
        let asked = cluster.other_than(&[victim]);
        eventually("every segment has three copies", || {
            let metrics = cluster.node(asked).metrics()?;
            (metrics["walrus"]["under_replicated"] == 0).then_some(())
        });
    }
    let history = load.finish();
    cluster.judge("t", history);
}

#[test]
fn a_wiped_first_node_started_alone_takes_no_writes_from_the_cluster() {
    let mut cluster = Cluster::start(3);
    cluster.register("t", &[]);
    cluster.client(2).put("t", b"x").expect("PUT");
    cluster.node_mut(1).kill();
    cluster.node_mut(1).wipe();
    // As the operator who has forgotten `--join`.
    cluster.node_mut(1).start(&[]);
    std::thread::sleep(Duration::from_secs(3));
    // Whether it refuses to start or serves a cluster of its own, the others never take it for theirs.
    cluster.wait_ready(&[2, 3]);
    let mut client = cluster.client(2);
    eventually("the two others go on", || client.put("t", b"y").ok());
    for (offset, record) in [(0, b"x"), (1, b"y")] {
        let fetched = client.fetch("t", offset, 1, 1 << 20, Duration::ZERO).expect("FETCH");
        assert_eq!(fetched.records.iter().collect::<Vec<_>>(), [record]);
    }
}
