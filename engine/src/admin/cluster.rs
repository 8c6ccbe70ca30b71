//! The cluster as one node sees it: its own metadata, and what the other nodes say of themselves.
//!
//! The others are asked with `METRICS` on their client port, as any client would, at most once in
//! [`MAX_AGE`] however many people look, and not at all while nobody does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::broker::Broker;
use crate::client::{Client, ClientConfig};
use crate::clock::now_ms;
use crate::metadata::state::{NodeInfo, Phase, State};
use crate::status;

/// An answer is reused for this long, whoever asks.
const MAX_AGE: Duration = Duration::from_millis(250);
/// Longest wait for another node's answer; then it is shown as out of reach.
const NODE_TIMEOUT: Duration = Duration::from_millis(400);
/// Longest wait for all of them: a name server may take longer than any node.
const ANSWERS_TIMEOUT: Duration = Duration::from_secs(1);
/// Topics that are listed; the number of all stands beside them.
const TOPICS_MAX: usize = 200;

/// Raft ids hold a generation above the node id (a node that lost its disk comes back with a new one).
const NODE_ID_MASK: u64 = 0xffff;

/// Makes `/status.json`.
pub(super) struct ClusterView {
    broker: Arc<Broker>,
    last: Mutex<Option<(Instant, Bytes)>>,
}

impl ClusterView {
    pub(super) fn new(broker: Arc<Broker>) -> Self {
        ClusterView { broker, last: Mutex::new(None) }
    }

    /// The picture, no older than [`MAX_AGE`].
    pub(super) async fn json(&self) -> Bytes {
        // Held while the nodes are asked: whoever comes meanwhile gets the same answer.
        let mut last = self.last.lock().await;
        if let Some((made, json)) = &*last
            && made.elapsed() < MAX_AGE
        {
            return json.clone();
        }
        let json = Bytes::from(self.picture().await.to_string());
        *last = Some((Instant::now(), json.clone()));
        json
    }

    async fn picture(&self) -> Value {
        let me = self.broker.config.node_id;
        let own = status::metrics_value(&self.broker);
        let known = self.broker.metadata.view(|state| state.nodes.clone());
        let mut asked = JoinSet::new();
        for (&node_id, info) in known.iter().filter(|(node_id, _)| **node_id != me) {
            let addr = info.client_address.clone();
            asked.spawn_blocking(move || (node_id, ask(&addr)));
        }
        let mut answers = vec![(me, Some(own.clone()))];
        let deadline = tokio::time::Instant::now() + ANSWERS_TIMEOUT;
        while let Ok(Some(answer)) = tokio::time::timeout_at(deadline, asked.join_next()).await {
            // A task that failed is a node without an answer.
            answers.extend(answer.ok());
        }
        let answer_of =
            |node_id: u64| answers.iter().find(|(id, _)| *id == node_id).and_then(|(_, answer)| answer.as_ref());
        self.broker.metadata.view(|state| {
            let nodes: Vec<Value> =
                known.iter().map(|(&id, info)| node(state, &own, id, info, answer_of(id))).collect();
            let topics: Vec<Value> =
                state.topics.iter().take(TOPICS_MAX).map(|(name, info)| self.topic(name, info)).collect();
            json!({
                "node_id": me,
                "at_ms": now_ms(),
                "version": env!("CARGO_PKG_VERSION"),
                "not_ready": status::not_ready(&self.broker),
                "raft": {
                    "leader": own["current_leader"].as_u64().map(|id| id & NODE_ID_MASK),
                    "term": own["current_term"],
                    "last_applied": own["last_applied"]["index"],
                },
                "nodes": nodes,
                "topics": topics,
                "topics_total": state.topics.len(),
                "segments_total": own["walrus"]["segments"],
                "under_replicated": own["walrus"]["under_replicated"],
                "possible_losses": own["walrus"]["possible_losses"],
            })
        })
    }

