//! What lies in the journal: rounds, and in them parts.

use super::{Crc, FormatError, check_start, put_u32, put_u64, u32_at, u64_at};
use crate::types::SegmentUid;

const ROUND_MAGIC: u32 = u32::from_le_bytes(*b"WJRN");

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
        check_start(bytes, Self::BYTES, ROUND_MAGIC)?;
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
