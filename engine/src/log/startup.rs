//! What happens before the first client is served: everything that an earlier run left open is
//! sealed at the length that recovery finds, and each topic gets a fresh segment.
//!
//! A started process never appends to a segment that it finds open under its own name: that
//! segment belongs to a run that is over.

use std::collections::HashSet;

use super::topic::spec;
use crate::broker::{Broker, now_ms};
use crate::error::Refusal;
use crate::metadata::state::{Closing, Command, Placement, SegmentAt, State, TopicInfo};
use crate::protocol::ErrorCode;
use crate::store::SegmentSpec;
use crate::types::SegmentUid;

/// Segments in one command, so that it stays small.
const LIST_MAX: usize = 1000;
/// Segments recovered at once.
const RECOVERY_THREADS: usize = 16;

/// Brings store and metadata into step and fills `broker.topics`. Blocks.
pub fn recover(broker: &Broker) -> Result<(), Refusal> {
    fence(broker)?;
    let left_open = broker.metadata.view(|state| {
        unsealed(state, broker.config.node_id).map(|(info, at)| (recovery_spec(info), at)).collect::<Vec<_>>()
    });
    for some in left_open.chunks(LIST_MAX) {
        let closings = close_all(broker, some)?;
        broker.metadata.propose_blocking(Command::SealAndOpen { closings, at_ms: now_ms() })?;
    }
    open_topics(broker);
    remove_leftovers(broker)
}

/// One command for all: from now on only this run may say where they end.
fn fence(broker: &Broker) -> Result<(), Refusal> {
    let segments: Vec<SegmentAt> =
        broker.metadata.view(|state| unsealed(state, broker.config.node_id).map(|(_, at)| at).collect());
    for some in segments.chunks(LIST_MAX) {
        let command = Command::BeginSeal { segments: some.to_vec(), recoverers: Vec::new() };
        broker.metadata.propose_blocking(command)?;
    }
    Ok(())
}

/// The last segment of each topic that this node leads or led. None of them is sealed, by construction.
fn unsealed(state: &State, node_id: u64) -> impl Iterator<Item = (&TopicInfo, SegmentAt)> {
    state.topics.values().filter(move |info| info.last().leader == node_id).map(|info| {
        let uid = SegmentUid { topic_id: info.id, number: info.last().number };
        (info, SegmentAt { uid, epoch: info.last().epoch })
    })
}

fn recovery_spec(info: &TopicInfo) -> SegmentSpec {
    spec(info.id, &info.config, info.last())
}

/// Recovers on several threads: each waits for a flush most of the time, and the device takes
/// many of them together.
fn close_all(broker: &Broker, open: &[(SegmentSpec, SegmentAt)]) -> Result<Vec<Closing>, Refusal> {
    let share = open.len().div_ceil(RECOVERY_THREADS).max(1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = open
            .chunks(share)
            .map(|some| {
                scope.spawn(|| some.iter().map(|(spec, at)| close(broker, *spec, *at)).collect::<Result<Vec<_>, _>>())
            })
            .collect();
        let mut closings = Vec::with_capacity(open.len());
        for thread in threads {
            let crashed = |_| Err(Refusal::new(ErrorCode::Internal, "a recovery thread crashed"));
            closings.extend(thread.join().unwrap_or_else(crashed)?);
        }
        Ok(closings)
    })
}

fn close(broker: &Broker, spec: SegmentSpec, at: SegmentAt) -> Result<Closing, Refusal> {
    let (segment, recovered) = broker.store.recover(spec)?;
    if recovered.possible_loss {
        tracing::warn!(segment = %spec.uid, records = recovered.count, "the machine restarted: acknowledged records past the end may be lost");
    }
    for range in &recovered.damaged {
        tracing::error!(segment = %spec.uid, ?range, "records are damaged; reading them answers Corrupt");
    }
    segment.close();
    if recovered.count > 0
        && let Err(error) = segment.seal(recovered.count)
    {
        // The metadata say where it ends; a footer only makes reading it faster.
        tracing::warn!(segment = %spec.uid, %error, "a sealed segment could not be finished");
    }
    Ok(Closing {
        segment: at,
        count: recovered.count,
        bytes: segment.size_bytes(),
        possible_loss: recovered.possible_loss,
        next: Placement::default(),
        cursors: Vec::new(),
    })
}

fn open_topics(broker: &Broker) {
    broker.metadata.view(|state| {
        for (name, info) in &state.topics {
            broker.topics.insert(name, info, &broker.store);
        }
    });
}

/// Files of deleted topics, trimmed segments, and segments that were empty.
fn remove_leftovers(broker: &Broker) -> Result<(), Refusal> {
    let known: HashSet<SegmentUid> = broker.metadata.view(|state| {
        let uids = |info: &TopicInfo| {
            let topic_id = info.id;
            info.segments.iter().map(move |segment| SegmentUid { topic_id, number: segment.number }).collect::<Vec<_>>()
        };
        state.topics.values().flat_map(uids).collect()
    });
    let leftovers: Vec<_> = broker.store.list()?.into_iter().filter(|uid| !known.contains(uid)).collect();
    broker.remove_files(&leftovers);
    Ok(())
}
