//! A leader stops in its tracks, sleeps past its lease while another takes over, and wakes up in the
//! middle of what it was doing: none of its late writes is acknowledged wrongly.

use std::time::Duration;

use crate::support::cluster::Cluster;
use crate::support::under_load::UnderLoad;

#[test]
fn a_paused_leader_wakes_up_after_its_lease() {
    let mut under_load = UnderLoad::start(Cluster::start(3), &[]);
    let sleeper = under_load.leader();
    under_load.cluster.node(sleeper).pause();
    under_load.flows_without(sleeper);
    under_load.cluster.node(sleeper).resume();
    under_load.recovers();
    under_load.judge();
}

#[test]
#[ignore = "long: every node is paused in turn, again and again"]
fn every_node_is_paused_in_turn_while_segments_roll_over() {
    let mut under_load = UnderLoad::start(Cluster::start(3), &["segment_entries=700"]);
    under_load.in_turn(0..6, |under_load, turn| {
        let sleeper = turn % 3 + 1;
        under_load.cluster.node(sleeper).pause();
        // Shorter and longer than a lease.
        std::thread::sleep(Duration::from_millis(500 * turn));
        under_load.cluster.node(sleeper).resume();
    });
    under_load.judge();
}
