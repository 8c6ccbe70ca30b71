//! The segment store: files of batches, group commit, recovery.
//!
//! ```text
//! Segment::try_append          Segment::wait_watermark        Segment::read
//!        │ copy, under a short lock         ▲ wakes once a batch      │ CRC checked
//!        ▼                                  │                         ▼
//!     batch ─▶ appender::Queue ─▶ uring / blocking / journal ─▶ segment file
//!                                                  background: writeback, flush, footer
//! ```
//!
//! What always holds here (`conformance.rs` checks it on every backend):
//! 1. A record below the watermark was written to the kernel (page-cache tier) or flushed to the
//!    device (synced tier) before the watermark passed it. Process memory never counts.
//! 2. Indices are dense and rise in the order of the appends; the watermark only rises.
//! 3. `read` returns records below the watermark only, byte for byte as they were appended.
//! 4. After the first failed write or flush a segment acknowledges nothing more.
//! 5. Recovery keeps every acknowledged record (of the tier's promise), cuts only what never was
//!    acknowledged, and reports damage instead of skipping it.

mod appender;
mod background;
mod batch;
#[cfg(all(target_os = "linux", not(feature = "sim")))]
mod bell;
#[cfg(not(feature = "sim"))]
mod blocking;
#[cfg(test)]
mod conformance;
mod copies;
mod direct;
pub mod disk;
pub mod fault;
mod fences;
mod files;
mod footers;
pub mod format;
mod identity;
mod index;
mod journal;
mod pool;
mod reader;
mod recovery;
mod region;
mod segment;
mod state;
#[cfg(feature = "sim")]
mod tasks;
#[cfg(not(feature = "sim"))]
mod threads;
#[cfg(all(target_os = "linux", not(feature = "sim")))]
mod uring;
mod waiters;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

pub use batch::Batch;
pub use copies::{Certainty, RawBatches, RawError, Standing};
pub use segment::Segment;

use background::Background;
use disk::{Disk, RealDisk};
use fences::Fences;
use files::Files;
use identity::Identity;
use pool::{Pool, lock};
use state::State;
#[cfg(feature = "sim")]
use tasks::{self as threads, self as bell};
use threads::Threads;

use crate::types::{SegmentUid, Tier};

/// Settings of a [`Store`].
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Directory that holds everything; made if it is missing.
    pub data_dir: PathBuf,
    /// Use the blocking backend even where io_uring works.
    pub disable_io_uring: bool,
    /// Memory for batches that are not written yet, for the whole node. Default 64 MiB.
    pub pool_bytes: usize,
    /// How often data of the page-cache tier is flushed in the background. Default 5,000 ms.
    pub flush_interval_ms: u64,
    /// Leave every write to the store's threads, as if the kernel were holding writers back.
    #[cfg(test)]
    pub(crate) hand_over_always: bool,
}

impl StoreConfig {
    /// The defaults, in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        StoreConfig {
            data_dir: data_dir.into(),
            disable_io_uring: false,
            pool_bytes: 64 * 1024 * 1024,
            flush_interval_ms: 5_000,
            #[cfg(test)]
            hand_over_always: false,
        }
    }
}

/// What a segment is, fixed at its opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentSpec {
    /// Its identity.
    pub uid: SegmentUid,
    /// Fences writers; stamped into each batch.
    pub epoch: u64,
    /// Tier of its acknowledgements.
    pub tier: Tier,
    /// It is full once it holds this many records.
    pub segment_entries: u64,
    /// It is full once it holds this many bytes of batches.
    pub segment_bytes: u64,
}

/// How much of an append may be taken when the segment's entry limit is in its midst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// All records in one batch, or none; may exceed the limit (the segment is full afterwards).
    AllOrNone,
    /// As many records as the segment has room for.
    UpToLimit,
}

/// Outcome of an append that was accepted (not yet durable: wait for the watermark).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Index of the first record within the segment.
    pub first_index: u64,
    /// How many records were taken, from the front.
    pub count: u64,
    /// The limit is reached; the segment takes nothing more and wants to be rolled over.
    pub full: bool,
}

