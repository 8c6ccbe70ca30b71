//! What changes in a segment, and the copying of records into its last pending batch.

use std::collections::VecDeque;

use super::batch::Batch;
use super::format::DATA_START;
use super::index::SparseIndex;
use super::{SegmentSpec, Shared, StoreError, appender};
use crate::types::Tier;

/// Everything that changes, under the segment's short lock: held for copies and bookkeeping,
/// never for I/O.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own; together they are no state machine")]
pub(super) struct State {
    /// Batches that are not being written yet; only the last one takes records.
    pub(super) pending: VecDeque<Batch>,
    pub(super) pending_bytes: u64,
    pub(super) next_index: u64,
    /// In the queue for a writer.
    pub(super) queued: bool,
    /// One batch is being written; never two of a segment at once.
    pub(super) in_flight: bool,
    /// File position after the last durable batch.
    pub(super) durable_position: u64,
    pub(super) index: SparseIndex,
    /// Is `index` (and `durable_position`) filled in? False for sealed segments until a read.
    pub(super) loaded: bool,
    pub(super) closed: bool,
    pub(super) failure: Option<StoreError>,
    /// A flush has failed: what of the file is on the device is not known.
    pub(super) flush_failed: bool,
    pub(super) sealed_count: Option<u64>,
    /// The file exists with its header; space is reserved up to here.
    pub(super) reserved_end: u64,
    /// Writeback was started up to here.
    pub(super) writeback_position: u64,
    /// The current half of the journal holds batches of it.
    pub(super) journaled: bool,
    /// Index ranges that recovery found damaged.
    pub(super) damaged: Vec<std::ops::Range<u64>>,
    /// On the background thread's list of segments to flush.
    pub(super) dirty: bool,
    /// Appends of an older epoch than this are refused.
    pub(super) promised: u64,
    /// Index and footer are being written, or are there.
    pub(super) finishing: bool,
    /// They are there, flushed.
    pub(super) finished: bool,
    /// They could not be written, or are not wanted any more.
    pub(super) unfinished: bool,
    /// It is on record that this node has a copy.
    pub(super) known: bool,
    /// Whoever waits for the commit of a record below this is told that its outcome is not known.
    pub(super) undecided_below: u64,
}

impl State {
    /// Is the first batch so large that whoever appends should write it, and nobody writing?
    pub(super) fn is_grown(&self, tier: Tier) -> bool {
        let large = |batch: &Batch| batch.total_bytes() >= appender::WRITE_HERE_BYTES_MIN;
        tier == Tier::PageCache && !self.in_flight && self.pending.front().is_some_and(large)
    }

    /// Is there something to write, and nobody on the way to do it?
    pub(super) fn wants_writer(&self) -> bool {
        !self.pending.is_empty() && !self.queued && !self.in_flight
    }

    /// Closes the segment if it has reached a limit; says whether it has.
    pub(super) fn close_if_full(&mut self, spec: &SegmentSpec) -> bool {
        let file_bytes = self.durable_position.max(DATA_START) + self.pending_bytes;
        self.closed = self.next_index >= spec.segment_entries || file_bytes >= spec.segment_bytes;
        self.closed
    }

    /// Copies what comes into the last pending batch or a new one.
    pub(super) fn copy_in(&mut self, incoming: Incoming<'_>, tier: Tier, shared: &Shared) -> Result<(), StoreError> {
        if incoming.count() == 0 {
            return Ok(());
        }
        let bytes = incoming.bytes();
        shared.pool.check_size(bytes)?;
        let fits = self.pending.back().is_some_and(|batch| !batch.is_raw() && batch.has_room(bytes, tier));
        let mut fresh = (!fits).then(|| Batch::new(self.next_index, &shared.pool));
        let batch = match &mut fresh {
            Some(batch) => batch,
            None => self.pending.back_mut().ok_or(StoreError::Closed)?,
        };
        let before = if fits { batch.total_bytes() } else { 0 };
        if !batch.reserve(bytes) {
            return Err(StoreError::PoolEmpty);
        }
        match incoming {
            Incoming::Records(records) => records.iter().for_each(|record| batch.push(record)),
            Incoming::List { bytes, count } => batch.push_encoded(bytes, count as u32),
        }
        self.pending_bytes += (batch.total_bytes() - before) as u64;
        self.next_index += incoming.count();
        self.pending.extend(fresh);
        Ok(())
    }
}

/// Records that are to be copied into a batch.
#[derive(Clone, Copy)]
pub(super) enum Incoming<'a> {
    /// One by one.
    Records(&'a [&'a [u8]]),
    /// So many, in the form that they have in a batch.
    List { bytes: &'a [u8], count: u64 },
}

impl Incoming<'_> {
    pub(super) fn count(&self) -> u64 {
        match self {
            Incoming::Records(records) => records.len() as u64,
            Incoming::List { count, .. } => *count,
        }
    }

    /// Bytes that they take in a batch.
    fn bytes(&self) -> usize {
        match self {
            Incoming::Records(records) => Batch::size_of(records),
            Incoming::List { bytes, .. } => bytes.len(),
        }
    }
}
