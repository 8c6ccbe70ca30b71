//! The thread that writes the log to its file, a group at a time.

use std::io;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

use openraft::storage::LogFlushed;
use tokio::sync::oneshot;

use super::super::log_file::{LogFile, Operations};
use super::super::raft_types::TypeConfig;
use super::{Shared, lock};

/// Who waits for a write.
pub(super) enum Flushed {
    Append(LogFlushed<TypeConfig>),
    Vote(oneshot::Sender<io::Result<()>>),
}

impl Flushed {
    fn tell(self, result: io::Result<()>) {
        match self {
            Flushed::Append(callback) => callback.log_io_completed(result),
            // Nobody waits any more: the process is stopping.
            Flushed::Vote(sender) => drop(sender.send(result)),
        }
    }
}

/// The thread that writes.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) file: LogFile,
}

impl Writer {
    #[cfg(not(feature = "sim"))]
    pub(super) fn start(mut self) -> io::Result<Option<JoinHandle<()>>> {
        std::thread::Builder::new().name("raft-log".into()).spawn(move || while self.write_next() {}).map(Some)
    }

    /// In the simulation it is a task, which writes after the time that a disk takes.
    #[cfg(feature = "sim")]
    #[expect(clippy::unnecessary_wraps, reason = "a thread may fail to start")]
    pub(super) fn start(mut self) -> io::Result<Option<JoinHandle<()>>> {
        tokio::spawn(async move {
            loop {
                self.shared.queued_in_sim.notified().await;
                let disk = std::time::Duration::from_micros(crate::sim::random::next() % 3000);
                tokio::time::sleep(disk).await;
                while !lock(&self.shared.log).waiting.is_empty() {
                    self.write_next();
                }
            }
        });
        Ok(None)
    }

    /// Waits for a group and writes it. False: the log was stopped, and nobody waits for it any more.
    fn write_next(&mut self) -> bool {
        let Some((operations, waiting)) = self.next_group() else { return false };
        let (result, more) = self.write(&operations);
        let failed = result.as_ref().err().map(|error| (error.kind(), error.to_string()));
        if let Some((_, error)) = &failed {
            tracing::error!(%error, "the metadata log cannot be written any more; restart the broker");
            lock(&self.shared.log).failed = true;
        }
        for flushed in waiting.into_iter().chain(more) {
            flushed.tell(match &failed {
                None => Ok(()),
                Some((kind, error)) => Err(io::Error::new(*kind, error.clone())),
            });
        }
        true
    }

    /// Everything that has queued up; waits for the first. `None`: stop.
    fn next_group(&self) -> Option<(Operations, Vec<Flushed>)> {
        let mut log = lock(&self.shared.log);
        // What nobody waits for goes with the next write. It is not written at the stop: a purge whose
        // snapshot could not be written would be the end of this node.
        while log.waiting.is_empty() {
            if log.stopping {
                return None;
            }
            log = self.shared.queued.wait(log).unwrap_or_else(PoisonError::into_inner);
        }
        Some((std::mem::take(&mut log.queue), std::mem::take(&mut log.waiting)))
    }

    /// Writes a group. A checkpoint takes along what was queued meanwhile.
    fn write(&mut self, operations: &Operations) -> (io::Result<()>, Vec<Flushed>) {
        if lock(&self.shared.log).failed {
            let error = io::Error::other("the metadata log failed earlier; restart the broker");
            return (Err(error), Vec::new());
        }
        match self.file.append(operations) {
            Ok(true) => return (Ok(()), Vec::new()),
            Ok(false) => {}
            Err(error) => return (Err(error), Vec::new()),
        }
        let (whole, waiting) = {
            let mut log = lock(&self.shared.log);
            // The memory already holds what is queued.
            log.queue = Operations::default();
            (log.whole(), std::mem::take(&mut log.waiting))
        };
        let result = whole.and_then(|whole| self.file.checkpoint(&whole));
        lock(&self.shared.log).roomy_bytes = self.file.roomy_bytes() as usize;
        (result, waiting)
    }
}
