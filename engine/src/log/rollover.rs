//! From one segment to the next: because it is full, old, or failed.
//!
//! The leader stops assigning, waits until what is in flight is committed, and proposes to close the
//! segment there. From then on it neither assigns nor delivers in it, whatever it hears or does not
//! hear: it repeats the identical proposal until its metadata show what became of it. What cannot
//! be committed in time is left to a recovery. The [`super::reconciler`] opens what comes next,
//! here or on another node.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::cursor;
use super::topic::{Topic, Writing};
use crate::broker::Broker;
use crate::clock::now_ms;
use crate::error::Refusal;
use crate::metadata::MetadataError;
use crate::metadata::state::{Closing, Command, Phase, Placement, SegmentAt};
use crate::protocol::ErrorCode;
use crate::store::{Segment, StoreError};

/// Free space at which a full disk counts as usable again.
const FREE_BYTES_MIN: u64 = 4 << 20;
/// How often a full disk is looked at.
const SPACE_CHECK: Duration = Duration::from_millis(200);
/// Longest wait for what is in flight to be committed, before a recovery is asked for.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);
/// Pause before a proposal is repeated.
const REPEAT: Duration = Duration::from_millis(20);
/// Segments in one command.
const LIST_MAX: usize = 1000;

/// Starts the rollover of `segment`, unless it is under way or done. `failure` is what made the
/// segment unusable, if anything did.
pub fn start(broker: &Arc<Broker>, topic: &Arc<Topic>, segment: &Segment, failure: Option<&StoreError>) {
    if !stop_assigning(topic, segment, failure) {
        return;
    }
    let full_disk = matches!(failure, Some(StoreError::DiskFull));
    if let Some(error) = failure {
        tracing::error!(topic = %topic.name, segment = segment.spec().uid.number, %error, "a segment failed and is being sealed");
    }
    let (broker, topic, segment) = (Arc::clone(broker), Arc::clone(topic), segment.clone());
    tokio::spawn(async move {
        match close(&broker, &topic, &segment).await {
            Ok(closing) => propose(&broker, vec![(Arc::clone(&topic), closing)]).await,
            Err(at) => begin_seal(&broker, vec![at]).await,
        }
        if full_disk {
            wait_for_space(&broker).await;
            topic.change(|chain| {
                chain.waits_for_space = false;
                if matches!(chain.writing, Writing::Refusing(_)) {
                    chain.writing = Writing::Open;
                }
            });
        }
    });
}

/// Closes the open segments of many topics that this node leads, with few commands; returns once
/// the metadata show what became of them. Whoever leads next is the Raft leader's choice.
pub async fn hand_over(broker: &Arc<Broker>, topics: Vec<Arc<Topic>>) {
    let mut closings = JoinSet::new();
    for topic in topics {
        let open = topic.chain().last().segment.clone();
        if let Some(segment) = open.filter(|segment| stop_assigning(&topic, segment, None)) {
            let broker = Arc::clone(broker);
            closings.spawn(async move { close(&broker, &topic, &segment).await.map(|closing| (topic, closing)) });
        }
    }
    let (mut drained, mut stuck) = (Vec::new(), Vec::new());
    while let Some(closing) = closings.join_next().await {
        match closing {
            Ok(Ok(closing)) => drained.push(closing),
            Ok(Err(at)) => stuck.push(at),
            // A task that panicked has said so.
            Err(_) => {}
        }
    }
    while !drained.is_empty() {
        let some = drained.split_off(drained.len().saturating_sub(LIST_MAX));
        propose(broker, some).await;
    }
    begin_seal(broker, stuck).await;
}

/// From now on the topic waits for its next segment. False: it does so already, or is led elsewhere.
fn stop_assigning(topic: &Topic, segment: &Segment, failure: Option<&StoreError>) -> bool {
    let meanwhile = match failure {
        // Waiting for space could take for ever, so writers are told.
        Some(error @ StoreError::DiskFull) => Writing::Refusing(error.clone().into()),
        _ => Writing::RollingOver,
    };
    topic.change(|chain| {
        let mine = chain.last().number == segment.spec().uid.number && matches!(chain.writing, Writing::Open);
        if mine {
            chain.writing = meanwhile;
            chain.waits_for_space = matches!(failure, Some(StoreError::DiskFull));
        }
        mine
    })
}

/// Waits for what is in flight, stops the cursors, and says how the segment is to be closed. `Err`:
/// only a recovery can find out where it ends.
async fn close(broker: &Broker, topic: &Topic, segment: &Segment) -> Result<Closing, SegmentAt> {
    segment.close();
    let at = SegmentAt { uid: segment.spec().uid, epoch: segment.spec().epoch };
    let count = drain(broker, segment).await.ok_or(at)?;
    // Delivered from now on would be delivered twice.
    topic.change(|chain| chain.cursors_here = false);
    Ok(Closing {
        segment: at,
        count,
        bytes: segment.size_bytes(),
        possible_loss: false,
        holders: None,
        next: Placement::default(),
        cursors: cursor::final_positions(topic).await,
    })
}

