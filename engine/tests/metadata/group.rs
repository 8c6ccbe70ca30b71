//! Three nodes form one group and agree, whatever stops and starts.

use std::time::{Duration, Instant};

use walrus_engine::metadata::Metadata;
use walrus_engine::metadata::state::{Closing, Command, Outcome, Placement, SegmentAt};
use walrus_engine::types::SegmentUid;

use crate::support::{Group, create, eventually, propose, voters};

#[test]
fn a_topic_created_on_any_node_is_the_same_on_all() {
    let group = Group::start(3);
    for (node_id, node) in &group.nodes {
        let name = format!("t{node_id}");
        assert!(matches!(propose(node, &create(&name)), Outcome::Created(_)));
        assert!(node.view(|state| state.topics.contains_key(&name)), "applied where it was proposed");
    }
    let state = group.state();
    assert_eq!(state.topics.len(), 3);
    for topic in state.topics.values() {
        let segment = topic.last();
        assert_eq!((segment.replicas.len(), segment.write_quorum), (3, 2));
        assert_eq!(segment.leader_run, group.nodes[&segment.leader].run_id());
    }
}

/// Followers that hear nothing wait for at least 3 + 3 seconds here: 3 in which they refuse everyone,
/// and 3 of their own timeout. Whoever knows that the leader's process is gone stands after the first 3.
#[test]
fn a_voter_stands_at_once_when_the_leaders_process_is_gone() {
    let mut group = Group::start_with_timeouts(3, 3000..3001);
    let lost = group.leader();
    let before = Instant::now();
    group.stop_node(lost);
    let other = |node: &Metadata| node.leader().is_some_and(|leader| leader != lost);
    eventually("another node leads", || group.nodes.values().any(other));
    let took = before.elapsed();
    assert!(took < Duration::from_millis(5900), "an election timeout was waited for: {took:?}");
}

#[test]
fn the_group_goes_on_without_its_leader_and_takes_it_back() {
    let mut group = Group::start(3);
    propose(&group.nodes[&1], &create("before"));
    let lost = group.leader();
    group.stop_node(lost);
    let survivor = group.nodes.keys().next().copied().expect("two are left");
    propose(&group.nodes[&survivor], &create("without"));
    group.start_node(lost, &[]);
    propose(&group.nodes[&lost], &create("after"));
    assert_eq!(group.state().topics.keys().collect::<Vec<_>>(), ["after", "before", "without"]);
}

#[test]
fn everything_is_there_after_all_have_stopped_and_started_at_other_addresses() {
    let mut group = Group::start(3);
    propose(&group.nodes[&2], &create("t"));
    let before = group.state();
    for node_id in 1..=3 {
        group.stop_node(node_id);
    }
    // The first two find each other through `--join`; the third has nobody's new address.
    group.start_node(1, &[]);
    group.start_node(2, &[1]);
    group.start_node(3, &[1]);
    propose(&group.nodes[&3], &create("u"));
    let after = group.state();
    assert_eq!(after.topics["t"].id, before.topics["t"].id);
    assert!(after.topics.contains_key("u"));
    eventually("the new addresses are registered", || {
        let state = group.state();
        state.nodes.iter().all(|(node_id, node)| node.peer_address == group.addresses[node_id])
    });
}

#[test]
fn without_a_majority_nothing_is_decided() {
    let mut group = Group::start(3);
    let kept = group.leader();
    for node_id in 1..=3 {
        if node_id != kept {
            group.stop_node(node_id);
        }
    }
    let node = &group.nodes[&kept];
    assert!(node.propose_blocking(create("t")).is_err());
    eventually("its lease runs out", || !node.lease().is_valid());
}

#[test]
fn a_group_of_one_is_ready_at_once_and_keeps_its_state() {
    let mut group = Group::start(1);
    propose(&group.nodes[&1], &create("t"));
    group.stop_node(1);
    group.start_node(1, &[]);
    let node = &group.nodes[&1];
    eventually("the topic is there", || node.view(|state| state.topics.contains_key("t")));
    eventually("it votes", || voters(node) == [1]);
}

#[test]
fn a_node_that_is_to_leave_goes_once_no_segment_names_it() {
    let mut group = Group::start(3);
    let node = group.nodes[&1].clone();
    let Outcome::Created(topic_id) = propose(&node, &create("t")) else { panic!("the name is new") };
    assert_eq!(propose(&node, &Command::LeaveNode { node_id: 3, generation: 0 }), Outcome::Applied(vec![true]));
    assert!(node.view(|state| state.nodes.contains_key(&3)), "its copy of the open segment is still needed");
    let closing = Closing {
        segment: SegmentAt { uid: SegmentUid { topic_id, number: 1 }, epoch: 1 },
        count: 10,
        bytes: 100,
        possible_loss: false,
        holders: None,
        next: Placement::default(),
        cursors: Vec::new(),
    };
    propose(&node, &Command::SealAndOpen { closings: vec![closing], at_ms: 2 });
    let uid = SegmentUid { topic_id, number: 1 };
    let from = node.view(|state| state.topics["t"].segments[0].replicas.clone());
    let to = from.iter().filter(|replica| replica.node_id != 3).cloned().collect();
    propose(&node, &Command::SetReplicas { uid, from, to });
    eventually("it is gone", || voters(&node) == [1, 2] && node.view(|state| !state.nodes.contains_key(&3)));
    assert!(node.view(|state| !state.holds_segments(3)));
    // Its id may come again, with an empty directory, as another voter.
    group.stop_node(3);
    group.wipe(3);
    group.start_node(3, &[1]);
    eventually("it votes", || voters(&node) == [1, 2, 65_539]);
}
