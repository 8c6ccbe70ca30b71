//! Keeps this node's topics in step with the metadata.
//!
//! One task follows what is applied. For each topic whose chain has changed it seals, removes and
//! adds links, and then does what the last segment asks of this node:
//!
//! | last segment | this node |
//! |---|---|
//! | open, led by this run | opens it |
//! | open, led by an earlier run of this node | has it recovered: what an earlier run left may be shorter than what others committed |
//! | open, led by another node | keeps a copy if it is in the set; passes writes on |
//! | sealing, this run is named | recovers it |
//! | sealing, an earlier run of this node is named | has it recovered anew |
//! | sealing, another node is named | keeps its copy for that node's questions |

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::leading::Leading;
use super::outgoing::Outgoing;
use super::seal::{self, Recovery};
use super::topic::{Chain, Link, Topic, Writing, spec};
use super::{lock, rollover};
use crate::broker::Broker;
use crate::exec;
use crate::metadata::state::{Phase, Replica, SegmentAt, SegmentInfo, State, TopicInfo};
use crate::store::{Segment, StoreError};
use crate::types::SegmentUid;

/// How long a sealed segment's copies may go on being fed by its leader.
const LINGER: Duration = Duration::from_secs(5);
/// How often that is looked at.
const LINGER_CHECK: Duration = Duration::from_millis(50);
/// Before a segment is handed back that this node was to lead.
const DECLINE_PAUSE: Duration = Duration::from_millis(500);

/// What changed since the last pass.
struct Changes {
    topics: Vec<(String, TopicInfo)>,
    gone: Vec<u64>,
}

/// What a pass found for this node to do, for all topics together.
#[derive(Default)]
struct Work {
    openings: Vec<Opening>,
    /// Left by an earlier run of this node.
    left_open: Vec<SegmentAt>,
    recoveries: Vec<Recovery>,
}

/// A segment that this run leads from now on.
struct Opening {
    topic: Arc<Topic>,
    info: TopicInfo,
    segment: Segment,
    leading: Option<Arc<Leading>>,
}

impl Opening {
    fn at(&self) -> SegmentAt {
        SegmentAt { uid: self.segment.spec().uid, epoch: self.segment.spec().epoch }
    }
}

/// Runs until the broker stops.
pub async fn run(broker: Arc<Broker>) {
    let mut applied = broker.metadata.applied();
    let stopped = broker.stopped();
    tokio::pin!(stopped);
    let mut seen = HashMap::new();
    loop {
        let index = *applied.borrow_and_update();
        let changes = broker.metadata.view(|state| changes(state, &mut seen));
        if !changes.topics.is_empty() || !changes.gone.is_empty() {
            let reconciling = Arc::clone(&broker);
            let runtime = tokio::runtime::Handle::current();
            let pass = exec::spawn_blocking(move || {
                let _entered = runtime.enter();
                reconcile(&reconciling, changes);
            });
            if pass.await.is_err() {
                tracing::error!("a change of the metadata could not be followed");
            }
        }
        broker.reconciled.send_replace(index);
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { return },
            () = &mut stopped => return,
        }
    }
}

/// Topics that changed since `seen`, which is brought up to date.
fn changes(state: &State, seen: &mut HashMap<u64, u64>) -> Changes {
    let mut topics = Vec::new();
    for (name, info) in &state.topics {
        if seen.insert(info.id, info.changed) != Some(info.changed) {
            topics.push((name.clone(), info.clone()));
        }
    }
    let mut gone = Vec::new();
    if seen.len() > state.topics.len() {
        seen.retain(|id, _| {
            let there = state.topic_by_id(*id).is_some();
            if !there {
                gone.push(*id);
            }
            there
        });
    }
    Changes { topics, gone }
}

/// Blocks: fences and files may be flushed.
fn reconcile(broker: &Arc<Broker>, changes: Changes) {
    for id in changes.gone {
        if let Some(topic) = broker.topics.by_id(id) {
            remove(broker, &topic);
        }
    }
    let mut work = Work::default();
    for (name, info) in changes.topics {
        let topic = broker.topics.by_id(info.id).unwrap_or_else(|| {
            let topic = Arc::new(Topic::new(&name, &info));
            broker.topics.insert(&topic);
            topic
        });
        follow_chain(broker, &topic, &info);
        follow_last(broker, &topic, info, &mut work);
    }
    open(broker, work.openings);
    if !work.left_open.is_empty() {
        let broker = Arc::clone(broker);
        tokio::spawn(async move { rollover::begin_seal(&broker, work.left_open).await });
    }
    if !work.recoveries.is_empty() {
        tokio::spawn(seal::run(Arc::clone(broker), work.recoveries));
    }
}

