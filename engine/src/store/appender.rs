//! Group commit: what happens to a segment's batches between the append and the watermark.
//!
//! ```text
//! try_append ─▶ Queue ─▶ prepare ─▶ (io_uring │ blocking thread │ journal) ─▶ complete
//!                 ▲                                                              │
//!                 └────────────── more is pending ◀──────────────────────────────┘
//! ```
//! While one batch of a segment is in flight the next one fills, so batches grow with the load
//! and cost nothing when idle.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::SegmentSpec;
use super::batch::Batch;
use super::disk;
use super::format::{BatchHeader, DATA_START, FileHeader};
use super::pool::lock;
use super::segment::Inner;
use crate::clock::now_ms;
use crate::types::Tier;

/// First step of the space reserved for a segment; doubles up to [`RESERVE_MAX_BYTES`].
const RESERVE_MIN_BYTES: u64 = 1024 * 1024;
const RESERVE_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Writeback is started for this much of a segment at a time, once too much lags behind.
const WRITEBACK_STEP_BYTES: u64 = 8 * 1024 * 1024;
/// Synced batches up to this size go through the shared journal.
const JOURNAL_BATCH_BYTES_MAX: usize = 64 * 1024;

/// Segments that have something to write, in order of arrival.
#[derive(Debug)]
pub(super) struct Queue {
    ready: Mutex<Ready>,
    arrived: Condvar,
    /// Rings when something arrives and the io_uring thread may be asleep in the kernel.
    bell: Option<super::bell::Bell>,
}

#[derive(Debug, Default)]
struct Ready {
    segments: VecDeque<Arc<Inner>>,
    sleepers: usize,
    stopping: bool,
    /// Who listened to the bell waits on the condition now.
    deaf: bool,
}

impl Queue {
    pub(super) fn new(bell: Option<super::bell::Bell>) -> Self {
        Queue { ready: Mutex::default(), arrived: Condvar::new(), bell }
    }

    /// Adds a segment, which the caller marked queued, and wakes a writer for it.
    pub(super) fn push(&self, segment: Arc<Inner>) {
        let mut ready = lock(&self.ready);
        ready.segments.push_back(segment);
        self.wake_if(ready.sleepers > 0, ready);
    }

    /// Adds a segment, which the caller marked queued, for whoever comes first: a thread that waits
    /// for its records and writes them, or a writer that is awake.
    pub(super) fn push_quietly(&self, segment: Arc<Inner>) {
        lock(&self.ready).segments.push_back(segment);
    }

    /// Wakes a writer if anything was added quietly.
    pub(super) fn kick(&self) {
        let ready = lock(&self.ready);
        self.wake_if(ready.sleepers > 0 && !ready.segments.is_empty(), ready);
    }

    fn wake_if(&self, needed: bool, ready: MutexGuard<'_, Ready>) {
        let bell = self.bell.as_ref().filter(|_| !ready.deaf);
        drop(ready);
        match bell {
            _ if !needed => {}
            Some(bell) => bell.ring(),
            None => self.arrived.notify_one(),
        }
    }

    /// Nobody listens to the bell any more: writers wait in [`Queue::pop_blocking`].
    pub(super) fn give_up_bell(&self) {
        let mut ready = lock(&self.ready);
        ready.deaf = true;
        ready.sleepers = 0;
    }

    /// The next segment; waits for one. `None`: the store stops and nothing is left.
    pub(super) fn pop_blocking(&self) -> Option<Arc<Inner>> {
        let mut ready = lock(&self.ready);
        loop {
            if let Some(segment) = ready.segments.pop_front() {
                return Some(segment);
            }
            if ready.stopping {
                return None;
            }
            ready.sleepers += 1;
            ready = self.arrived.wait(ready).unwrap_or_else(std::sync::PoisonError::into_inner);
            ready.sleepers -= 1;
        }
    }

    /// The next segment if there is one. If there is none, arrivals ring the bell from now on.
    pub(super) fn pop_or_sleep(&self) -> Option<Arc<Inner>> {
        let mut ready = lock(&self.ready);
        let next = ready.segments.pop_front();
        ready.sleepers = usize::from(next.is_none());
        next
    }

    /// No more segments will come, once those that are there are written.
    pub(super) fn stop(&self) {
        lock(&self.ready).stopping = true;
        self.arrived.notify_all();
        if let Some(bell) = &self.bell {
            bell.ring();
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        lock(&self.ready).stopping
    }
}

/// Whoever appends writes batches of this size itself; smaller ones are left to grow.
pub(super) const WRITE_HERE_BYTES_MIN: usize = 256 * 1024;
/// A write into the page cache that sleeps and takes longer was held back by the kernel.
const SLOW_WRITE: Duration = Duration::from_millis(5);
/// For so long after one, batches are left to the store's threads.
const SLOW_TIME: Duration = Duration::from_millis(200);

/// One batch on its way to its place in a file.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) segment: Arc<Inner>,
    pub(super) batch: Arc<Batch>,
    pub(super) file: Arc<File>,
    pub(super) position: u64,
}

