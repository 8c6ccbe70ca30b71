//! The portable backend: a few threads, each writing one batch at a time.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::Shared;
use super::appender::write_next;

/// Enough to keep a device busy; one would serialise the topics behind each flush.
const THREADS: usize = 4;

/// Starts the writers; they end when the queue is stopped and empty.
pub(super) fn start(shared: &Arc<Shared>) -> std::io::Result<Vec<JoinHandle<()>>> {
    (0..THREADS)
        .map(|number| {
            let shared = Arc::clone(shared);
            thread::Builder::new().name(format!("walrus-write-{number}")).spawn(move || run(&shared))
        })
        .collect()
}

fn run(shared: &Arc<Shared>) {
    while let Some(segment) = shared.queue.pop_blocking() {
        write_next(segment);
    }
}