/// Errors of the store. `Clone`, because one failed write answers many waiters.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The device has no space left. Nothing of the refused records is stored for good.
    #[error("the disk is full")]
    DiskFull,
    /// The write-buffer pool is used up; try again after [`Store::pool_available`].
    #[error("the write buffers are full")]
    PoolEmpty,
    /// One append is larger than the write buffers allow.
    #[error("an append of {bytes} bytes is above the limit of {limit}; split it or raise the write buffers")]
    TooLarge {
        /// Bytes of the append.
        bytes: usize,
        /// What the buffers allow.
        limit: usize,
    },
    /// The segment takes no more records (full or being sealed).
    #[error("the segment is closed for appends")]
    Closed,
    /// An earlier write or flush failed; the segment must be sealed.
    #[error("segment {uid} failed: {reason}")]
    Poisoned {
        /// Which segment.
        uid: SegmentUid,
        /// The first failure.
        reason: Arc<str>,
    },
    /// The segment was sealed before these records: they are not stored.
    #[error("segment {uid} ended before these records; they are not stored")]
    Cut {
        /// Which segment.
        uid: SegmentUid,
    },
    /// Too few copies answered in time; the records may be stored, or not.
    #[error("segment {uid}: too few copies have confirmed the records in time")]
    Undecided {
        /// Which segment.
        uid: SegmentUid,
    },
    /// Stored bytes are not what was written.
    #[error("segment {uid}: records {first_index}..{end_index} are damaged: {reason}")]
    Corrupt {
        /// Which segment.
        uid: SegmentUid,
        /// First record of the damaged range.
        first_index: u64,
        /// First record after it.
        end_index: u64,
        /// What was found.
        reason: Arc<str>,
    },
    /// The directory is used by another process.
    #[error("{path} is in use by another process (pid {pid}); stop it or choose another --data-dir")]
    InUse {
        /// The data directory.
        path: PathBuf,
        /// Process id found in the lock file, 0 if unknown.
        pid: u32,
    },
    /// The directory was written by another version of the format.
    #[error(
        "{path} has store format {found}, this program reads format {wanted}; use the matching version or another --data-dir"
    )]
    Version {
        /// The data directory.
        path: PathBuf,
        /// Format version found.
        found: u32,
        /// Format version that this program reads.
        wanted: u32,
    },
    /// Any other I/O failure, with what was attempted.
    #[error("{what}: {error}")]
    Io {
        /// What was attempted, with the path.
        what: Arc<str>,
        /// What the system said.
        error: Arc<io::Error>,
    },
}

impl StoreError {
    /// Does a segment that answers so take no more records? (The others say only what became of
    /// some records.)
    pub fn ends_segment(&self) -> bool {
        !matches!(self, StoreError::Cut { .. } | StoreError::Undecided { .. })
    }

    fn io(what: impl Into<Arc<str>>, error: io::Error) -> Self {
        if error.raw_os_error() == Some(libc::ENOSPC) {
            return StoreError::DiskFull;
        }
        StoreError::Io { what: what.into(), error: Arc::new(error) }
    }
}

/// Hears what happens to a segment that other nodes hold copies of. Called by whichever thread
/// writes, without the segment's lock: it must not block.
pub trait Observer: Send + Sync + std::fmt::Debug {
    /// A batch is closed and about to be written. Called for one batch of a segment at a time, in
    /// their order.
    fn submitted(&self, segment: &Segment, batch: &Arc<Batch>);
    /// The watermark has moved, or the segment has failed.
    fn progressed(&self, segment: &Segment);
}

/// A run of consecutive records, as they lie on disk, CRC-checked.
#[derive(Debug, Clone)]
pub struct ReadBatch {
    /// Index within the segment of the first record in `records`.
    pub base_index: u64,
    /// Number of records.
    pub count: u64,
    /// Records, each `[u32 LE length][bytes]`.
    pub records: Bytes,
}

/// What recovery found in a segment that was open when the process ended.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// Records that are there: the segment's length.
    pub count: u64,
    /// Epoch stamped in the last batch, 0 if there is none.
    pub epoch: u64,
    /// Acknowledged records may be missing beyond `count` (page-cache tier, the machine restarted).
    pub possible_loss: bool,
    /// Damaged index ranges below the flushed mark; reads there answer `Corrupt`.
    pub damaged: Vec<std::ops::Range<u64>>,
}

/// The store of one node. Cheap to clone; it stops when the last clone is dropped or after
/// [`Store::shutdown`]. Handles of segments may outlive it, but write nothing more.
#[derive(Clone, Debug)]
pub struct Store {
    running: Arc<Running>,
}

/// What the store's threads and segments share.
#[derive(Debug)]
pub(crate) struct Shared {
    disk: Arc<dyn Disk>,
    files: Files,
    fences: Fences,
    pool: Arc<Pool>,
    queue: appender::Queue,
    slow_writes: appender::SlowWrites,
    journal: journal::Journal,
    readers: reader::Readers,
    background: Background,
    flush_interval_ms: u64,
    /// A flush has failed, so this run cannot end cleanly.
    flush_failed: AtomicBool,
    /// The machine restarted since the last run, and that run did not end cleanly.
    machine_crashed: bool,
}

impl Shared {
    /// Is there space in the pool? If not, what fills it is written: it may belong to nobody who waits.
    /// (What becomes pending after this look is written too, see `Inner::hand_over`.)
    fn space(&self) -> Option<()> {
        if self.pool.has_space() {
            return Some(());
        }
        self.queue.kick();
        None
    }
}

/// The threads; stopped and joined once.
#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    config: StoreConfig,
    backend: &'static str,
    identity: Identity,
    threads: Mutex<Option<Threads>>,
}

impl Store {
    /// Opens or creates the data directory, takes its lock, and replays the journal.
    pub fn open(config: StoreConfig) -> Result<Store, StoreError> {
        Self::open_on(config, Arc::new(RealDisk))
    }