impl Write {
    /// Must it be flushed before it counts?
    pub(super) fn is_synced(&self) -> bool {
        self.segment.spec.tier == Tier::Synced
    }

    /// Does it share a flush with the small writes of other segments?
    pub(super) fn wants_journal(&self) -> bool {
        self.is_synced()
            && self.batch.total_bytes() <= JOURNAL_BATCH_BYTES_MAX
            && !self.segment.shared.journal.is_held()
    }

    /// Writes it here and now.
    pub(super) fn run(&self) -> io::Result<()> {
        let disk = &self.segment.shared.disk;
        disk.write(&self.file, self.position, &mut self.batch.io_slices(), self.is_synced())
    }

    /// Writes it here and now, to be flushed later (the journal holds it until then).
    pub(super) fn run_unsynced(&self) -> io::Result<()> {
        let disk = &self.segment.shared.disk;
        disk.write(&self.file, self.position, &mut self.batch.io_slices(), false)
    }
}

/// Takes the first pending batch of a segment, closes it, and makes its place ready.
/// `None`: there was nothing to write, or its place could not be had (the segment failed).
pub(super) fn prepare(segment: Arc<Inner>) -> Option<Write> {
    let (mut batch, position, reserved_end) = {
        let mut state = lock(&segment.state);
        state.queued = false;
        // Whoever writes it now queues it again when more is pending.
        if state.in_flight {
            return None;
        }
        let batch = state.pending.pop_front()?;
        state.in_flight = true;
        (batch, state.durable_position.max(DATA_START), state.reserved_end)
    };
    if !batch.is_raw() {
        batch.close(BatchHeader {
            crc: 0,
            length: 0,
            uid: segment.spec.uid,
            epoch: segment.spec.epoch,
            base_index: batch.base_index,
            count: 0,
            filler: 0,
            timestamp_ms: now_ms(),
        });
    }
    match make_place(&segment, position + batch.total_bytes() as u64, reserved_end) {
        Ok(file) => {
            let batch = Arc::new(batch);
            segment.submitted(&batch);
            Some(Write { segment, batch, file, position })
        }
        Err(error) => {
            segment.fail_write(&error, "making room");
            None
        }
    }
}

/// Writes the first pending batch here and now, while it is still in this CPU's cache; false if
/// there is none, or another thread is writing. Page-cache tier only: a flush is worth sharing.
pub(super) fn write_here(segment: &Arc<Inner>) -> bool {
    let Some(write) = prepare(Arc::clone(segment)) else { return false };
    let result = segment.shared.slow_writes.watch(|| write.run());
    complete(write, result);
    true
}

/// Writes the first pending batch here and now, or leaves it to the journal if that is to share its
/// flush.
pub(super) fn write_next(segment: Arc<Inner>) {
    let Some(write) = prepare(segment) else { return };
    if write.wants_journal() {
        let shared = Arc::clone(&write.segment.shared);
        shared.journal.submit(write);
    } else {
        let result = write.run();
        complete(write, result);
    }
}

/// Somebody waits for the record before `index`: writes what is pending up to there, or sees to it
/// that it is written.
pub(super) fn write_up_to(segment: &Arc<Inner>, index: u64) {
    if segment.spec.tier == Tier::Synced {
        return;
    }
    if segment.shared.slow_writes.now() {
        return segment.shared.queue.kick();
    }
    while segment.watermark() < index && write_here(segment) {}
}

/// Whether the kernel holds writers back at the moment, because too much is dirty. Then nobody but
/// the store's own threads should wait for it.
#[derive(Debug)]
pub(super) struct SlowWrites {
    start: Instant,
    /// In milliseconds since `start`.
    until_ms: AtomicU64,
}

impl SlowWrites {
    pub(super) fn new() -> Self {
        SlowWrites { start: Instant::now(), until_ms: AtomicU64::new(0) }
    }

    /// Does a write into the page cache, and notes it if the kernel held it back.
    pub(super) fn watch<T>(&self, write: impl FnOnce() -> T) -> T {
        let (began, slept) = (Instant::now(), disk::times_slept());
        let done = write();
        // A thread that was merely preempted did not sleep. (In the simulation real time does not count.)
        if !cfg!(feature = "sim") && began.elapsed() > SLOW_WRITE && disk::times_slept() > slept {
            self.note();
        }
        done
    }

    fn note(&self) {
        let until = self.start.elapsed() + SLOW_TIME;
        self.until_ms.store(until.as_millis() as u64, Ordering::Relaxed);
    }

