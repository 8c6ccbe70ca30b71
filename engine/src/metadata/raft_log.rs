//! The Raft log and vote: in memory for reading, in [`LogFile`] for keeping.
//!
//! ```text
//! openraft ──append, vote, truncate, purge──▶ memory + queue ──▶ writer thread ──▶ file
//!    ▲                                                              │
//!    └────────────── flushed: all of the queue at once ◀────────────┘
//! ```
//! The writer takes whatever has queued up and makes it durable with one write: group commit. When a
//! half of the file is full it writes the whole log anew, with all that is queued in it.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{LogId, OptionalSend, RaftLogReader, StorageError, StorageIOError, Vote};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, oneshot};

use super::MetadataError;
use super::log_file::{Kind, LogFile, Operations, operation_bytes};
use super::raft_types::{Entry, EntryPayload, NodeId, TypeConfig};

/// A message to a follower takes no more entries once they have this many bytes.
const MESSAGE_BYTES: usize = 256 << 10;

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

/// An entry and its bytes, which a checkpoint needs again.
struct Stored {
    entry: Entry,
    encoded: Box<[u8]>,
}

#[derive(Default)]
struct Log {
    vote: Option<Vote<NodeId>>,
    committed: Option<LogId<NodeId>>,
    purged: Option<LogId<NodeId>>,
    /// Consecutive, the oldest first.
    entries: VecDeque<Stored>,
    /// What `entries` take in a checkpoint.
    bytes: usize,
    queue: Operations,
    waiting: Vec<Flushed>,
    stopping: bool,
    failed: bool,
    roomy_bytes: usize,
}

/// Who waits for a write.
enum Flushed {
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
        let log = self.log();
        log.bytes > log.roomy_bytes * 3 / 4
    }

    /// How many of these entries, the first ones, a follower takes now: those that the log holds
    /// already, and new ones while there is room. The room ends a little above where the leader
    /// refuses commands, so that the entry with which a new leader begins always has some.
    pub(super) fn room_for(&self, entries: &[Entry]) -> usize {
        let log = self.log();
        let held = log.last_id().map(|last| last.index);
        let limit = log.roomy_bytes * 7 / 8;
        let mut bytes = log.bytes;
        let fits = |entry: &&Entry| {
            if Some(entry.log_id.index) <= held {
                return true;
            }
            let room = bytes < limit;
            bytes += encode(entry).map_or(0, |encoded| operation_bytes(encoded.len()));
            room
        };
        entries.iter().take_while(fits).count()
    }

    /// Up to where to purge, so that nodes that lag a little still find what they need.
    pub(super) fn purge_upto(&self, snapshot: u64) -> Option<u64> {
        let log = self.log();
        let keep_bytes = log.roomy_bytes / 16;
        let mut excess = log.bytes.saturating_sub(keep_bytes);
        let mut upto = None;
        for stored in &log.entries {
            if stored.entry.log_id.index > snapshot || excess == 0 {
                break;
            }
            excess = excess.saturating_sub(operation_bytes(stored.encoded.len()));
            upto = Some(stored.entry.log_id.index);
        }
        upto
    }

    /// Writes what is queued and ends the writer.
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

fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(io::Error::other)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

impl Log {
    fn last_id(&self) -> Option<LogId<NodeId>> {
        self.entries.back().map(|stored| stored.entry.log_id).or(self.purged)
    }

    fn wants_snapshot(&self) -> bool {
        self.bytes > self.roomy_bytes / 4
    }

    fn first_index(&self) -> Option<u64> {
        self.entries.front().map(|stored| stored.entry.log_id.index)
    }

    fn push(&mut self, entry: Entry, encoded: Vec<u8>) {
        self.truncate(entry.log_id.index);
        self.bytes += operation_bytes(encoded.len());
        self.entries.push_back(Stored { entry, encoded: encoded.into_boxed_slice() });
    }

