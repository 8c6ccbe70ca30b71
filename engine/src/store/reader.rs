//! Reading by offset: batches are handed on as they lie, after their CRC was checked.

use std::sync::{Condvar, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};

use super::format::{BatchHeader, DATA_START, RECORD_PREFIX_BYTES};
use super::pool::lock;
use super::segment::Inner;
use super::{ReadBatch, StoreError, recovery};

/// Bytes that all reads together may be at; a larger one waits until it is alone.
const READING_BYTES_MAX: usize = 64 << 20;

/// Bounds the memory of reads that are under way: whole batches come from the disk, however little of them
/// is wanted, and readers may be many.
#[derive(Debug, Default)]
pub(super) struct Readers {
    reading_bytes: Mutex<usize>,
    done: Condvar,
}

impl Readers {
    /// Waits until a read of so many bytes may start. It ends when the answer is dropped.
    fn start(&self, bytes: usize) -> Reading<'_> {
        let reading = lock(&self.reading_bytes);
        let waits = |reading: &mut usize| *reading > 0 && *reading + bytes > READING_BYTES_MAX;
        *self.done.wait_while(reading, waits).unwrap_or_else(PoisonError::into_inner) += bytes;
        Reading { readers: self, bytes }
    }
}

/// A read that is under way.
struct Reading<'a> {
    readers: &'a Readers,
    bytes: usize,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        *lock(&self.readers.reading_bytes) -= self.bytes;
        self.readers.done.notify_all();
    }
}

/// See [`super::Segment::read`].
pub(super) fn read(
    segment: &Inner,
    from: u64,
    max_records: u64,
    max_bytes: usize,
) -> Result<Vec<ReadBatch>, StoreError> {
    recovery::load_if_sealed(segment)?;
    let (limit, start, end) = {
        let state = lock(&segment.state);
        let limit = state.sealed_count.map_or_else(|| segment.readable_end(), |count| count.min(segment.watermark()));
        if let Some(range) = state.damaged.iter().find(|range| range.contains(&from)) {
            return Err(corrupt(segment, from, range.end, "found at the start of the process"));
        }
        let start = state.index.position_before(from).unwrap_or(DATA_START);
        let end = state.index.end_of_read(start, max_bytes as u64).unwrap_or(state.durable_position);
        (limit, start, end.min(state.durable_position))
    };
    if from >= limit || max_records == 0 {
        return Ok(Vec::new());
    }
    let shared = &segment.shared;
    let what = || format!("reading segment {}", segment.spec.uid);
    let file = shared.files.get(segment.spec.uid).map_err(|error| StoreError::io(what(), error))?;
    let length = end.saturating_sub(start) as usize;
    let _reading = shared.readers.start(length);
    // Readers go on from here: the device works on the next piece while this one is checked and sent.
    shared.disk.read_ahead(&file, end, length as u64);
    let bytes = shared.disk.read_new(&file, start, length).map_err(|error| StoreError::io(what(), error))?;
    let mut cut = Cut { from, limit, records_left: max_records, bytes_left: max_bytes, out: Vec::new() };
    let mut rest = Bytes::from(bytes);
    while !rest.is_empty() && cut.wants_more() {
        let next = check_batch(segment, &rest, &cut);
        let (header, valid) = match next {
            Ok(header) => header,
            // What came before the damage is good; the damage is reported when it is asked for.
            Err(_) if !cut.out.is_empty() => break,
            Err(error) => return Err(error),
        };
        let whole = rest.split_to(header.total_bytes() as usize);
        if valid && !cut.add(&header, &whole.slice(header.records())) {
            break;
        }
    }
    Ok(compact(cut.out, length))
}

/// Copies what is wanted if it would keep more than as much again alive: `read_bytes` came from the disk.
fn compact(mut batches: Vec<ReadBatch>, read_bytes: usize) -> Vec<ReadBatch> {
    let wanted: usize = batches.iter().map(|batch| batch.records.len()).sum();
    if wanted >= read_bytes / 2 {
        return batches;
    }
    let mut copy = BytesMut::with_capacity(wanted);
    for batch in &mut batches {
        copy.extend_from_slice(&batch.records);
        batch.records = copy.split().freeze();
    }
    batches
}

