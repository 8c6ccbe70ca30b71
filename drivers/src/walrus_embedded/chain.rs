//! A topic as a chain of segments, kept in the files' names alone.

use std::sync::{Mutex, MutexGuard, PoisonError};

use walrus_engine::store::{Segment, SegmentSpec, Store};
use walrus_engine::types::{SegmentUid, Tier};

use super::failed;
use crate::DriverError;

/// What all segments of a session have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) tier: Tier,
    pub(super) segment_entries: u64,
    pub(super) segment_bytes: u64,
}

/// One topic; only its last segment takes records.
pub(super) struct Chain {
    store: Store,
    topic_id: u64,
    limits: Limits,
    segments: Mutex<Vec<Segment>>,
}

/// Recovers what an earlier session left, and opens one new segment a topic.
pub(super) fn open(store: &Store, limits: Limits, topics: usize) -> Result<Vec<Chain>, DriverError> {
    let mut chains: Vec<Chain> = (0..topics as u64)
        .map(|topic| Chain { store: store.clone(), topic_id: topic + 1, limits, segments: Mutex::default() })
        .collect();
    for uid in store.list().map_err(failed)? {
        let Some(chain) = chains.get_mut(uid.topic_id as usize - 1) else {
            continue;
        };
        let (segment, recovered) = store.recover(chain.spec(uid)).map_err(failed)?;
        if let Some(range) = recovered.damaged.first() {
            return Err(DriverError::System(format!("segment {uid} is damaged at {range:?}")));
        }
        chain.segments().push(segment);
    }
    for chain in &chains {
        chain.open_next(&mut chain.segments());
    }
    Ok(chains)
}

impl Chain {
    fn spec(&self, uid: SegmentUid) -> SegmentSpec {
        SegmentSpec {
            uid,
            epoch: uid.number,
            tier: self.limits.tier,
            segment_entries: self.limits.segment_entries,
            segment_bytes: self.limits.segment_bytes,
        }
    }

    fn segments(&self) -> MutexGuard<'_, Vec<Segment>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_next(&self, segments: &mut Vec<Segment>) {
        let number = segments.last().map_or(0, |last| last.spec().uid.number) + 1;
        segments.push(self.store.create(self.spec(SegmentUid { topic_id: self.topic_id, number })));
    }

    /// The open segment and its position.
    pub(super) fn last(&self) -> (usize, Segment) {
        let segments = self.segments();
        let position = segments.len() - 1;
        (position, segments[position].clone())
    }

    /// The open segment, once the one at `full` takes nothing more. The producer that comes first
    /// seals it.
    pub(super) fn roll_over(&self, full: usize) -> Result<(usize, Segment), DriverError> {
        let mut segments = self.segments();
        if full + 1 == segments.len() {
            let segment = segments[full].clone();
            segment.close();
            let count = segment.next_index();
            segment.wait_watermark_blocking(count).map_err(failed)?;
            segment.seal(count).map_err(failed)?;
            self.open_next(&mut segments);
        }
        drop(segments);
        Ok(self.last())
    }

    pub(super) fn segment(&self, position: usize) -> Segment {
        self.segments()[position].clone()
    }

    pub(super) fn has_after(&self, position: usize) -> bool {
        position + 1 < self.segments().len()
    }

    /// Position and index of the next record that becomes durable.
    pub(super) fn end(&self) -> (usize, u64) {
        let (position, segment) = self.last();
        (position, segment.watermark())
    }
}
