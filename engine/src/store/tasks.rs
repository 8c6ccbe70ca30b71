//! The simulation's twin of the store's threads: the same work, in tasks, after the time that a disk takes.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::appender::{Queue, write_next};
use super::background::{self, Task};
use super::disk::Disk;
use super::pool::lock;
use super::{Shared, StoreConfig, journal};
use crate::sim::random;

/// Longest time from the arrival of work to its writing, in microseconds.
const DISK_US_MAX: u64 = 4000;
/// How often it is looked for what may happen later.
const LATER: Duration = Duration::from_millis(20);

/// Wakes the task that writes.
#[derive(Debug, Clone, Default)]
pub(super) struct Bell(Arc<Notify>);

impl Bell {
    pub(super) fn ring(&self) {
        self.0.notify_one();
    }
}

/// How writers are woken.
pub(super) type Waking = Bell;

/// The queue in front of the writer.
pub(super) fn make_queue(_config: &StoreConfig, _disk: &dyn Disk) -> (Queue, Waking) {
    let bell = Bell::default();
    (Queue::new(Some(bell.clone())), bell)
}

/// Running tasks.
#[derive(Debug)]
pub(super) struct Threads {
    writer: JoinHandle<()>,
    background: JoinHandle<()>,
    tasks: Arc<Mutex<Receiver<Task>>>,
}

impl Threads {
    /// Starts them.
    #[expect(clippy::unnecessary_wraps, reason = "threads may fail to start")]
    pub(super) fn start(shared: &Arc<Shared>, waking: Waking, tasks: Receiver<Task>) -> io::Result<Self> {
        let tasks = Arc::new(Mutex::new(tasks));
        let writer = tokio::spawn(write(Arc::clone(shared), waking));
        let background = tokio::spawn(work(Arc::clone(shared), Arc::clone(&tasks)));
        Ok(Threads { writer, background, tasks })
    }

    /// There is one.
    #[expect(clippy::unused_self, reason = "threads come in kinds")]
    pub(super) fn backend(&self) -> &'static str {
        "simulated"
    }

    /// Writes and flushes everything.
    pub(super) fn stop(self, shared: &Shared) -> bool {
        self.writer.abort();
        self.background.abort();
        while let Some(segment) = shared.queue.pop_or_sleep() {
            write_next(segment);
        }
        perform_all(shared, &self.tasks);
        background::flush_dirty(shared);
        // What the journal still owes was never acknowledged.
        shared.journal.is_idle() && !shared.flush_failed.load(Ordering::Relaxed)
    }
}

async fn write(shared: Arc<Shared>, bell: Bell) {
    let mut journal = journal::Writer::new(Arc::clone(&shared));
    loop {
        while let Some(segment) = shared.queue.pop_or_sleep() {
            write_next(segment);
        }
        while !shared.journal.is_idle() {
            journal.write_next();
        }
        bell.0.notified().await;
        sleep(Duration::from_micros(random::next() % DISK_US_MAX)).await;
    }
}

async fn work(shared: Arc<Shared>, tasks: Arc<Mutex<Receiver<Task>>>) {
    let interval = Duration::from_millis(shared.flush_interval_ms);
    let mut next_flush = Instant::now() + interval;
    loop {
        sleep(LATER).await;
        perform_all(&shared, &tasks);
        if Instant::now() >= next_flush {
            background::flush_dirty(&shared);
            next_flush = Instant::now() + interval;
        }
    }
}

fn perform_all(shared: &Shared, tasks: &Mutex<Receiver<Task>>) {
    let tasks = lock(tasks).try_iter().collect();
    background::perform(shared, tasks);
}
