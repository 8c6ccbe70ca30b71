//! Copies of a segment on several nodes: batches taken and handed on as they lie, and fences.
//!
//! ```text
//!   leader's file   │ batch 0..40 │ batch 40..90 │ ...        the same bytes everywhere
//!        │ read_raw / Observer::submitted
//!        ▼
//!   append_raw ─▶ only the next index, only an epoch that is not older than the promise
//!        ▲
//!   fence(epoch): takes effect at once, waits for what is under way, is made durable, and only
//!                 then the length is told. Nothing past that length is stored under an older
//!                 epoch from then on, across restarts too.
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::appender;
use super::batch::Batch;
use super::format::{BATCH_HEADER_BYTES, BatchHeader, DATA_START};
use super::pool::{CHUNK_BYTES, lock};
use super::segment::Inner;
use super::state::State;
use super::{Observer, Recovered, Segment, SegmentSpec, Store, StoreError, recovery};
#[cfg(feature = "sim")]
use crate::sim::{
    bugs::{self, Bug},
    promises,
};
use crate::types::{SegmentUid, Tier};

/// Why a batch from elsewhere was not taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RawError {
    /// A newer epoch has been promised: whoever sends this is no longer the one who may.
    #[error("epoch {promised} has been promised")]
    Promised {
        /// The newest epoch that was promised.
        promised: u64,
    },
    /// It does not follow what is here.
    #[error("the next index here is {next}")]
    Gap {
        /// The index that is wanted.
        next: u64,
    },
    /// The bytes are no batches of this segment, or damaged.
    #[error("not the batches of this segment: {0}")]
    Bad(Arc<str>),
    /// The segment ends before it.
    #[error("the segment is sealed at {count}")]
    Sealed {
        /// Its final number of records.
        count: u64,
    },
    /// The store refuses (no memory, disk full, an earlier failure).
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a fenced copy may say of its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// It never acknowledged more than this.
    Exact,
    /// It has this much, and may once have acknowledged more.
    AtLeast,
}

/// The answer to a fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Records that it holds, from the first one.
    pub length: u64,
    /// Bytes of the file up to there.
    pub bytes: u64,
    /// What that means.
    pub certainty: Certainty,
}

/// Whole batches as they lie in the file.
#[derive(Debug, Clone, Default)]
pub struct RawBatches {
    /// Index of the first record.
    pub base_index: u64,
    /// Index after the last record; the same if there is none.
    pub end_index: u64,
    /// Headers and records.
    pub bytes: Bytes,
}

impl Store {
    /// This node's copy of a segment that is not sealed: what an earlier run left of it, or empty.
    /// It takes batches through [`Segment::append_raw`] only. There must be one handle at a time
    /// that others were cloned from. Blocking I/O if there is a file.
    pub fn open_copy(
        &self,
        spec: SegmentSpec,
        observer: Arc<dyn Observer>,
    ) -> Result<(Segment, Recovered), StoreError> {
        recovery::reopen(&self.running.shared, spec, observer)
    }

    /// Makes durable that this node holds copies of the segments, before the first record of one is
    /// acknowledged: a node that has forgotten it would later swear that it never had any. A `fresh`
    /// segment was opened just now, so an empty copy is whole.
    ///
    /// The next segment of each topic is put on record along with it, so that a rollover need not
    /// wait for that. Returns those for which it is still to be done: see [`Store::know_ahead`].
    pub fn know_copies(&self, segments: &[(Segment, bool)]) -> Result<Vec<SegmentUid>, StoreError> {
        let fences = &self.running.shared.fences;
        let (mut missing, mut ahead) = (Vec::new(), Vec::new());
        for (segment, fresh) in segments {
            if lock(&segment.inner().state).known {
                continue;
            }
            let uid = segment.spec().uid;
            if fences.is_known(uid, *fresh) {
                ahead.push(next(uid));
            } else {
                missing.extend([(uid, *fresh), (next(uid), false)]);
            }
        }
        fences.know(&missing)?;
        // Not before: whoever sees it acknowledges records.
        segments.iter().for_each(|(segment, _)| lock(&segment.inner().state).known = true);
        Ok(ahead)
    }

    /// Puts segments on record that are yet to come.
    pub fn know_ahead(&self, segments: &[SegmentUid]) -> Result<(), StoreError> {
        let all: Vec<(SegmentUid, bool)> = segments.iter().map(|uid| (*uid, false)).collect();
        self.running.shared.fences.know(&all)
    }

    /// Segments on record for which `is_over` holds need not be remembered any more.
    pub fn forget_fences_of(&self, is_over: impl Fn(SegmentUid) -> bool) -> Result<(), StoreError> {
        let fences = &self.running.shared.fences;
        let over: Vec<SegmentUid> = fences.all().into_iter().filter(|uid| is_over(*uid)).collect();
        fences.forget(&over)
    }

