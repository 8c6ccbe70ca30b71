//! Keeps sealed segments at full strength, in the background and throttled: each node looks after
//! its own copies.
//!
//! | what it finds | what it does |
//! |---|---|
//! | a copy that metadata name here is short or missing | fetches the rest from another node |
//! | records in it are damaged | puts another node's bytes in their place |
//! | a segment has fewer sound copies than its topic asks for, and none here | fetches a whole one, flushes it, and has itself named by `SetReplicas` |
//!
//! Copies are checked batch by batch as they come. Nodes that could take a copy take turns: the
//! first one in the ring at once, the next one only if that has not happened for a while.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::calls::call;
use super::messages::{Call, CallReply};
use super::topic::{Topic, spec};
use super::{letting_go, lock, reconciler};
use crate::broker::Broker;
use crate::exec;
use crate::metadata::state::{Command, NodeInfo, Phase, Replica, SegmentInfo, State, TopicInfo};
use crate::store::{RawError, Segment, StoreError};
use crate::types::SegmentUid;

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a segment must lack copies before the first node adds one, and each further one.
const GRACE: Duration = Duration::from_secs(5);
/// Bytes fetched at once, and the pause afterwards: about 50 MB/s at most.
const FETCH_BYTES: usize = 1 << 20;
const FETCH_PAUSE: Duration = Duration::from_millis(20);
/// Segments that are worked on in one round.
const JOBS_MAX: usize = 64;

/// Damage that readers came upon: a segment and the record where it begins.
#[derive(Default)]
pub struct Damage {
    found: Mutex<HashSet<(SegmentUid, u64)>>,
}

impl Damage {
    /// A reader could not read this record here.
    pub fn note(&self, uid: SegmentUid, index: u64) {
        lock(&self.found).insert((uid, index));
    }
}

/// What this node knows from earlier rounds.
#[derive(Default)]
struct Memory {
    /// Copies that were found whole in this run.
    whole: HashSet<SegmentUid>,
    /// Since when segments lack copies.
    lacking_since: HashMap<SegmentUid, Instant>,
    /// Topics in which there was nothing to do, with the change of the chain that was looked at.
    settled: HashMap<u64, u64>,
    /// Nodes when that was, and whether they were to leave.
    nodes: Vec<(u64, String, bool)>,
}

/// A sealed segment to work on.
struct Job {
    topic_id: u64,
    info: SegmentInfo,
    /// The copies on disks that exist.
    sound: Vec<Replica>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Named here, not looked at in this run.
    Check,
    /// Lacks a copy, and this node is to hold one.
    Adopt,
}

/// Runs until the broker stops.
pub async fn run(broker: Arc<Broker>) {
    let stopping = broker.stopping();
    tokio::pin!(stopping);
    let mut memory = Memory::default();
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = &mut stopping => return,
        }
        let round = async {
            mend_damage(&broker).await;
            for job in broker.metadata.view(|state| plan(&broker, state, &mut memory)) {
                perform(&broker, job, &mut memory).await;
            }
            letting_go::round(&broker, &memory.whole).await;
        };
        tokio::select! {
            () = round => {}
            () = &mut stopping => return,
        }
    }
}

fn plan(broker: &Broker, state: &State, memory: &mut Memory) -> Vec<Job> {
    let disk = |(id, info): (&u64, &NodeInfo)| (*id, info.disk_id.clone(), state.leaving.contains(id));
    let nodes: Vec<(u64, String, bool)> = state.nodes.iter().map(disk).collect();
    if memory.nodes != nodes {
        memory.settled.clear();
        memory.nodes = nodes;
    }
    let mut jobs = Vec::new();
    for topic in state.topics.values() {
        if memory.settled.get(&topic.id) == Some(&topic.changed) {
            continue;
        }
        let before = jobs.len();
        let settled = plan_topic(broker, state, topic, memory, &mut jobs);
        if settled && jobs.len() == before {
            memory.settled.insert(topic.id, topic.changed);
        }
        if jobs.len() >= JOBS_MAX {
            break;
        }
    }
    jobs
}

