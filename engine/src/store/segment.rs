//! One segment: the handle that appends, waits and reads.
//!
//! ```text
//!   records   0 ············ watermark ············ next_index
//!             └── durable ──┘└─ in flight ─┴─ pending ─┘
//! ```
//! `watermark` only rises. What is at or past it may still vanish, so nobody acknowledges or
//! reads it.
//!
//! With other copies the *committed tail* takes the watermark's place towards producers and
//! readers: an [`Observer`] hears of every batch, and says through [`Segment::commit`] up to where
//! enough copies hold the records. Without an observer the two are one.

mod inner;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

pub(super) use self::inner::Inner;
use super::pool::lock;
use super::state::{Incoming, State};
use super::waiters::{Waiters, block_on};
use super::{Appended, Observer, ReadBatch, SegmentSpec, Shared, StoreError, Take, appender, direct, reader};
use crate::types::Tier;

/// A handle to one segment. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Segment {
    inner: Arc<Inner>,
}

impl Segment {
    pub(super) fn new(
        shared: &Arc<Shared>,
        spec: SegmentSpec,
        count: u64,
        state: State,
        observer: Option<Arc<dyn Observer>>,
    ) -> Self {
        let state = State { next_index: count, ..state };
        let committed = if observer.is_none() { count } else { 0 };
        Segment {
            inner: Arc::new(Inner {
                spec,
                shared: Arc::clone(shared),
                state: Mutex::new(state),
                watermark: AtomicU64::new(count),
                committed: AtomicU64::new(committed),
                observer,
                waiters: Waiters::default(),
                flushing: Mutex::default(),
            }),
        }
    }

    pub(super) fn of(inner: &Arc<Inner>) -> Self {
        Segment { inner: Arc::clone(inner) }
    }

    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// What it is.
    pub fn spec(&self) -> &SegmentSpec {
        &self.inner.spec
    }

    /// Copies records into the active batch and gives them the next indices. Does not wait for
    /// the device. `PoolEmpty`: nothing was taken, wait and try again.
    ///
    /// Page-cache tier: the batch is written by the caller once it has grown large, else by whoever
    /// first waits for a record in it. A caller that will not wait calls [`Segment::kick`].
    pub fn try_append(&self, records: &[&[u8]], take: Take) -> Result<Appended, StoreError> {
        let inner = &self.inner;
        let state = inner.lock_open()?;
        let room = inner.spec.segment_entries.saturating_sub(state.next_index);
        let records = match take {
            Take::AllOrNone => records,
            Take::UpToLimit => &records[..records.len().min(usize::try_from(room).unwrap_or(usize::MAX))],
        };
        inner.copy_in(state, Incoming::Records(records))
    }

    /// As [`Segment::try_append`], all or none, of `count` records that have the form of a batch's
    /// records already (see [`super::format`]), which the caller has checked.
    ///
    /// Page-cache tier: a large list is written at once, from where it lies.
    pub fn try_append_list(&self, list: &[u8], count: u64) -> Result<Appended, StoreError> {
        let inner = &self.inner;
        let state = inner.lock_open()?;
        if inner.may_write_directly(&state, list.len()) {
            inner.shared.pool.check_size(list.len())?;
            return Ok(direct::write(inner, state, list, count));
        }
        inner.copy_in(state, Incoming::List { bytes: list, count })
    }

    /// As [`Segment::try_append`], blocking while the pool is empty.
    pub fn append_blocking(&self, records: &[&[u8]], take: Take) -> Result<Appended, StoreError> {
        let shared = &self.inner.shared;
        loop {
            match self.try_append(records, take) {
                Err(StoreError::PoolEmpty) => shared.pool.waiters().until_blocking(|| shared.space()),
                outcome => return outcome,
            }
        }
    }

    /// First index that is not yet durable here, in the segment's tier.
    pub fn watermark(&self) -> u64 {
        self.inner.watermark.load(Ordering::Acquire)
    }

    /// First index that was not yet given to a record (`watermark()` ≤ this).
    pub fn next_index(&self) -> u64 {
        lock(&self.inner.state).next_index
    }

    /// Bytes of header and batches in the file, up to the watermark; 0 while there is no file.
    /// A sealed segment knows it once it was read.
    pub fn size_bytes(&self) -> u64 {
        lock(&self.inner.state).durable_position
    }

    /// Makes its file now, if it is empty and in the page-cache tier, so that the first write need
    /// not: ext4 may search long for a free inode. (In the synced tier that would cost flushes for
    /// topics to which nobody may ever write.) Blocks for the time of a file's creation.
    pub fn make_file_ahead(&self) {
        if self.inner.spec.tier == Tier::PageCache {
            appender::make_file_ahead(&self.inner);
        }
    }

    /// Has what was appended written without anybody waiting for it.
    pub fn kick(&self) {
        self.inner.shared.queue.kick();
    }

    /// First index that may not be acknowledged yet: below it, enough copies hold every record.
    /// This copy itself may be behind.
    pub fn committed(&self) -> u64 {
        self.inner.committed.load(Ordering::Acquire)
    }

    /// First index that may not be read here: what is below is committed, and this copy has it.
    pub fn readable_end(&self) -> u64 {
        self.inner.readable_end()
    }

    /// Enough copies hold everything below `index`. Never goes back.
    pub fn commit(&self, index: u64) {
        if self.inner.committed.fetch_max(index, Ordering::AcqRel) < index {
            self.inner.waiters.wake_all();
        }
    }

    /// Whoever waits now for a commit that did not come is told that the outcome is not known.
    pub fn give_up(&self) {
        let mut state = lock(&self.inner.state);
        state.undecided_below = state.next_index;
        drop(state);
        self.inner.waiters.wake_all();
    }

