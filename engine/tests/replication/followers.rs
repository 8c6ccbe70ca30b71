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

/// `acks=all`: who is acknowledged while a replica sleeps was written to a set without it.
#[test]
fn acks_all_waits_for_a_paused_replica_or_does_without_it() {
    let cluster = Cluster::start(3, &[]);
    cluster.register(1, "t", "acks=all");
    let mut told = Told::default();
    let set = |asked: u64| -> Vec<u64> {
        cluster.state(asked, "t")["replicas"].as_array().unwrap().iter().map(|node| node.as_u64().unwrap()).collect()
    };
    let leader = cluster.leader(1, "t");
    let sleeper = cluster.running().into_iter().find(|node| *node != leader).unwrap();
    let mut client = cluster.client(leader);
    assert!(told.put(&mut client, "t", b"before"));
    assert!(set(leader).contains(&sleeper));

    cluster.signal(sleeper, libc::SIGSTOP);
    let mut number = 0;
    eventually("writes flow without it", || {
        number += 1;
        told.put(&mut client, "t", format!("record {number}").as_bytes())
    });
    assert!(!set(leader).contains(&sleeper), "acknowledged without a replica of the set");

    cluster.signal(sleeper, libc::SIGCONT);
    eventually("it is in the set again", || set(leader).contains(&sleeper));
    eventually("and takes records", || {
        number += 1;
        told.put(&mut client, "t", format!("record {number}").as_bytes())
    });
    told.check(&read_all(&cluster, sleeper, "t"));
}
