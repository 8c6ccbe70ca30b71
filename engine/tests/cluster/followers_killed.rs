//! Both followers are killed: nothing is acknowledged without them; they come back, and all goes on.

use std::time::Duration;

use crate::support::cluster::Cluster;
use crate::support::history::{Outcome, now};
use crate::support::load::Load;

#[test]
fn both_followers_killed_and_back() {
    let mut cluster = Cluster::start(3);
    cluster.register("t", &[]);
    let load = Load::start(&cluster, "t");
    load.wait_acked(2_000);
    let leader = cluster.leader(1, "t");
    let followers: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
    followers.iter().for_each(|id| cluster.node_mut(*id).kill());
    let alone_from = now();
    // Long enough for the leader's lease to end and for whoever might wrongly take over.
    std::thread::sleep(Duration::from_secs(3));
    let alone_until = now();
    followers.iter().for_each(|id| cluster.start_node(*id));
    cluster.wait_healthy();
    load.wait_acked(2_000);
    let history = load.finish();
    let wrong = history.sent.iter().filter(|sent| {
        sent.asked_at > alone_from && sent.answered_at < alone_until && matches!(sent.outcome, Outcome::Acked(_))
    });
    assert_eq!(wrong.count(), 0, "acknowledged although one of three nodes was alone");
    cluster.judge("t", history);
}