/// Adds what there is to do for a topic; true if nothing is waiting for its time.
fn plan_topic(broker: &Broker, state: &State, topic: &TopicInfo, memory: &mut Memory, jobs: &mut Vec<Job>) -> bool {
    let (mut settled, me) = (true, broker.config.node_id);
    let stays = |copies: &[Replica]| copies.iter().filter(|copy| !state.leaving.contains(&copy.node_id)).count();
    for info in &topic.segments {
        if !matches!(info.phase, Phase::Sealed { .. }) || jobs.len() >= JOBS_MAX {
            continue;
        }
        let uid = SegmentUid { topic_id: topic.id, number: info.number };
        let exists =
            |replica: &&Replica| state.nodes.get(&replica.node_id).is_some_and(|node| node.disk_id == replica.disk_id);
        let sound: Vec<Replica> = info.replicas.iter().filter(exists).cloned().collect();
        let kind = if reconciler::is_named(broker, &info.replicas) {
            if memory.whole.contains(&uid) {
                continue;
            }
            Kind::Check
        } else if stays(&sound) < state.wanted_copies(&topic.config) && !state.leaving.contains(&me) {
            settled = false;
            let since = memory.lacking_since.entry(uid).or_insert_with(Instant::now);
            if since.elapsed() < GRACE * turn(broker, state, &sound, uid) {
                continue;
            }
            Kind::Adopt
        } else {
            memory.lacking_since.remove(&uid);
            continue;
        };
        jobs.push(Job { topic_id: topic.id, info: info.clone(), sound, kind });
    }
    settled
}

/// Whose turn it is to take a copy: 1 for the first node in the ring that has none.
fn turn(broker: &Broker, state: &State, sound: &[Replica], uid: SegmentUid) -> u32 {
    let has = |node_id: &&u64| sound.iter().any(|replica| replica.node_id == **node_id);
    let takes = |node_id: &&u64| !has(node_id) && !state.leaving.contains(*node_id);
    let others: Vec<u64> = state.nodes.keys().filter(takes).copied().collect();
    let first = (uid.topic_id + uid.number) as usize % others.len().max(1);
    let mut ring = others.iter().cycle().skip(first).take(others.len());
    1 + ring.position(|node_id| *node_id == broker.config.node_id).unwrap_or(0) as u32
}

async fn perform(broker: &Arc<Broker>, job: Job, memory: &mut Memory) {
    let uid = SegmentUid { topic_id: job.topic_id, number: job.info.number };
    let Some(topic) = broker.topics.by_id(job.topic_id) else { return };
    let done = match job.kind {
        Kind::Check => check(broker, &topic, &job).await,
        Kind::Adopt => adopt(broker, &topic, &job).await,
    };
    match done {
        Ok(()) => {
            memory.whole.insert(uid);
            memory.lacking_since.remove(&uid);
        }
        Err(error) => tracing::info!(segment = %uid, %error, "a copy could not be repaired yet"),
    }
}

/// Completes a copy that metadata name here.
async fn check(broker: &Arc<Broker>, topic: &Arc<Topic>, job: &Job) -> io::Result<()> {
    let Some(segment) = topic.segment(job.info.number) else { return Err(io::ErrorKind::NotFound.into()) };
    let looked_at = segment.clone();
    if blocking(move || looked_at.is_whole()).await? {
        return Ok(());
    }
    if let Some(damaged) = damaged_only(&segment).await? {
        for range in damaged {
            mend(broker, topic, &segment, &job.info, range.start).await?;
        }
        return Ok(());
    }
    let uid = SegmentUid { topic_id: topic.id, number: job.info.number };
    tracing::info!(segment = %uid, "this node's copy is not whole; the rest is fetched");
    if !segment.has_other_copies() || segment.failure().is_some() {
        // A handle that took the copy for whole, or takes nothing any more: what is there is looked at
        // anew.
        broker.copies.remove(uid);
        let fresh = open(broker, topic, &job.info).await?;
        topic.change(|chain| {
            if let Some(link) = chain.links.iter_mut().find(|link| link.number == job.info.number) {
                link.segment = Some(fresh.clone());
            }
        });
        return pull(broker, topic, &fresh, job).await;
    }
    pull(broker, topic, &segment, job).await
}

/// The damaged ranges, if damage is all that is wrong with the copy.
async fn damaged_only(segment: &Segment) -> io::Result<Option<Vec<std::ops::Range<u64>>>> {
    let (segment, count) = (segment.clone(), segment.sealed_count().unwrap_or(0));
    let damaged = blocking(move || match segment.damaged() {
        // There is no file at all.
        Err(StoreError::Io { .. }) => Ok(Vec::new()),
        damaged => damaged,
    })
    .await?;
    let inside = damaged.last().is_some_and(|range| range.end < count);
    Ok(inside.then_some(damaged))
}

