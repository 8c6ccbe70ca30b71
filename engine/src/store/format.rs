//! Every byte that the store puts on disk.
//!
//! All integers are little-endian. All but the parts of a journal round and the entries of an index
//! start with a magic and carry a CRC32C (Castagnoli) over everything in them that follows the CRC
//! field. What has no version of its own goes by that of `store.json`.
//!
//! **Segment file** `segments/<topic id, 16 hex digits>-<number, 10 digits>.seg`
//!
//! ```text
//! 0        4096                                    data end            file end
//! ├─────────┼──────────┬──────────┬── … ──┬──────────┼───────┬───────────┤
//! │ file    │ batch    │ batch    │       │ batch    │ index │ footer    │
//! │ header  │          │          │       │          │ (sealed segments) │
//! └─────────┴──────────┴──────────┴── … ──┴──────────┴───────┴───────────┘
//! ```
//!
//! **File header** (56 bytes at 0) and **flushed mark** (32 bytes at 512, rewritten in place, so
//! that it never shares a sector with the header)
//!
//! ```text
//! 0      4         8      12         20       28      36      44         48         56
//! │magic │ version │ crc  │ topic id │ number │ epoch │ 0×8   │ tier,0×3 │ reserved │
//! 512    516       520    528        536      544
//! │magic │ crc     │ 0×8  │ position │ index  │      everything below was flushed
//! ```
//!
//! **Batch**: a header of 64 bytes, then the records. The same bytes on every replica.
//!
//! ```text
//! 0      4         8     12       16         24       32      40           48      52       56     64
//! │magic │ version │ crc │ length │ topic id │ number │ epoch │ base index │ count │ filler │ time │
//! records: count × │ u32 length │ bytes │, then zeros     `length` counts both, without the header; `filler` the zeros
//! ```
//! The batch's CRC covers the records and then the header behind the CRC: in this order, the
//! checksum of the records is computed while they are copied, and still in the CPU's cache.
//!
//! **Index and footer** of a sealed segment: `entries × │ u64 index │ u64 position │`, then 64 bytes
//!
//! ```text
//! 0      4         8     12        16         24       32      40      48         56         64
//! │magic │ version │ crc │ entries │ topic id │ number │ epoch │ count │ data end │ reserved │
//! ```
//! The footer's CRC covers the index and then the rest of the footer.
//!
//! **Journal** (`journal`, see [`super::journal`]): rounds, each starting on a 4 KiB boundary.
//!
//! ```text
//! round header (32 bytes)                        part header (32 bytes), then a whole batch
//! 0      4     8          16       20     24   32 0          8        16         24       28    32
//! │magic │ crc │ sequence │ length │ parts │ id │ │ topic id │ number │ position │ length │ 0×4 │
//! ```
//!
//! **Fences** (`fences`, see [`super::fences`]): entries of 64 bytes, one behind the other, then
//! zeros. The last entry of a segment counts.
//!
//! ```text
//! 0      4     8          16       24         32            40      48         64
//! │magic │ crc │ topic id │ number │ promised │ whole since │ flags │ reserved │
//! ```

mod fence;
mod journal;
mod segment;
#[cfg(test)]
mod tests;

use crc_fast::{CrcAlgorithm, Digest};

pub use fence::FenceEntry;
pub use journal::{PartHeader, RoundHeader};
pub use segment::{BatchHeader, FileHeader, FlushedMark, Footer};

/// Version of every layout in this file. A store with another version is refused.
pub const FORMAT_VERSION: u32 = 2;
/// Where the first batch of a segment file starts.
pub const DATA_START: u64 = 4096;
/// Bytes of a batch header.
pub const BATCH_HEADER_BYTES: usize = 64;
/// Bytes before each record: its length.
pub const RECORD_PREFIX_BYTES: usize = 4;
/// Bytes of a sealed segment's footer.
pub const FOOTER_BYTES: usize = 64;
/// Bytes of one entry of a sealed segment's index.
pub const INDEX_ENTRY_BYTES: usize = 16;
/// Position of the flushed mark within the file header page.
pub const MARK_POSITION: u64 = 512;

/// The magic that every batch starts with; recovery looks for it behind damage.
pub const BATCH_MAGIC_BYTES: [u8; 4] = *b"WBAT";

/// CRC32C over several pieces, as one.
#[derive(Debug)]
pub struct Crc(Digest);

impl Crc {
    /// Of nothing yet.
    pub fn new() -> Self {
        Crc(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }
    /// Goes on with `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    /// The checksum of everything so far.
    pub fn finish(&self) -> u32 {
        self.0.finalize() as u32
    }
    /// Of one slice.
    pub fn of(bytes: &[u8]) -> u32 {
        crc_fast::crc32_iscsi(bytes)
    }
}

impl Default for Crc {
    fn default() -> Self {
        Self::new()
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut raw = [0; 4];
    raw.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(raw)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(raw)
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Are there `length` bytes, and do they begin with this magic?
fn check_start(bytes: &[u8], length: usize, magic: u32) -> Result<(), FormatError> {
    if bytes.len() < length {
        return Err(FormatError::Short);
    }
    if u32_at(bytes, 0) == magic { Ok(()) } else { Err(FormatError::Magic) }
}

/// Is it of the version that this program reads? The version stands behind the magic.
fn check_version(bytes: &[u8]) -> Result<(), FormatError> {
    let version = u32_at(bytes, 4);
    if version == FORMAT_VERSION { Ok(()) } else { Err(FormatError::Version(version)) }
}

/// Why a structure on disk was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Other bytes than ours.
    #[error("no magic")]
    Magic,
    /// Ours, of another version.
    #[error("format version {0}")]
    Version(u32),
    /// The checksum does not match.
    #[error("checksum mismatch")]
    Checksum,
    /// It belongs to another segment, or does not follow what is before it.
    #[error("belongs elsewhere")]
    Foreign,
    /// It ends before its length says.
    #[error("cut short")]
    Short,
}
