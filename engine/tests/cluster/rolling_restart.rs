//! Nodes are stopped and started one after the other, in an orderly way: no request fails.

use crate::support::cluster::Cluster;
use crate::support::history::History;
use crate::support::load::Load;

#[test]
fn a_rolling_restart_without_a_failed_request() {
    let mut cluster = Cluster::start(3);
    cluster.register("t", &[]);
    let mut history = History::default();
    for id in cluster.ids() {
        // Clients of the node that goes away find another one anyway; here, all are on the others.
        let others = cluster.addresses().into_iter().filter(|(other, _)| *other != id).collect();
        let load = Load::start_on(others, "t");
        load.wait_acked(1_000);
        cluster.node_mut(id).stop();
        load.wait_acked(1_000);
        cluster.start_node(id);
        cluster.wait_healthy();
        load.wait_acked(1_000);
        history.merge(load.finish());
    }
    let errors = history.errors.clone();
    cluster.judge("t", history);
    assert!(errors.is_empty(), "requests failed: {errors:?}");
}