    /// Promises, for each segment, to refuse every epoch older than the one given; tells its
    /// length, or the newer epoch that was promised already. Blocks until what was under way is
    /// stored and the promises are on the device, with one flush for all of them.
    pub fn fence(&self, segments: &[(Segment, u64)]) -> Result<Vec<Result<Standing, RawError>>, StoreError> {
        for (segment, epoch) in segments {
            segment.inner().promise(*epoch);
        }
        for (segment, _) in segments {
            segment.inner().settle();
        }
        // What stands in memory, not what was asked: another fence may have been newer.
        let promised: HashMap<SegmentUid, u64> =
            segments.iter().map(|(segment, _)| (segment.spec().uid, segment.promised())).collect();
        self.running.shared.fences.record(promised.keys().copied(), |entry| {
            #[cfg(feature = "sim")]
            if bugs::is_on(Bug::FenceNotPersisted) {
                return;
            }
            entry.promised = entry.promised.max(promised[&entry.uid]);
        })?;
        Ok(segments.iter().map(|(segment, epoch)| segment.inner().standing(*epoch)).collect())
    }

    /// May records be missing that this copy once acknowledged?
    pub fn is_in_doubt(&self, segment: &Segment) -> bool {
        let SegmentSpec { uid, tier, .. } = *segment.spec();
        self.running.shared.fences.in_doubt(uid, tier) || segment.failure().is_some()
    }

    /// The copy holds everything again that the leader ever assigned: it is no longer in doubt.
    /// Does nothing unless the promise is still `epoch`.
    pub fn clear_doubt(&self, segment: &Segment, epoch: u64) -> Result<(), StoreError> {
        if lock(&segment.inner().state).promised > epoch || segment.failure().is_some() {
            return Ok(());
        }
        let (fences, uid) = (&self.running.shared.fences, segment.spec().uid);
        fences.clear_doubt(uid)?;
        if segment.failure().is_some() {
            // It has failed meanwhile, and what that put on record is gone.
            fences.record([uid], |entry| entry.damaged = true)?;
        }
        Ok(())
    }

    /// Segments that are sealed and whole here, or gone, need no fence any more.
    pub fn forget_fences(&self, segments: &[SegmentUid]) -> Result<(), StoreError> {
        self.running.shared.fences.forget(segments)
    }
}

impl Segment {
    /// Takes whole batches that another copy of the segment holds, as they lie. They must begin at
    /// the next index (what is here already is passed over), belong to this segment, and come from
    /// somebody with an epoch that is not older than what was promised. Nothing is written before
    /// [`Segment::start_writing`]. `PoolEmpty`: nothing was taken, wait and try again.
    pub fn append_raw(&self, epoch: u64, bytes: &[u8]) -> Result<(), RawError> {
        let inner = self.inner();
        let batches = check(inner, epoch, bytes)?;
        let mut state = lock(&inner.state);
        if state.promised > epoch {
            return Err(RawError::Promised { promised: state.promised });
        }
        if let Some(failure) = &state.failure {
            return Err(failure.clone().into());
        }
        let next = state.next_index;
        let mut wanted = batches.iter().filter(|(header, _)| header.base_index + u64::from(header.count) > next);
        let Some((first, range)) = wanted.next() else { return Ok(()) };
        if first.base_index != next {
            return Err(RawError::Gap { next });
        }
        let Some((last, last_range)) = batches.last() else { return Ok(()) };
        let end_index = last.base_index + u64::from(last.count);
        if let Some(count) = state.sealed_count.filter(|count| end_index > *count) {
            return Err(RawError::Sealed { count });
        }
        let taken = state.take_raw(&bytes[range.start..last_range.end], next, end_index, inner);
        drop(state);
        #[cfg(feature = "sim")]
        promises::taken(&inner.shared.disk, inner.spec.uid, epoch);
        if taken.is_err() {
            // What fills the pool may belong to nobody who waits.
            inner.shared.queue.kick();
        }
        Ok(taken?)
    }

    /// Has what was taken written: here and now if that is only a copy into the page cache, by the
    /// store's threads if it is to be flushed, or if the kernel holds writers back.
    pub fn start_writing(&self) {
        let inner = self.inner();
        if inner.spec.tier == Tier::PageCache && !inner.shared.slow_writes.now() {
            while appender::write_here(inner) {}
            return;
        }
        let wake_writer = {
            let mut state = lock(&inner.state);
            let wake_writer = state.wants_writer();
            state.queued |= wake_writer;
            wake_writer
        };
        if wake_writer {
            inner.shared.queue.push(Arc::clone(inner));
        } else {
            inner.shared.queue.kick();
        }
    }

