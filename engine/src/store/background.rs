//! What may happen later than an acknowledgement: writeback, flushes, footers.

use std::io::{self, IoSlice};
#[cfg(not(feature = "sim"))]
use std::iter;
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(feature = "sim"))]
use std::sync::mpsc::RecvTimeoutError;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
#[cfg(not(feature = "sim"))]
use std::thread::{self, JoinHandle};
#[cfg(not(feature = "sim"))]
use std::time::{Duration, Instant};

use super::format::{FlushedMark, MARK_POSITION};
use super::pool::lock;
use super::segment::Inner;
use super::{Shared, footers};

/// Segments that are flushed at the same time.
#[cfg(not(feature = "sim"))]
const FLUSH_THREADS: usize = 8;
/// Tasks that are taken from the queue at once.
#[cfg(not(feature = "sim"))]
const TASKS_MAX: usize = 256;

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
    /// Flush what a half of the journal holds, then let it be overwritten.
    ReleaseJournal { half: usize },
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
            Err(RecvTimeoutError::Disconnected) => return flush_dirty(shared),
            Err(RecvTimeoutError::Timeout) => {}
            Ok(first) => {
                let together: Vec<Task> = iter::once(first).chain(tasks.try_iter()).take(TASKS_MAX).collect();
                let stop = together.iter().any(|task| matches!(task, Task::Stop));
                perform(shared, together);
                if stop {
                    return flush_dirty(shared);
                }
            }
        }
        // Also while tasks never cease to come.
        if Instant::now() >= next_flush {
            flush_dirty(shared);
            next_flush = Instant::now() + interval;
        }
    }
}

/// Performs tasks. Segments that are to be ended come last, all together: after a failover they are many.
pub(super) fn perform(shared: &Shared, tasks: Vec<Task>) {
    let mut sealed = Vec::new();
    for task in tasks {
        match task {
            Task::Writeback { segment, position, length } => {
                if let Ok(file) = shared.files.get(segment.spec.uid) {
                    shared.disk.start_writeback(&file, position, length);
                }
            }
            Task::Seal(segment) => sealed.push(segment),
            Task::ReleaseJournal { half } => shared.journal.release(half),
            // The thread's loop sees to it, after everything that came before it.
            Task::Stop => {}
        }
    }
    footers::write_all(shared, &sealed);
}

pub(super) fn flush_dirty(shared: &Shared) {
    if let Err(error) = shared.files.sync_dir() {
        tracing::warn!(%error, "flushing the segment directory failed");
        shared.flush_failed.store(true, Ordering::Relaxed);
    }
    let dirty = std::mem::take(&mut *lock(&shared.background.dirty));
    each(&dirty, flush_or_fail);
}

/// Does something to segments, several at once: the device and the file system's journal take the
/// flushes of many together.
#[cfg(not(feature = "sim"))]
pub(super) fn each(segments: &[Arc<Inner>], work: impl Fn(&Arc<Inner>) + Sync) {
    let share = segments.len().div_ceil(FLUSH_THREADS).max(1);
    thread::scope(|scope| {
        for some in segments.chunks(share) {
            scope.spawn(|| some.iter().for_each(&work));
        }
    });
}

/// Does something to segments, one after the other: there is one thread.
#[cfg(feature = "sim")]
pub(super) fn each(segments: &[Arc<Inner>], work: impl Fn(&Arc<Inner>)) {
    segments.iter().for_each(work);
}

/// A failed flush is never tried again: the kernel may have dropped the pages (design: failure
/// rules), so the segment ends here.
pub(super) fn flush_or_fail(segment: &Arc<Inner>) {
    match flush(segment) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => segment.fail(&error, "flushing"),
        // Removed meanwhile: there is nothing to flush.
        _ => {}
    }
}

/// Flushes what is durable in the page cache, then moves the flushed mark. After a failure it fails
/// for ever: the kernel tells of a lost page only once, and the next flush would look like a success.
pub(super) fn flush(segment: &Inner) -> io::Result<()> {
    once_failed_always_failed(segment, || flush_and_mark(segment))
}

/// Does a flush of the segment's file under the rule of [`flush`].
pub(super) fn once_failed_always_failed(segment: &Inner, flush: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let _one_at_a_time = lock(&segment.flushing);
    if lock(&segment.state).flush_failed {
        return Err(io::Error::other("an earlier flush failed"));
    }
    flush().inspect_err(|error| {
        // Removed meanwhile: there is nothing to flush.
        if error.kind() != io::ErrorKind::NotFound {
            lock(&segment.state).flush_failed = true;
            segment.shared.flush_failed.store(true, Ordering::Relaxed);
        }
    })
}

fn flush_and_mark(segment: &Inner) -> io::Result<()> {
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
