//! Memory for records that are not written yet: one bounded pool of fixed chunks for the node.
//!
//! A topic holds chunks only while it has unwritten records, so that 10,000 idle topics cost
//! nothing, and a full pool is the backpressure that producers feel.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::StoreError;
use super::waiters::Waiters;

/// Bytes of one chunk. Small enough that a thousand busy topics fit in the default pool, large
/// enough that a full batch of 1 MiB is written with 32 of them.
pub const CHUNK_BYTES: usize = 32 * 1024;

/// A piece of a batch buffer.
pub type Chunk = Box<[u8]>;

/// The pool.
#[derive(Debug)]
pub struct Pool {
    inner: Mutex<Free>,
    waiters: Waiters,
    /// Somebody has asked for space since chunks last came back.
    awaited: AtomicBool,
    total: usize,
}

#[derive(Debug)]
struct Free {
    // Last in, first out: the chunk that was used last is the one still in the CPU's cache.
    chunks: Vec<Chunk>,
    lent: usize,
    // The largest request that was refused since the last one that was granted.
    refused: usize,
}

impl Pool {
    /// A pool of at most `bytes`; memory is taken from the system when it is first needed.
    pub fn new(bytes: usize) -> Self {
        let total = (bytes / CHUNK_BYTES).max(4);
        Pool {
            inner: Mutex::new(Free { chunks: Vec::new(), lent: 0, refused: 0 }),
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
        if free.lent + count > self.total {
            free.refused = free.refused.max(count);
            return false;
        }
        free.refused = 0;
        free.lent += count;
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
        free.lent -= chunks.len();
        free.chunks.append(chunks);
        drop(free);
        self.awaited.store(false, Ordering::SeqCst);
        self.waiters.wake_all();
    }

    /// So many lent chunks will never come back: others take their places.
    pub fn write_off(&self, count: usize) {
        lock(&self.inner).lent -= count;
        self.waiters.wake_all();
    }

    /// Is there room for what was refused, and an eighth of the pool besides? (Waking producers
    /// for a single chunk would make them fight over it.) Whoever asks may go on to wait: see
    /// [`Pool::is_awaited`].
    pub fn has_space(&self) -> bool {
        self.awaited.store(true, Ordering::SeqCst);
        let free = lock(&self.inner);
        free.lent + free.refused.max(self.total / 8) <= self.total
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
