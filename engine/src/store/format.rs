//! Every byte that the store puts on disk.
//!
//! All integers are little-endian. Every structure starts with a magic and carries a CRC32C
//! (Castagnoli) over everything in it that follows the CRC field.
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
//! │magic │ version │ crc  │ topic id │ number │ epoch │ base* │ tier,0×3 │ reserved │
//! 512    516       520    528        536      544
//! │magic │ crc     │ 0×8  │ position │ index  │      everything below was flushed
//! ```
//!
//! **Batch**: a header of 64 bytes, then the records. The same bytes on every replica.
//!
//! ```text
//! 0      4         8     12       16         24       32      40           48      52    56     64
//! │magic │ version │ crc │ length │ topic id │ number │ epoch │ base index │ count │ 0×4 │ time  │
//! records: count × │ u32 length │ bytes │     `length` counts the records' bytes, headers not included
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

use crc_fast::{CrcAlgorithm, Digest};

use crate::types::{SegmentUid, Tier};

/// Version of every layout in this file. A store with another version is refused.
pub const FORMAT_VERSION: u32 = 1;
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

const FILE_MAGIC: u32 = u32::from_le_bytes(*b"WSEG");
const MARK_MAGIC: u32 = u32::from_le_bytes(*b"WMRK");
const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"WBAT");
const FOOTER_MAGIC: u32 = u32::from_le_bytes(*b"WFTR");
const ROUND_MAGIC: u32 = u32::from_le_bytes(*b"WJRN");
const FENCE_MAGIC: u32 = u32::from_le_bytes(*b"WFNC");

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

/// The first bytes of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHeader {
    /// Identity of the segment.
    pub uid: SegmentUid,
    /// Epoch of its leader.
    pub epoch: u64,
    /// Tier of its acknowledgements.
    pub tier: Tier,
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

impl FileHeader {
    /// Encoded size.
    pub const BYTES: usize = 56;

    /// As it lies on disk.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        put_u32(&mut out, 0, FILE_MAGIC);
        put_u32(&mut out, 4, FORMAT_VERSION);
        put_u64(&mut out, 12, self.uid.topic_id);
        put_u64(&mut out, 20, self.uid.number);
        put_u64(&mut out, 28, self.epoch);
        out[44] = u8::from(self.tier == Tier::Synced);
        let crc = Crc::of(&out[12..]);
        put_u32(&mut out, 8, crc);
        out
    }

    /// Reads and checks it.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() < Self::BYTES {
            return Err(FormatError::Short);
        }
        let bytes = &bytes[..Self::BYTES];
        if u32_at(bytes, 0) != FILE_MAGIC {
            return Err(FormatError::Magic);
        }
        if u32_at(bytes, 4) != FORMAT_VERSION {
            return Err(FormatError::Version(u32_at(bytes, 4)));
        }
        if u32_at(bytes, 8) != Crc::of(&bytes[12..]) {
            return Err(FormatError::Checksum);
        }
        Ok(FileHeader {
            uid: SegmentUid { topic_id: u64_at(bytes, 12), number: u64_at(bytes, 20) },
            epoch: u64_at(bytes, 28),
            tier: if bytes[44] == 1 { Tier::Synced } else { Tier::PageCache },
        })
    }
}

/// Everything below `position` (and so every record below `index`) was flushed to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlushedMark {
    /// File position.
    pub position: u64,
    /// Record index.
    pub index: u64,
}

impl FlushedMark {
    /// Encoded size.
    pub const BYTES: usize = 32;

    /// As it lies on disk.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        put_u32(&mut out, 0, MARK_MAGIC);
        put_u64(&mut out, 16, self.position);
        put_u64(&mut out, 24, self.index);
        let crc = Crc::of(&out[8..]);
        put_u32(&mut out, 4, crc);
        out
    }

    /// Reads and checks it; no mark yet, or a torn one, is the mark at nothing.
    pub fn decode(bytes: &[u8]) -> Self {
        if bytes.len() < Self::BYTES
            || u32_at(bytes, 0) != MARK_MAGIC
            || u32_at(bytes, 4) != Crc::of(&bytes[8..Self::BYTES])
        {
            return FlushedMark::default();
        }
        FlushedMark { position: u64_at(bytes, 16), index: u64_at(bytes, 24) }
    }
}

/// The header of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// CRC32C over the records and then the rest of the header.
    pub crc: u32,
    /// Bytes of the records that follow, with their prefixes.
    pub length: u32,
    /// Segment that it belongs to.
    pub uid: SegmentUid,
    /// Epoch of the writer.
    pub epoch: u64,
    /// Index within the segment of its first record.
    pub base_index: u64,
    /// Number of records.
    pub count: u32,
    /// When the batch was closed, ms since the Unix epoch.
    pub timestamp_ms: u64,
}