/// The final count, once everything that was assigned is committed.
async fn drain(broker: &Broker, segment: &Segment) -> Option<u64> {
    // Closed, so this is the final length, if everything up to it is committed.
    let assigned = segment.next_index();
    if !segment.has_other_copies() {
        // What failed was never acknowledged, and nobody else has it.
        let _ = segment.wait_watermark(assigned).await;
        return Some(segment.watermark());
    }
    let drained = tokio::time::timeout(DRAIN_TIMEOUT, segment.wait_committed(assigned)).await;
    match drained {
        Ok(Ok(())) if segment.failure().is_none() && broker.lease.is_valid() => Some(assigned),
        _ => None,
    }
}

/// Proposes the closings until the metadata show the segments closed, or being recovered; in smaller
/// commands if they are too large for one.
async fn propose(broker: &Broker, mut closings: Vec<(Arc<Topic>, Closing)>) {
    let stopped = broker.stopped();
    tokio::pin!(stopped);
    let mut most = closings.len();
    loop {
        closings.retain(|(_, closing)| is_open(broker, closing.segment));
        if closings.is_empty() {
            return;
        }
        let list = closings.iter().take(most).map(|(_, closing)| closing.clone()).collect();
        let proposal = broker.metadata.propose(Command::SealAndOpen { closings: list, at_ms: now_ms() });
        let outcome = tokio::select! {
            outcome = proposal => outcome,
            () = &mut stopped => return,
        };
        match outcome {
            Ok(_) => {}
            Err(error) if may_pass(&error) => tokio::time::sleep(REPEAT).await,
            Err(MetadataError::TooLarge { .. }) if most > 1 => most /= 2,
            // Rather deliver some records again than take no more.
            Err(MetadataError::TooLarge { .. }) if !closings[0].1.cursors.is_empty() => closings[0].1.cursors.clear(),
            Err(error) => return refuse(&closings, &error.into()),
        }
    }
}

fn refuse(closings: &[(Arc<Topic>, Closing)], refusal: &Refusal) {
    for (topic, _) in closings {
        if refusal.code != ErrorCode::NotReady {
            tracing::error!(topic = %topic.name, error = %refusal, "the topic takes no more records");
        }
        topic.change(|chain| chain.writing = Writing::Refusing(refusal.clone()));
    }
}

/// Does this node's metadata show the segment open, at this epoch?
fn is_open(broker: &Broker, at: SegmentAt) -> bool {
    broker.metadata.view(|state| {
        state.topic_by_id(at.uid.topic_id).is_some_and(|(_, topic)| {
            let last = topic.last();
            last.number == at.uid.number && last.epoch == at.epoch && last.phase == Phase::Open
        })
    })
}

/// Will the same proposal perhaps be taken later?
fn may_pass(error: &MetadataError) -> bool {
    matches!(
        error,
        MetadataError::NoLeader | MetadataError::Unknown | MetadataError::TooFewNodes { .. } | MetadataError::Full
    )
}

/// Has segments recovered, by whomever the Raft leader names: asks until the metadata show that it
/// has happened.
pub async fn begin_seal(broker: &Broker, mut segments: Vec<SegmentAt>) {
    let stopped = broker.stopped();
    tokio::pin!(stopped);
    loop {
        // Anything newer than what was meant is somebody else's business.
        segments.retain(|at| is_last(broker, *at));
        let some: Vec<SegmentAt> = segments.iter().copied().take(LIST_MAX).collect();
        if some.is_empty() {
            return;
        }
        let proposal = broker.metadata.propose(Command::BeginSeal { segments: some, recoverers: Vec::new() });
        let outcome = tokio::select! {
            outcome = proposal => outcome,
            () = &mut stopped => return,
        };
        match outcome {
            Ok(_) => {}
            Err(error) if may_pass(&error) => tokio::time::sleep(REPEAT).await,
            Err(error) => return tracing::error!(%error, "segments of an earlier run cannot be recovered"),
        }
    }
}

fn is_last(broker: &Broker, at: SegmentAt) -> bool {
    broker.metadata.view(|state| {
        state
            .topic_by_id(at.uid.topic_id)
            .is_some_and(|(_, topic)| topic.last().number == at.uid.number && topic.last().epoch == at.epoch)
    })
}

async fn wait_for_space(broker: &Broker) {
    let stopping = broker.stopping();
    tokio::pin!(stopping);
    while broker.store.free_bytes() < FREE_BYTES_MIN {
        tokio::select! {
            () = tokio::time::sleep(SPACE_CHECK) => {}
            () = &mut stopping => return,
        }
    }
}

/// The refusal for what needs a leader while there is none.
pub fn no_leader() -> Refusal {
    Refusal::new(ErrorCode::NotReady, "the topic has no leader now; nothing was done")
}

/// The refusal for records whose next segment does not come in time.
pub fn too_slow() -> Refusal {
    Refusal::new(ErrorCode::NotReady, "the topic has no leader that can take records now; nothing was stored")
}