    /// Does this copy of a sealed segment hold every record below the end, undamaged? Blocking I/O.
    pub fn is_whole(&self) -> Result<bool, StoreError> {
        match self.sealed_count() {
            Some(count) => Ok(self.watermark() >= count && recovery::is_whole(self.inner(), count)?),
            None => Ok(false),
        }
    }

    /// Index ranges that were found damaged when the file was opened. Blocking I/O at the first call.
    pub fn damaged(&self) -> Result<Vec<std::ops::Range<u64>>, StoreError> {
        recovery::load_if_sealed(self.inner())?;
        Ok(lock(&self.inner().state).damaged.clone())
    }

    /// Puts whole batches of another copy in the place of damaged ones. The copies are the same
    /// bytes at the same places, so nothing else moves. Blocking I/O; flushed when it returns.
    pub fn mend(&self, bytes: &[u8]) -> Result<(), RawError> {
        let inner = self.inner();
        recovery::load_if_sealed(inner)?;
        let batches = check(inner, u64::MAX, bytes)?;
        let (Some((first, _)), Some((last, _))) = (batches.first(), batches.last()) else { return Ok(()) };
        let range = first.base_index..last.base_index + u64::from(last.count);
        let failed = |error| StoreError::io(format!("mending segment {}", inner.spec.uid), error);
        let file = inner.shared.files.get(inner.spec.uid).map_err(failed)?;
        let position = position_of(inner, &file, range.start).map_err(failed)?;
        if position + bytes.len() as u64 > lock(&inner.state).durable_position {
            return Err(RawError::Bad("they reach past the end of the file".into()));
        }
        inner.shared.disk.write(&file, position, &mut [IoSlice::new(bytes)], true).map_err(failed)?;
        lock(&inner.state).damaged.retain(|damaged| damaged.start < range.start || damaged.end > range.end);
        Ok(())
    }

    /// The newest epoch that was promised for it; 0 if none was.
    pub fn promised(&self) -> u64 {
        lock(&self.inner().state).promised
    }

    /// Reads whole batches, as they lie, from the one that holds `from_index` on: about `max_bytes`,
    /// at least one, up to the watermark, committed or not. Empty at the end. Blocking I/O.
    pub fn read_raw(&self, from_index: u64, max_bytes: usize) -> Result<RawBatches, StoreError> {
        let inner = self.inner();
        recovery::load_if_sealed(inner)?;
        let (start, end, limit) = {
            let state = lock(&inner.state);
            let limit = state.sealed_count.unwrap_or(u64::MAX).min(inner.watermark());
            if from_index >= limit {
                return Ok(RawBatches { base_index: from_index, end_index: from_index, bytes: Bytes::new() });
            }
            let start = state.index.position_before(from_index).unwrap_or(DATA_START);
            let end = state.index.end_of_read(start, max_bytes as u64).unwrap_or(state.durable_position);
            (start, end.min(state.durable_position), limit)
        };
        let what = || format!("reading segment {}", inner.spec.uid);
        let file = inner.shared.files.get(inner.spec.uid).map_err(|error| StoreError::io(what(), error))?;
        let mut bytes = BytesMut::zeroed(end.saturating_sub(start) as usize);
        inner.shared.disk.read(&file, start, &mut bytes).map_err(|error| StoreError::io(what(), error))?;
        cut_raw(inner, bytes.freeze(), from_index, limit, max_bytes)
    }
}

fn next(uid: SegmentUid) -> SegmentUid {
    SegmentUid { number: uid.number + 1, ..uid }
}

/// Where in the file the batch that starts with record `index` begins, or began before it was damaged.
fn position_of(inner: &Inner, file: &File, index: u64) -> io::Result<u64> {
    let (mut position, end) = {
        let state = lock(&inner.state);
        (state.index.position_before(index).unwrap_or(DATA_START), state.durable_position)
    };
    let mut next = None;
    let mut header = [0; BATCH_HEADER_BYTES];
    while position < end && next != Some(index) {
        inner.shared.disk.read(file, position, &mut header)?;
        let header = BatchHeader::decode(&header).map_err(io::Error::other)?;
        if header.uid != inner.spec.uid || header.base_index >= index {
            break;
        }
        next = Some(header.base_index + u64::from(header.count));
        position += header.total_bytes();
    }
    Ok(position)
}

/// Checks every batch in `bytes`: whole, undamaged, of this segment, one following the other.
fn check(inner: &Inner, epoch: u64, bytes: &[u8]) -> Result<Vec<(BatchHeader, std::ops::Range<usize>)>, RawError> {
    let bad = |reason: &str| RawError::Bad(reason.into());
    let mut batches: Vec<(BatchHeader, std::ops::Range<usize>)> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let header = BatchHeader::decode(&bytes[at..]).map_err(|error| bad(&error.to_string()))?;
        header.verify(&bytes[at..]).map_err(|error| bad(&error.to_string()))?;
        let expected = batches.last().map_or(header.base_index, |(last, _)| last.base_index + u64::from(last.count));
        if header.uid != inner.spec.uid || header.epoch > epoch || header.count == 0 {
            return Err(bad("they belong elsewhere"));
        }
        if header.base_index != expected {
            return Err(bad("they do not follow one another"));
        }
        let end = at + header.total_bytes() as usize;
        batches.push((header, at..end));
        at = end;
    }
    Ok(batches)
}

