//! A list of records that is large enough for a write of its own goes to the file from where it lies:
//! it is not copied into a buffer first, and is in the kernel when the append returns.
//!
//! Only while nothing of the segment is pending or being written; else it is copied and joins what
//! is. To everybody else it looks like a batch on its way (`in_flight`).

use std::io::{self, IoSlice};
use std::sync::{Arc, MutexGuard};

use super::Appended;
use super::appender;
use super::format::{BATCH_HEADER_BYTES, BatchHeader, Crc, DATA_START};
use super::pool::Pool;
use super::segment::Inner;
use super::state::State;
use crate::clock::now_ms;

/// From here on a write of its own costs less than a copy and a share of a later, larger write.
const BYTES_MIN: usize = 32 * 1024;
/// The same if the copy would go to cold memory: that is so while many topics have something pending.
const CROWDED_BYTES_MIN: usize = 16 * 1024;

/// Is a list of so many bytes worth a write of its own?
pub(super) fn is_worth_it(bytes: usize, pool: &Pool) -> bool {
    bytes >= BYTES_MIN || bytes >= CROWDED_BYTES_MIN && pool.is_crowded()
}

/// Gives the records of `list` the next indices and writes them here and now. How the write went
/// shows in the watermark, or in the segment's failure.
pub(super) fn write(segment: &Arc<Inner>, mut state: MutexGuard<'_, State>, list: &[u8], count: u64) -> Appended {
    let bytes = (BATCH_HEADER_BYTES + list.len()) as u64;
    let (first_index, position) = (state.next_index, state.durable_position.max(DATA_START));
    let reserved_end = state.reserved_end;
    state.in_flight = true;
    state.pending_bytes += bytes;
    state.next_index += count;
    let full = state.close_if_full(&segment.spec);
    drop(state);

    let header = header(segment, first_index, list, count);
    let result = appender::make_place(segment, position + bytes, reserved_end).and_then(|file| {
        let disk = &segment.shared.disk;
        let pieces = &mut [IoSlice::new(&header), IoSlice::new(list)];
        segment.shared.slow_writes.watch(|| disk.write(&file, position, pieces, false))
    });
    settle(segment, position, bytes, first_index..first_index + count, result);
    Appended { first_index, count, full }
}

fn header(segment: &Inner, base_index: u64, list: &[u8], count: u64) -> [u8; BATCH_HEADER_BYTES] {
    let mut crc = Crc::new();
    crc.update(list);
    let header = BatchHeader {
        crc: 0,
        length: list.len() as u32,
        uid: segment.spec.uid,
        epoch: segment.spec.epoch,
        base_index,
        count: count as u32,
        filler: 0,
        timestamp_ms: now_ms(),
    };
    header.seal(crc)
}

fn settle(segment: &Arc<Inner>, position: u64, bytes: u64, records: std::ops::Range<u64>, result: io::Result<()>) {
    match result {
        Ok(()) => {
            if appender::written(segment, position, bytes, records) {
                segment.hand_over();
            }
        }
        Err(error) => segment.fail_write(&error, "writing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smaller_lists_are_worth_a_write_only_while_much_is_pending() {
        let pool = Pool::new(16 << 20);
        assert!(is_worth_it(BYTES_MIN, &pool) && !is_worth_it(BYTES_MIN - 1, &pool));
        let mut pending = Vec::new();
        assert!(pool.take(pool.max_request(), &mut pending), "half of the pool is free");
        assert!(is_worth_it(CROWDED_BYTES_MIN, &pool) && !is_worth_it(CROWDED_BYTES_MIN - 1, &pool));
        pool.give_back(&mut pending);
        assert!(!is_worth_it(CROWDED_BYTES_MIN, &pool), "nothing is pending any more");
    }
}
