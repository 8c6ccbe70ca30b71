//! Budgets of memory, for all connections together, and read buffers to reuse.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Read buffers that are kept for reuse.
const FREE_MAX: usize = 64;

/// The budget and the free read buffers.
pub struct Buffers {
    read_bytes: usize,
    limit_bytes: usize,
    used_bytes: AtomicUsize,
    free: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    /// Buffers of `read_bytes` each; all memory together below `limit_bytes`.
    pub fn new(read_bytes: usize, limit_bytes: usize) -> Self {
        Buffers { read_bytes, limit_bytes, used_bytes: AtomicUsize::new(0), free: Mutex::new(Vec::new()) }
    }

    /// Bytes handed out now.
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Sets `bytes` of the budget aside, if it has that much left.
    pub fn try_reserve(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        let taken = self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            let used = used + bytes;
            (used <= self.limit_bytes).then_some(used)
        });
        taken.ok().map(|_| Reservation { buffers: Arc::clone(self), bytes })
    }

    /// A buffer of at least `min_bytes`, if the budget allows it.
    pub fn try_take(self: &Arc<Self>, min_bytes: usize) -> Option<Buffer> {
        let length = min_bytes.max(self.read_bytes);
        let reservation = self.try_reserve(length)?;
        let reused = if length == self.read_bytes { self.lock_free().pop() } else { None };
        // Zeroed once; later uses overwrite it.
        Some(Buffer { bytes: reused.unwrap_or_else(|| vec![0; length]), reservation })
    }

    fn lock_free(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part of the budget; given back when dropped.
pub struct Reservation {
    buffers: Arc<Buffers>,
    bytes: usize,
}

impl Reservation {
    /// How much it is.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.buffers.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A buffer of fixed length, counted in the budget.
pub struct Buffer {
    bytes: Vec<u8>,
    reservation: Reservation,
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let buffers = &self.reservation.buffers;
        if self.bytes.len() == buffers.read_bytes {
            let mut free = buffers.lock_free();
            if free.len() < FREE_MAX {
                free.push(std::mem::take(&mut self.bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_never_exceeded_and_comes_back() {
        let buffers = Arc::new(Buffers::new(100, 250));
        let first = buffers.try_take(1).expect("fits");
        let second = buffers.try_take(150).expect("fits exactly");
        assert_eq!((first.len(), second.len(), buffers.used_bytes()), (100, 150, 250));
        assert!(buffers.try_take(1).is_none());
        drop(second);
        assert!(buffers.try_reserve(150).is_some());
        drop(first);
        assert_eq!(buffers.used_bytes(), 0);
    }
}
