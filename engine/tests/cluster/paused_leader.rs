//! A leader stops in its tracks, sleeps past its lease while another takes over, and wakes up in the
//! middle of what it was doing: none of its late writes is acknowledged wrongly.

use std::time::Duration;

use crate::support::cluster::Cluster;
use crate::support::load::Load;

#[test]
fn a_paused_leader_wakes_up_after_its_lease() {
    let mut cluster = Cluster::start(3);
    cluster.register("t", &[]);
    let load = Load::start(&cluster, "t");
    load.wait_acked(2_000);
    let sleeper = cluster.leader(1, "t");
    cluster.node(sleeper).pause();
    let survivors = cluster.addresses().into_iter().filter(|(id, _)| *id != sleeper).collect();
    // Those whose requests wait at the sleeper show nothing, so others show that writes flow again.
    let more = Load::start_on(survivors, "t");
    more.wait_acked(1_000);
    cluster.node(sleeper).resume();
    more.wait_acked(1_000);
    cluster.wait_healthy();
    load.wait_acked(1_000);
    let mut history = load.finish();
    history.merge(more.finish());
    cluster.judge("t", history);
}

#[test]
#[ignore = "long: every node is paused in turn, again and again"]
fn every_node_is_paused_in_turn_while_segments_roll_over() {
    let mut cluster = Cluster::start(3);
    cluster.register("t", &["segment_entries=700"]);
    let load = Load::start(&cluster, "t");
    for turn in 0..6 {
        load.wait_acked(1_000);
        let sleeper = turn % 3 + 1;
        cluster.node(sleeper).pause();
        // Shorter and longer than a lease.
        std::thread::sleep(Duration::from_millis(500 * turn));
        cluster.node(sleeper).resume();
        cluster.wait_healthy();
    }
    let history = load.finish();
    cluster.judge("t", history);
}
