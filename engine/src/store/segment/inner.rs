//! What all handles of a segment share, and how it changes: records copied in, a write that has ended,
//! a failure.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::Segment;
use crate::store::background::Task;
use crate::store::batch::Batch;
use crate::store::pool::lock;
use crate::store::state::{Incoming, State};
use crate::store::waiters::Waiters;
use crate::store::{Appended, Observer, SegmentSpec, Shared, StoreError, appender, direct};
use crate::types::Tier;

/// What all handles of a segment share.
#[derive(Debug)]
pub(in crate::store) struct Inner {
    pub(in crate::store) spec: SegmentSpec,
    pub(in crate::store) shared: Arc<Shared>,
    pub(in crate::store) state: Mutex<State>,
    pub(super) watermark: AtomicU64,
    pub(super) committed: AtomicU64,
    pub(in crate::store) observer: Option<Arc<dyn Observer>>,
    pub(in crate::store) waiters: Waiters,
    /// Held while the file is flushed. Of two flushes at once the kernel tells only one that a page is
    /// lost.
    pub(in crate::store) flushing: Mutex<()>,
}

impl Inner {
    /// The state, if appends are taken.
    pub(super) fn lock_open(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = lock(&self.state);
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        if state.closed || state.promised > self.spec.epoch {
            return Err(StoreError::Closed);
        }
        Ok(state)
    }

    /// Copies what comes into the active batch, and sees to it that it is written in time.
    pub(super) fn copy_in(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        incoming: Incoming<'_>,
    ) -> Result<Appended, StoreError> {
        let first_index = state.next_index;
        if let Err(error) = state.copy_in(incoming, self.spec.tier, &self.shared.pool) {
            drop(state);
            // What fills the pool may belong to nobody who waits.
            self.shared.queue.kick();
            return Err(error);
        }
        let full = state.close_if_full(&self.spec);
        let here = state.is_grown(self.spec.tier) && !self.shared.slow_writes.now();
        let wake_writer = !here && state.wants_writer();
        state.queued |= wake_writer;
        drop(state);
        if here {
            appender::write_here(self);
        } else if wake_writer {
            self.hand_over();
        }
        Ok(Appended { first_index, count: incoming.count(), full })
    }

    /// May a list of so many bytes go to the file from where it lies? Only if nothing is before it,
    /// if no other node wants to have it too, and if it is worth a write of its own.
    pub(super) fn may_write_directly(&self, state: &State, bytes: usize) -> bool {
        direct::is_worth_it(bytes, &self.shared.pool)
            && self.spec.tier == Tier::PageCache
            && self.observer.is_none()
            && !state.in_flight
            && state.pending.is_empty()
            && !self.shared.slow_writes.now()
    }

    /// Something is pending and marked queued: in the page-cache tier whoever waits for it writes it,
    /// with no change of threads; a flush is left to the store's threads at once, to be shared. So is
    /// what holds memory that others wait for: its owner may take its time.
    pub(in crate::store) fn hand_over(self: &Arc<Self>) {
        let shared = &self.shared;
        if self.spec.tier == Tier::PageCache && !shared.slow_writes.now() && !shared.pool.is_awaited() {
            shared.queue.push_quietly(Arc::clone(self));
            // Who began to wait between the look and the push has found nothing to kick.
            if shared.slow_writes.now() || shared.pool.is_awaited() {
                shared.queue.kick();
            }
        } else {
            shared.queue.push(Arc::clone(self));
        }
    }

    /// In the simulation whoever blocks has to write what it waits for: nobody else can run.
    pub(in crate::store) fn write_all_here(self: &Arc<Self>) {
        while cfg!(feature = "sim") && appender::write_here(self) {}
    }

    /// First index that is not durable.
    pub(in crate::store) fn watermark(&self) -> u64 {
        self.watermark.load(Ordering::Acquire)
    }

    /// First index that is not committed, or not durable here.
    pub(in crate::store) fn readable_end(&self) -> u64 {
        self.committed.load(Ordering::Acquire).min(self.watermark())
    }