/// Seals and removes links as the metadata show them, and adds those that are new.
fn follow_chain(broker: &Arc<Broker>, topic: &Topic, info: &TopicInfo) {
    let mut removed: Vec<Link> = Vec::new();
    topic.change(|chain| {
        let mut old = std::mem::take(&mut chain.links);
        for segment in &info.segments {
            while old.front().is_some_and(|link| link.number < segment.number) {
                // Trimmed, or sealed at 0.
                removed.extend(old.pop_front());
            }
            let known = old.front().is_some_and(|link| link.number == segment.number);
            let link = if known { old.pop_front() } else { None };
            chain.links.push_back(follow_segment(broker, topic, segment, link));
        }
        removed.extend(old);
    });
    let uids: Vec<SegmentUid> =
        removed.into_iter().map(|link| SegmentUid { topic_id: topic.id, number: link.number }).collect();
    discard(broker, &uids);
}

fn follow_segment(broker: &Arc<Broker>, topic: &Topic, segment: &SegmentInfo, link: Option<Link>) -> Link {
    let mut link = link.unwrap_or(Link {
        number: segment.number,
        epoch: segment.epoch,
        base_offset: segment.base_offset,
        sealed_count: None,
        segment: None,
    });
    link.epoch = segment.epoch;
    link.base_offset = segment.base_offset;
    if let Phase::Sealed { count, .. } = segment.phase {
        let named = is_named(broker, &segment.replicas);
        let fresh = link.sealed_count.replace(count).is_none();
        if fresh {
            link.segment = end(broker, topic, segment, count, link.segment.take());
        } else if named && link.segment.is_none() {
            link.segment = Some(broker.store.sealed(spec(topic.id, &topic.config, segment), count));
        }
        // (A repair may be fetching a copy at this moment that is named only once it is whole.)
        if !named && (fresh || link.segment.is_some()) {
            discard(broker, &[SegmentUid { topic_id: topic.id, number: link.number }]);
            link.segment = None;
        }
    }
    link
}

/// Ends this node's copy of a segment that was sealed.
fn end(
    broker: &Arc<Broker>,
    topic: &Topic,
    segment: &SegmentInfo,
    count: u64,
    copy: Option<Segment>,
) -> Option<Segment> {
    let uid = SegmentUid { topic_id: topic.id, number: segment.number };
    let copy = broker.copies.remove(uid).map(|copy| copy.segment).or(copy);
    if let Some(copy) = &copy {
        copy.end_at(count);
    }
    release(broker, uid, count);
    match copy {
        None if is_named(broker, &segment.replicas) => {
            Some(broker.store.sealed(spec(topic.id, &topic.config, segment), count))
        }
        copy => copy,
    }
}

/// The leader's side of a segment that was sealed: it may feed who lacks something for a while.
fn release(broker: &Arc<Broker>, uid: SegmentUid, count: u64) {
    let Some((_, leading)) = broker.led.get(uid) else { return };
    let broker = Arc::clone(broker);
    tokio::spawn(async move {
        let given_up = tokio::time::Instant::now() + LINGER;
        while leading.lacking(count) && tokio::time::Instant::now() < given_up {
            tokio::time::sleep(LINGER_CHECK).await;
        }
        broker.led.remove(uid);
    });
}

fn follow_last(broker: &Arc<Broker>, topic: &Arc<Topic>, info: TopicInfo, work: &mut Work) {
    let me = broker.config.node_id;
    let run = broker.metadata.run_id();
    let last = info.last();
    let at = SegmentAt { uid: SegmentUid { topic_id: topic.id, number: last.number }, epoch: last.epoch };
    let mine = last.leader == me && last.leader_run == run;
    match last.phase {
        Phase::Open if mine => {
            if !is_led(topic, last.number) {
                work.openings.push(prepare(broker, topic, info));
            }
        }
        Phase::Open if last.leader == me => {
            work.left_open.push(at);
            set_writing(topic, Writing::RollingOver);
        }
        Phase::Open => {
            keep_copy(broker, topic, last);
            set_writing(topic, Writing::Elsewhere(last.leader));
        }
        Phase::Sealing { recoverer, recoverer_run } => {
            stop_leading(topic);
            keep_copy(broker, topic, last);
            if (recoverer, recoverer_run) == (me, run) {
                work.recoveries.push(Recovery {
                    spec: spec(topic.id, &topic.config, last),
                    replicas: last.replicas.clone(),
                    write_quorum: last.write_quorum as usize,
                });
            } else if recoverer == me {
                work.left_open.push(at);
            }
        }
        // The last segment of a chain is never sealed.
        Phase::Sealed { .. } => {}
    }
}

