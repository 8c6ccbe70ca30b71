//! What is lost with a node goes to another one, but not before its lease has run out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use walrus_engine::metadata::Metadata;
use walrus_engine::metadata::state::{Command, Outcome, Phase, SegmentAt, SegmentInfo};
use walrus_engine::types::SegmentUid;

use crate::support::{Group, create, eventually, propose};

/// The topic's last segment as a node has it, once it has it.
fn last(node: &Metadata, topic: &str) -> SegmentInfo {
    let mut found = None;
    eventually("the node has applied the topic", || {
        found = node.view(|state| state.topics.get(topic).map(|topic| topic.last().clone()));
        found.is_some()
    });
    found.expect("was found")
}

/// Creates topics until this node leads one; returns its name.
fn topic_led_by(group: &Group, leader: u64) -> String {
    let node = &group.nodes[&leader];
    for n in 0..100 {
        let name = format!("led by {leader} {n}");
        propose(node, &create(&name));
        if last(node, &name).leader == leader {
            return name;
        }
    }
    panic!("no topic went to node {leader}");
}

/// Stops a node and waits until a live one recovers its segment. Returns how long that took.
fn lose(group: &mut Group, lost: u64) -> Duration {
    let topic = topic_led_by(group, lost);
    let lease = group.nodes[&lost].lease();
    assert!(lease.is_valid());
    let watcher = if lost == 1 { 2 } else { 1 };
    group.stop_node(lost);
    let stopped = Instant::now();
    let node = &group.nodes[&watcher];
    eventually("the segment is being recovered", || {
        let Phase::Sealing { recoverer, recoverer_run } = last(node, &topic).phase else { return false };
        assert!(!lease.is_valid(), "its lease still ran when the segment was given away");
        assert_ne!(recoverer, lost);
        assert_eq!(recoverer_run, group.nodes[&recoverer].run_id());
        true
    });
    stopped.elapsed()
}

#[test]
fn the_segments_of_a_lost_node_are_recovered_once_its_lease_is_over() {
    let mut group = Group::start(3);
    let lost = if group.leader() == 3 { 2 } else { 3 };
    let took = lose(&mut group, lost);
    println!("a node was lost: its segment was taken over after {took:?}");
}

#[test]
fn also_if_the_raft_leader_is_lost_with_them() {
    let mut group = Group::start(3);
    let lost = group.leader();
    let took = lose(&mut group, lost);
    println!("the Raft leader was lost: its segment was taken over after {took:?}");
}

#[test]
fn what_an_earlier_run_led_is_recovered_at_once() {
    let mut group = Group::start(3);
    let back = if group.leader() == 3 { 2 } else { 3 };
    let topic = topic_led_by(&group, back);
    let old_run = group.nodes[&back].run_id();
    group.stop_node(back);
    group.start_node(back, &[]);
    eventually("the segment is being recovered", || {
        let segment = last(&group.nodes[&back], &topic);
        assert_eq!(segment.leader_run, old_run);
        matches!(segment.phase, Phase::Sealing { .. })
    });
}

#[test]
fn a_recoverer_that_is_lost_is_replaced() {
    let mut group = Group::start(3);
    let (leader, lost) = (group.leader(), if group.leader() == 3 { 2 } else { 3 });
    let node = group.nodes[&leader].clone();
    // The recoverer is to be the node that will be lost.
    let mut found = None;
    for n in 0..200 {
        let topic = format!("t{n}");
        let Outcome::Created(topic_id) = propose(&node, &create(&topic)) else { panic!("the name is new") };
        let at = SegmentAt { uid: SegmentUid { topic_id, number: 1 }, epoch: 1 };
        propose(&node, &Command::BeginSeal { segments: vec![at], recoverers: Vec::new() });
        if matches!(last(&node, &topic).phase, Phase::Sealing { recoverer, .. } if recoverer == lost) {
            found = Some(topic);
            break;
        }
    }
    let topic = found.expect("some segment is recovered by it");
    group.stop_node(lost);
    eventually("another one recovers it under a newer epoch", || {
        let segment = last(&node, &topic);
        matches!(segment.phase, Phase::Sealing { recoverer, .. } if recoverer != lost) && segment.epoch == 3
    });
}

#[test]
fn a_raft_leader_that_resigns_leaves_no_gap_in_the_leases() {
    let mut group = Group::start(3);
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    for _ in 0..3 {
        let leader = group.leader();
        eventually("all have leases", || group.nodes.values().all(|node| node.lease().is_valid()));
        let others: Vec<Metadata> =
            group.nodes.iter().filter(|(node_id, _)| **node_id != leader).map(|(_, node)| node.clone()).collect();
        let done = AtomicBool::new(false);
        let watched = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut shortest_ms = u64::MAX;
                while !done.load(Ordering::Relaxed) {
                    shortest_ms = others.iter().map(|node| node.lease().remaining_ms()).fold(shortest_ms, u64::min);
                    std::thread::sleep(Duration::from_millis(1));
                }
                shortest_ms
            });
            runtime.block_on(group.nodes[&leader].resign());
            group.stop_node(leader);
            propose(&others[0], &create(&format!("after {leader}")));
            done.store(true, Ordering::Relaxed);
            watcher.join().expect("no panic")
        });
        println!("the shortest lease while node {leader} resigned had {watched} ms left");
        assert!(watched > 0, "a lease ran out");
        assert_ne!(others[0].leader(), Some(leader));
        group.start_node(leader, &[]);
    }
}

#[test]
fn a_live_node_loses_nothing_when_the_raft_leader_changes() {
    let mut group = Group::start(3);
    let lost = group.leader();
    let kept = if lost == 3 { 2 } else { 3 };
    let topic = topic_led_by(&group, kept);
    let lost_topic = topic_led_by(&group, lost);
    group.stop_node(lost);
    // Once the lost node's segment was given away, the live one's would have been, too.
    eventually("the lost one's segment is being recovered", || {
        matches!(last(&group.nodes[&kept], &lost_topic).phase, Phase::Sealing { .. })
    });
    assert_eq!(last(&group.nodes[&kept], &topic).phase, Phase::Open);
    assert!(group.nodes[&kept].lease().is_valid());
}