impl BatchHeader {
    /// Encodes it and fills in the CRC, going on from the checksum of the records.
    pub fn seal(&self, mut records: Crc) -> [u8; BATCH_HEADER_BYTES] {
        let mut out = [0; BATCH_HEADER_BYTES];
        put_u32(&mut out, 0, BATCH_MAGIC);
        put_u32(&mut out, 4, FORMAT_VERSION);
        put_u32(&mut out, 12, self.length);
        put_u64(&mut out, 16, self.uid.topic_id);
        put_u64(&mut out, 24, self.uid.number);
        put_u64(&mut out, 32, self.epoch);
        put_u64(&mut out, 40, self.base_index);
        put_u32(&mut out, 48, self.count);
        put_u64(&mut out, 56, self.timestamp_ms);
        records.update(&out[12..]);
        put_u32(&mut out, 8, records.finish());
        out
    }

    /// Reads the header alone; says nothing about the records.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() < BATCH_HEADER_BYTES {
            return Err(FormatError::Short);
        }
        if u32_at(bytes, 0) != BATCH_MAGIC {
            return Err(FormatError::Magic);
        }
        if u32_at(bytes, 4) != FORMAT_VERSION {
            return Err(FormatError::Version(u32_at(bytes, 4)));
        }
        Ok(BatchHeader {
            crc: u32_at(bytes, 8),
            length: u32_at(bytes, 12),
            uid: SegmentUid { topic_id: u64_at(bytes, 16), number: u64_at(bytes, 24) },
            epoch: u64_at(bytes, 32),
            base_index: u64_at(bytes, 40),
            count: u32_at(bytes, 48),
            timestamp_ms: u64_at(bytes, 56),
        })
    }

    /// Bytes of header and records together.
    pub fn total_bytes(&self) -> u64 {
        BATCH_HEADER_BYTES as u64 + u64::from(self.length)
    }

    /// Is `bytes` (header and records) what was written?
    pub fn verify(&self, bytes: &[u8]) -> Result<(), FormatError> {
        let total = self.total_bytes() as usize;
        if bytes.len() < total {
            return Err(FormatError::Short);
        }
        let mut crc = Crc::new();
        crc.update(&bytes[BATCH_HEADER_BYTES..total]);
        crc.update(&bytes[12..BATCH_HEADER_BYTES]);
        if crc.finish() == self.crc { Ok(()) } else { Err(FormatError::Checksum) }
    }
}

/// The last bytes of a sealed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footer {
    /// Identity of the segment.
    pub uid: SegmentUid,
    /// Epoch of its leader.
    pub epoch: u64,
    /// Records in it.
    pub count: u64,
    /// Where the batches end and the index starts.
    pub data_end: u64,
    /// Entries of the index.
    pub entries: u32,
}

impl Footer {
    /// Index and footer as they lie on disk.
    pub fn encode(&self, index: &[(u64, u64)]) -> Vec<u8> {
        let mut out = Vec::with_capacity(index.len() * INDEX_ENTRY_BYTES + FOOTER_BYTES);
        for (record, position) in index {
            out.extend_from_slice(&record.to_le_bytes());
            out.extend_from_slice(&position.to_le_bytes());
        }
        let mut footer = [0; FOOTER_BYTES];
        put_u32(&mut footer, 0, FOOTER_MAGIC);
        put_u32(&mut footer, 4, FORMAT_VERSION);
        put_u32(&mut footer, 12, self.entries);
        put_u64(&mut footer, 16, self.uid.topic_id);
        put_u64(&mut footer, 24, self.uid.number);
        put_u64(&mut footer, 32, self.epoch);
        put_u64(&mut footer, 40, self.count);
        put_u64(&mut footer, 48, self.data_end);
        let mut crc = Crc::new();
        crc.update(&out);
        crc.update(&footer[12..]);
        put_u32(&mut footer, 8, crc.finish());
        out.extend_from_slice(&footer);
        out
    }

