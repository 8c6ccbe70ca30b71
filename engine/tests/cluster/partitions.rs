//! The network breaks in ways that processes do not notice: connections stay open and fall silent.

use std::time::Duration;

use crate::support::cluster::Cluster;
use crate::support::network::Network;
use crate::support::under_load::UnderLoad;

/// Well past a lease and an election.
const CUT_FOR: Duration = Duration::from_secs(4);

#[test]
fn a_leader_cut_off_alone() {
    let Some(network) = Network::build(3) else { return };
    let mut under_load = UnderLoad::start(Cluster::start_on(&network, 3, &[]), &[]);
    let leader = under_load.leader();
    network.isolate(leader);
    under_load.flows_without(leader);
    network.heal();
    under_load.recovers();
    under_load.judge();
}

#[test]
#[ignore = "long: each direction between each two nodes is lost in turn"]
fn one_direction_is_lost() {
    cut_in_turn(&["segment_entries=3000"], [(1, 2), (2, 1), (2, 3), (3, 2), (3, 1), (1, 3)], |network, (from, to)| {
        network.cut(from, to);
    });
}

#[test]
#[ignore = "long: what each node sends is lost in turn, although it still hears the others"]
fn a_node_that_hears_and_is_not_heard() {
    cut_in_turn(&["segment_entries=3000"], [1, 2, 3], |network, mute| {
        [1, 2, 3].into_iter().filter(|other| *other != mute).for_each(|other| network.cut(mute, other));
    });
}

#[test]
#[ignore = "long: every node is alone for a while"]
fn nobody_reaches_anybody() {
    cut_in_turn(&[], [()], |network, ()| [1, 2, 3].into_iter().for_each(|id| network.isolate(id)));
}

/// Cuts three nodes' network in each turn, under load, and mends it again.
fn cut_in_turn<T>(settings: &[&str], turns: impl IntoIterator<Item = T>, cut: impl Fn(&Network, T)) {
    let Some(network) = Network::build(3) else { return };
    let mut under_load = UnderLoad::start(Cluster::start_on(&network, 3, &[]), settings);
    under_load.in_turn(turns, |_, turn| {
        cut(&network, turn);
        std::thread::sleep(CUT_FOR);
        network.heal();
    });
    under_load.judge();
}