    /// Ready when everything below `index` may be acknowledged, or with the reason why it may not:
    /// [`StoreError::Cut`] if it is certain that the records are not stored. May
    /// write what is pending into the page cache itself.
    pub fn poll_committed(&self, index: u64, cx: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        let inner = &self.inner;
        if self.committed() >= index {
            return Poll::Ready(Ok(()));
        }
        inner.waiters.poll_until(cx, || {
            // Also after the waker is registered: who was writing at the first look may have ended
            // in between, and left our records to us.
            appender::write_up_to(inner, index);
            if self.committed() >= index {
                return Some(Ok(()));
            }
            let state = lock(&inner.state);
            match state.sealed_count {
                Some(count) if count >= index => return Some(Ok(())),
                Some(_) => return Some(Err(StoreError::Cut { uid: inner.spec.uid })),
                None => {}
            }
            if state.undecided_below >= index {
                return Some(Err(StoreError::Undecided { uid: inner.spec.uid }));
            }
            // Other copies may hold what this one could not store: only the seal decides that.
            if inner.observer.is_some() { None } else { state.failure.clone().map(Err) }
        })
    }

    /// Async form of [`Segment::poll_committed`].
    pub async fn wait_committed(&self, index: u64) -> Result<(), StoreError> {
        std::future::poll_fn(|cx| self.poll_committed(index, cx)).await
    }

    /// Ready when `watermark() >= index`, or with the failure that makes it impossible. May write
    /// what is pending into the page cache itself.
    pub fn poll_watermark(&self, index: u64, cx: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        let inner = &self.inner;
        if self.watermark() >= index {
            return Poll::Ready(Ok(()));
        }
        inner.waiters.poll_until(cx, || {
            // Also after the waker is registered: who was writing at the first look may have ended
            // in between, and left our records to us.
            appender::write_up_to(inner, index);
            if self.watermark() >= index {
                return Some(Ok(()));
            }
            lock(&inner.state).failure.clone().map(Err)
        })
    }

    /// Async form of [`Segment::poll_watermark`].
    pub async fn wait_watermark(&self, index: u64) -> Result<(), StoreError> {
        std::future::poll_fn(|cx| self.poll_watermark(index, cx)).await
    }

    /// Blocking form of [`Segment::poll_watermark`].
    pub fn wait_watermark_blocking(&self, index: u64) -> Result<(), StoreError> {
        self.inner.write_all_here();
        block_on(|cx| self.poll_watermark(index, cx))
    }

    /// The failure that ended the segment, if one did.
    pub fn failure(&self) -> Option<StoreError> {
        lock(&self.inner.state).failure.clone()
    }

    /// Takes no more appends; what is in the active batch is still written.
    pub fn close(&self) {
        lock(&self.inner.state).closed = true;
    }

    /// After [`Segment::close`], once nothing is in flight: ends the segment at `count`
    /// (≤ watermark). Index and footer are written in the background, after a flush. Idempotent.
    pub fn seal(&self, count: u64) -> Result<(), StoreError> {
        {
            let state = lock(&self.inner.state);
            if !state.closed && state.failure.is_none() || count > self.watermark() {
                return Err(StoreError::Closed);
            }
        }
        self.end_at(count);
        Ok(())
    }

    /// The metadata show that the segment ends at `count`: nothing past it is taken any more, what
    /// this copy holds past it is cut off, and whoever waits for a commit learns what became of it.
    /// Index and footer are written in the background, as soon as the copy is whole. Idempotent.
    pub fn end_at(&self, count: u64) {
        let mut state = lock(&self.inner.state);
        state.closed = true;
        if state.sealed_count.replace(count).is_some() {
            return;
        }
        drop(state);
        self.inner.waiters.wake_all();
        self.inner.finish_if_whole();
    }

    /// Do other nodes hold copies of it, so that being stored here is not being committed?
    pub fn has_other_copies(&self) -> bool {
        self.inner.observer.is_some()
    }

    /// The segment is about to be removed: takes nothing more, and waits until nothing is being
    /// written any more. Whoever waits for a commit is told that it will not come. Blocks.
    pub fn abandon(&self) {
        self.end_at(0);
        self.inner.settle();
    }

    /// Completes once a sealed copy is whole, with its footer, and flushed: true. False: that has
    /// failed (ask again to have it tried again), or the segment was abandoned.
    pub async fn finished(&self) -> bool {
        self.inner.finish_if_whole();
        self.inner
            .waiters
            .until(|| {
                let state = lock(&self.inner.state);
                (state.finished || state.unfinished).then_some(state.finished)
            })
            .await
    }

    /// The count at which it was sealed.
    pub fn sealed_count(&self) -> Option<u64> {
        lock(&self.inner.state).sealed_count
    }

    /// First index that is certain not to be acknowledged, as far as is known now.
    pub fn acknowledged_end(&self) -> u64 {
        self.sealed_count().unwrap_or_else(|| self.committed())
    }

    /// Reads batches from `from_index` on, up to the readable end (or the sealed count): about
    /// `max_bytes` and at most `max_records`, but at least one record if there is one. Empty at
    /// the end. Blocking I/O, mostly from the page cache.
    pub fn read(&self, from_index: u64, max_records: u64, max_bytes: usize) -> Result<Vec<ReadBatch>, StoreError> {
        reader::read(&self.inner, from_index, max_records, max_bytes)
    }

    /// Completes once a record at `index` may be read, or the segment failed or was sealed.
    pub async fn readable(&self, index: u64) {
        self.inner
            .waiters
            .until(|| {
                let state = lock(&self.inner.state);
                let over = self.readable_end() > index || state.failure.is_some() || state.sealed_count.is_some();
                over.then_some(())
            })
            .await;
    }
}