/// Decodes the next batch and, if any of it is wanted, checks its CRC. The flag: it is wanted.
fn check_batch(segment: &Inner, bytes: &Bytes, cut: &Cut) -> Result<(BatchHeader, bool), StoreError> {
    let next = cut.next_index();
    let damaged = |reason: &dyn std::fmt::Display| {
        let end = lock(&segment.state).index.next_index(next).unwrap_or(cut.limit);
        corrupt(segment, next, end, &reason.to_string())
    };
    let header = BatchHeader::decode(bytes).map_err(|error| damaged(&error))?;
    if header.uid != segment.spec.uid || header.total_bytes() > bytes.len() as u64 || header.base_index > next {
        return Err(damaged(&"the batch belongs elsewhere"));
    }
    let end = header.base_index + u64::from(header.count);
    if end <= next {
        return Ok((header, false));
    }
    header.verify(bytes).map_err(|error| corrupt(segment, next, end, &error.to_string()))?;
    Ok((header, true))
}

fn corrupt(segment: &Inner, first_index: u64, end_index: u64, reason: &str) -> StoreError {
    StoreError::Corrupt { uid: segment.spec.uid, first_index, end_index, reason: reason.into() }
}

/// Cuts batches to what was asked for.
struct Cut {
    from: u64,
    limit: u64,
    records_left: u64,
    bytes_left: usize,
    out: Vec<ReadBatch>,
}

impl Cut {
    fn next_index(&self) -> u64 {
        self.out.last().map_or(self.from, |batch| batch.base_index + batch.count)
    }

    fn wants_more(&self) -> bool {
        self.records_left > 0 && self.next_index() < self.limit
    }

    /// Takes what is wanted of a batch; false if it is the last one.
    fn add(&mut self, header: &BatchHeader, records: &Bytes) -> bool {
        let first = self.next_index();
        let skip = first - header.base_index;
        let available = u64::from(header.count) - skip;
        let wanted = available.min(self.records_left).min(self.limit - first);
        let start = walk(records, 0, skip, usize::MAX).0;
        let whole = wanted == available && records.len() - start <= self.bytes_left;
        if !whole && !self.out.is_empty() && records.len() - start > self.bytes_left {
            return false;
        }
        let (end, count) = if whole { (records.len(), wanted) } else { walk(records, start, wanted, self.bytes_left) };
        self.out.push(ReadBatch { base_index: first, count, records: records.slice(start..end) });
        self.records_left -= count;
        self.bytes_left = self.bytes_left.saturating_sub(end - start);
        whole
    }
}

/// Walks over up to `count` records from byte `at`, not further than `bytes` but at least over
/// one. Returns where it stopped and how many records that was. The batch's CRC vouches for the
/// lengths.
fn walk(records: &[u8], at: usize, count: u64, bytes: usize) -> (usize, u64) {
    let mut position = at;
    let mut walked = 0;
    while walked < count {
        let Some(prefix) = records.get(position..position + RECORD_PREFIX_BYTES) else { break };
        let length = u32::from_le_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]) as usize;
        let next = position + RECORD_PREFIX_BYTES + length;
        if walked > 0 && next - at > bytes {
            break;
        }
        position = next;
        walked += 1;
    }
    (position, walked)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_small_part_does_not_keep_the_whole_alive() {
        let read = Bytes::from(vec![7; 1000]);
        let cut = |range: std::ops::Range<usize>| ReadBatch { base_index: 0, count: 1, records: read.slice(range) };
        let lies_in_read = |batch: &ReadBatch| read.as_ptr_range().contains(&batch.records.as_ptr());
        let small = compact(vec![cut(10..20), cut(100..300)], read.len());
        assert!(!small.iter().any(lies_in_read));
        assert_eq!((small[0].records.len(), small[1].records.len()), (10, 200));
        let large = compact(vec![cut(10..400), cut(500..900)], read.len());
        assert!(large.iter().all(lies_in_read), "what is mostly wanted is not copied");
    }

    #[test]
    fn reads_wait_until_there_is_memory_for_them() {
        let readers = Arc::new(Readers::default());
        // Alone, it may be larger than all together.
        let large = readers.start(READING_BYTES_MAX + 1);
        let (tell, heard) = mpsc::channel();
        let waiting = Arc::clone(&readers);
        let thread = std::thread::spawn(move || {
            let _small = waiting.start(1);
            tell.send(()).unwrap();
        });
        assert!(heard.recv_timeout(Duration::from_millis(50)).is_err(), "it does not start beside the large one");
        drop(large);
        heard.recv().unwrap();
        thread.join().unwrap();
        assert_eq!(*lock(&readers.reading_bytes), 0);
    }
}