    /// Reads the footer alone (the last [`FOOTER_BYTES`] of the file).
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() < FOOTER_BYTES {
            return Err(FormatError::Short);
        }
        if u32_at(bytes, 0) != FOOTER_MAGIC {
            return Err(FormatError::Magic);
        }
        if u32_at(bytes, 4) != FORMAT_VERSION {
            return Err(FormatError::Version(u32_at(bytes, 4)));
        }
        Ok(Footer {
            uid: SegmentUid { topic_id: u64_at(bytes, 16), number: u64_at(bytes, 24) },
            epoch: u64_at(bytes, 32),
            count: u64_at(bytes, 40),
            data_end: u64_at(bytes, 48),
            entries: u32_at(bytes, 12),
        })
    }

    /// Bytes of index and footer together.
    pub fn total_bytes(&self) -> u64 {
        u64::from(self.entries) * INDEX_ENTRY_BYTES as u64 + FOOTER_BYTES as u64
    }

    /// Checks index and footer together and returns the index.
    pub fn decode_index(bytes: &[u8]) -> Result<Vec<(u64, u64)>, FormatError> {
        let Some(split) = bytes.len().checked_sub(FOOTER_BYTES) else { return Err(FormatError::Short) };
        let (index, footer) = bytes.split_at(split);
        let mut crc = Crc::new();
        crc.update(index);
        crc.update(&footer[12..]);
        if crc.finish() != u32_at(footer, 8) {
            return Err(FormatError::Checksum);
        }
        Ok(index.chunks_exact(INDEX_ENTRY_BYTES).map(|entry| (u64_at(entry, 0), u64_at(entry, 8))).collect())
    }
}

/// The header of a journal round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundHeader {
    /// CRC32C over the rest of the header and all parts.
    pub crc: u32,
    /// Rises by one with each round; never repeats within a journal.
    pub sequence: u64,
    /// Bytes of all parts.
    pub length: u32,
    /// Number of parts.
    pub parts: u32,
    /// Random id of the journal file's making, so that an older file's rounds are not taken.
    pub journal_id: u64,
}

impl RoundHeader {
    /// Encoded size.
    pub const BYTES: usize = 32;

    /// Encodes it with the CRC over itself and `body`, given as pieces.
    pub fn seal<'a>(&self, body: impl Iterator<Item = &'a [u8]>) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        put_u32(&mut out, 0, ROUND_MAGIC);
        put_u64(&mut out, 8, self.sequence);
        put_u32(&mut out, 16, self.length);
        put_u32(&mut out, 20, self.parts);
        put_u64(&mut out, 24, self.journal_id);
        let mut crc = Crc::new();
        crc.update(&out[8..]);
        for piece in body {
            crc.update(piece);
        }
        put_u32(&mut out, 4, crc.finish());
        out
    }

    /// Reads the header alone.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() < Self::BYTES {
            return Err(FormatError::Short);
        }
        if u32_at(bytes, 0) != ROUND_MAGIC {
            return Err(FormatError::Magic);
        }
        Ok(RoundHeader {
            crc: u32_at(bytes, 4),
            sequence: u64_at(bytes, 8),
            length: u32_at(bytes, 16),
            parts: u32_at(bytes, 20),
            journal_id: u64_at(bytes, 24),
        })
    }

    /// Is `bytes` (header and parts) what was written?
    pub fn verify(&self, bytes: &[u8]) -> Result<(), FormatError> {
        let total = Self::BYTES + self.length as usize;
        if bytes.len() < total {
            return Err(FormatError::Short);
        }
        if Crc::of(&bytes[8..total]) == self.crc { Ok(()) } else { Err(FormatError::Checksum) }
    }
}

/// The header of one part of a journal round: where its batch belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartHeader {
    /// Segment that the batch belongs to.
    pub uid: SegmentUid,
    /// Position in the segment's file.
    pub position: u64,
    /// Bytes of the batch that follows.
    pub length: u32,
}

impl PartHeader {
    /// Encoded size.
    pub const BYTES: usize = 32;

    /// As it lies on disk.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        put_u64(&mut out, 0, self.uid.topic_id);
        put_u64(&mut out, 8, self.uid.number);
        put_u64(&mut out, 16, self.position);
        put_u32(&mut out, 24, self.length);
        out
    }

    /// Reads it; the round's CRC has vouched for it.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() < Self::BYTES {
            return Err(FormatError::Short);
        }
        Ok(PartHeader {
            uid: SegmentUid { topic_id: u64_at(bytes, 0), number: u64_at(bytes, 8) },
            position: u64_at(bytes, 16),
            length: u32_at(bytes, 24),
        })
    }
}

/// What a node has promised about its copy of a segment, and what it knows of the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FenceEntry {
    /// The segment.
    pub uid: SegmentUid,
    /// Appends of an older epoch than this are refused; 0 if nothing was promised yet.
    pub promised: u64,
    /// Crashes of the machine that this disk had seen when the copy was last known to be whole.
    pub whole_since: u64,
    /// Records that were acknowledged may be missing, for another reason than a crash of the machine.
    pub damaged: bool,
    /// The segment is sealed or gone: earlier entries no longer count.
    pub forgotten: bool,
}

