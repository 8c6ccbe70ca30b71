//! What may happen later than an acknowledgement: writeback, flushes, footers.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(feature = "sim"))]
use std::sync::mpsc::RecvTimeoutError;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
#[cfg(not(feature = "sim"))]
use std::thread::{self, JoinHandle};
#[cfg(not(feature = "sim"))]
use std::time::{Duration, Instant};

use super::Shared;
use super::format::{BATCH_HEADER_BYTES, BatchHeader, DATA_START, FlushedMark, Footer, MARK_POSITION};
use super::pool::lock;
use super::segment::Inner;

/// Segments that are flushed at the same time.
#[cfg(not(feature = "sim"))]
const FLUSH_THREADS: usize = 8;

/// Bounds of what may lag behind, and what may where the kernel does not say when it begins itself.
const LAG_BYTES_MIN: u64 = 64 << 20;
const LAG_BYTES_MAX: u64 = 8 << 30;
const LAG_BYTES_UNKNOWN: u64 = 1 << 30;

/// Work for the background thread.
#[derive(Debug)]
pub(super) enum Task {
    /// Start writing a range to the device, so that dirty pages stay few.
    Writeback { segment: Arc<Inner>, position: u64, length: u64 },
    /// Flush the segment and end its file with index and footer.
    Seal(Arc<Inner>),
    /// Flush the segments, then let the journal overwrite its half.
    ReleaseJournal { half: usize, segments: Vec<Arc<Inner>> },
    /// Flush what is dirty and end the thread.
    Stop,
}

/// The sending side.
#[derive(Debug)]
pub(super) struct Background {
    tasks: Sender<Task>,
    dirty: Mutex<Vec<Arc<Inner>>>,
    /// Bytes written for which neither writeback nor a flush was started.
    lag_bytes: AtomicU64,
    /// With more than this, writeback starts. A burst keeps the CPU to itself, and a long run
    /// leaves the kernel no flood. (The regular flush bounds the time.)
    lag_bytes_max: u64,
}

impl Background {
    pub(super) fn new() -> (Self, Receiver<Task>) {
        let (tasks, receiver) = channel();
        (
            Background { tasks, dirty: Mutex::default(), lag_bytes: AtomicU64::new(0), lag_bytes_max: lag_bytes_max() },
            receiver,
        )
    }

    /// Queues a task; once the thread has ended there is nothing left to do for it.
    pub(super) fn send(&self, task: Task) {
        let _ = self.tasks.send(task);
    }

    /// So much more was written. Returns whether writeback should start.
    pub(super) fn note_written(&self, bytes: u64) -> bool {
        self.lag_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes >= self.lag_bytes_max
    }

    /// Starts to write a range to the device.
    pub(super) fn start_writeback(&self, segment: &Arc<Inner>, position: u64, length: u64) {
        self.caught_up(length);
        self.send(Task::Writeback { segment: Arc::clone(segment), position, length });
    }

    /// So many bytes lag behind no more.
    fn caught_up(&self, bytes: u64) {
        let less = |lag: u64| Some(lag.saturating_sub(bytes));
        // Cannot fail: the closure always returns a value.
        let _ = self.lag_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// The segment has unflushed data; it is flushed within the flush interval.
    pub(super) fn list_dirty(&self, segment: &Arc<Inner>) {
        lock(&self.dirty).push(Arc::clone(segment));
    }
}

/// Dirty bytes at which the kernel begins to write by itself (`vm.dirty_background_*`): earlier
/// writeback would only take CPU from the writers.
fn lag_bytes_max() -> u64 {
    let number = |name: &str| -> Option<u64> {
        std::fs::read_to_string(format!("/proc/sys/vm/dirty_background_{name}")).ok()?.trim().parse().ok()
    };
    let available = || -> Option<u64> {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
    };
    let bytes = number("bytes").filter(|bytes| *bytes > 0);
    let bytes = bytes.or_else(|| Some(available()? / 100 * number("ratio")?));
    bytes.unwrap_or(LAG_BYTES_UNKNOWN).clamp(LAG_BYTES_MIN, LAG_BYTES_MAX)
}

/// Starts the thread.
#[cfg(not(feature = "sim"))]
pub(super) fn start(shared: &Arc<Shared>, tasks: Receiver<Task>) -> io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    thread::Builder::new().name("walrus-background".into()).spawn(move || run(&shared, &tasks))
}

#[cfg(not(feature = "sim"))]
fn run(shared: &Arc<Shared>, tasks: &Receiver<Task>) {
    let interval = Duration::from_millis(shared.flush_interval_ms);
    let mut next_flush = Instant::now() + interval;
    loop {
        match tasks.recv_timeout(next_flush.saturating_duration_since(Instant::now())) {
            Ok(Task::Stop) | Err(RecvTimeoutError::Disconnected) => return flush_dirty(shared),
            Ok(task) => perform(shared, task),
            Err(RecvTimeoutError::Timeout) => {
                flush_dirty(shared);
                next_flush = Instant::now() + interval;
            }
        }
    }
}

