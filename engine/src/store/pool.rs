//! Memory for records that are not written yet: one bounded pool of fixed chunks for the node.
//!
//! A topic holds chunks only while it has unwritten records, so that 10,000 idle topics cost
//! nothing, and a full pool is the backpressure that producers feel.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::StoreError;
use super::waiters::Waiters;

/// Bytes of one chunk. Small enough that a thousand busy topics fit in the default pool, large
/// enough that a full batch of 1 MiB is written with 32 of them.
pub const CHUNK_BYTES: usize = 32 * 1024;

/// With more than this lent, chunks that come back are not in the processor's cache any more when they are
/// lent again.
const CACHED_BYTES: usize = 4 << 20;

/// A piece of a batch buffer.
pub type Chunk = Box<[u8]>;

/// The pool.
#[derive(Debug)]
pub struct Pool {
    inner: Mutex<Free>,
    /// Chunks that are lent; changes under the lock of `inner`.
    lent: AtomicUsize,
    waiters: Waiters,
    /// Somebody has asked for space since chunks last came back.
    awaited: AtomicBool,
    total: usize,
}

#[derive(Debug)]
struct Free {
    // Last in, first out: the chunk that was used last is the one still in the CPU's cache.
    chunks: Vec<Chunk>,
    // The largest request that was refused since the last one that was granted.
    refused: usize,
}

impl Pool {
    /// A pool of at most `bytes`; memory is taken from the system when it is first needed.
    pub fn new(bytes: usize) -> Self {
        let total = (bytes / CHUNK_BYTES).max(4);
        Pool {
            inner: Mutex::new(Free { chunks: Vec::new(), refused: 0 }),
            lent: AtomicUsize::new(0),
            waiters: Waiters::default(),
            awaited: AtomicBool::new(false),
            total,
        }
    }

    /// Largest number of chunks that one append may ask for.
    pub fn max_request(&self) -> usize {
        self.total / 2
    }

    /// Refuses an append of more bytes than the pool lends to one.
    pub fn check_size(&self, bytes: usize) -> Result<(), StoreError> {
        let limit = self.max_request();
        if bytes.div_ceil(CHUNK_BYTES) < limit {
            return Ok(());
        }
        Err(StoreError::TooLarge { bytes, limit: limit * CHUNK_BYTES })
    }

    /// Moves `count` chunks into `into`, or none and false.
    pub fn take(&self, count: usize, into: &mut Vec<Chunk>) -> bool {
        if count == 0 {
            return true;
        }
        let mut free = lock(&self.inner);
        if self.lent() + count > self.total {
            free.refused = free.refused.max(count);
            return false;
        }
        free.refused = 0;
        self.lent.fetch_add(count, Ordering::Relaxed);
        for _ in 0..count {
            into.push(free.chunks.pop().unwrap_or_else(|| vec![0; CHUNK_BYTES].into_boxed_slice()));
        }
        true
    }

    /// Takes chunks back and wakes whoever waits for space.
    pub fn give_back(&self, chunks: &mut Vec<Chunk>) {
        if chunks.is_empty() {
            return;
        }
        let mut free = lock(&self.inner);
        self.lent.fetch_sub(chunks.len(), Ordering::Relaxed);
        free.chunks.append(chunks);
        drop(free);
        self.awaited.store(false, Ordering::SeqCst);
        self.waiters.wake_all();
    }

    /// So many lent chunks will never come back: others take their places.
    pub fn write_off(&self, count: usize) {
        let free = lock(&self.inner);
        self.lent.fetch_sub(count, Ordering::Relaxed);
        drop(free);
        self.waiters.wake_all();
    }

    /// Is there room for what was refused, and an eighth of the pool besides? (Waking producers
    /// for a single chunk would make them fight over it.) Whoever asks may go on to wait: see
    /// [`Pool::is_awaited`].
    pub fn has_space(&self) -> bool {
        self.awaited.store(true, Ordering::SeqCst);
        let free = lock(&self.inner);
        self.lent() + free.refused.max(self.total / 8) <= self.total
    }

    /// So much is lent that what is copied into a chunk goes to cold memory.
    pub fn is_crowded(&self) -> bool {
        self.lent() * CHUNK_BYTES > CACHED_BYTES
    }

    fn lent(&self) -> usize {
        self.lent.load(Ordering::Relaxed)
    }

    /// Somebody may wait for chunks, so whatever is pending is to be written, whoever it belongs to.
    pub fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::SeqCst)
    }

    /// Those who wait for space.
    pub fn waiters(&self) -> &Waiters {
        &self.waiters
    }
}

/// Locks, also after a panic elsewhere: the guarded values are valid between any two statements.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
