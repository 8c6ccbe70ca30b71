//! Looks after the segments that this node leads: records that are not committed, and sets that
//! lack a node.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::calls::call;
use super::messages::{Call, CallReply};
use super::rollover;
use super::topic::Topic;
use crate::broker::Broker;

/// How often it looks at records that wait.
const INTERVAL: Duration = Duration::from_millis(50);
/// Records that wait this long to be committed, while the lease runs, have the segment recovered.
const STUCK_AFTER: Duration = Duration::from_millis(1000);
/// How often it looks at the sets.
const STRENGTH_INTERVAL: Duration = Duration::from_secs(1);
/// For so long a set must lack a node, and a spare one be there, before the segment is closed.
const WEAK_AFTER: Duration = Duration::from_secs(5);
/// A topic is not rolled over for this again before so long: the choice is the Raft leader's.
const WEAK_PAUSE: Duration = Duration::from_secs(30);

/// Runs until the broker stops.
pub async fn run(broker: Arc<Broker>) {
    // Side by side: to look at the sets takes as long as the nodes that are asked.
    tokio::join!(watch_commits(&broker), watch_strength(&broker));
}

async fn watch_commits(broker: &Arc<Broker>) {
    let stopping = broker.stopping();
    tokio::pin!(stopping);
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = &mut stopping => return,
        }
        look_at_commits(broker);
    }
}

async fn watch_strength(broker: &Arc<Broker>) {
    let stopping = broker.stopping();
    tokio::pin!(stopping);
    let mut strength = Strength::default();
    loop {
        tokio::select! {
            () = tokio::time::sleep(STRENGTH_INTERVAL) => {}
            () = &mut stopping => return,
        }
        strength.look(broker).await;
    }
}

fn look_at_commits(broker: &Arc<Broker>) {
    let give_up_after = Duration::from_millis(broker.config.write_wait_ms);
    let lease = broker.lease.is_valid();
    for (segment, leading) in broker.led.all() {
        if lease {
            leading.lease_renewed(&segment);
        }
        let Some(waiting) = leading.waiting() else { continue };
        if waiting >= give_up_after {
            segment.give_up();
        }
        if lease
            && waiting >= STUCK_AFTER
            && let Some(topic) = broker.topics.by_id(leading.at.uid.topic_id)
        {
            rollover::start(broker, &topic, &segment, None);
        }
    }
}

/// Sets that lack a node, and nodes that could stand in.
#[derive(Default)]
struct Strength {
    weak_since: HashMap<u64, Instant>,
    rolled_at: HashMap<u64, Instant>,
    spare_since: HashMap<u64, Instant>,
}

impl Strength {
    /// Rolls over what has been weak for long enough, with one command for all.
    async fn look(&mut self, broker: &Arc<Broker>) {
        let weak: Vec<Weak> = broker.topics.all().into_iter().filter_map(|topic| weakness(broker, topic)).collect();
        self.weak_since.retain(|id, _| weak.iter().any(|weak| weak.topic.id == *id));
        if weak.is_empty() {
            self.spare_since.clear();
            return;
        }
        self.probe(broker, weak.iter().flat_map(|weak| weak.spares.iter().copied()).collect()).await;
        let mut due = Vec::new();
        for Weak { topic, spares, leaving } in weak {
            let since = *self.weak_since.entry(topic.id).or_insert_with(Instant::now);
            let spare = spares.iter().any(|node_id| over(self.spare_since.get(node_id), WEAK_AFTER));
            let paused = self.rolled_at.get(&topic.id).is_some_and(|at| at.elapsed() < WEAK_PAUSE);
            if (leaving || (since.elapsed() >= WEAK_AFTER && spare)) && !paused {
                self.rolled_at.insert(topic.id, Instant::now());
                due.push(topic);
            }
        }
        if !due.is_empty() {
            tracing::info!(topics = due.len(), "segments that lack copies are closed; a node can stand in");
            rollover::hand_over(broker, due).await;
        }
    }

    /// Finds out which nodes can be reached, and since when.
    async fn probe(&mut self, broker: &Arc<Broker>, nodes: HashSet<u64>) {
        self.spare_since.retain(|node_id, _| nodes.contains(node_id));
        for node_id in nodes {
            match call(broker, node_id, Call::Ping, &Bytes::new()).await {
                Ok((CallReply::Pong, _)) => {
                    self.spare_since.entry(node_id).or_insert_with(Instant::now);
                }
                _ => {
                    self.spare_since.remove(&node_id);
                }
            }
        }
    }
}

fn over(since: Option<&Instant>, limit: Duration) -> bool {
    since.is_some_and(|since| since.elapsed() >= limit)
}

/// A topic whose open segment is better closed.
struct Weak {
    topic: Arc<Topic>,
    /// Nodes that could stand in.
    spares: HashSet<u64>,
    /// A node of the set is to leave.
    leaving: bool,
}

/// If the topic's open segment lacks a node, or has one that is to leave.
fn weakness(broker: &Broker, topic: Arc<Topic>) -> Option<Weak> {
    if !topic.is_led_here() {
        return None;
    }
    let (set, nodes, full, leaving) = broker.metadata.view(|state| {
        let (_, info) = state.topic_by_id(topic.id)?;
        let set: HashSet<u64> = info.last().replicas.iter().map(|replica| replica.node_id).collect();
        let nodes: HashSet<u64> = state.nodes.keys().filter(|id| !state.leaving.contains(id)).copied().collect();
        let leaving = set.iter().any(|node_id| state.leaving.contains(node_id));
        Some((set, nodes, state.wanted_copies(&topic.config), leaving))
    })?;
    let away =
        || broker.led.get(topic.segment_uid()).is_some_and(|(_, leading)| leading.away_for() >= Some(WEAK_AFTER));
    let spares: HashSet<u64> = nodes.difference(&set).copied().collect();
    let lacks = !spares.is_empty() && (set.len() < full || away());
    (leaving || lacks).then_some(Weak { topic, spares, leaving })
}
