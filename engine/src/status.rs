//! What `STATE`, `METRICS` and `TOPICS` show, as JSON.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::broker::Broker;
use crate::error::Refusal;
use crate::log::topic::{Chain, Route, Topic, Writing};
use crate::metadata::state::{Phase, Replica, State, TopicInfo};

/// What the broker counts. Hot paths add once a read, never once a record.
#[derive(Debug)]
pub struct Counters {
    /// When the process started to serve.
    pub started: Instant,
    /// Connections open now.
    pub connections: AtomicUsize,
    /// Connections that were turned away.
    pub connections_refused: AtomicU64,
    /// Records that this node has taken to store: in a cluster, those of topics that it leads.
    pub records_in: AtomicU64,
    /// Bytes read from connections.
    pub bytes_in: AtomicU64,
    /// Bytes written to connections.
    pub bytes_out: AtomicU64,
    /// Connections closed for a deadline that they missed.
    pub deadlines_missed: AtomicU64,
}

impl Counters {
    /// Records were taken.
    pub fn add_records(&self, records: u64) {
        self.records_in.fetch_add(records, Ordering::Relaxed);
    }
}

impl Default for Counters {
    fn default() -> Self {
        Counters {
            started: Instant::now(),
            connections: AtomicUsize::new(0),
            connections_refused: AtomicU64::new(0),
            records_in: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            deadlines_missed: AtomicU64::new(0),
        }
    }
}

/// `STATE`: first the fields that the original has, then ours.
pub fn topic_state(broker: &Broker, topic: &Topic) -> Result<Vec<u8>, Refusal> {
    let name = &*topic.name;
    let value = broker.metadata.view(|state| state.topics.get(name).map(|info| describe(topic, info)));
    value.map(|value| value.to_string().into_bytes()).ok_or_else(|| Refusal::unknown_topic(name))
}

fn describe(topic: &Topic, info: &TopicInfo) -> Value {
    let last = info.last();
    let mut sealed = Map::new();
    let mut leaders = Map::new();
    let mut possible_loss = Vec::new();
    let mut bytes = topic.chain().last().segment.as_ref().map_or(0, crate::store::Segment::size_bytes);
    for segment in &info.segments {
        leaders.insert(segment.number.to_string(), segment.leader.into());
        if let Phase::Sealed { count, bytes: sealed_bytes, .. } = segment.phase {
            sealed.insert(segment.number.to_string(), count.into());
            bytes += sealed_bytes;
        }
        if segment.possible_loss {
            possible_loss.push(segment.number);
        }
    }
    let chain = topic.chain();
    let cursors: Map<String, Value> =
        info.cursors.iter().map(|(group, cursor)| (group.clone(), cursor.offset.into())).collect();
    json!({
        "current_segment": last.number,
        "leader_node": last.leader,
        "last_sealed_entry_offset": last.base_offset,
        "sealed_segments": sealed,
        "segment_leaders": leaders,
        "topic": &*topic.name,
        "topic_id": info.id,
        "epoch": last.epoch,
        "phase": phase(&last.phase, &chain.writing),
        "replicas": last.replicas.iter().map(|replica| replica.node_id).collect::<Vec<_>>(),
        "write_quorum": last.write_quorum,
        "first_offset": chain.first_offset(),
        "next_offset": chain.last().end_offset(),
        "bytes": bytes,
        "possible_loss": possible_loss,
        "losses": info.losses,
        "cursors": cursors,
        "settings": info.config,
    })
}

fn phase(phase: &Phase, writing: &Writing) -> Value {
    match (phase, writing) {
        (_, Writing::Refusing(refusal)) => json!({ "refusing": refusal.to_string() }),
        (Phase::Sealing { .. }, _) => "sealing".into(),
        (_, Writing::RollingOver) => "rolling-over".into(),
        (Phase::Open, _) => "open".into(),
        (Phase::Sealed { .. }, _) => "sealed".into(),
    }
}

/// Node id of whoever takes the topic's records, `null` while nobody does.
fn leader(broker: &Broker, chain: &Chain) -> Value {
    match chain.route() {
        Route::Here => broker.config.node_id.into(),
        Route::Node(node_id) => node_id.into(),
        Route::Wait | Route::Deleted => Value::Null,
    }
}

