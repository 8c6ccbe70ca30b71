//! A node that is asked to stop hands over what it leads; a paused one loses it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Cluster, Told, eventually, read_all};

#[test]
fn a_rolling_restart_fails_no_request_of_clients_on_the_other_nodes() {
    let mut cluster = Cluster::start(3, &[]);
    for topic in ["a", "b", "c", "d", "e", "f"] {
        cluster.register(1, topic, "");
    }
    for node in 1..=3 {
        let through = 1 + node % 3;
        let stop = AtomicBool::new(false);
        let address = cluster.address(through);
        let told = std::thread::scope(|scope| {
            let producer = scope.spawn(|| {
                let mut client = walrus_engine::client::Client::connect(&address).unwrap();
                let mut told = Told::default();
                let mut longest = Duration::ZERO;
                for index in 0.. {
                    let began = Instant::now();
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let topic = ["a", "b", "c", "d", "e", "f"][index % 6];
                    told.put(&mut client, topic, format!("{node} {index}").as_bytes());
                    longest = longest.max(began.elapsed());
                }
                println!("while node {node} was restarted, the longest wait was {longest:?}");
                told
            });
            cluster.terminate(node);
            cluster.spawn(node);
            eventually("it is back", || {
                let mut client = cluster.client(node);
                client.state("a").is_ok()
            });
            stop.store(true, Ordering::Relaxed);
            producer.join().unwrap()
        });
        assert_eq!((told.refused, told.unknown.len()), (0, 0), "while node {node} was restarted");
        assert!(!told.acknowledged.is_empty());
    }
    let all: usize = ["a", "b", "c", "d", "e", "f"].iter().map(|topic| read_all(&cluster, 2, topic).len()).sum();
    assert!(all >= 3);
}

#[test]
fn a_paused_leader_acknowledges_nothing_that_is_lost() {
    let cluster = Cluster::start(3, &[]);
    cluster.register(1, "t", "");
    let leader = cluster.leader(1, "t");
    let other = cluster.running().into_iter().find(|node| *node != leader).unwrap();
    let mut told = Told::default();
    let mut at_leader = cluster.client(leader);
    for index in 0..100 {
        assert!(told.put(&mut at_leader, "t", format!("before {index}").as_bytes()));
    }
    cluster.signal(leader, libc::SIGSTOP);
    let paused = Instant::now();
    let mut client = cluster.client(other);
    let mut index = 0;
    while !told.put(&mut client, "t", format!("meanwhile {index}").as_bytes()) {
        index += 1;
        assert!(paused.elapsed() < Duration::from_secs(20), "another node takes over");
    }
    cluster.signal(leader, libc::SIGCONT);
    // The one that was asleep passes on what it is asked, and never takes it itself.
    for index in 0..100 {
        told.put(&mut at_leader, "t", format!("after {index}").as_bytes());
    }
    for node in 1..=3 {
        let found = read_all(&cluster, node, "t");
        told.check(&found);
    }
}