    fn truncate(&mut self, from: u64) {
        while self.entries.back().is_some_and(|last| last.entry.log_id.index >= from) {
            self.forget(VecDeque::pop_back);
        }
    }

    fn purge(&mut self, upto: LogId<NodeId>) {
        while self.first_index().is_some_and(|first| first <= upto.index) {
            self.forget(VecDeque::pop_front);
        }
        self.purged = self.purged.max(Some(upto));
    }

    fn forget(&mut self, pop: impl Fn(&mut VecDeque<Stored>) -> Option<Stored>) {
        if let Some(stored) = pop(&mut self.entries) {
            self.bytes -= operation_bytes(stored.encoded.len());
        }
    }

    fn replay(&mut self, kind: Kind, body: &[u8]) -> Result<(), String> {
        match kind {
            Kind::Vote => self.vote = Some(decode(body)?),
            Kind::Committed => self.committed = decode(body)?,
            Kind::Purge => self.purge(decode(body)?),
            Kind::Entry => {
                let entry: Entry = decode(body)?;
                self.push(entry, body.to_vec());
            }
            Kind::Truncate => {
                let index = body.try_into().map_err(|_| "a truncation is cut")?;
                self.truncate(u64::from_le_bytes(index));
            }
        }
        Ok(())
    }

    /// Everything, as a checkpoint holds it.
    fn whole(&self) -> io::Result<Operations> {
        let mut all = Operations::default();
        if let Some(vote) = &self.vote {
            all.push(Kind::Vote, &encode(vote)?);
        }
        if let Some(purged) = &self.purged {
            all.push(Kind::Purge, &encode(purged)?);
        }
        all.push(Kind::Committed, &encode(&self.committed)?);
        for stored in &self.entries {
            all.push(Kind::Entry, &stored.encoded);
        }
        Ok(all)
    }

    /// The index behind the last entry that goes into a message which begins with `start`.
    fn end_of_message(&self, start: u64) -> u64 {
        let skipped = self.first_index().map_or(0, |first| start.saturating_sub(first)) as usize;
        let mut bytes = 0;
        let fits = |stored: &&Stored| {
            let room = bytes < MESSAGE_BYTES;
            bytes += stored.encoded.len();
            room
        };
        start + self.entries.iter().skip(skipped).take_while(fits).count() as u64
    }

    fn read(&self, range: &impl RangeBounds<u64>) -> Vec<Entry> {
        let Some(first) = self.first_index() else { return Vec::new() };
        let position = |bound: Bound<&u64>, unbounded: usize, after: u64| match bound {
            Bound::Included(index) => (index + after).saturating_sub(first) as usize,
            Bound::Excluded(index) => (index + 1 - after).saturating_sub(first) as usize,
            Bound::Unbounded => unbounded,
        };
        let count = self.entries.len();
        let start = position(range.start_bound(), 0, 0).min(count);
        let end = position(range.end_bound(), count, 1).min(count).max(start);
        self.entries.range(start..end).map(|stored| stored.entry.clone()).collect()
    }
}

/// The thread that writes.
struct Writer {
    shared: Arc<Shared>,
    file: LogFile,
}

impl Writer {
    #[cfg(not(feature = "sim"))]
    fn start(mut self) -> io::Result<Option<JoinHandle<()>>> {
        std::thread::Builder::new().name("raft-log".into()).spawn(move || while self.write_next() {}).map(Some)
    }

    /// In the simulation it is a task, which writes after the time that a disk takes.
    #[cfg(feature = "sim")]
    #[expect(clippy::unnecessary_wraps, reason = "a thread may fail to start")]
    fn start(mut self) -> io::Result<Option<JoinHandle<()>>> {
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

    /// Waits for a group and writes it. False: the log was stopped, and everything is written.
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
        // What nobody waits for goes with the next write, or at the stop.
        while log.waiting.is_empty() && !log.stopping {
            log = self.shared.queued.wait(log).unwrap_or_else(PoisonError::into_inner);
        }
        if log.queue.is_empty() && log.waiting.is_empty() {
            return None;
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
