//! Memory for records that are not written yet: one bounded pool of fixed chunks for the node.
//!
//! A topic holds chunks only while it has unwritten records, so that 10,000 idle topics cost
//! nothing, and a full pool is the backpressure that producers feel.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::StoreError;
use super::region::{Chunk, Region};
use super::waiters::Waiters;

/// Bytes of one chunk: the least memory of a topic that has unwritten records, so small enough that
/// eight thousand of those share the default pool, and large enough that the pool is asked once for ten
/// records of usual size. (Measured with ten thousand topics: 2.8 times the records of chunks of 32 KiB
/// over the network, where most topics waited for memory; with ten and with a thousand the ratios, 0.87 to
/// 1.17, are within the noise.)
pub const CHUNK_BYTES: usize = 8 * 1024;

/// With more than this lent, chunks that come back are not in the processor's cache any more when they are
/// lent again.
const CACHED_BYTES: usize = 4 << 20;

/// More batches than this at a time are of so many topics that few of them grow large.
const SCATTERED_BATCHES: usize = 128;

/// The pool.
#[derive(Debug)]
pub struct Pool {
    inner: Mutex<Free>,
    /// Chunks that are lent; changes under the lock of `inner`.
    lent: AtomicUsize,
    /// Batches that are made of its chunks.
    batches: AtomicUsize,
    waiters: Waiters,
    /// Somebody has asked for space, and it was not there since.
    awaited: AtomicBool,
    total: usize,
}

#[derive(Debug)]
struct Free {
    // Last in, first out: the chunk that was used last is the one still in the CPU's cache.
    chunks: Vec<Chunk>,
    // Where a chunk comes from when none is free.
    region: Region,
    // The largest request that was refused since the last one that was granted.
    refused: usize,
}

impl Pool {
    /// A pool of at most `bytes`; memory is taken from the system when it is first needed.
    pub fn new(bytes: usize) -> Self {
        let total = (bytes / CHUNK_BYTES).max(4);
        Pool {
            inner: Mutex::new(Free { chunks: Vec::new(), region: Region::new(total), refused: 0 }),
            lent: AtomicUsize::new(0),
            batches: AtomicUsize::new(0),
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
            let chunk = free.chunks.pop().unwrap_or_else(|| free.region.cut());
            into.push(chunk);
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
        self.wake_if_room(free);
    }

    /// So many lent chunks will never come back: others take their places.
    pub fn write_off(&self, count: usize) {
        let free = lock(&self.inner);
        self.lent.fetch_sub(count, Ordering::Relaxed);
        self.wake_if_room(free);
    }

    /// Wakes whoever waits for space, once there is enough.
    fn wake_if_room(&self, free: MutexGuard<'_, Free>) {
        let room = self.has_room(&free);
        drop(free);
        if room {
            self.awaited.store(false, Ordering::SeqCst);
            self.waiters.wake_all();
        }
    }

    /// Is there room for what was refused, and an eighth of the pool besides? (Waking producers
    /// for a single chunk would make them fight over it.) Whoever asks may go on to wait: see
    /// [`Pool::is_awaited`].
    pub fn has_space(&self) -> bool {
        self.awaited.store(true, Ordering::SeqCst);
        self.has_room(&lock(&self.inner))
    }

    fn has_room(&self, free: &Free) -> bool {
        self.lent() + free.refused.max(self.total / 8) <= self.total
    }

    /// So much is lent that what is copied into a chunk goes to cold memory.
    pub fn is_crowded(&self) -> bool {
        self.lent() * CHUNK_BYTES > CACHED_BYTES
    }

    /// A batch will be made of chunks of this pool, until [`Pool::remove_batch`].
    pub fn add_batch(&self) {
        self.batches.fetch_add(1, Ordering::Relaxed);
    }

    /// A batch is gone.
    pub fn remove_batch(&self) {
        self.batches.fetch_sub(1, Ordering::Relaxed);
    }

    /// Do so many batches share the pool that few of them get large?
    pub fn is_scattered(&self) -> bool {
        self.batches.load(Ordering::Relaxed) > SCATTERED_BATCHES
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
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::task::{Context, Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn whoever_waits_is_woken_once_there_is_room_and_not_for_each_chunk() {
        let pool = Pool::new(32 * CHUNK_BYTES);
        let mut lent = Vec::new();
        assert!(pool.take(32, &mut lent) && !pool.take(1, &mut Vec::new()));
        let woken = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&woken));
        let check = || pool.has_space().then_some(());
        assert!(pool.waiters().poll_until(&mut Context::from_waker(&waker), check).is_pending());
        for _ in 0..3 {
            pool.give_back(&mut vec![lent.pop().unwrap()]);
        }
        assert_eq!(woken.0.load(Ordering::Relaxed), 0, "an eighth of the pool is four chunks");
        assert!(pool.is_awaited(), "who waits was not woken, and waits on");
        pool.write_off(1);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(!pool.is_awaited());
        assert!(pool.has_space());
    }
}
