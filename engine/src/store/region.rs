//! The memory behind the pool: cut into chunks from large mappings.
//!
//! In large pieces the kernel can back it with huge pages. A record that goes to one of a thousand topics
//! then finds its chunk with fewer steps through the page tables (of which a virtual machine has twice
//! as many), and memory that is used for the first time costs one fault for two megabytes, not for four
//! kilobytes.

use std::alloc::{Layout, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use super::pool::CHUNK_BYTES;

/// A piece of a batch buffer, of [`CHUNK_BYTES`]. Zeros when it is new.
#[derive(Debug)]
pub struct Chunk {
    start: NonNull<u8>,
    /// Keeps the bytes mapped.
    _mapping: Arc<Mapping>,
}

// SAFETY: a chunk is the only way to its bytes (see `Region::cut`), so it moves like a `Box<[u8]>`, and
// shared references to it only read.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` begins `CHUNK_BYTES` of the mapping, which are initialised (an anonymous mapping
        // holds zeros) and belong to this chunk alone.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), CHUNK_BYTES) }
    }
}

impl DerefMut for Chunk {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` excludes every other reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), CHUNK_BYTES) }
    }
}

/// Where new chunks come from.
#[derive(Debug)]
pub struct Region {
    /// Chunks of one mapping.
    chunks: usize,
    mapping: Option<Arc<Mapping>>,
    /// Chunks of `mapping` that were given out.
    cut: usize,
}

impl Region {
    /// One of `chunks` chunks. No memory is taken from the system yet.
    pub fn new(chunks: usize) -> Self {
        Region { chunks, mapping: None, cut: 0 }
    }

    /// A new chunk. More than the region has are cut from another mapping of its size.
    pub fn cut(&mut self) -> Chunk {
        if self.cut == self.chunks {
            self.mapping = None;
            self.cut = 0;
        }
        let mapping = self.mapping.get_or_insert_with(|| Arc::new(Mapping::new(self.chunks * CHUNK_BYTES)));
        // SAFETY: less than `chunks` were cut, so the chunk lies within the mapping. No other begins there:
        // `cut` only rises while the mapping is the same.
        let start = unsafe { mapping.start.add(self.cut * CHUNK_BYTES) };
        self.cut += 1;
        Chunk { start, _mapping: Arc::clone(mapping) }
    }
}

/// Anonymous memory from the system; given back when the last chunk is gone.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: it only holds the bytes; whoever reads or writes them does it through a chunk.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(bytes: usize) -> Self {
        const FLAGS: libc::c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: asks for new memory and touches none that is there.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, FLAGS, -1, 0) };
        let Some(start) = NonNull::new(start.cast::<u8>()).filter(|_| start != libc::MAP_FAILED) else {
            // As for any other memory that the system does not have.
            handle_alloc_error(Layout::array::<u8>(bytes).unwrap_or(Layout::new::<u8>()));
        };
        // Advice only: without huge pages it works as well.
        #[cfg(target_os = "linux")]
        // SAFETY: the range was mapped just now.
        unsafe {
            libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE);
        }
        Mapping { start, bytes }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is the one that was mapped, and no chunk is left.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_do_not_overlap_and_outlive_their_region() {
        let mut region = Region::new(3);
        let mut chunks: Vec<Chunk> = (0..8).map(|_| region.cut()).collect();
        drop(region);
        assert!(chunks.iter().all(|chunk| chunk.len() == CHUNK_BYTES && chunk.iter().all(|&byte| byte == 0)));
        for (at, chunk) in chunks.iter_mut().enumerate() {
            chunk.fill(at as u8 + 1);
        }
        for (at, chunk) in chunks.iter().enumerate() {
            assert!(chunk.iter().all(|&byte| byte == at as u8 + 1), "chunk {at} was written by another");
        }
    }
}
