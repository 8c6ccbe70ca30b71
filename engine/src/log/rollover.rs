//! From one segment to the next: because it is full, old, or failed.

use std::sync::Arc;
use std::time::Duration;

use super::cursor;
use super::topic::{Link, Topic, Writing, spec};
use crate::broker::{Broker, now_ms};
use crate::error::Refusal;
use crate::metadata::state::{Closing, Command, Outcome, Placement, SegmentAt};
use crate::protocol::ErrorCode;
use crate::store::{Segment, SegmentSpec, StoreError};

/// Free space at which a full disk counts as usable again.
const FREE_BYTES_MIN: u64 = 4 << 20;
/// How often a full disk is looked at.
const SPACE_CHECK: Duration = Duration::from_millis(200);

/// Starts the rollover of `segment`, unless it is under way or done. `failure` is what made the
/// segment unusable, if anything did.
pub fn start(broker: &Arc<Broker>, topic: &Arc<Topic>, segment: &Segment, failure: Option<StoreError>) {
    let number = segment.spec().uid.number;
    let meanwhile = match &failure {
        // Waiting for space could take for ever, so writers are told.
        Some(error @ StoreError::DiskFull) => Writing::Refusing(error.clone().into()),
        _ => Writing::RollingOver,
    };
    let started = topic.change(|chain| {
        let mine = chain.last().number() == number && matches!(chain.writing, Writing::Open);
        if mine {
            chain.writing = meanwhile;
        }
        mine
    });
    if !started {
        return;
    }
    if let Some(error) = &failure {
        tracing::error!(topic = %topic.name, segment = number, %error, "a segment failed and is being sealed");
    }
    let (broker, topic, segment) = (Arc::clone(broker), Arc::clone(topic), segment.clone());
    tokio::spawn(async move { roll_over(&broker, &topic, &segment, failure).await });
}

async fn roll_over(broker: &Arc<Broker>, topic: &Arc<Topic>, segment: &Segment, failure: Option<StoreError>) {
    segment.close();
    // Closed, so this is the final length, if everything up to it becomes durable.
    let settled = segment.wait_watermark(segment.next_index()).await;
    let failure = settled.err().or(failure);
    let count = segment.watermark();
    match close_and_open(broker, topic, segment, count).await {
        Ok(Some(next)) => {
            let refusing = matches!(failure, Some(StoreError::DiskFull));
            replace_last(broker, topic, segment, count, next);
            if refusing {
                wait_for_space(broker).await;
            }
            topic.change(|chain| {
                if !matches!(chain.writing, Writing::Deleted) {
                    chain.writing = Writing::Open;
                }
            });
        }
        // Deleted meanwhile: whoever did it has told everyone.
        Ok(None) => {}
        Err(refusal) => {
            if refusal.code != ErrorCode::NotReady {
                tracing::error!(topic = %topic.name, error = %refusal, "the topic takes no more records");
            }
            topic.change(|chain| chain.writing = Writing::Refusing(refusal));
        }
    }
}

/// Records the closing; returns what the next segment is, or `None` if the topic is gone.
async fn close_and_open(
    broker: &Broker,
    topic: &Topic,
    segment: &Segment,
    count: u64,
) -> Result<Option<SegmentSpec>, Refusal> {
    let moves = cursor::uncommitted(topic).await;
    let closing = Closing {
        segment: SegmentAt { uid: segment.spec().uid, epoch: segment.spec().epoch },
        count,
        bytes: segment.size_bytes(),
        possible_loss: false,
        next: Placement::default(),
        cursors: moves.iter().map(|taken| taken.position.clone()).collect(),
    };
    let outcome = broker.metadata.propose(Command::SealAndOpen { closings: vec![closing], at_ms: now_ms() }).await?;
    let applied = outcome == Outcome::Applied(vec![true]);
    cursor::settle(broker, topic, moves, applied).await;
    if !applied {
        return Ok(None);
    }
    Ok(broker.metadata.view(|state| {
        let (_, info) = state.topic_by_id(topic.id)?;
        Some(spec(topic.id, &info.config, info.last()))
    }))
}

/// Puts the sealed segment and its successor into the chain.
fn replace_last(broker: &Broker, topic: &Topic, segment: &Segment, count: u64, next: SegmentSpec) {
    if let Err(error) = segment.seal(count) {
        // The metadata say where it ends; a footer only makes reading it faster.
        tracing::warn!(topic = %topic.name, %error, "a sealed segment could not be finished");
    }
    let opened = broker.store.create(next);
    topic.change(|chain| {
        let base_offset = chain.last().base_offset + count;
        if count == 0 {
            chain.links.pop_back();
        } else if let Some(last) = chain.links.back_mut() {
            last.sealed_count = Some(count);
        }
        chain.links.push_back(Link { base_offset, sealed_count: None, segment: opened });
    });
    if count == 0 {
        broker.remove_files(&[segment.spec().uid]);
    }
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

/// The refusal for records whose next segment does not come in time.
pub fn too_slow() -> Refusal {
    Refusal::new(ErrorCode::NotReady, "the topic's next segment could not be opened in time; nothing was stored")
}
