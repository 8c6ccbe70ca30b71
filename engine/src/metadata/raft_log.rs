//! The Raft log and vote: in memory for reading, in [`LogFile`] for keeping.
//!
//! ```text
//! openraft ──append, vote, truncate, purge──▶ memory + queue ──▶ writer thread ──▶ file
//!    ▲                                                              │
//!    └────────────── flushed: all of the queue at once ◀────────────┘
//! ```
//! The writer takes whatever has queued up and makes it durable with one write: group commit. When a
//! half of the file is full it writes the whole log anew, with all that is queued in it.

mod memory;
mod writer;

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{LogId, OptionalSend, RaftLogReader, StorageError, StorageIOError, Vote};
use tokio::sync::{Notify, oneshot};

use self::memory::{Log, encode};
use self::writer::{Flushed, Writer};
use super::MetadataError;
use super::log_file::{Kind, LogFile};
use super::raft_types::{Entry, EntryPayload, NodeId, TypeConfig};

/// The log of one node; clones share it.
#[derive(Clone)]
pub(super) struct RaftLog {
    shared: Arc<Shared>,
}

struct Shared {
    log: Mutex<Log>,
    /// Something was queued.
    queued: Condvar,
    #[cfg(feature = "sim")]
    queued_in_sim: Notify,
    /// Highest [`super::raft_types::Batch::number`] that was appended here.
    appended_batch: AtomicU64,
    /// The log wants to be purged.
    grown: Notify,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Shared {
    fn wake_writer(&self) {
        self.queued.notify_all();
        #[cfg(feature = "sim")]
        self.queued_in_sim.notify_one();
    }
}

impl RaftLog {
    /// Opens or creates the log at `path` and starts its writer.
    pub(super) fn open(path: &Path) -> Result<Self, MetadataError> {
        let mut log = Log::default();
        let file = LogFile::open(path, |kind, body| log.replay(kind, body))?;
        log.roomy_bytes = file.roomy_bytes() as usize;
        let shared = Arc::new(Shared {
            log: Mutex::new(log),
            queued: Condvar::new(),
            #[cfg(feature = "sim")]
            queued_in_sim: Notify::new(),
            appended_batch: AtomicU64::new(0),
            grown: Notify::new(),
            writer: Mutex::new(None),
        });
        let writer = Writer { shared: Arc::clone(&shared), file };
        *lock(&shared.writer) =
            writer.start().map_err(|error| MetadataError::io("start the writer of", path, error))?;
        Ok(RaftLog { shared })
    }

    /// Nothing was ever written: no vote and no entry.
    pub(super) fn is_pristine(&self) -> bool {
        let log = self.log();
        log.vote.is_none() && log.last_id().is_none()
    }

    /// Was the batch with this number appended to this log since the process started?
    pub(super) fn has_appended(&self, batch: u64) -> bool {
        self.shared.appended_batch.load(Ordering::Acquire) >= batch
    }

    /// Index of the last entry; 0 for none.
    pub(super) fn last_index(&self) -> u64 {
        self.log().last_id().map_or(0, |id| id.index)
    }

    /// The log is so large that a snapshot should let it be purged.
    pub(super) fn wants_snapshot(&self) -> bool {
        self.log().wants_snapshot()
    }

    /// Returns once an append has left the log so large, or [`RaftLog::look_again`] was called.
    pub(super) async fn grown(&self) {
        self.shared.grown.notified().await;
    }

    /// Has whoever waits for [`RaftLog::grown`] look again.
    pub(super) fn look_again(&self) {
        self.shared.grown.notify_one();
    }

    /// Nothing more fits until a snapshot has let the log be purged.
    pub(super) fn is_full(&self) -> bool {
        self.log().is_full()
    }

    /// How many of these entries, the first ones, a follower takes now: see [`Log::room_for`].
    pub(super) fn room_for(&self, entries: &[Entry]) -> usize {
        self.log().room_for(entries)
    }

    /// Up to where to purge once there is a snapshot up to this index: see [`Log::purge_upto`].
    pub(super) fn purge_upto(&self, snapshot: u64) -> Option<u64> {
        self.log().purge_upto(snapshot)
    }

    /// Writes what somebody waits for, and ends the writer.
    pub(super) fn shutdown(&self) {
        self.log().stopping = true;
        self.shared.wake_writer();
        let thread = lock(&self.shared.writer).take();
        if let Some(thread) = thread {
            // A panic there was already printed.
            let _ = thread.join();
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.shared.log)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type StorageResult<T> = Result<T, StorageError<NodeId>>;

impl RaftLogReader<TypeConfig> for RaftLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> StorageResult<Vec<Entry>> {
        Ok(self.log().read(&range))
    }

    /// Not more than what goes into one message.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> StorageResult<Vec<Entry>> {
        let log = self.log();
        let end = log.end_of_message(start).min(end);
        Ok(log.read(&(start..end)))
    }
}

impl RaftLogStorage<TypeConfig> for RaftLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> StorageResult<LogState<TypeConfig>> {
        let log = self.log();
        Ok(LogState { last_purged_log_id: log.purged, last_log_id: log.last_id() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<NodeId>) -> StorageResult<()> {
        let body = encode(vote).map_err(|error| StorageIOError::write_vote(&error))?;
        let (sender, flushed) = oneshot::channel();
        {
            let mut log = self.log();
            log.vote = Some(*vote);
            log.queue.push(Kind::Vote, &body);
            log.waiting.push(Flushed::Vote(sender));
        }
        self.shared.wake_writer();
        let result = flushed.await.unwrap_or_else(|_| Err(io::Error::other("the metadata log was closed")));
        Ok(result.map_err(|error| StorageIOError::write_vote(&error))?)
    }

    async fn read_vote(&mut self) -> StorageResult<Option<Vote<NodeId>>> {
        Ok(self.log().vote)
    }

    /// Goes to the file with the next write: only the view after a restart depends on it.
    async fn save_committed(&mut self, committed: Option<LogId<NodeId>>) -> StorageResult<()> {
        let body = encode(&committed).map_err(|error| StorageIOError::write(&error))?;
        let mut log = self.log();
        log.committed = committed;
        log.queue.push(Kind::Committed, &body);
        Ok(())
    }

    async fn read_committed(&mut self) -> StorageResult<Option<LogId<NodeId>>> {
        Ok(self.log().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> StorageResult<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut encoded = Vec::new();
        for entry in entries {
            let body = encode(&entry).map_err(|error| StorageIOError::write_log_entry(entry.log_id, &error))?;
            encoded.push((entry, body));
        }
        {
            let mut log = self.log();
            for (entry, body) in encoded {
                if let EntryPayload::Normal(batch) = &entry.payload {
                    self.shared.appended_batch.fetch_max(batch.number, Ordering::AcqRel);
                }
                log.queue.push(Kind::Entry, &body);
                log.push(entry, body);
            }
            log.waiting.push(Flushed::Append(callback));
            if log.wants_snapshot() {
                self.shared.grown.notify_one();
            }
        }
        self.shared.wake_writer();
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId<NodeId>) -> StorageResult<()> {
        let mut log = self.log();
        log.truncate(log_id.index);
        log.queue.push(Kind::Truncate, &log_id.index.to_le_bytes());
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId<NodeId>) -> StorageResult<()> {
        let body = encode(&log_id).map_err(|error| StorageIOError::write_logs(&error))?;
        let mut log = self.log();
        log.purge(log_id);
        log.queue.push(Kind::Purge, &body);
        Ok(())
    }
}
