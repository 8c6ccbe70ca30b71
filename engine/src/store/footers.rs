//! The files of sealed segments get their ends: index and footer.

use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex};

use super::Shared;
use super::background::{each, flush, once_failed_always_failed};
use super::format::{BATCH_HEADER_BYTES, BatchHeader, DATA_START, Footer};
use super::pool::lock;
use super::segment::Inner;

/// Ends the files of these segments, and forgets what was promised for those that are whole then.
pub(super) fn write_all(shared: &Shared, segments: &[Arc<Inner>]) {
    let ended = Mutex::new(Vec::with_capacity(segments.len()));
    each(segments, |segment| {
        let count = lock(&segment.state).sealed_count.unwrap_or(0);
        // An empty segment leaves its chain, and its file goes with it.
        if count == 0 {
            return segment.not_finished(false);
        }
        match write(segment, count) {
            Ok(()) => lock(&ended).push(segment.spec.uid),
            // Nothing is lost: the footer is rebuilt by a scan at the next opening.
            Err(error) => {
                tracing::warn!(segment = %segment.spec.uid, %error, "writing the footer failed");
                segment.not_finished(true);
            }
        }
    });
    // Whole and closed: what was promised for them matters no more. One flush for all.
    if let Err(error) = shared.fences.forget(&lock(&ended)) {
        tracing::warn!(%error, "the promises for ended segments are kept");
    }
}

/// Flushes the data, cuts what lies past the sealed count, then writes index and footer.
fn write(segment: &Arc<Inner>, count: u64) -> io::Result<()> {
    segment.settle();
    let mut index = lock(&segment.state).index.clone();
    flush(segment)?;
    let shared = &segment.shared;
    let file = shared.files.get(segment.spec.uid)?;
    let data_end = data_end(segment, count)?;
    index.cut(data_end);
    let entries = index.entries();
    let footer =
        Footer { uid: segment.spec.uid, epoch: segment.spec.epoch, count, data_end, entries: entries.len() as u32 };
    let bytes = footer.encode(entries);
    file.set_len(data_end)?;
    shared.disk.write(&file, data_end, &mut [IoSlice::new(&bytes)], false)?;
    // Gives back what was reserved beyond the end.
    file.set_len(data_end + bytes.len() as u64)?;
    once_failed_always_failed(segment, || shared.disk.flush(&file))?;
    let mut state = lock(&segment.state);
    state.durable_position = data_end;
    state.index.cut(data_end);
    state.finished = true;
    drop(state);
    segment.waiters.wake_all();
    Ok(())
}

/// Where the batches below `count` end.
fn data_end(segment: &Inner, count: u64) -> io::Result<u64> {
    let (mut position, end) = {
        let state = lock(&segment.state);
        if segment.watermark() == count {
            return Ok(state.durable_position);
        }
        (state.index.position_before(count - 1).unwrap_or(DATA_START), state.durable_position)
    };
    let file = segment.shared.files.get(segment.spec.uid)?;
    let mut header = [0; BATCH_HEADER_BYTES];
    while position < end {
        segment.shared.disk.read(&file, position, &mut header)?;
        let header = BatchHeader::decode(&header).map_err(io::Error::other)?;
        position += header.total_bytes();
        if header.base_index + u64::from(header.count) >= count {
            break;
        }
    }
    Ok(position)
}