    fn topic(&self, name: &str, info: &crate::metadata::state::TopicInfo) -> Value {
        let last = info.last();
        // A node without a copy of the open segment knows its start only.
        let next_offset = self.broker.topics.get(name).map_or(last.base_offset, |topic| topic.tail());
        json!({
            "topic": name,
            "leader": last.leader,
            "phase": match last.phase {
                Phase::Open => "open",
                Phase::Sealing { .. } => "sealing",
                Phase::Sealed { .. } => "sealed",
            },
            "segment": last.number,
            "segments": info.segments.len(),
            "epoch": last.epoch,
            "first_offset": info.first_offset(),
            "next_offset": next_offset,
            "replicas": last.replicas.iter().map(|replica| replica.node_id).collect::<Vec<_>>(),
            "replicas_wanted": info.config.replicas,
            "write_quorum": last.write_quorum,
            "tier": info.config.tier,
            "losses": info.losses,
        })
    }
}

/// One row of the table of nodes. `answer` is what the node says of itself, if it says anything.
fn node(state: &State, own: &Value, id: u64, info: &NodeInfo, answer: Option<&Value>) -> Value {
    let leads = state.topics.values().filter(|topic| topic.last().leader == id).count();
    let stores = |replicas: &[crate::metadata::state::Replica]| replicas.iter().any(|replica| replica.node_id == id);
    let segments: usize = state
        .topics
        .values()
        .map(|topic| topic.segments.iter().filter(|segment| stores(&segment.replicas)).count())
        .sum();
    let of = |key: &str| answer.map_or(Value::Null, |answer| answer["walrus"][key].clone());
    let applied = |metrics: &Value| metrics["last_applied"]["index"].as_u64();
    json!({
        "node_id": id,
        "client_address": info.client_address,
        "peer_address": info.peer_address,
        "reachable": answer.is_some(),
        "ready": of("ready"),
        "raft_role": role(own, id),
        "raft_state": answer.map_or(Value::Null, |answer| answer["state"].clone()),
        "applied": answer.and_then(applied),
        "lease_left_ms": of("lease_left_ms"),
        "leads": leads,
        "segments": segments,
        "connections": of("connections"),
        "records_in": of("records_in"),
        "bytes_in": of("bytes_in"),
        "bytes_out": of("bytes_out"),
        "free_bytes": of("free_bytes"),
        "uptime_ms": of("uptime_ms"),
        "version": of("version"),
    })
}

/// `voter` or `learner`, or nothing if Raft does not know the node (any more).
fn role(own: &Value, id: u64) -> Option<&'static str> {
    let membership = &own["membership_config"]["membership"];
    let is_node = |raft_id: u64| raft_id & NODE_ID_MASK == id;
    let votes = |config: &Value| config.as_array().is_some_and(|ids| ids.iter().filter_map(Value::as_u64).any(is_node));
    if membership["configs"].as_array().is_some_and(|configs| configs.iter().any(votes)) {
        return Some("voter");
    }
    let known = membership["nodes"].as_object()?;
    known.keys().filter_map(|key| key.parse().ok()).any(is_node).then_some("learner")
}

/// `METRICS` of another node. Blocks for [`NODE_TIMEOUT`] twice at most.
fn ask(addr: &str) -> Option<Value> {
    let config =
        ClientConfig { connect_timeout: NODE_TIMEOUT, request_timeout: NODE_TIMEOUT, ..ClientConfig::new(addr) };
    let mut client = Client::with_config(config).ok()?;
    serde_json::from_str(client.metrics().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_found_through_the_generations_of_a_node() {
        let own = json!({ "membership_config": { "membership": {
            "configs": [[1, 65536 + 2]], "nodes": { "1": {}, "65538": {}, "3": {} },
        }}});
        assert_eq!(role(&own, 1), Some("voter"));
        assert_eq!(role(&own, 2), Some("voter"));
        assert_eq!(role(&own, 3), Some("learner"));
        assert_eq!(role(&own, 4), None);
    }
}
