//! What lies in the file of fences.

use super::{Crc, FormatError, check_start, put_u32, put_u64, u32_at, u64_at};
use crate::types::SegmentUid;

const FENCE_MAGIC: u32 = u32::from_le_bytes(*b"WFNC");

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
        check_start(bytes, Self::BYTES, FENCE_MAGIC)?;
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
