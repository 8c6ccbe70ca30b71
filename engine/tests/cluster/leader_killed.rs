//! The leader of a topic is killed under load: nothing acknowledged is lost, and writes flow again.

use crate::support::cluster::Cluster;
use crate::support::load::Load;

/// Two seconds are the aim (lease 1 s); a test machine that does other things gets twice as long.
const PAUSE_MS_MAX: u64 = 4_000;

#[test]
fn a_leader_killed_under_load() {
    let mut cluster = Cluster::start(3);
    let raft_leader = cluster.raft_leader();
    let topic = cluster.register_led_by(&[], |leader| leader != raft_leader);
    kill_the_leader_of(&mut cluster, &topic);
}

#[test]
fn a_leader_killed_that_leads_raft_as_well() {
    let mut cluster = Cluster::start(3);
    let raft_leader = cluster.raft_leader();
    let topic = cluster.register_led_by(&[], |leader| leader == raft_leader);
    kill_the_leader_of(&mut cluster, &topic);
}

fn kill_the_leader_of(cluster: &mut Cluster, topic: &str) {
    let load = Load::start(cluster, topic);
    load.wait_acked(2_000);
    let leader = cluster.leader(cluster.running()[0], topic);
    cluster.node_mut(leader).kill();
    load.wait_acked(2_000);
    let survivor = cluster.other_than(&[leader]);
    assert_ne!(cluster.leader(survivor, topic), leader, "another node leads");
    cluster.start_node(leader);
    cluster.wait_healthy();
    load.wait_acked(2_000);
    let history = load.finish();
    let pause_ms = history.longest_pause_ms();
    cluster.judge(topic, history);
    assert!(pause_ms <= PAUSE_MS_MAX, "writes paused for {pause_ms} ms");
}

#[test]
#[ignore = "long: every node is killed in turn, several times"]
fn every_node_killed_in_turn_while_segments_roll_over() {
    let mut cluster = Cluster::start(3);
    cluster.register("t", &["segment_entries=500"]);
    let load = Load::start(&cluster, "t");
    for turn in 0..9 {
        load.wait_acked(1_000);
        let victim = turn % 3 + 1;
        cluster.node_mut(victim).kill();
        load.wait_acked(1_000);
        cluster.start_node(victim);
        cluster.wait_healthy();
    }
    let history = load.finish();
    cluster.judge("t", history);
}

#[test]
#[ignore = "long: the Raft leader is killed again and again"]
fn the_raft_leader_killed_again_and_again() {
    let mut cluster = Cluster::start(3);
    cluster.register("t", &["segment_entries=2000"]);
    let load = Load::start(&cluster, "t");
    for _ in 0..5 {
        load.wait_acked(1_000);
        let victim = cluster.raft_leader();
        cluster.node_mut(victim).kill();
        load.wait_acked(1_000);
        cluster.start_node(victim);
        cluster.wait_healthy();
    }
    let history = load.finish();
    cluster.judge("t", history);
}
