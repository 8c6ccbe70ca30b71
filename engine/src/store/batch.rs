//! A batch in memory: records copied into pool chunks, with room for the header in front.

use std::io::IoSlice;
use std::sync::Arc;

use super::format::{BATCH_HEADER_BYTES, BatchHeader, Crc, RECORD_PREFIX_BYTES};
use super::pool::{CHUNK_BYTES, Pool};
use super::region::Chunk;
use crate::types::Tier;

/// A batch takes no more appends once it holds this much. One append is never split, so a batch
/// can be larger. In the page cache it is twice what makes an append write it: the kernel takes large
/// writes in large folios (docs/decisions/004). A flush costs the same for any size.
fn batch_bytes_max(tier: Tier) -> usize {
    match tier {
        Tier::PageCache => 512 * 1024,
        Tier::Synced => 1024 * 1024,
    }
}

/// At most so many zeros end a batch: less than a page of the page cache.
pub(super) const FILLER_BYTES_MAX: usize = 4095;

/// Records on their way to the disk, and to the replicas. Its memory goes back to the pool when
/// the last of them has let go of it.
#[derive(Debug)]
pub struct Batch {
    pool: Arc<Pool>,
    chunks: Vec<Chunk>,
    /// Made of batches that were closed elsewhere: nothing is added or summed up here.
    raw: bool,
    used: usize,
    /// Zeros behind the last record, once it is filled up: then nothing more is added.
    filler: Option<u32>,
    /// Of the records up to `checked`: chunks are summed up as they fill, while they are in the
    /// CPU's cache.
    crc: Crc,
    checked: usize,
    /// Index within the segment of the first record.
    pub base_index: u64,
    /// Number of records.
    pub count: u32,
}

impl Batch {
    /// An empty one. Has no memory until [`Batch::reserve`].
    pub(super) fn new(base_index: u64, pool: &Arc<Pool>) -> Self {
        pool.add_batch();
        Batch {
            pool: Arc::clone(pool),
            chunks: Vec::new(),
            raw: false,
            used: BATCH_HEADER_BYTES,
            filler: None,
            crc: Crc::new(),
            checked: BATCH_HEADER_BYTES,
            base_index,
            count: 0,
        }
    }

    /// An empty run of batches that were closed elsewhere.
    pub(super) fn raw(base_index: u64, pool: &Arc<Pool>) -> Self {
        let mut batch = Batch::new(base_index, pool);
        batch.raw = true;
        batch.used = 0;
        batch.checked = 0;
        batch
    }

    /// Was it closed elsewhere?
    pub(super) fn is_raw(&self) -> bool {
        self.raw
    }

    /// Bytes that `records` will take in a batch.
    pub fn size_of(records: &[&[u8]]) -> usize {
        records.iter().map(|record| RECORD_PREFIX_BYTES + record.len()).sum()
    }

    /// Would `bytes` more keep it within what suits the tier?
    pub fn has_room(&self, bytes: usize, tier: Tier) -> bool {
        self.filler.is_none() && self.used + bytes <= BATCH_HEADER_BYTES + batch_bytes_max(tier)
    }

    /// Takes chunks for `bytes` more from the pool; false, and nothing changed, if it has none.
    pub fn reserve(&mut self, bytes: usize) -> bool {
        let wanted = (self.used + bytes).div_ceil(CHUNK_BYTES);
        self.pool.take(wanted.saturating_sub(self.chunks.len()), &mut self.chunks)
    }

    /// Copies a record; space was reserved.
    pub fn push(&mut self, record: &[u8]) {
        self.copy(&(record.len() as u32).to_le_bytes());
        self.copy(record);
        self.count += 1;
    }

    /// Copies what is encoded already: records with their lengths, or, into a raw one, a whole batch.
    /// Space was reserved.
    pub(super) fn push_encoded(&mut self, bytes: &[u8], count: u32) {
        self.copy(bytes);
        self.count += count;
    }

    /// Ends it with so many zeros, for which there is memory; it takes nothing more.
    pub(super) fn fill_up(&mut self, bytes: usize) {
        self.copy(&[0; FILLER_BYTES_MAX][..bytes]);
        self.filler = Some(bytes as u32);
    }

    /// Does it end where a large write ends well?
    pub(super) fn is_filled_up(&self) -> bool {
        self.filler.is_some()
    }

    fn copy(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (chunk, at) = (self.used / CHUNK_BYTES, self.used % CHUNK_BYTES);
            let length = bytes.len().min(CHUNK_BYTES - at);
            self.chunks[chunk][at..at + length].copy_from_slice(&bytes[..length]);
            self.used += length;
            bytes = &bytes[length..];
            if at + length == CHUNK_BYTES && !self.raw {
                self.sum_up();
            }
        }
    }

    /// Takes what the last chunk in use holds into the checksum. It is called as each chunk
    /// fills, so nothing before that chunk is missing.
    fn sum_up(&mut self) {
        if self.checked < self.used {
            let chunk = self.checked / CHUNK_BYTES;
            let from = self.checked % CHUNK_BYTES;
            self.crc.update(&self.chunks[chunk][from..from + (self.used - self.checked)]);
            self.checked = self.used;
        }
    }

    /// Bytes of header, records and filler.
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
        header.filler = self.filler.unwrap_or(0);
        header.base_index = self.base_index;
        self.sum_up();
        let encoded = header.seal(std::mem::take(&mut self.crc));
        self.chunks[0][..BATCH_HEADER_BYTES].copy_from_slice(&encoded);
    }

    /// The batch will never be dropped, since the kernel may read its chunks at any time: the pool is
    /// not to wait for them.
    pub(super) fn write_off(&self) {
        self.pool.write_off(self.chunks.len());
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.pool.give_back(&mut self.chunks);
        self.pool.remove_batch();
    }
}