    /// As [`Store::open`], on another disk than the real one.
    pub fn open_on(config: StoreConfig, disk: Arc<dyn Disk>) -> Result<Store, StoreError> {
        let mut identity = Identity::open(&config.data_dir, disk.boot_id())?;
        let path = config.data_dir.join("segments");
        let files = Files::open(path.clone(), descriptor_budget())
            .map_err(|error| StoreError::io(format!("opening {}", path.display()), error))?;
        let journal_path = config.data_dir.join("journal");
        let replayed = journal::replay(&journal_path, identity.journal_id(), &files, &*disk)?;
        if replayed > 0 {
            tracing::info!(batches = replayed, "replayed the journal");
        }
        let machine_crashed = identity.machine_crashed();
        identity.begin_run()?;
        let fences = Fences::open(config.data_dir.join("fences"), identity.crashes(), Arc::clone(&disk))?;
        let (queue, waking) = threads::make_queue(&config, &*disk);
        let (background, tasks) = Background::new();
        let shared = Arc::new(Shared {
            disk,
            files,
            fences,
            pool: Arc::new(Pool::new(config.pool_bytes)),
            queue,
            slow_writes: appender::SlowWrites::new(),
            journal: journal::Journal::new(journal_path, identity.journal_id()),
            readers: reader::Readers::default(),
            background,
            flush_interval_ms: config.flush_interval_ms,
            flush_failed: AtomicBool::new(false),
            machine_crashed,
        });
        #[cfg(test)]
        if config.hand_over_always {
            shared.slow_writes.pin();
        }
        let threads = Threads::start(&shared, waking, tasks);
        let threads = threads.map_err(|error| StoreError::io("starting the store's threads", error))?;
        let backend = threads.backend();
        let threads = Mutex::new(Some(threads));
        Ok(Store { running: Arc::new(Running { shared, config, backend, identity, threads }) })
    }

    /// Random id made once with the data directory.
    pub fn disk_id(&self) -> u128 {
        self.running.identity.disk_id()
    }

    /// The backend in use: `io_uring` or `blocking`.
    pub fn backend(&self) -> &'static str {
        self.running.backend
    }

    /// Opens a new, empty segment for appends. Touches no file before the first append or
    /// [`Segment::make_file_ahead`].
    pub fn create(&self, spec: SegmentSpec) -> Segment {
        Segment::new(&self.running.shared, spec, 0, self.fresh_state(spec), None)
    }

    /// As [`Store::create`], for a segment that other nodes hold copies of too: its records are
    /// committed by [`Segment::commit`], not by being stored here.
    pub fn create_observed(&self, spec: SegmentSpec, observer: Arc<dyn Observer>) -> Segment {
        Segment::new(&self.running.shared, spec, 0, self.fresh_state(spec), Some(observer))
    }

    /// A recovery may have been faster than the opening: what was promised to it binds the new handle.
    fn fresh_state(&self, spec: SegmentSpec) -> State {
        let promised = self.running.shared.fences.get(spec.uid).map_or(0, |entry| entry.promised);
        State { loaded: true, promised, ..State::default() }
    }

    /// Recovers a segment that an earlier run left open: cuts the torn tail, flushes what is
    /// there, and returns a handle that reads (appends answer `Closed`).
    pub fn recover(&self, spec: SegmentSpec) -> Result<(Segment, Recovered), StoreError> {
        recovery::recover(&self.running.shared, spec)
    }

    /// A handle to a segment that metadata shows sealed at `count`. Cheap: opens no file.
    pub fn sealed(&self, spec: SegmentSpec, count: u64) -> Segment {
        let segment = Segment::new(
            &self.running.shared,
            spec,
            count,
            State { sealed_count: Some(count), finishing: true, ..State::default() },
            None,
        );
        segment.close();
        segment
    }

    /// Segments that have a file, in order of uid. For removing leftovers of deleted topics.
    pub fn list(&self) -> Result<Vec<SegmentUid>, StoreError> {
        self.running.shared.files.list().map_err(|error| StoreError::io("listing the segment files", error))
    }

    /// Removes a segment's file. Unknown ones are fine. Readers that are at it may fail.
    pub fn remove(&self, uid: SegmentUid) -> Result<(), StoreError> {
        self.running.shared.files.remove(uid).map_err(|error| StoreError::io(format!("removing segment {uid}"), error))
    }

    /// Waits until the pool has space again (see [`StoreError::PoolEmpty`]).
    pub async fn pool_available(&self) {
        let shared = &self.running.shared;
        shared.pool.waiters().until(|| shared.space()).await;
    }

    /// Free bytes on the file system of the data directory; 0 if that cannot be told.
    pub fn free_bytes(&self) -> u64 {
        files::free_bytes(&self.running.config.data_dir)
    }

    /// Writes what is buffered, flushes everything, stops the threads. The next start knows that
    /// nothing was lost.
    pub fn shutdown(&self) {
        self.running.stop();
    }
}

impl Running {
    fn stop(&self) {
        let Some(threads) = lock(&self.threads).take() else { return };
        if threads.stop(&self.shared) {
            self.identity.end_run();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Segments keep half of the process's descriptors at most; the rest is for connections.
fn descriptor_budget() -> usize {
    (files::descriptor_limit() / 2).clamp(8, 4096) as usize
}
