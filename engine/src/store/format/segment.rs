//! What lies in a segment file: its header, the flushed mark, batches, and the footer once it is sealed.

use super::{
    BATCH_HEADER_BYTES, Crc, FOOTER_BYTES, FORMAT_VERSION, FormatError, INDEX_ENTRY_BYTES, check_start, check_version,
    put_u32, put_u64, u32_at, u64_at,
};
use crate::types::{SegmentUid, Tier};

const FILE_MAGIC: u32 = u32::from_le_bytes(*b"WSEG");
const MARK_MAGIC: u32 = u32::from_le_bytes(*b"WMRK");
const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"WBAT");
const FOOTER_MAGIC: u32 = u32::from_le_bytes(*b"WFTR");

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
        check_start(bytes, Self::BYTES, FILE_MAGIC)?;
        let bytes = &bytes[..Self::BYTES];
        check_version(bytes)?;
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
    /// Bytes of the records that follow, with their prefixes, and of the filler behind them.
    pub length: u32,
    /// Segment that it belongs to.
    pub uid: SegmentUid,
    /// Epoch of the writer.
    pub epoch: u64,
    /// Index within the segment of its first record.
    pub base_index: u64,
    /// Number of records.
    pub count: u32,
    /// Bytes behind the last record that say nothing: they end the batch where a large write ends well.
    pub filler: u32,
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
        put_u32(&mut out, 52, self.filler);
        put_u64(&mut out, 56, self.timestamp_ms);
        records.update(&out[12..]);
        put_u32(&mut out, 8, records.finish());
        out
    }

    /// Reads the header alone; says nothing about the records.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        check_start(bytes, BATCH_HEADER_BYTES, BATCH_MAGIC)?;
        check_version(bytes)?;
        Ok(BatchHeader {
            crc: u32_at(bytes, 8),
            length: u32_at(bytes, 12),
            uid: SegmentUid { topic_id: u64_at(bytes, 16), number: u64_at(bytes, 24) },
            epoch: u64_at(bytes, 32),
            base_index: u64_at(bytes, 40),
            count: u32_at(bytes, 48),
            filler: u32_at(bytes, 52),
            timestamp_ms: u64_at(bytes, 56),
        })
    }

    /// Bytes of header, records and filler together.
    pub fn total_bytes(&self) -> u64 {
        BATCH_HEADER_BYTES as u64 + u64::from(self.length)
    }

    /// Where in a whole batch its records lie.
    pub fn records(&self) -> std::ops::Range<usize> {
        let end = (self.total_bytes() as usize).saturating_sub(self.filler as usize);
        BATCH_HEADER_BYTES..end.max(BATCH_HEADER_BYTES)
    }

    /// Is `bytes` (header, records and filler) what was written?
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
        check_start(bytes, FOOTER_BYTES, FOOTER_MAGIC)?;
        check_version(bytes)?;
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