/// Fetches a whole copy and has this node named.
async fn adopt(broker: &Arc<Broker>, topic: &Arc<Topic>, job: &Job) -> io::Result<()> {
    let uid = SegmentUid { topic_id: topic.id, number: job.info.number };
    let segment = open(broker, topic, &job.info).await?;
    pull(broker, topic, &segment, job).await?;
    if !segment.finished().await {
        // Perhaps with another handle.
        broker.copies.remove(uid);
        return Err(io::Error::other("the copy could not be ended and flushed"));
    }
    let mut to = job.sound.clone();
    to.push(Replica { node_id: broker.config.node_id, disk_id: broker.disk_id() });
    let command = Command::SetReplicas { uid, from: job.info.replicas.clone(), to };
    broker.metadata.propose(command).await.map_err(io::Error::other)?;
    broker.copies.remove(uid);
    tracing::info!(segment = %uid, "this node holds a copy now");
    Ok(())
}

/// What is here of a copy, ready to take the rest.
async fn open(broker: &Arc<Broker>, topic: &Arc<Topic>, info: &SegmentInfo) -> io::Result<Segment> {
    let spec = spec(topic.id, &topic.config, info);
    let opener = Arc::clone(broker);
    let copy = blocking(move || opener.copies.open(&opener.store, spec)).await?;
    if let Some(failure) = copy.segment.failure() {
        // It takes nothing any more; the next round opens it anew.
        broker.copies.remove(spec.uid);
        return Err(io::Error::other(failure));
    }
    if let Phase::Sealed { count, .. } = info.phase {
        copy.segment.end_at(count);
    }
    Ok(copy.segment)
}

/// Fetches everything that the copy lacks.
async fn pull(broker: &Arc<Broker>, topic: &Topic, segment: &Segment, job: &Job) -> io::Result<()> {
    let count = segment.sealed_count().unwrap_or(0);
    while segment.watermark() < count {
        let from = segment.watermark();
        let bytes = fetch(broker, topic, &job.info, from).await?;
        let (segment, epoch) = (segment.clone(), job.info.epoch.max(segment.promised()));
        blocking(move || store(&segment, epoch, &bytes)).await?;
        tokio::time::sleep(FETCH_PAUSE).await;
    }
    Ok(())
}

fn store(segment: &Segment, epoch: u64, bytes: &Bytes) -> Result<(), RawError> {
    while let Err(error) = segment.append_raw(epoch, bytes) {
        match error {
            RawError::Store(StoreError::PoolEmpty) => std::thread::sleep(FETCH_PAUSE),
            error => return Err(error),
        }
    }
    segment.start_writing();
    Ok(segment.wait_watermark_blocking(segment.next_index())?)
}

/// Whole batches from `from` on, of whichever other copy has them.
async fn fetch(broker: &Arc<Broker>, topic: &Topic, info: &SegmentInfo, from: u64) -> io::Result<Bytes> {
    let spec = spec(topic.id, &topic.config, info).into();
    for replica in info.replicas.iter().filter(|replica| replica.node_id != broker.config.node_id) {
        let read = Call::Read { spec, from, max_bytes: FETCH_BYTES };
        if let Ok((CallReply::Batches { end_index, .. }, bytes)) =
            call(broker, replica.node_id, read, &Bytes::new()).await
            && end_index > from
        {
            return Ok(bytes);
        }
    }
    Err(io::Error::other("no other copy can be read"))
}

/// Mends what readers came upon.
async fn mend_damage(broker: &Arc<Broker>) {
    let found = std::mem::take(&mut *lock(&broker.damage.found));
    for (uid, index) in found {
        let Some(topic) = broker.topics.by_id(uid.topic_id) else { continue };
        let info = broker.metadata.view(|state| {
            let (_, info) = state.topic_by_id(uid.topic_id)?;
            info.segments.iter().find(|segment| segment.number == uid.number).cloned()
        });
        let (Some(segment), Some(info)) = (topic.segment(uid.number), info) else { continue };
        if let Err(error) = mend(broker, &topic, &segment, &info, index).await {
            tracing::warn!(segment = %uid, index, %error, "damaged records cannot be mended");
        }
    }
}

async fn mend(
    broker: &Arc<Broker>,
    topic: &Topic,
    segment: &Segment,
    info: &SegmentInfo,
    index: u64,
) -> io::Result<()> {
    let bytes = fetch(broker, topic, info, index).await?;
    let mended = segment.clone();
    blocking(move || mended.mend(&bytes)).await?;
    tracing::warn!(segment = %segment.spec().uid, index, "damaged records were mended from another copy");
    Ok(())
}

/// Runs what blocks, on a thread that may.
async fn blocking<T: Send + 'static, E: std::error::Error + Send + Sync + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> io::Result<T> {
    exec::spawn_blocking(work).await.map_err(io::Error::other)?.map_err(io::Error::other)
}
