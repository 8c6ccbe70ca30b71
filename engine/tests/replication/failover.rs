//! The leader is lost: its segment is sealed at the right length, and another node goes on.

use std::time::{Duration, Instant};

use crate::support::{Cluster, Told, eventually, get_all, read_all};

#[test]
fn what_the_lost_leader_acknowledged_is_there_on_the_others() {
    let mut cluster = Cluster::start(3, &[]);
    cluster.register(1, "t", "");
    let leader = cluster.leader(1, "t");
    let other = cluster.running().into_iter().find(|node| *node != leader).unwrap();
    let mut told = Told::default();
    let mut client = cluster.client(leader);
    for index in 0..200 {
        assert!(told.put(&mut client, "t", format!("before {index}").as_bytes()));
    }
    cluster.kill(leader);
    let killed = Instant::now();
    let mut client = cluster.client(other);
    let mut index = 0;
    while !told.put(&mut client, "t", format!("after {index}").as_bytes()) {
        index += 1;
        assert!(killed.elapsed() < Duration::from_secs(20), "writes flow again");
    }
    println!("writes flowed again after {:?}", killed.elapsed());
    for node in cluster.running() {
        told.check(&read_all(&cluster, node, "t"));
    }
    told.check(&get_all(&cluster, other, "t", "g"));
    assert_ne!(cluster.leader(other, "t"), leader);
    assert_eq!(cluster.state(other, "t")["possible_loss"], serde_json::json!([]));
}

#[test]
fn a_leader_under_load_is_lost_again_and_again() {
    let mut cluster = Cluster::start(3, &[]);
    cluster.register(1, "t", "");
    let mut told = Told::default();
    for round in 0..4 {
        let node = cluster.running()[round % cluster.running().len()];
        let leader = cluster.leader(node, "t");
        // Through another node than the leader, so that the producer survives it.
        let through = cluster.running().into_iter().find(|node| *node != leader).unwrap();
        let mut client = cluster.client(through);
        for index in 0..100 {
            told.put(&mut client, "t", format!("{round} before {index}").as_bytes());
        }
        cluster.kill(leader);
        let mut flows = 0;
        for index in 0.. {
            flows += u32::from(told.put(&mut client, "t", format!("{round} after {index}").as_bytes()));
            if flows == 50 {
                break;
            }
        }
        cluster.spawn(leader);
        eventually("the node serves again", || cluster.client(leader).ping().is_ok());
    }
    for node in cluster.running() {
        told.check(&read_all(&cluster, node, "t"));
    }
    println!("{} acknowledged, {} unknown, {} refused", told.acknowledged.len(), told.unknown.len(), told.refused);
}

#[test]
fn a_full_stop_and_start_loses_nothing() {
    let mut cluster = Cluster::start(3, &[]);
    let topics = ["a", "b", "c"];
    let mut told = vec![Told::default(); topics.len()];
    for (topic, told) in topics.iter().zip(&mut told) {
        cluster.register(1, topic, "");
        let mut client = cluster.client(2);
        for index in 0..50 {
            assert!(told.put(&mut client, topic, format!("{topic} {index}").as_bytes()));
        }
    }
    for node in 1..=3 {
        cluster.kill(node);
    }
    for node in 1..=3 {
        cluster.spawn(node);
    }
    for (topic, told) in topics.iter().zip(&mut told) {
        let mut client = cluster.client(3);
        eventually("writes flow again", || told.put(&mut client, topic, b"again"));
        told.refused = 0;
        for node in 1..=3 {
            told.check(&read_all(&cluster, node, topic));
        }
    }
}
