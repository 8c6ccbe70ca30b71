//! The segment store: files of batches, group commit, recovery.

use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

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
    #[error("{path} has store format {found}, this program reads format {wanted}; use the matching version or another --data-dir")]
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
        error: Arc<std::io::Error>,
    },
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

/// The store of one node. Cheap to clone. Everything stops when the last clone is dropped
/// or [`Store::shutdown`] returns.
#[derive(Clone)]
pub struct Store {}

impl Store {
    /// Opens or creates the data directory and takes its lock.
    pub fn open(_config: StoreConfig) -> Result<Store, StoreError> {
        todo!()
    }
    /// Random id made once with the data directory.
    pub fn disk_id(&self) -> u128 {
        todo!()
    }
    /// The backend in use: `io_uring` or `blocking`.
    pub fn backend(&self) -> &'static str {
        todo!()
    }
    /// Opens a new, empty segment for appends. Touches no file before the first append.
    pub fn create(&self, _spec: SegmentSpec) -> Segment {
        todo!()
    }
    /// Recovers a segment that an earlier run left open: cuts the torn tail, flushes what is
    /// there, and returns a handle that reads (appends answer `Closed`).
    pub fn recover(&self, _spec: SegmentSpec) -> Result<(Segment, Recovered), StoreError> {
        todo!()
    }
    /// A handle to a segment that metadata shows sealed at `count`. Cheap: opens no file.
    pub fn sealed(&self, _spec: SegmentSpec, _count: u64) -> Segment {
        todo!()
    }
    /// Segments that have a file, in order of uid. For removing leftovers of deleted topics.
    pub fn list(&self) -> Result<Vec<SegmentUid>, StoreError> {
        todo!()
    }
    /// Removes a segment's file. Unknown ones are fine. Readers that are at it may fail.
    pub fn remove(&self, _uid: SegmentUid) -> Result<(), StoreError> {
        todo!()
    }
    /// Waits until the pool has space again (see [`StoreError::PoolEmpty`]).
    pub async fn pool_available(&self) {
        todo!()
    }
    /// Free bytes on the file system of the data directory.
    pub fn free_bytes(&self) -> u64 {
        todo!()
    }
    /// Writes what is buffered, flushes everything, stops the threads.
    pub fn shutdown(&self) {
        todo!()
    }
}

/// A handle to one segment. Cheap to clone.
#[derive(Clone)]
pub struct Segment {}

impl Segment {
    /// What it is.
    pub fn spec(&self) -> &SegmentSpec {
        todo!()
    }
    /// Copies records into the active batch and gives them the next indices. Does not wait for
    /// the disk. `PoolEmpty`: nothing was taken, wait and try again. Total record bytes of an
    /// `AllOrNone` append must fit in half of the pool.
    pub fn try_append(&self, _records: &[&[u8]], _take: Take) -> Result<Appended, StoreError> {
        todo!()
    }
    /// As `try_append`, blocking while the pool is empty.
    pub fn append_blocking(&self, _records: &[&[u8]], _take: Take) -> Result<Appended, StoreError> {
        todo!()
    }
    /// First index that is not yet durable in the segment's tier; all below may be acknowledged.
    pub fn watermark(&self) -> u64 {
        todo!()
    }
    /// First index that was not yet given to a record (`watermark()` ≤ this).
    pub fn next_index(&self) -> u64 {
        todo!()
    }
    /// Bytes in the file, headers included, up to the watermark.
    pub fn size_bytes(&self) -> u64 {
        todo!()
    }
    /// Ready when `watermark() >= index`, or with the error that makes it impossible.
    pub fn poll_watermark(&self, _index: u64, _cx: &mut Context<'_>) -> Poll<Result<(), StoreError>> {
        todo!()
    }
    /// Async form of `poll_watermark`.
    pub async fn wait_watermark(&self, index: u64) -> Result<(), StoreError> {
        std::future::poll_fn(|cx| self.poll_watermark(index, cx)).await
    }
    /// Blocking form of `poll_watermark`.
    pub fn wait_watermark_blocking(&self, _index: u64) -> Result<(), StoreError> {
        todo!()
    }
    /// Takes no more appends; what is in the active batch is still written.
    pub fn close(&self) {
        todo!()
    }
    /// After `close`: cuts everything at and past `count` (≤ watermark), and writes index and
    /// footer in the background, after a flush. Idempotent.
    pub fn seal(&self, _count: u64) -> Result<(), StoreError> {
        todo!()
    }
    /// Reads whole or cut batches from `from_index` on, up to the watermark (or sealed count),
    /// about `max_bytes` (at least one record if there is one). Empty at the end. Blocking I/O,
    /// mostly from the page cache.
    pub fn read(&self, _from_index: u64, _max_records: u64, _max_bytes: usize) -> Result<Vec<ReadBatch>, StoreError> {
        todo!()
    }
}
