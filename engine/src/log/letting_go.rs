//! Nodes that are to leave are named by sealed segments no more, once the copies that stay are enough
//! and known to be whole.
//!
//! Metadata name a copy that is still being completed like any other, so each of the others is asked
//! for the segment's last record first. Of the nodes that stay the one with the lowest id does so.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use super::calls::call;
use super::messages::{Call, CallReply};
use super::topic::spec;
use crate::broker::Broker;
use crate::metadata::state::{Command, Phase, Replica, SegmentInfo, State, TopicInfo};
use crate::store::SegmentSpec;
use crate::types::SegmentUid;

/// Segments in one round.
const SEGMENTS_MAX: usize = 256;

/// A sealed segment that names a leaving node and need not.
struct Parting {
    spec: SegmentSpec,
    count: u64,
    from: Vec<Replica>,
    to: Vec<Replica>,
}

/// Looks once at all segments. `whole`: those of which this node's own copy was found whole.
pub async fn round(broker: &Arc<Broker>, whole: &HashSet<SegmentUid>) {
    let partings = broker.metadata.view(|state| plan(broker, state, whole));
    let mut short = HashSet::new();
    for Parting { spec, count, from, to } in partings {
        // Asked once a round: a node that does not answer would hold up all the others.
        if to.iter().any(|replica| short.contains(&replica.node_id)) {
            continue;
        }
        if let Some(node_id) = first_that_lacks(broker, spec, count, &to).await {
            tracing::debug!(segment = %spec.uid, "node {node_id} does not hold all of it yet, so no other may leave");
            short.insert(node_id);
            continue;
        }
        let command = Command::SetReplicas { uid: spec.uid, from, to };
        if let Err(error) = broker.metadata.propose(command).await {
            tracing::debug!(segment = %spec.uid, %error, "a leaving node is still named");
            return;
        }
    }
}

fn plan(broker: &Broker, state: &State, whole: &HashSet<SegmentUid>) -> Vec<Parting> {
    if state.leaving.is_empty() {
        return Vec::new();
    }
    let segments = state.topics.values().flat_map(|topic| topic.segments.iter().map(move |info| (topic, info)));
    segments.filter_map(|(topic, info)| parting(broker, state, topic, info, whole)).take(SEGMENTS_MAX).collect()
}

fn parting(
    broker: &Broker,
    state: &State,
    topic: &TopicInfo,
    info: &SegmentInfo,
    whole: &HashSet<SegmentUid>,
) -> Option<Parting> {
    let Phase::Sealed { count, .. } = info.phase else { return None };
    let leaves = |replica: &Replica| state.leaving.contains(&replica.node_id);
    let exists = |replica: &Replica| state.nodes.get(&replica.node_id).is_some_and(|n| n.disk_id == replica.disk_id);
    let to: Vec<Replica> = info.replicas.iter().filter(|one| exists(one) && !leaves(one)).cloned().collect();
    let me = broker.config.node_id;
    let asks = to.iter().map(|replica| replica.node_id).min() == Some(me);
    let spec = spec(topic.id, &topic.config, info);
    let due = info.replicas.iter().any(leaves)
        && to.len() >= state.wanted_copies(&topic.config)
        && asks
        && whole.contains(&spec.uid);
    due.then(|| Parting { spec, count, from: info.replicas.clone(), to })
}

/// The first of these nodes that is not known to hold the segment to its end.
async fn first_that_lacks(broker: &Arc<Broker>, spec: SegmentSpec, count: u64, nodes: &[Replica]) -> Option<u64> {
    for replica in nodes.iter().filter(|replica| replica.node_id != broker.config.node_id) {
        let last = Call::Read { spec: spec.into(), from: count.saturating_sub(1), max_bytes: 1 };
        match call(broker, replica.node_id, last, &Bytes::new()).await {
            Ok((CallReply::Batches { end_index, .. }, _)) if end_index >= count => {}
            _ => return Some(replica.node_id),
        }
    }
    None
}
