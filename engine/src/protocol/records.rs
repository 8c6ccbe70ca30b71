//! Lists of records, each `[u32 little-endian: length][bytes]`, as `APPEND` and `FETCH` carry them.

use bytes::BufMut;

use super::frame::{PREFIX_BYTES, put_prefix};

/// A list that was checked from end to end, so that walking over it cannot fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Records<'a> {
    bytes: &'a [u8],
    count: u64,
}

/// A list whose lengths do not add up to its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("record {index} of the list is cut short")]
pub struct BadRecords {
    /// Which record, from 0.
    pub index: u64,
}

impl<'a> Records<'a> {
    /// Checks that `bytes` is a whole number of records.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BadRecords> {
        let mut rest = bytes;
        let mut count = 0;
        while !rest.is_empty() {
            let (_, after) = split_record(rest).ok_or(BadRecords { index: count })?;
            rest = after;
            count += 1;
        }
        Ok(Records { bytes, count })
    }

    /// How many records.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Is the list empty?
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The list as it came, lengths included.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Bytes of the records without their lengths.
    pub fn payload_bytes(&self) -> u64 {
        self.bytes.len() as u64 - self.count * PREFIX_BYTES as u64
    }

    /// The records in order.
    pub fn iter(&self) -> RecordIter<'a> {
        RecordIter { rest: self.bytes }
    }
}

impl<'a> IntoIterator for Records<'a> {
    type Item = &'a [u8];
    type IntoIter = RecordIter<'a>;

    fn into_iter(self) -> RecordIter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &Records<'a> {
    type Item = &'a [u8];
    type IntoIter = RecordIter<'a>;

    fn into_iter(self) -> RecordIter<'a> {
        self.iter()
    }
}

/// Walks over [`Records`].
#[derive(Debug, Clone)]
pub struct RecordIter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let (record, after) = split_record(self.rest)?;
        self.rest = after;
        Some(record)
    }
}

/// Adds one record to a list.
#[inline]
pub fn put_record(out: &mut impl BufMut, record: &[u8]) {
    put_prefix(out, record.len());
    out.put_slice(record);
}

#[inline]
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (prefix, rest) = bytes.split_first_chunk::<PREFIX_BYTES>()?;
    rest.split_at_checked(u32::from_le_bytes(*prefix) as usize)
}
