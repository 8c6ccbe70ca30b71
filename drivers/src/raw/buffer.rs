//! Page-aligned write buffers, and what is known about a full one.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io::{self, Read};
use std::ptr::NonNull;

/// Alignment that `O_DIRECT` wants of memory, offset and length.
pub(super) const BLOCK_BYTES: usize = 4096;

/// A fixed block of memory, filled from the front.
pub(super) struct Buffer {
    memory: NonNull<u8>,
    capacity: usize,
    filled: usize,
}

// SAFETY: the buffer owns its memory alone; nothing else points into it while it is shared out.
unsafe impl Send for Buffer {}

impl Buffer {
    /// Memory for at least `capacity` bytes, touched once so that page faults come before the run.
    pub(super) fn new(capacity: usize) -> Buffer {
        let capacity = capacity.max(1).next_multiple_of(BLOCK_BYTES);
        let layout = Self::layout(capacity);
        // SAFETY: the layout has a size above 0.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout) };
        Buffer { memory, capacity, filled: 0 }
    }

    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, BLOCK_BYTES)
            .expect("the capacity was rounded to the alignment and is far below isize::MAX")
    }

    /// Copies `record` behind what is there; false when it does not fit.
    pub(super) fn push(&mut self, record: &[u8]) -> bool {
        if record.len() > self.capacity - self.filled {
            return false;
        }
        // SAFETY: source and target do not overlap (the target is ours alone), and the check above
        // keeps the copy inside the allocation.
        unsafe {
            let target = self.memory.as_ptr().add(self.filled);
            std::ptr::copy_nonoverlapping(record.as_ptr(), target, record.len());
        }
        self.filled += record.len();
        true
    }

    /// Goes on to the end of the block, with whatever lies there: a write that begins and ends with a block
    /// is cheaper for the page cache.
    pub(super) fn end_at_a_block(&mut self) {
        self.filled = self.filled.next_multiple_of(BLOCK_BYTES);
    }

    /// Fills the rest with what `source` has; the bytes read, 0 at its end.
    pub(super) fn read_from(&mut self, source: &mut impl Read) -> io::Result<usize> {
        // SAFETY: the range lies inside the allocation, whose bytes were all initialised (zeroed).
        let free = unsafe {
            std::slice::from_raw_parts_mut(self.memory.as_ptr().add(self.filled), self.capacity - self.filled)
        };
        let read_bytes = source.read(free)?;
        self.filled += read_bytes;
        Ok(read_bytes)
    }

    /// The filled bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the range lies inside the allocation, whose bytes were all initialised (zeroed).
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.filled) }
    }

    /// What to hand to the kernel: the filled bytes, for `O_DIRECT` rounded up to whole blocks.
    pub(super) fn iovec(&self, whole_blocks: bool) -> libc::iovec {
        let length = if whole_blocks { self.filled.next_multiple_of(BLOCK_BYTES) } else { self.filled };
        libc::iovec { iov_base: self.memory.as_ptr().cast(), iov_len: length }
    }

    pub(super) fn clear(&mut self) {
        self.filled = 0;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this very layout, and freed only here.
        unsafe { dealloc(self.memory.as_ptr(), Self::layout(self.capacity)) };
    }
}

/// A buffer on its way to the device, and the tickets that its arrival acknowledges.
pub(super) struct Filled {
    pub(super) buffer: Buffer,
    /// Which producer filled it.
    pub(super) producer: usize,
    pub(super) first_ticket: u64,
    pub(super) count: u64,
}
