//! The network breaks in ways that processes do not notice: connections stay open and fall silent.

use std::time::Duration;

use crate::support::cluster::Cluster;
use crate::support::load::Load;
use crate::support::network::Network;

/// Well past a lease and an election.
const CUT_FOR: Duration = Duration::from_secs(4);

#[test]
fn a_leader_cut_off_alone() {
    let Some(network) = Network::build(3) else { return };
    let mut cluster = Cluster::start_on(&network, 3, &[]);
    cluster.register("t", &[]);
    let load = Load::start(&cluster, "t");
    load.wait_acked(2_000);
    let leader = cluster.leader(1, "t");
    network.isolate(leader);
    let survivors = cluster.addresses().into_iter().filter(|(id, _)| *id != leader).collect();
    let more = Load::start_on(survivors, "t");
    more.wait_acked(1_000);
    network.heal();
    cluster.wait_healthy();
    load.wait_acked(1_000);
    let mut history = load.finish();
    history.merge(more.finish());
    cluster.judge("t", history);
}

#[test]
#[ignore = "long: each direction between each two nodes is lost in turn"]
fn one_direction_is_lost() {
    let Some(network) = Network::build(3) else { return };
    let mut cluster = Cluster::start_on(&network, 3, &[]);
    cluster.register("t", &["segment_entries=3000"]);
    let load = Load::start(&cluster, "t");
    for (from, to) in [(1, 2), (2, 1), (2, 3), (3, 2), (3, 1), (1, 3)] {
        load.wait_acked(1_000);
        network.cut(from, to);
        std::thread::sleep(CUT_FOR);
        network.heal();
        cluster.wait_healthy();
    }
    load.wait_acked(1_000);
    let history = load.finish();
    cluster.judge("t", history);
}

#[test]
#[ignore = "long: what each node sends is lost in turn, although it still hears the others"]
fn a_node_that_hears_and_is_not_heard() {
    let Some(network) = Network::build(3) else { return };
    let mut cluster = Cluster::start_on(&network, 3, &[]);
    cluster.register("t", &["segment_entries=3000"]);
    let load = Load::start(&cluster, "t");
    for mute in [1, 2, 3] {
        load.wait_acked(1_000);
        let others: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != mute).collect();
        others.iter().for_each(|other| network.cut(mute, *other));
        std::thread::sleep(CUT_FOR);
        network.heal();
        cluster.wait_healthy();
    }
    load.wait_acked(1_000);
    let history = load.finish();
    cluster.judge("t", history);
}

#[test]
#[ignore = "long: every node is alone for a while"]
fn nobody_reaches_anybody() {
    let Some(network) = Network::build(3) else { return };
    let mut cluster = Cluster::start_on(&network, 3, &[]);
    cluster.register("t", &[]);
    let load = Load::start(&cluster, "t");
    load.wait_acked(1_000);
    cluster.ids().iter().for_each(|id| network.isolate(*id));
    std::thread::sleep(CUT_FOR);
    network.heal();
    cluster.wait_healthy();
    load.wait_acked(1_000);
    let history = load.finish();
    cluster.judge("t", history);
}
