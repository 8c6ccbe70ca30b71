//! What changes in a segment, and the copying of records into its last pending batch.

use std::collections::VecDeque;
use std::sync::Arc;

use super::batch::{Batch, FILLER_BYTES_MAX};
use super::format::DATA_START;
use super::index::SparseIndex;
use super::pool::Pool;
use super::{SegmentSpec, StoreError, appender};
use crate::types::Tier;

/// In the page cache a batch ends at a multiple of this in the file, if a few zeros get it there: the kernel
/// makes large folios only of writes that begin and end at such places (docs/decisions/004).
const FILL_UP_TO_BYTES: u64 = 256 * 1024;
/// The same while so many topics share the pool that few batches get as far as that.
const SCATTERED_FILL_UP_TO_BYTES: u64 = 32 * 1024;

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
        let large = |batch: &Batch| batch.is_filled_up() || batch.total_bytes() >= appender::WRITE_HERE_BYTES_MIN;
        tier == Tier::PageCache && !self.in_flight && self.pending.front().is_some_and(large)
    }

    /// Is there something to write, and nobody on the way to do it?
    pub(super) fn wants_writer(&self) -> bool {
        !self.pending.is_empty() && !self.queued && !self.in_flight
    }

    /// Closes the segment if it has reached a limit; says whether it has.
    pub(super) fn close_if_full(&mut self, spec: &SegmentSpec) -> bool {
        self.closed = self.next_index >= spec.segment_entries || self.file_end() >= spec.segment_bytes;
        self.closed
    }

    /// Where the file will end once everything is written.
    fn file_end(&self) -> u64 {
        self.durable_position.max(DATA_START) + self.pending_bytes
    }

    /// Ends the last batch at a place where a large write ends well, if `bytes` more would cross it. (A pool
    /// that has no memory for the zeros has none for those bytes either, so that nothing is lost then.)
    fn fill_up_before(&mut self, bytes: usize, pool: &Pool) {
        let unit = if pool.is_scattered() { SCATTERED_FILL_UP_TO_BYTES } else { FILL_UP_TO_BYTES };
        let gap = self.file_end().next_multiple_of(unit) - self.file_end();
        if gap >= bytes as u64 || gap > FILLER_BYTES_MAX as u64 {
            return;
        }
        let open = self.pending.back_mut().filter(|batch| !batch.is_raw() && !batch.is_filled_up());
        if let Some(batch) = open
            && batch.reserve(gap as usize)
        {
            batch.fill_up(gap as usize);
            self.pending_bytes += gap;
        }
    }

    /// Copies what comes into the last pending batch or a new one.
    pub(super) fn copy_in(&mut self, incoming: Incoming<'_>, tier: Tier, pool: &Arc<Pool>) -> Result<(), StoreError> {
        if incoming.count() == 0 {
            return Ok(());
        }
        let bytes = incoming.bytes();
        pool.check_size(bytes)?;
        if tier == Tier::PageCache {
            self.fill_up_before(bytes, pool);
        }
        let fits = self.pending.back().is_some_and(|batch| !batch.is_raw() && batch.has_room(bytes, tier));
        let mut fresh = (!fits).then(|| Batch::new(self.next_index, pool));
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

#[cfg(test)]
mod tests {
    use super::super::SegmentUid;
    use super::super::format::{BatchHeader, RECORD_PREFIX_BYTES};
    use super::*;

    const RECORD: [u8; 1_000] = [7; 1_000];

    fn pool() -> Arc<Pool> {
        Arc::new(Pool::new(8 << 20))
    }

    /// Appends until a second batch is begun, and gives back the first, closed as for a write.
    fn first_batch(record: &[u8], tier: Tier, pool: &Arc<Pool>) -> (BatchHeader, Vec<u8>) {
        let mut state = State::default();
        while state.pending.len() < 2 {
            state.copy_in(Incoming::Records(&[record]), tier, pool).unwrap();
        }
        assert!(state.is_grown(tier) || tier == Tier::Synced);
        let pending: usize = state.pending.iter().map(Batch::total_bytes).sum();
        assert_eq!((state.pending_bytes, state.next_index), (pending as u64, state.pending[1].end_index()));
        closed(state.pending.pop_front().unwrap(), record)
    }

    /// Closes it as for a write, and checks that its header finds the records, all as long as `record`.
    fn closed(mut batch: Batch, record: &[u8]) -> (BatchHeader, Vec<u8>) {
        let uid = SegmentUid { topic_id: 1, number: 1 };
        batch.close(BatchHeader {
            crc: 0,
            length: 0,
            uid,
            epoch: 1,
            base_index: 0,
            count: 0,
            filler: 0,
            timestamp_ms: 0,
        });
        let bytes: Vec<u8> = batch.pieces().flatten().copied().collect();
        let header = BatchHeader::decode(&bytes).unwrap();
        header.verify(&bytes).unwrap();
        let records = header.count as usize * (RECORD_PREFIX_BYTES + record.len());
        assert_eq!(header.records().len(), records, "the filler is none of the records");
        assert_eq!(bytes.len() - header.records().end, header.filler as usize);
        (header, bytes)
    }

    #[test]
    fn a_batch_ends_at_a_multiple_in_the_file_and_its_filler_is_less_than_a_record() {
        let (header, bytes) = first_batch(&RECORD, Tier::PageCache, &pool());
        assert_eq!(DATA_START + header.total_bytes(), FILL_UP_TO_BYTES);
        assert!(header.filler > 0 && (header.filler as usize) < RECORD_PREFIX_BYTES + RECORD.len());
        assert!(bytes[header.records().end..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn while_many_topics_share_the_pool_batches_end_at_smaller_multiples() {
        let pool = pool();
        let others: Vec<Batch> = (0..200).map(|_| Batch::new(0, &pool)).collect();
        let (header, _) = first_batch(&RECORD, Tier::PageCache, &pool);
        assert_eq!(DATA_START + header.total_bytes(), SCATTERED_FILL_UP_TO_BYTES);
        drop(others);
        let (header, _) = first_batch(&RECORD, Tier::PageCache, &pool);
        assert_eq!(DATA_START + header.total_bytes(), FILL_UP_TO_BYTES);
    }

    #[test]
    fn a_filled_up_batch_stays_as_it_is_while_the_pool_has_no_memory_for_the_next() {
        // As large as a batch up to the smaller multiple, and not a chunk larger.
        let pool = Arc::new(Pool::new(SCATTERED_FILL_UP_TO_BYTES as usize));
        let _others: Vec<Batch> = (0..200).map(|_| Batch::new(0, &pool)).collect();
        let mut state = State::default();
        let append = |state: &mut State| state.copy_in(Incoming::Records(&[&RECORD]), Tier::PageCache, &pool);
        while append(&mut state).is_ok() {}
        let before = (state.next_index, state.file_end());
        assert!(state.is_grown(Tier::PageCache), "whoever waits for memory writes it");
        assert_eq!(state.file_end(), SCATTERED_FILL_UP_TO_BYTES);
        assert!(matches!(append(&mut state), Err(StoreError::PoolEmpty)));
        assert_eq!((state.next_index, state.file_end(), state.pending.len()), (before.0, before.1, 1));
        closed(state.pending.pop_front().unwrap(), &RECORD);
        assert!(append(&mut state).is_ok(), "its memory is free again");
    }

    #[test]
    fn nothing_is_filled_up_at_the_cost_of_a_page_or_where_it_gains_nothing() {
        for (record_bytes, tier) in [(50_000, Tier::PageCache), (1_000, Tier::Synced)] {
            let (header, _) = first_batch(&vec![7; record_bytes], tier, &pool());
            assert_eq!(header.filler, 0, "records of {record_bytes} bytes, {tier:?}");
            assert_ne!((DATA_START + header.total_bytes()) % SCATTERED_FILL_UP_TO_BYTES, 0);
        }
    }
}