    /// From now on writes count as slow for good.
    #[cfg(test)]
    pub(super) fn pin(&self) {
        self.until_ms.store(u64::MAX, Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> bool {
        let until_ms = self.until_ms.load(Ordering::Relaxed);
        until_ms > 0 && (self.start.elapsed().as_millis() as u64) < until_ms
    }
}

/// The segment's file, made if this is its first write, with space reserved up to `end`.
pub(super) fn make_place(segment: &Arc<Inner>, end: u64, reserved_end: u64) -> io::Result<Arc<File>> {
    let shared = &segment.shared;
    let uid = segment.spec.uid;
    if end <= reserved_end {
        return shared.files.get(uid);
    }
    let file = if reserved_end == 0 { create_file(segment)? } else { shared.files.get(uid)? };
    let step = (reserved_end.next_power_of_two()).clamp(RESERVE_MIN_BYTES, RESERVE_MAX_BYTES);
    // Never more than the segment may take, so that small segments stay small.
    let target = (reserved_end + step).min(segment.spec.segment_bytes.max(end)).max(end);
    if let Err(error) = shared.disk.reserve(&file, reserved_end, target - reserved_end) {
        // A nearly full disk may still have room for exactly this batch.
        if target == end {
            return Err(error);
        }
        shared.disk.reserve(&file, reserved_end, end - reserved_end)?;
        lock(&segment.state).reserved_end = end;
        return Ok(file);
    }
    lock(&segment.state).reserved_end = target;
    Ok(file)
}

/// Makes the file of a segment that has none yet, so that its first write need not. A write that
/// comes meanwhile waits for it. If it cannot be made, the first write tries again: until then nothing
/// is lost, and a full disk may have space by then.
pub(super) fn make_file_ahead(segment: &Arc<Inner>) {
    {
        let mut state = lock(&segment.state);
        if state.in_flight || state.closed || state.failure.is_some() || state.reserved_end > 0 {
            return;
        }
        state.in_flight = true;
    }
    if let Err(error) = create_file(segment) {
        tracing::debug!(segment = %segment.spec.uid, %error, "the file cannot be made ahead");
    }
    if segment.let_others_write() {
        segment.hand_over();
    }
    segment.waiters.wake_all();
}

fn create_file(segment: &Arc<Inner>) -> io::Result<Arc<File>> {
    let SegmentSpec { uid, epoch, tier, .. } = segment.spec;
    let shared = &segment.shared;
    let file = shared.files.create(uid)?;
    let header = FileHeader { uid, epoch, tier }.encode();
    // The header page is written whole, so that the first batch starts in a page of its own.
    let rest = [0; DATA_START as usize - FileHeader::BYTES];
    let synced = tier == Tier::Synced;
    shared.disk.write(&file, 0, &mut [IoSlice::new(&header), IoSlice::new(&rest)], synced)?;
    if synced {
        shared.files.sync_dir()?;
    }
    let mut state = lock(&segment.state);
    state.durable_position = DATA_START;
    state.reserved_end = DATA_START;
    Ok(file)
}

/// The write returned (and, in the synced tier, was flushed, in place or in the journal).
pub(super) fn complete(write: Write, result: io::Result<()>) {
    let Write { segment, batch, position, .. } = write;
    let (bytes, records) = (batch.total_bytes() as u64, batch.base_index..batch.end_index());
    let raw = batch.is_raw();
    drop(batch);
    if let Err(error) = result {
        segment.fail_write(&error, "writing");
        return;
    }
    let more = written(&segment, position, bytes, records);
    if more && raw {
        // Nobody waits here for what another node has sent.
        segment.shared.queue.push(segment.clone());
    } else if more {
        segment.hand_over();
    }
}

/// These records lie in the file: moves the watermark, and keeps dirty pages few. Returns whether the
/// segment must be queued again.
pub(super) fn written(segment: &Arc<Inner>, position: u64, bytes: u64, records: Range<u64>) -> bool {
    let more = segment.advance(bytes, records.start, records.end);
    start_writeback(segment, position + bytes, bytes);
    more
}

/// Keeps dirty pages few: hands what lags behind to the device, some megabytes at a time, without
/// waiting, and lists the segment for the next background flush.
fn start_writeback(segment: &Arc<Inner>, end: u64, written: u64) {
    let background = &segment.shared.background;
    let is_late = background.note_written(written);
    let mut state = lock(&segment.state);
    let newly_dirty = !std::mem::replace(&mut state.dirty, true);
    let from = state.writeback_position;
    let start = is_late && end >= from + WRITEBACK_STEP_BYTES;
    if start {
        state.writeback_position = end;
    }
    drop(state);
    if newly_dirty {
        background.list_dirty(segment);
    }
    if start {
        background.start_writeback(segment, from, end - from);
    }
}
