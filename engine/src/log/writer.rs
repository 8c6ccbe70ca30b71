//! Appending: to the open segment if there is one, else the caller learns what to wait for.

use std::sync::Arc;

use super::rollover;
use super::topic::{Topic, Writing};
use crate::broker::Broker;
use crate::error::Refusal;
use crate::metadata::state::SegmentAt;
use crate::protocol::{ErrorCode, Records};
use crate::store::{Appended, Segment, StoreError, Take};

/// Records that have their indices; acknowledge them once they are committed.
pub struct Accepted {
    /// Where they are.
    pub segment: Segment,
    /// Offset of the segment's first record.
    pub base_offset: u64,
    /// Index of the first of them in the segment.
    pub first_index: u64,
    /// How many were taken, from the front; with [`Take::UpToLimit`] the rest wants the next segment.
    pub count: u64,
}

/// Why nothing was taken.
#[derive(Debug)]
pub enum Blocked {
    /// The write buffers are full: wait for [`crate::store::Store::pool_available`], then try again.
    Pool,
    /// The next segment is being opened: wait for [`Topic::wait_writable`], then try again.
    RollingOver,
    /// This node may not write now; it will, or another one.
    NoLease,
    /// Another node leads the topic.
    Elsewhere(u64),
    /// The open segment is not the one that was meant.
    OtherSegment,
    /// This topic object is deleted; one of the same name may exist anew.
    Deleted,
    /// Refused.
    Refused(Refusal),
}

/// Appends records to a topic. Starts the rollover of a segment that this fills, at once.
pub fn try_append(
    broker: &Arc<Broker>,
    topic: &Arc<Topic>,
    records: &[&[u8]],
    take: Take,
) -> Result<Accepted, Blocked> {
    let (segment, base_offset) = open_segment(topic)?;
    append_to(broker, topic, segment, base_offset, |segment| segment.try_append(records, take))
}

/// As [`try_append`], of a list, all or none.
pub fn try_append_list(broker: &Arc<Broker>, topic: &Arc<Topic>, list: Records<'_>) -> Result<Accepted, Blocked> {
    let (segment, base_offset) = open_segment(topic)?;
    // A list on the wire has the form of a batch's records.
    append_to(broker, topic, segment, base_offset, |segment| segment.try_append_list(list.as_bytes(), list.len()))
}

/// As [`try_append`], to that segment in that epoch and to no other.
pub fn try_append_in(
    broker: &Arc<Broker>,
    topic: &Arc<Topic>,
    at: SegmentAt,
    records: &[&[u8]],
    take: Take,
) -> Result<Accepted, Blocked> {
    let (segment, base_offset) = open_segment(topic)?;
    let spec = segment.spec();
    if (SegmentAt { uid: spec.uid, epoch: spec.epoch }) != at {
        return Err(Blocked::OtherSegment);
    }
    append_to(broker, topic, segment, base_offset, |segment| segment.try_append(records, take))
}

/// The segment that takes appends here, and the offset of its first record.
fn open_segment(topic: &Topic) -> Result<(Segment, u64), Blocked> {
    let chain = topic.chain();
    let last = chain.last();
    match (&chain.writing, &last.segment) {
        (Writing::Open, Some(segment)) => Ok((segment.clone(), last.base_offset)),
        (Writing::Open, None) | (Writing::RollingOver, _) => Err(Blocked::RollingOver),
        (Writing::Elsewhere(node_id), _) => Err(Blocked::Elsewhere(*node_id)),
        (Writing::Refusing(refusal), _) => Err(Blocked::Refused(refusal.clone())),
        (Writing::Deleted, _) => Err(Blocked::Deleted),
    }
}

fn append_to(
    broker: &Arc<Broker>,
    topic: &Arc<Topic>,
    segment: Segment,
    base_offset: u64,
    append: impl FnOnce(&Segment) -> Result<Appended, StoreError>,
) -> Result<Accepted, Blocked> {
    if !broker.lease.is_valid() {
        return Err(Blocked::NoLease);
    }
    match append(&segment) {
        Ok(appended) => {
            if appended.full {
                rollover::start(broker, topic, &segment, None);
            }
            Ok(Accepted { segment, base_offset, first_index: appended.first_index, count: appended.count })
        }
        Err(StoreError::PoolEmpty) => Err(Blocked::Pool),
        Err(StoreError::Closed) => {
            rollover::start(broker, topic, &segment, None);
            Err(Blocked::RollingOver)
        }
        // No segment would take it.
        Err(error @ StoreError::TooLarge { .. }) => {
            Err(Blocked::Refused(Refusal::new(ErrorCode::BadRequest, error.to_string())))
        }
        Err(error @ StoreError::DiskFull) => {
            rollover::start(broker, topic, &segment, Some(&error));
            Err(Blocked::Refused(error.into()))
        }
        // Nothing of these records was taken, so the next segment may have them.
        Err(error) => {
            rollover::start(broker, topic, &segment, Some(&error));
            Err(Blocked::RollingOver)
        }
    }
}
