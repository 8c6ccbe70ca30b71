//! Who a node is after its disk was lost, and which directories are refused.

use walrus_engine::metadata::MetadataError;

use crate::support::{Group, create, eventually, open, propose, voters};

#[test]
fn an_empty_node_comes_back_as_another_voter_and_the_old_one_leaves() {
    let mut group = Group::start(3);
    propose(&group.nodes[&1], &create("t"));
    group.stop_node(3);
    group.wipe(3);
    group.start_node(3, &[1, 2]);
    let again = 65_536 + 3;
    eventually("the new id votes instead of the old one", || {
        group.nodes.values().all(|node| voters(node) == [1, 2, again])
    });
    let state = group.state();
    assert_eq!(state.nodes[&3].generation, 1);
    assert!(state.topics.contains_key("t"), "it has learned what it had lost");
    // It is as good a voter as any: the group can lose another node now.
    group.stop_node(1);
    propose(&group.nodes[&3], &create("u"));
}

#[test]
fn an_empty_first_node_without_join_finds_its_cluster_instead_of_founding_another() {
    let mut group = Group::start(3);
    propose(&group.nodes[&1], &create("t"));
    let address = group.addresses[&1].clone();
    group.stop_node(1);
    group.wipe(1);
    let mut setup = group.setup_at(1, &[], &address);
    setup.address_is_known = true;
    group.start_with(setup);
    eventually("it votes under a new id", || group.nodes.values().all(|node| voters(node) == [2, 3, 65_537]));
    assert!(group.state().topics.contains_key("t"));
}

#[test]
fn a_second_cluster_of_one_stops_when_the_first_one_calls() {
    let mut group = Group::start(3);
    let address = group.addresses[&1].clone();
    for node_id in 1..=3 {
        group.stop_node(node_id);
    }
    group.wipe(1);
    // Nobody is there to tell it, so it founds a cluster.
    let setup = group.setup_at(1, &[], &address);
    group.start_with(setup);
    let lone = group.nodes[&1].clone();
    propose(&lone, &create("t"));
    eventually("it has a lease", || lone.lease().is_valid());
    group.start_node(2, &[]);
    group.start_node(3, &[2]);
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let MetadataError::Claimed { member, .. } = runtime.block_on(lone.claimed()) else { panic!("another error") };
    assert!([&group.addresses[&2], &group.addresses[&3]].contains(&&member), "{member}");
    assert!(!lone.lease().is_valid(), "it acknowledges nothing any more");
    assert!(group.nodes[&2].view(|state| !state.topics.contains_key("t")));
    // Nor when it is started again and nobody is there any more to tell it.
    for node_id in 1..=3 {
        group.stop_node(node_id);
    }
    let again = open(group.setup(1, &[]));
    assert!(matches!(again, Err(MetadataError::Claimed { member: by, .. }) if by == member));
}

#[test]
fn a_node_id_that_is_in_use_is_not_given_twice() {
    let mut group = Group::start(3);
    let mut setup = group.setup(3, &[1]);
    setup.dir = group.dir(30);
    let (sender, joined) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(open(setup).map(|(node, _)| node)));
    let kept = group.nodes[&3].run_id();
    propose(&group.nodes[&1], &create("t"));
    assert!(joined.try_recv().is_err(), "it still waits");
    assert_eq!(group.state().nodes[&3].run_id, kept);
    // Once the owner is gone, the id is free.
    group.stop_node(3);
    let other = joined.recv().expect("it answers").expect("it joins");
    assert_ne!(other.run_id(), kept);
    group.nodes.insert(3, other);
    assert_eq!(group.state().nodes[&3].generation, 1);
}

#[test]
fn a_directory_of_another_node_is_refused() {
    let mut group = Group::start(1);
    group.stop_node(1);
    let mut setup = group.setup(2, &[]);
    setup.dir = group.dir(1);
    assert!(matches!(open(setup), Err(MetadataError::OtherNode { node_id: 1, .. })));
}