/// `TOPICS`: names, heads, tails, leaders, in order of name.
pub fn topics(broker: &Broker) -> Vec<u8> {
    let mut topics = broker.topics.all();
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    let rows: Vec<Value> = topics
        .iter()
        .map(|topic| {
            let chain = topic.chain();
            json!({
                "topic": &*topic.name,
                "first_offset": chain.first_offset(),
                "next_offset": chain.last().end_offset(),
                "leader_node": leader(broker, &chain),
                "segments": chain.links.len(),
            })
        })
        .collect();
    Value::from(rows).to_string().into_bytes()
}

/// `METRICS`: see [`metrics_value`].
pub fn metrics(broker: &Broker) -> Vec<u8> {
    metrics_value(broker).to_string().into_bytes()
}

/// openraft's metrics as they serialise, and ours.
pub fn metrics_value(broker: &Broker) -> Value {
    let mut value = broker.metadata.raft_metrics_json();
    value["walrus"] = ours(broker, &broker.metadata.view(Totals::of));
    value
}

/// What the metadata say of all topics together.
struct Totals {
    topics: usize,
    segments: usize,
    /// Sealed segments with fewer copies, on disks that exist, than there should be.
    under_replicated: usize,
    losses: u64,
}

impl Totals {
    fn of(state: &State) -> Self {
        let exists =
            |replica: &&Replica| state.nodes.get(&replica.node_id).is_some_and(|node| node.disk_id == replica.disk_id);
        let lacks = |info: &TopicInfo| {
            let wanted = state.wanted_copies(&info.config);
            let sealed = info.segments.iter().filter(|segment| matches!(segment.phase, Phase::Sealed { .. }));
            sealed.filter(|segment| segment.replicas.iter().filter(exists).count() < wanted).count()
        };
        Totals {
            topics: state.topics.len(),
            segments: state.topics.values().map(|info| info.segments.len()).sum(),
            under_replicated: state.topics.values().map(lacks).sum(),
            losses: state.topics.values().map(|info| info.losses).sum(),
        }
    }
}

/// Why the node takes no requests now; `None` if it does.
pub fn not_ready(broker: &Broker) -> Option<&'static str> {
    // First: a node that stops resigns from Raft as well.
    if broker.is_leaving() {
        return Some("the node is being stopped");
    }
    if broker.metadata.leader().is_none() {
        return Some("no Raft leader is known");
    }
    if !broker.metadata.lease().is_valid() {
        return Some("the lease has run out");
    }
    (!broker.settled.load(Ordering::Relaxed)).then_some("topics are being opened")
}

/// Topics whose open segment this node leads.
fn topics_led(broker: &Broker) -> usize {
    let me = broker.config.node_id;
    broker.metadata.view(|state| state.topics.values().filter(|info| info.last().leader == me).count())
}

/// What is left of the lease; `None` where there is nobody who could take it.
fn lease_left_ms(broker: &Broker) -> Option<u64> {
    const LONGEST_MS: u64 = 24 * 3_600_000;
    Some(broker.metadata.lease().remaining_ms()).filter(|left| *left < LONGEST_MS)
}

fn ours(broker: &Broker, totals: &Totals) -> Value {
    let counters = &broker.counters;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "backend": broker.store.backend(),
        "disk_id": broker.disk_id(),
        "free_bytes": broker.store.free_bytes(),
        "ready": not_ready(broker).is_none(),
        "lease_left_ms": lease_left_ms(broker),
        "topics_led": topics_led(broker),
        "uptime_ms": counters.started.elapsed().as_millis() as u64,
        "topics": totals.topics,
        "segments": totals.segments,
        "under_replicated": totals.under_replicated,
        "possible_losses": totals.losses,
        "connections": counters.connections.load(Ordering::Relaxed),
        "connections_refused": count(&counters.connections_refused),
        "connection_buffer_bytes": broker.buffers.used_bytes() + broker.replies.used_bytes(),
        "read_ahead_bytes": broker.read_ahead.used_bytes(),
        "deadlines_missed": count(&counters.deadlines_missed),
        "records_in": count(&counters.records_in),
        "bytes_in": count(&counters.bytes_in),
        "bytes_out": count(&counters.bytes_out),
    })
}