pub(super) fn perform(shared: &Shared, task: Task) {
    match task {
        Task::Writeback { segment, position, length } => {
            if let Ok(file) = shared.files.get(segment.spec.uid) {
                shared.disk.start_writeback(&file, position, length);
            }
        }
        Task::Seal(segment) => {
            if let Err(error) = seal(&segment) {
                // Nothing is lost: the footer is rebuilt by a scan at the next opening.
                tracing::warn!(segment = %segment.spec.uid, %error, "writing the footer failed");
            }
        }
        Task::ReleaseJournal { half, segments } => {
            flush_all(&segments);
            shared.journal.release(half);
        }
        Task::Stop => {}
    }
}

pub(super) fn flush_dirty(shared: &Shared) {
    if let Err(error) = shared.files.sync_dir() {
        tracing::warn!(%error, "flushing the segment directory failed");
    }
    let dirty = std::mem::take(&mut *lock(&shared.background.dirty));
    flush_all(&dirty);
}

/// Flushes segments, several at once: the device and the file system's journal take many together.
#[cfg(not(feature = "sim"))]
fn flush_all(segments: &[Arc<Inner>]) {
    let share = segments.len().div_ceil(FLUSH_THREADS).max(1);
    thread::scope(|scope| {
        for some in segments.chunks(share) {
            scope.spawn(move || some.iter().for_each(flush_or_fail));
        }
    });
}

/// Flushes segments, one after the other: there is one thread.
#[cfg(feature = "sim")]
fn flush_all(segments: &[Arc<Inner>]) {
    segments.iter().for_each(flush_or_fail);
}

/// A failed flush is never tried again: the kernel may have dropped the pages (design: failure
/// rules), so the segment ends here.
fn flush_or_fail(segment: &Arc<Inner>) {
    match flush(segment) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => segment.fail(&error, "flushing"),
        // Removed meanwhile: there is nothing to flush.
        _ => {}
    }
}

/// Flushes what is durable in the page cache, then moves the flushed mark.
pub(super) fn flush(segment: &Inner) -> io::Result<()> {
    let mark = {
        let mut state = lock(&segment.state);
        state.dirty = false;
        let lag_bytes = state.durable_position.saturating_sub(state.writeback_position);
        state.writeback_position = state.durable_position;
        segment.shared.background.caught_up(lag_bytes);
        FlushedMark { position: state.durable_position, index: segment.watermark() }
    };
    if mark.position == 0 {
        return Ok(());
    }
    let shared = &segment.shared;
    let file = shared.files.get(segment.spec.uid)?;
    shared.disk.flush(&file)?;
    // The mark itself may reach the device later: an older mark only claims less.
    shared.disk.write(&file, MARK_POSITION, &mut [IoSlice::new(&mark.encode())], false)
}

/// Flushes the data, cuts what lies past the sealed count, then writes index and footer.
fn seal(segment: &Arc<Inner>) -> io::Result<()> {
    segment.settle();
    let (count, index) = {
        let state = lock(&segment.state);
        (state.sealed_count.unwrap_or(0), state.index.clone())
    };
    if count == 0 {
        return Ok(());
    }
    flush(segment)?;
    let shared = &segment.shared;
    let file = shared.files.get(segment.spec.uid)?;
    let data_end = data_end(segment, count)?;
    let mut index = index;
    index.cut(data_end);
    let entries = index.entries();
    let footer =
        Footer { uid: segment.spec.uid, epoch: segment.spec.epoch, count, data_end, entries: entries.len() as u32 };
    let bytes = footer.encode(entries);
    file.set_len(data_end)?;
    shared.disk.write(&file, data_end, &mut [IoSlice::new(&bytes)], false)?;
    // Gives back what was reserved beyond the end.
    file.set_len(data_end + bytes.len() as u64)?;
    shared.disk.flush(&file)?;
    let mut state = lock(&segment.state);
    state.durable_position = data_end;
    state.index.cut(data_end);
    state.finished = true;
    drop(state);
    segment.waiters.wake_all();
    // Whole and closed: nothing that was promised for it matters any more.
    shared.fences.forget(&[segment.spec.uid]).map_err(io::Error::other)
}

/// Where the batches below `count` end.
fn data_end(segment: &Inner, count: u64) -> io::Result<u64> {
    let (mut position, end) = {
        let state = lock(&segment.state);
        if segment.watermark() == count {
            return Ok(state.durable_position);
        }
        (state.index.position_before(count - 1).unwrap_or(DATA_START), state.durable_position)
    };
    let file = segment.shared.files.get(segment.spec.uid)?;
    let mut header = [0; BATCH_HEADER_BYTES];
    while position < end {
        segment.shared.disk.read(&file, position, &mut header)?;
        let header = BatchHeader::decode(&header).map_err(io::Error::other)?;
        position += header.total_bytes();
        if header.base_index + u64::from(header.count) >= count {
            break;
        }
    }
    Ok(position)
}