    /// Has a sealed copy finished that holds everything below its end, once.
    pub(super) fn finish_if_whole(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        if state.sealed_count.is_some_and(|count| self.watermark() >= count) && !state.finishing {
            state.finishing = true;
            state.unfinished = false;
            drop(state);
            self.shared.background.send(Task::Seal(Arc::clone(self)));
        }
    }

    /// A batch is about to be written.
    pub(in crate::store) fn submitted(self: &Arc<Self>, batch: &Arc<Batch>) {
        if let Some(observer) = &self.observer {
            observer.submitted(&Segment::of(self), batch);
        }
    }

    /// Nothing is being written any more. Returns whether the segment must be queued, since
    /// something has become pending meanwhile.
    pub(in crate::store) fn let_others_write(&self) -> bool {
        let mut state = lock(&self.state);
        state.in_flight = false;
        let more = state.wants_writer();
        state.queued |= more;
        more
    }

    /// The sealed file has not got its end.
    pub(in crate::store) fn not_finished(&self, try_again: bool) {
        let mut state = lock(&self.state);
        state.finishing = !try_again;
        state.unfinished = true;
        drop(state);
        self.waiters.wake_all();
    }

    /// A write of the batch that ends at `end_index` is durable: moves the watermark, wakes the
    /// waiters once. Returns whether the segment must be queued again.
    pub(in crate::store) fn advance(self: &Arc<Self>, batch_bytes: u64, base_index: u64, end_index: u64) -> bool {
        let mut state = lock(&self.state);
        state.in_flight = false;
        if state.failure.is_some() {
            // A flush has failed meanwhile. What was past the watermark then is given up: the segment
            // may be sealed there by now.
            drop(state);
            self.waiters.wake_all();
            return false;
        }
        let position = state.durable_position;
        state.index.note(base_index, position);
        state.durable_position = position + batch_bytes;
        state.pending_bytes -= batch_bytes;
        let more = state.wants_writer();
        state.queued |= more;
        self.watermark.store(end_index, Ordering::Release);
        if self.observer.is_none() {
            self.committed.store(end_index, Ordering::Release);
        }
        drop(state);
        self.waiters.wake_all();
        if let Some(observer) = &self.observer {
            self.finish_if_whole();
            observer.progressed(&Segment::of(self));
        }
        more
    }

    /// The write that is in flight failed: as [`Inner::fail`].
    pub(in crate::store) fn fail_write(self: &Arc<Self>, error: &std::io::Error, what: &str) {
        self.end_with(error, what, true);
    }

    /// A flush failed: nothing more is taken or acknowledged, and what is pending is dropped. A write
    /// may be in flight; its end comes on its own. The first failure counts.
    pub(in crate::store) fn fail(self: &Arc<Self>, error: &std::io::Error, what: &str) {
        self.end_with(error, what, false);
    }

    fn end_with(self: &Arc<Self>, error: &std::io::Error, what: &str, write_ended: bool) {
        let failure = if error.raw_os_error() == Some(libc::ENOSPC) {
            StoreError::DiskFull
        } else {
            StoreError::Poisoned { uid: self.spec.uid, reason: format!("{what}: {error}").into() }
        };
        let mut state = lock(&self.state);
        state.failure.get_or_insert(failure);
        state.next_index = self.watermark();
        state.pending_bytes = 0;
        state.in_flight &= !write_ended;
        if write_ended && self.spec.tier == Tier::Synced && error.raw_os_error() != Some(libc::ENOSPC) {
            // The flush that was part of it may have been the one to be told of a lost page.
            state.flush_failed = true;
            self.shared.flush_failed.store(true, Ordering::Relaxed);
        }
        let dropped = std::mem::take(&mut state.pending);
        drop(state);
        drop(dropped);
        let has_entry = self.observer.is_some() || self.shared.fences.get(self.spec.uid).is_some();
        if has_entry && let Err(error) = self.shared.fences.record([self.spec.uid], |entry| entry.damaged = true) {
            tracing::error!(segment = %self.spec.uid, %error, "it could not be noted that the copy is in doubt");
        }
        self.waiters.wake_all();
        if let Some(observer) = &self.observer {
            observer.progressed(&Segment::of(self));
        }
        tracing::error!(segment = %self.spec.uid, %error, "{what} failed; the segment takes no more writes");
    }
}