/// Cuts off what lies before the batch that holds `from_index` and past `limit`, checks the rest.
fn cut_raw(
    inner: &Inner,
    bytes: Bytes,
    from_index: u64,
    limit: u64,
    max_bytes: usize,
) -> Result<RawBatches, StoreError> {
    let corrupt = |reason: &str| StoreError::Corrupt {
        uid: inner.spec.uid,
        first_index: from_index,
        end_index: limit,
        reason: reason.into(),
    };
    let mut rest = bytes;
    let mut out = RawBatches { base_index: from_index, end_index: from_index, bytes: Bytes::new() };
    let mut taken = 0;
    while taken < rest.len() {
        let sound =
            BatchHeader::decode(&rest[taken..]).and_then(|header| header.verify(&rest[taken..]).map(|()| header));
        let header = match sound {
            Ok(header) => header,
            // What lies before the damage is good; the damage is reported when it is asked for.
            Err(_) if taken > 0 => break,
            Err(error) => return Err(corrupt(&error.to_string())),
        };
        let end_index = header.base_index + u64::from(header.count);
        let total = header.total_bytes() as usize;
        if taken == 0 && end_index <= from_index {
            let _ = rest.split_to(total);
            continue;
        }
        if header.base_index >= limit || (taken > 0 && taken + total > max_bytes) {
            break;
        }
        let expected = if taken == 0 { header.base_index } else { out.end_index };
        if header.uid != inner.spec.uid || header.base_index != expected || header.base_index > from_index.max(expected)
        {
            return Err(corrupt("a batch belongs elsewhere"));
        }
        if taken == 0 {
            out.base_index = header.base_index;
        }
        out.end_index = end_index;
        taken += total;
    }
    out.bytes = rest.slice(..taken);
    Ok(out)
}

impl Inner {
    /// From now on nothing of an older epoch is taken.
    fn promise(&self, epoch: u64) {
        let mut state = lock(&self.state);
        state.promised = state.promised.max(epoch);
    }

    /// Waits until everything that was taken is stored, or never will be.
    pub(super) fn settle(self: &Arc<Self>) {
        self.write_all_here();
        let segment = Segment::of(self);
        self.waiters.until_blocking(|| {
            // Again at each look: who was writing may have left the rest to us.
            segment.start_writing();
            let state = lock(&self.state);
            (state.pending.is_empty() && !state.in_flight).then_some(())
        });
    }

    /// What may be said to whoever fenced with `epoch`.
    fn standing(&self, epoch: u64) -> Result<Standing, RawError> {
        let in_doubt = self.shared.fences.in_doubt(self.spec.uid, self.spec.tier);
        let state = lock(&self.state);
        if state.promised > epoch {
            return Err(RawError::Promised { promised: state.promised });
        }
        #[cfg(feature = "sim")]
        promises::told(&self.shared.disk, self.spec.uid, epoch);
        let length = self.watermark();
        // Damage in the midst says nothing about what came last; damage at the end may have
        // swallowed more.
        let end_is_sound = state.damaged.last().is_none_or(|range| range.end < length);
        let whole = !in_doubt && state.failure.is_none() && end_is_sound;
        let certainty = if whole { Certainty::Exact } else { Certainty::AtLeast };
        Ok(Standing { length, bytes: state.durable_position, certainty })
    }
}

impl State {
    fn take_raw(&mut self, bytes: &[u8], base_index: u64, end_index: u64, inner: &Inner) -> Result<(), StoreError> {
        let pool = &inner.shared.pool;
        if bytes.len().div_ceil(CHUNK_BYTES) >= pool.max_request() {
            let limit = pool.max_request() * CHUNK_BYTES;
            return Err(StoreError::TooLarge { bytes: bytes.len(), limit });
        }
        let fits =
            self.pending.back().is_some_and(|batch| batch.is_raw() && batch.has_room(bytes.len(), inner.spec.tier));
        let mut fresh = (!fits).then(|| Batch::raw(base_index, pool));
        let batch = match &mut fresh {
            Some(batch) => batch,
            None => self.pending.back_mut().ok_or(StoreError::Closed)?,
        };
        if !batch.reserve(bytes.len()) {
            return Err(StoreError::PoolEmpty);
        }
        batch.push_encoded(bytes, (end_index - base_index) as u32);
        self.pending_bytes += bytes.len() as u64;
        self.next_index = end_index;
        self.pending.extend(fresh);
        Ok(())
    }
}
