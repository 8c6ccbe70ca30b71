//! A cluster of one, killed under load: the smallest case, with the same evidence and the same judge.

use crate::support::cluster::Cluster;
use crate::support::load::Load;

#[test]
fn a_single_node_killed_under_load() {
    let mut cluster = Cluster::start(1);
    cluster.register("t", &["segment_entries=700"]);
    let load = Load::start(&cluster, "t");
    for _ in 0..2 {
        load.wait_acked(1_500);
        cluster.node_mut(1).kill();
        cluster.start_node(1);
        cluster.wait_healthy();
    }
    load.wait_acked(1_500);
    let history = load.finish();
    cluster.judge("t", history);
}