/// Is the segment open here, or was it closed here by a rollover whose outcome is not known yet?
fn is_led(topic: &Topic, number: u64) -> bool {
    let chain = topic.chain();
    let last = chain.last();
    last.number == number
        && last.segment.as_ref().is_some_and(|segment| segment.spec().epoch == last.epoch)
        && !matches!(chain.writing, Writing::Elsewhere(_))
}

fn set_writing(topic: &Topic, writing: Writing) {
    topic.change(|chain| {
        chain.cursors_here = false;
        chain.writing = writing;
    });
}

/// Another epoch has begun: this node assigns and delivers nothing more.
fn stop_leading(topic: &Topic) {
    topic.change(|chain| {
        if let Some(segment) = &chain.last().segment {
            segment.close();
        }
        chain.cursors_here = false;
        if !matches!(chain.writing, Writing::Refusing(_)) {
            chain.writing = Writing::RollingOver;
        }
    });
}

/// Opens this node's copy of a segment, if it is in the set; reading what an earlier run left of
/// it may take a while.
fn keep_copy(broker: &Arc<Broker>, topic: &Topic, segment: &SegmentInfo) {
    if !is_named(broker, &segment.replicas) || topic.segment(segment.number).is_some() {
        return;
    }
    let spec = spec(topic.id, &topic.config, segment);
    let broker = Arc::clone(broker);
    exec::spawn_blocking(move || open_copy(&broker, spec));
}

/// The copy of a segment that is not sealed, put into its chain.
pub fn open_copy(broker: &Broker, spec: crate::store::SegmentSpec) -> Result<super::copies::Copy, StoreError> {
    let copy = broker.copies.open(&broker.store, spec)?;
    broker.topics.attach(&copy.segment);
    Ok(copy)
}

pub(super) fn is_named(broker: &Broker, replicas: &[Replica]) -> bool {
    let (me, disk_id) = (broker.config.node_id, broker.disk_id());
    replicas.iter().any(|replica| replica.node_id == me && replica.disk_id == disk_id)
}

/// Makes the handle of a segment that this run leads; it takes nothing yet.
fn prepare(broker: &Arc<Broker>, topic: &Arc<Topic>, info: TopicInfo) -> Opening {
    let last = info.last();
    let spec = spec(topic.id, &topic.config, last);
    let me = broker.config.node_id;
    let others: Vec<Arc<Outgoing>> = last
        .replicas
        .iter()
        .filter(|replica| replica.node_id != me)
        .map(|replica| stream_to(broker, replica.node_id))
        .collect();
    let at = SegmentAt { uid: spec.uid, epoch: spec.epoch };
    let (segment, leading) = if last.replicas.len() == 1 {
        (broker.store.create(spec), None)
    } else {
        let needed = topic.config.acks.needed(last.write_quorum as usize, last.replicas.len());
        let leading = Leading::new(at, last.replicas.clone(), needed, others, broker.lease.clone());
        let leading = Arc::new(leading);
        (broker.store.create_observed(spec, Arc::<Leading>::clone(&leading)), Some(leading))
    };
    Opening { topic: Arc::clone(topic), info, segment, leading }
}

/// The stream to a node, started at its first use.
fn stream_to(broker: &Arc<Broker>, node_id: u64) -> Arc<Outgoing> {
    let mut streams = lock(&broker.streams);
    let stream = streams.entry(node_id).or_insert_with(|| {
        let stream = Arc::new(Outgoing::new(node_id, broker.config.pool_bytes));
        tokio::spawn(Arc::clone(&stream).run(Arc::clone(broker)));
        stream
    });
    Arc::clone(stream)
}

