//! All nodes end, at once, and start again: everything acknowledged is there, and all goes on.

use crate::support::cluster::Cluster;
use crate::support::eventually;
use crate::support::history::History;
use crate::support::load::Load;

#[test]
fn all_nodes_killed_at_once_under_load() {
    let mut cluster = Cluster::start(3);
    cluster.register("t", &["segment_entries=1500"]);
    let load = Load::start(&cluster, "t");
    load.wait_acked(4_000);
    cluster.ids().iter().for_each(|id| cluster.node_mut(*id).kill());
    cluster.ids().iter().for_each(|id| cluster.start_node(*id));
    cluster.wait_healthy();
    load.wait_acked(2_000);
    let history = load.finish();
    cluster.judge("t", history);
}

#[test]
fn all_nodes_stopped_in_order_and_started_again() {
    let mut cluster = Cluster::start(3);
    cluster.register("t", &["segment_entries=1500"]);
    let mut history = History::default();
    for _ in 0..2 {
        let load = Load::start(&cluster, "t");
        load.wait_acked(2_000);
        history.merge(load.finish());
        let leader = cluster.leader(1, "t");
        let next = cluster.state(leader, "t")["next_offset"].as_u64().expect("an offset");
        cluster.ids().iter().for_each(|id| cluster.node(*id).ask_to_stop());
        cluster.ids().iter().for_each(|id| assert!(cluster.node_mut(*id).wait().success(), "node {id} stops well"));
        cluster.ids().iter().for_each(|id| cluster.start_node(*id));
        cluster.wait_healthy();
        let sealed = eventually("what was open is sealed", || {
            let state = cluster.state(1, "t");
            (state["phase"] == "open").then(|| state["last_sealed_entry_offset"].as_u64())
        });
        assert_eq!(sealed, Some(next), "an orderly stop keeps every record");
    }
    cluster.judge("t", history);
}
