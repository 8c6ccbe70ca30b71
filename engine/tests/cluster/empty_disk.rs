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
fn a_wiped_first_node_started_without_join_is_called_back() {
    let mut cluster = Cluster::start(3);
    cluster.register("t", &[]);
    cluster.client(2).put("t", b"x").expect("PUT");
    cluster.node_mut(1).kill();
    cluster.node_mut(1).wipe();
    // As the operator who has forgotten `--join`.
    cluster.node_mut(1).start(&[]);
    cluster.wait_healthy();
    assert_eq!(first_record(&cluster, 1), b"x");
}

#[test]
fn a_wiped_first_node_that_reached_nobody_stops_for_good_once_it_is_called() {
    let mut cluster = Cluster::start(3);
    cluster.register("t", &[]);
    cluster.client(1).put("t", b"x").expect("PUT");
    cluster.ids().into_iter().for_each(|id| cluster.node_mut(id).kill());
    cluster.node_mut(1).wipe();
    // Nobody can tell it that it is not a new node, so it is one.
    cluster.node_mut(1).start(&[]);
    cluster.node_mut(1).wait_until_serving();
    cluster.start_node(2);
    cluster.start_node(3);
    assert!(!cluster.node_mut(1).ends().success(), "it ends with an error when its cluster calls");
    // What starts it again changes nothing, not even when nobody is there to call again.
    for id in [2, 3] {
        cluster.node_mut(id).kill();
    }
    cluster.node_mut(1).start(&[]);
    assert!(!cluster.node_mut(1).ends().success(), "it does not serve again from this directory");
    // As its error says: an empty directory, and `--join`.
    cluster.node_mut(1).wipe();
    cluster.ids().into_iter().for_each(|id| cluster.start_node(id));
    cluster.wait_healthy();
    assert_eq!(first_record(&cluster, 1), b"x");
}

/// The first record of topic `t`, as soon as this node shows it.
fn first_record(cluster: &Cluster, asked: u64) -> Vec<u8> {
    let mut client = cluster.client(asked);
    eventually("the first record is shown", || {
        let fetched = client.fetch("t", 0, 1, 1 << 20, Duration::ZERO).ok()?;
        fetched.records.iter().next().map(<[u8]>::to_vec)
    })
}