/// Opens segments for writing. That this node has copies of them is made durable first, with one
/// flush for all.
fn open(broker: &Arc<Broker>, openings: Vec<Opening>) {
    // Before the flush: who fences one of them meanwhile must be obeyed by the handle that takes records.
    let (openings, late): (Vec<Opening>, Vec<Opening>) =
        openings.into_iter().partition(|opening| broker.copies.insert(&opening.segment));
    if !late.is_empty() {
        decline(broker, late.iter().map(Opening::at).collect());
    }
    let segments: Vec<(Segment, bool)> = openings.iter().map(|opening| (opening.segment.clone(), true)).collect();
    match broker.store.know_copies(&segments) {
        Ok(ahead) => know_ahead(broker, ahead),
        Err(error) => {
            tracing::error!(%error, "segments cannot be opened; others are asked to take them over");
            return decline(broker, openings.iter().map(Opening::at).collect());
        }
    }
    let mut opened = Vec::with_capacity(openings.len());
    for Opening { topic, info, segment, leading } in openings {
        opened.push(segment.clone());
        if let Some(leading) = leading {
            broker.led.insert(&segment, &leading);
            leading.announce(&segment);
        }
        topic.take_cursors(&info);
        topic.change(|chain| lead(chain, segment.clone()));
        if broker.is_leaving() {
            // Whoever chose this node did not know that it is about to stop.
            rollover::start(broker, &topic, &segment, None);
        }
    }
    // Nobody need wait for it, and whoever writes first need not do it.
    exec::spawn_blocking(move || opened.iter().for_each(Segment::make_file_ahead));
}

/// Segments that this node was to lead and cannot: they are recovered, and the next ones may be led
/// elsewhere. Not at once, since it may be this node's turn again.
fn decline(broker: &Arc<Broker>, segments: Vec<SegmentAt>) {
    let broker = Arc::clone(broker);
    tokio::spawn(async move {
        tokio::time::sleep(DECLINE_PAUSE).await;
        rollover::begin_seal(&broker, segments).await;
    });
}

/// Puts what may come next on record, while nobody waits for it.
pub fn know_ahead(broker: &Arc<Broker>, segments: Vec<SegmentUid>) {
    if !segments.is_empty() {
        let store = broker.store.clone();
        exec::spawn_blocking(move || {
            if let Err(error) = store.know_ahead(&segments) {
                tracing::warn!(%error, "segments could not be put on record ahead of time");
            }
        });
    }
}

fn lead(chain: &mut Chain, segment: Segment) {
    if let Some(last) = chain.links.back_mut() {
        last.segment = Some(segment);
    }
    chain.cursors_here = true;
    let refused = chain.waits_for_space && matches!(chain.writing, Writing::Refusing(_));
    if !refused {
        chain.writing = Writing::Open;
    }
}

/// A topic that was deleted.
fn remove(broker: &Arc<Broker>, topic: &Topic) {
    broker.topics.remove(topic);
    let uids: Vec<SegmentUid> = topic.change(|chain| {
        chain.writing = Writing::Deleted;
        chain.cursors_here = false;
        chain.links.iter().map(|link| SegmentUid { topic_id: topic.id, number: link.number }).collect()
    });
    for link in &topic.chain().links {
        if let Some(segment) = &link.segment {
            // What is being written must not come after the removal.
            segment.abandon();
        }
    }
    discard(broker, &uids);
}

/// Removes this node's copies of segments that are no longer wanted here.
fn discard(broker: &Broker, uids: &[SegmentUid]) {
    for uid in uids {
        if let Some(copy) = broker.copies.remove(*uid) {
            copy.segment.abandon();
        }
        broker.led.remove(*uid);
    }
    broker.remove_files(uids);
    if let Err(error) = broker.store.forget_fences(uids) {
        tracing::warn!(%error, "the promises for removed segments are kept");
    }
}

/// Removes files of segments that the metadata show gone, or no longer on this node. Only at the
/// start, when the metadata have caught up.
pub fn remove_leftovers(broker: &Broker) -> Result<(), StoreError> {
    let me = Replica { node_id: broker.config.node_id, disk_id: broker.disk_id() };
    let mut leftovers = broker.store.list()?;
    broker.metadata.view(|state| leftovers.retain(|uid| is_leftover(state, *uid, &me)));
    broker.remove_files(&leftovers);
    broker.store.forget_fences_of(|uid| broker.metadata.view(|state| is_leftover(state, uid, &me)))
}

fn is_leftover(state: &State, uid: SegmentUid, me: &Replica) -> bool {
    let Some((_, topic)) = state.topic_by_id(uid.topic_id) else { return uid.topic_id <= state.commands };
    if uid.number >= topic.last().number {
        return false;
    }
    let found = topic.segments.iter().find(|segment| segment.number == uid.number);
    found.is_none_or(|segment| !segment.replicas.contains(me))
}