impl FenceEntry {
    /// Encoded size.
    pub const BYTES: usize = 64;

    /// As it lies on disk.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        put_u32(&mut out, 0, FENCE_MAGIC);
        put_u64(&mut out, 8, self.uid.topic_id);
        put_u64(&mut out, 16, self.uid.number);
        put_u64(&mut out, 24, self.promised);
        put_u64(&mut out, 32, self.whole_since);
        put_u64(&mut out, 40, u64::from(self.damaged) | u64::from(self.forgotten) << 1);
        let crc = Crc::of(&out[8..]);
        put_u32(&mut out, 4, crc);
        out
    }

    /// Reads and checks it.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() < Self::BYTES {
            return Err(FormatError::Short);
        }
        if u32_at(bytes, 0) != FENCE_MAGIC {
            return Err(FormatError::Magic);
        }
        if u32_at(bytes, 4) != Crc::of(&bytes[8..Self::BYTES]) {
            return Err(FormatError::Checksum);
        }
        let flags = u64_at(bytes, 40);
        Ok(FenceEntry {
            uid: SegmentUid { topic_id: u64_at(bytes, 8), number: u64_at(bytes, 16) },
            promised: u64_at(bytes, 24),
            whole_since: u64_at(bytes, 32),
            damaged: flags & 1 != 0,
            forgotten: flags & 2 != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn batch_survives_round_trip_and_any_flipped_bit_is_noticed(
            records in proptest::collection::vec(any::<u8>(), 0..300), topic_id: u64, number: u64, epoch: u64,
            base_index: u64, count: u32, timestamp_ms: u64, flip in 12usize..364,
        ) {
            let header = BatchHeader {
                crc: 0, length: records.len() as u32, uid: SegmentUid { topic_id, number }, epoch, base_index, count, timestamp_ms,
            };
            let mut crc = Crc::new();
            crc.update(&records);
            let mut bytes = header.seal(crc).to_vec();
            bytes.extend_from_slice(&records);
            let back = BatchHeader::decode(&bytes).unwrap();
            prop_assert_eq!(BatchHeader { crc: 0, ..back }, header);
            prop_assert_eq!(back.verify(&bytes), Ok(()));
            let at = 12 + (flip - 12) % (bytes.len() - 12);
            bytes[at] ^= 0x10;
            let damaged = BatchHeader::decode(&bytes).unwrap();
            prop_assert!(damaged.verify(&bytes).is_err());
        }

        #[test]
        fn footer_and_mark_survive_round_trip(index in proptest::collection::vec(any::<(u64, u64)>(), 0..50), count: u64, data_end: u64) {
            let footer = Footer { uid: SegmentUid { topic_id: 7, number: 2 }, epoch: 3, count, data_end, entries: index.len() as u32 };
            let bytes = footer.encode(&index);
            prop_assert_eq!(bytes.len() as u64, footer.total_bytes());
            prop_assert_eq!(Footer::decode(&bytes[bytes.len() - FOOTER_BYTES..]).unwrap(), footer);
            prop_assert_eq!(Footer::decode_index(&bytes).unwrap(), index);
            let mark = FlushedMark { position: data_end, index: count };
            prop_assert_eq!(FlushedMark::decode(&mark.encode()), mark);
        }

        #[test]
        fn a_fence_survives_round_trip_and_any_flipped_bit_is_noticed(
            topic_id: u64, number: u64, promised: u64, whole_since: u64, damaged: bool, forgotten: bool, flip in 0usize..512,
        ) {
            let entry = FenceEntry { uid: SegmentUid { topic_id, number }, promised, whole_since, damaged, forgotten };
            let mut bytes = entry.encode();
            prop_assert_eq!(FenceEntry::decode(&bytes), Ok(entry));
            bytes[flip / 8] ^= 1 << (flip % 8);
            prop_assert!(FenceEntry::decode(&bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = (BatchHeader::decode(&bytes), Footer::decode(&bytes), Footer::decode_index(&bytes));
            let _ = (FileHeader::decode(&bytes), FlushedMark::decode(&bytes), RoundHeader::decode(&bytes), PartHeader::decode(&bytes));
        }
    }

    #[test]
    fn file_header_of_another_version_is_named() {
        let header = FileHeader { uid: SegmentUid { topic_id: 1, number: 1 }, epoch: 1, tier: Tier::Synced };
        let mut bytes = header.encode();
        assert_eq!(FileHeader::decode(&bytes), Ok(header));
        bytes[4] = 9;
        assert_eq!(FileHeader::decode(&bytes), Err(FormatError::Version(9)));
    }
}
