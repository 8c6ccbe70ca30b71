//! Replicas go and come back.

use crate::support::{Cluster, Told, eventually, read_all};

#[test]
fn one_lost_replica_stops_nobody_and_catches_up() {
    let mut cluster = Cluster::start(3, &[]);
    cluster.register(1, "t", "");
    let leader = cluster.leader(1, "t");
    let follower = cluster.running().into_iter().find(|node| *node != leader).unwrap();
    let mut told = Told::default();
    let mut client = cluster.client(leader);
    let mut put = |told: &mut Told, from: u32| {
        for index in from..from + 100 {
            assert!(told.put(&mut client, "t", format!("record {index}").as_bytes()));
        }
    };
    put(&mut told, 0);
    cluster.kill(follower);
    put(&mut told, 100);
    cluster.spawn(follower);
    put(&mut told, 200);
    eventually("the replica has caught up", || read_all(&cluster, follower, "t") == told.acknowledged);
    // Now the other one may go: what was caught up counts.
    let other = cluster.running().into_iter().find(|node| *node != leader && *node != follower).unwrap();
    cluster.kill(other);
    put(&mut told, 300);
    told.check(&read_all(&cluster, follower, "t"));
}
