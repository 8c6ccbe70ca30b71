//! A batch in memory: records copied into pool chunks, with room for the header in front.

use std::io::IoSlice;

use super::format::{BATCH_HEADER_BYTES, BatchHeader, RECORD_PREFIX_BYTES};
use super::pool::{CHUNK_BYTES, Chunk, Pool};

/// A batch takes no more appends once it holds this much. (One append is never split, so a batch
/// can be larger.)
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Records on their way to the disk.
#[derive(Debug)]
pub struct Batch {
    chunks: Vec<Chunk>,
    used: usize,
    /// Index within the segment of the first record.
    pub base_index: u64,
    /// Number of records.
    pub count: u32,
}

impl Batch {
    /// An empty one. Has no memory until [`Batch::reserve`].
    pub fn new(base_index: u64) -> Self {
        Batch { chunks: Vec::new(), used: BATCH_HEADER_BYTES, base_index, count: 0 }
    }

    /// Bytes that `records` will take in a batch.
    pub fn size_of(records: &[&[u8]]) -> usize {
        records.iter().map(|record| RECORD_PREFIX_BYTES + record.len()).sum()
    }

    /// Would `bytes` more keep it within [`BATCH_BYTES_MAX`]?
    pub fn has_room(&self, bytes: usize) -> bool {
        self.used + bytes <= BATCH_HEADER_BYTES + BATCH_BYTES_MAX
    }

    /// Takes chunks for `bytes` more from the pool; false, and nothing changed, if it has none.
    pub fn reserve(&mut self, bytes: usize, pool: &Pool) -> bool {
        let wanted = (self.used + bytes).div_ceil(CHUNK_BYTES);
        pool.take(wanted.saturating_sub(self.chunks.len()), &mut self.chunks)
    }

    /// Copies a record; space was reserved.
    pub fn push(&mut self, record: &[u8]) {
        self.copy(&(record.len() as u32).to_le_bytes());
        self.copy(record);
        self.count += 1;
    }

    fn copy(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (chunk, at) = (self.used / CHUNK_BYTES, self.used % CHUNK_BYTES);
            let length = bytes.len().min(CHUNK_BYTES - at);
            self.chunks[chunk][at..at + length].copy_from_slice(&bytes[..length]);
            self.used += length;
            bytes = &bytes[length..];
        }
    }

    /// Bytes of header and records.
    pub fn total_bytes(&self) -> usize {
        self.used
    }

    /// Index after the last record.
    pub fn end_index(&self) -> u64 {
        self.base_index + u64::from(self.count)
    }

    /// Header and records as contiguous pieces.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let used = self.used;
        self.chunks.iter().enumerate().map(move |(at, chunk)| &chunk[..(used - at * CHUNK_BYTES).min(CHUNK_BYTES)])
    }

    /// The pieces for a vectored write.
    pub fn io_slices(&self) -> Vec<IoSlice<'_>> {
        self.pieces().map(IoSlice::new).collect()
    }

    /// Writes the header, with the CRC over everything, into its place. The length and count in
    /// `header` are filled in here.
    pub fn close(&mut self, mut header: BatchHeader) {
        header.length = (self.used - BATCH_HEADER_BYTES) as u32;
        header.count = self.count;
        header.base_index = self.base_index;
        let mut skip = BATCH_HEADER_BYTES;
        let encoded = header.seal(self.pieces().map(|piece| &piece[std::mem::take(&mut skip)..]));
        self.chunks[0][..BATCH_HEADER_BYTES].copy_from_slice(&encoded);
    }

    /// Gives its memory back.
    pub fn release(mut self, pool: &Pool) {
        pool.give_back(&mut self.chunks);
    }
}
