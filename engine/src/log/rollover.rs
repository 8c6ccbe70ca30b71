//! From one segment to the next: because it is full, old, or failed.
//!
//! The leader stops assigning, waits until what is in flight is committed, and proposes to close the
//! segment there. From then on it neither assigns nor delivers in it, whatever it hears or does not
//! hear: it repeats the identical proposal until its metadata show what became of it. What cannot
//! be committed in time is left to a recovery. The [`super::reconciler`] opens what comes next,
//! here or on another node.

use std::sync::Arc;
use std::time::Duration;

use super::cursor;
use super::topic::{Topic, Writing};
use crate::broker::{Broker, now_ms};
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
    let number = segment.spec().uid.number;
    let full_disk = matches!(failure, Some(StoreError::DiskFull));
    let meanwhile = match failure {
        // Waiting for space could take for ever, so writers are told.
        Some(error @ StoreError::DiskFull) => Writing::Refusing(error.clone().into()),
        _ => Writing::RollingOver,
    };
    let started = topic.change(|chain| {
        let mine = chain.last().number == number && matches!(chain.writing, Writing::Open);
        if mine {
            chain.writing = meanwhile;
            chain.waits_for_space = full_disk;
        }
        mine
    });
    if !started {
        return;
    }
    if let Some(error) = failure {
        tracing::error!(topic = %topic.name, segment = number, %error, "a segment failed and is being sealed");
    }
    let (broker, topic, segment) = (Arc::clone(broker), Arc::clone(topic), segment.clone());
    tokio::spawn(async move {
        roll_over(&broker, &topic, &segment).await;
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

async fn roll_over(broker: &Arc<Broker>, topic: &Arc<Topic>, segment: &Segment) {
    segment.close();
    let at = SegmentAt { uid: segment.spec().uid, epoch: segment.spec().epoch };
    let Some(count) = drain(broker, segment).await else {
        return begin_seal(broker, vec![at]).await;
    };
    if let Err(error) = close(broker, topic, segment, at, count).await {
        if error.code != ErrorCode::NotReady {
            tracing::error!(topic = %topic.name, %error, "the topic takes no more records");
        }
        topic.change(|chain| chain.writing = Writing::Refusing(error));
    }
}

/// The final count, once everything that was assigned is committed. `None`: only a recovery can
/// find it out.
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

/// Proposes the closing until the metadata show the segment closed, or being recovered.
async fn close(broker: &Broker, topic: &Topic, segment: &Segment, at: SegmentAt, count: u64) -> Result<(), Refusal> {
    // Delivered from now on would be delivered twice.
    topic.change(|chain| chain.cursors_here = false);
    let cursors = cursor::final_positions(topic).await;
    let closing = Closing {
        segment: at,
        count,
        bytes: segment.size_bytes(),
        possible_loss: false,
        holders: None,
        next: Placement::default(),
        cursors,
    };
    while is_open(broker, at) {
        let command = Command::SealAndOpen { closings: vec![closing.clone()], at_ms: now_ms() };
        match broker.metadata.propose(command).await {
            Ok(_) => {}
            Err(error) if may_pass(&error) => tokio::time::sleep(REPEAT).await,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
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
    matches!(error, MetadataError::NoLeader | MetadataError::Unknown | MetadataError::TooFewNodes { .. })
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
