//! The store's threads: those that write, the journal's, and the one for what may happen later.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

use super::appender::{Queue, write_here};
use super::background::Task;
use super::disk::Disk;
use super::{Shared, StoreConfig, background, blocking, journal};
#[cfg(target_os = "linux")]
use super::{bell, uring};

/// Running threads.
#[derive(Debug)]
pub(super) struct Threads {
    backend: &'static str,
    writers: Vec<JoinHandle<()>>,
    journal: JoinHandle<()>,
    background: JoinHandle<()>,
}

/// How writers are woken: the descriptor of a bell that io_uring listens to, or not at all specially.
pub(super) type Waking = Option<i32>;

impl Threads {
    /// Starts them. `waking` came with the queue.
    pub(super) fn start(shared: &Arc<Shared>, waking: Waking, tasks: Receiver<Task>) -> io::Result<Self> {
        let backend = if waking.is_some() { "io_uring" } else { "blocking" };
        let writers = start_writers(shared, waking)?;
        let journal = journal::start(shared)?;
        let background = background::start(shared, tasks)?;
        Ok(Threads { backend, writers, journal, background })
    }

    /// The backend in use.
    pub(super) fn backend(&self) -> &'static str {
        self.backend
    }

    /// Ends them once everything is written and flushed; true if that went well.
    pub(super) fn stop(self, shared: &Shared) -> bool {
        // The order of the data flow: nothing is handed to a thread that has ended.
        shared.queue.stop();
        let writers_ended = self.writers.into_iter().all(|thread| thread.join().is_ok());
        shared.journal.stop();
        let journal_ended = self.journal.join().is_ok();
        // What was pending behind the journal's last rounds came too late for the writers.
        while let Some(segment) = shared.queue.pop_or_sleep() {
            write_here(&segment);
        }
        shared.background.send(Task::Stop);
        let background_ended = self.background.join().is_ok();
        writers_ended && journal_ended && background_ended && !shared.flush_failed.load(Ordering::Relaxed)
    }
}

/// The queue in front of the writers, for the best backend that there is.
#[cfg(target_os = "linux")]
pub(super) fn make_queue(config: &StoreConfig, disk: &dyn Disk) -> (Queue, Waking) {
    if config.disable_io_uring || !disk.is_real() || !uring::is_available() {
        return (Queue::new(None), None);
    }
    match bell::Bell::new() {
        Ok(bell) => {
            let fd = bell.fd();
            (Queue::new(Some(bell)), Some(fd))
        }
        Err(_) => (Queue::new(None), None),
    }
}

/// The queue in front of the writers.
#[cfg(not(target_os = "linux"))]
pub(super) fn make_queue(_config: &StoreConfig, _disk: &dyn Disk) -> (Queue, Waking) {
    (Queue::new(None), None)
}

fn start_writers(shared: &Arc<Shared>, waking: Waking) -> io::Result<Vec<JoinHandle<()>>> {
    #[cfg(target_os = "linux")]
    if let Some(fd) = waking {
        return uring::start(shared, fd);
    }
    let _ = waking;
    blocking::start(shared)
}
