//! The Raft log under load: group commit, snapshots, purges, and nodes that need a snapshot.

use std::sync::Arc;

use walrus_engine::metadata::state::{Command, Outcome};

use crate::support::{Group, create, eventually, propose, voters};

/// A command that changes nothing and takes a lot of space.
fn ballast() -> Command {
    Command::DeleteTopic { name: "x".repeat(100_000), id: 0 }
}

fn purged(group: &Group, node_id: u64) -> u64 {
    group.nodes[&node_id].raft_metrics_json()["purged"]["index"].as_u64().unwrap_or(0)
}

#[test]
fn the_log_is_purged_and_a_node_that_missed_it_gets_a_snapshot() {
    let mut group = Group::start(3);
    propose(&group.nodes[&1], &create("before"));
    group.stop_node(3);
    let behind = group.nodes[&1].applied().borrow().to_owned();
    for _ in 0..60 {
        propose(&group.nodes[&1], &ballast());
    }
    propose(&group.nodes[&1], &create("after"));
    eventually("both have purged what the third has not seen", || {
        purged(&group, 1) > behind && purged(&group, 2) > behind
    });
    for node_id in [1, 2] {
        let length = std::fs::metadata(group.dir(node_id).join("log")).expect("is there").len();
        assert!(length < 9 << 20, "the file of node {node_id} has {length} bytes");
    }
    group.start_node(3, &[]);
    let state = group.state();
    assert!(state.topics.contains_key("before") && state.topics.contains_key("after"));
    // What it got is durable.
    group.stop_node(3);
    group.start_node(3, &[]);
    assert!(group.nodes[&3].view(|state| state.topics.contains_key("before")));
    // And an empty node is no different.
    group.stop_node(2);
    group.wipe(2);
    group.start_node(2, &[1]);
    eventually("it votes again", || voters(&group.nodes[&1]) == [1, 3, 65_538]);
    assert_eq!(group.state().topics.len(), 2);
}

#[test]
fn proposals_that_come_together_share_entries_and_each_gets_its_own_outcome() {
    let group = Group::start(3);
    let before = *group.nodes[&1].applied().borrow();
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let (each, nodes) = (200, Arc::new(group.nodes.clone()));
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..each {
            for node_id in 1..=3 {
                let nodes = Arc::clone(&nodes);
                tasks.spawn(async move {
                    let outcome = nodes[&node_id].propose(create(&format!("{node_id}.{n}"))).await;
                    (format!("{node_id}.{n}"), outcome)
                });
            }
        }
        while let Some(task) = tasks.join_next().await {
            let (name, outcome) = task.expect("no panic");
            let Ok(Outcome::Created(id)) = outcome else { panic!("{name}: {outcome:?}") };
            assert_eq!(nodes[&1].view(|state| state.topics.get(&name).map(|topic| topic.id)).unwrap_or(id), id);
        }
    });
    let state = group.state();
    assert_eq!(state.topics.len(), 3 * each);
    let entries = *group.nodes[&1].applied().borrow() - before;
    assert!(entries < 3 * each as u64 / 2, "{entries} entries for {} commands", 3 * each);
    let mut led = std::collections::BTreeMap::new();
    for topic in state.topics.values() {
        *led.entry(topic.last().leader).or_insert(0) += 1;
    }
    assert!(led.values().all(|count| *count > each / 2), "leaders are spread: {led:?}");
}

#[test]
fn after_catching_up_a_node_sees_what_was_answered_anywhere() {
    let group = Group::start(3);
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    for n in 0..50 {
        let name = format!("t{n}");
        propose(&group.nodes[&(n % 3 + 1)], &create(&name));
        let node = &group.nodes[&((n + 1) % 3 + 1)];
        runtime.block_on(node.catch_up()).expect("there is a leader");
        assert!(node.view(|state| state.topics.contains_key(&name)), "{name}");
    }
}
