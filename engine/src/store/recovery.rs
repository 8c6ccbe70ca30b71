//! Finding out, after a crash, what a segment holds.
//!
//! Below the flushed mark every byte was on the device, so an invalid batch there is *damage*: it
//! is reported, its range is refused, and what follows it stays. Above the mark the log ends at
//! the first invalid batch: that can only be a write that was torn and never acknowledged, unless
//! the machine itself went down, which may have cost the page-cache tier acknowledged records.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::background;
use super::disk::Disk;
use super::format::{
    BATCH_HEADER_BYTES, BATCH_MAGIC_BYTES, BatchHeader, DATA_START, FOOTER_BYTES, FileHeader, FlushedMark, Footer,
    FormatError, MARK_POSITION,
};
use super::index::SparseIndex;
use super::pool::lock;
use super::segment::{Inner, Segment};
use super::state::State;
use super::{Observer, Recovered, SegmentSpec, Shared, StoreError};
use crate::types::{SegmentUid, Tier};

/// Bytes that a scan reads at once.
const WINDOW_BYTES: u64 = 1024 * 1024;

/// See [`super::Store::recover`].
pub(super) fn recover(shared: &Arc<Shared>, spec: SegmentSpec) -> Result<(Segment, Recovered), StoreError> {
    let found = find(shared, spec, None)?;
    found.0.close();
    Ok(found)
}

/// See [`super::Store::open_copy`].
pub(super) fn reopen(
    shared: &Arc<Shared>,
    spec: SegmentSpec,
    observer: Arc<dyn Observer>,
) -> Result<(Segment, Recovered), StoreError> {
    let (segment, recovered) = find(shared, spec, Some(observer))?;
    // Its own records it takes no more: those of an earlier run may be with others and not here.
    segment.close();
    let entry = shared.fences.get(spec.uid);
    let mut state = lock(&segment.inner().state);
    state.promised = entry.map_or(0, |entry| entry.promised);
    drop(state);
    Ok((segment, recovered))
}

fn find(
    shared: &Arc<Shared>,
    spec: SegmentSpec,
    observer: Option<Arc<dyn Observer>>,
) -> Result<(Segment, Recovered), StoreError> {
    let unflushed_may_be_lost = shared.machine_crashed && spec.tier == Tier::PageCache;
    let what = || format!("recovering {}", shared.files.path(spec.uid).display());
    let file = match shared.files.get(spec.uid) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(missing(shared, spec, unflushed_may_be_lost, observer));
        }
        Err(error) => return Err(StoreError::io(what(), error)),
    };
    if let Some(closed) = read_footer(&file, &*shared.disk, spec.uid).map_err(|error| StoreError::io(what(), error))? {
        return Ok(closed_for_good(shared, spec, closed, observer));
    }
    let scan = scan(&file, &*shared.disk, spec.uid, u64::MAX).map_err(|error| StoreError::io(what(), error))?;
    if scan.torn_bytes > 0 {
        tracing::info!(segment = %spec.uid, torn_bytes = scan.torn_bytes, "cut a torn tail that was never acknowledged");
    }
    if scan.count == 0 {
        // Not even its header is sure to be whole: the first append makes the file anew.
        return Ok(missing(shared, spec, unflushed_may_be_lost, observer));
    }
    let recovered = Recovered {
        count: scan.count,
        epoch: scan.epoch,
        possible_loss: unflushed_may_be_lost,
        damaged: scan.damaged.clone(),
    };
    file.set_len(scan.end).map_err(|error| StoreError::io(what(), error))?;
    let segment = Segment::new(shared, spec, scan.count, scan.into_state(), observer);
    // It counts only once it is on the device: the next crash must not take back what this
    // recovery has shown.
    background::flush(segment.inner()).map_err(|error| StoreError::io(what(), error))?;
    Ok((segment, recovered))
}

/// The file has its footer: the segment was sealed, whatever the metadata show so soon after a start.
/// What was promised for it is forgotten by now, so this is what refuses a leader of old.
fn closed_for_good(
    shared: &Arc<Shared>,
    spec: SegmentSpec,
    (footer, index): (Footer, SparseIndex),
    observer: Option<Arc<dyn Observer>>,
) -> (Segment, Recovered) {
    let state = State {
        index,
        durable_position: footer.data_end,
        writeback_position: footer.data_end,
        reserved_end: footer.data_end,
        loaded: true,
        closed: true,
        sealed_count: Some(footer.count),
        finishing: true,
        finished: true,
        ..State::default()
    };
    let segment = Segment::new(shared, spec, footer.count, state, observer);
    let recovered = Recovered { count: footer.count, epoch: footer.epoch, possible_loss: false, damaged: Vec::new() };
    (segment, recovered)
}

fn missing(
    shared: &Arc<Shared>,
    spec: SegmentSpec,
    possible_loss: bool,
    observer: Option<Arc<dyn Observer>>,
) -> (Segment, Recovered) {
    let segment = Segment::new(shared, spec, 0, State { loaded: true, ..State::default() }, observer);
    (segment, Recovered { count: 0, epoch: 0, possible_loss, damaged: Vec::new() })
}

/// Fills in the index of a sealed segment at its first read: from the footer, or by a scan.
pub(super) fn load_if_sealed(segment: &Inner) -> Result<(), StoreError> {
    let count = {
        let state = lock(&segment.state);
        match (state.loaded, state.sealed_count) {
            (false, Some(count)) if count > 0 => count,
            _ => return Ok(()),
        }
    };
    let shared = &segment.shared;
    let path = shared.files.path(segment.spec.uid);
    let failed = |error| StoreError::io(format!("opening {}", path.display()), error);
    let file = shared.files.get(segment.spec.uid).map_err(failed)?;
    let loaded = match read_footer(&file, &*shared.disk, segment.spec.uid).map_err(failed)? {
        Some((footer, index)) if footer.count == count => {
            State { index, durable_position: footer.data_end, ..State::default() }
        }
        _ => {
            tracing::info!(segment = %segment.spec.uid, "no valid footer; scanning");
            scan(&file, &*shared.disk, segment.spec.uid, count).map_err(failed)?.into_state()
        }
    };
    let mut state = lock(&segment.state);
    state.index = loaded.index;
    state.durable_position = loaded.durable_position;
    state.damaged = loaded.damaged;
    state.loaded = true;
    Ok(())
}

/// Does the file of a sealed segment hold every record below its end, undamaged?
pub(super) fn is_whole(segment: &Inner, count: u64) -> Result<bool, StoreError> {
    let shared = &segment.shared;
    let path = shared.files.path(segment.spec.uid);
    let failed = |error| StoreError::io(format!("checking {}", path.display()), error);
    let file = match shared.files.get(segment.spec.uid) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed(error)),
    };
    // The footer is written after everything else was flushed.
    if let Some((footer, _)) = read_footer(&file, &*shared.disk, segment.spec.uid).map_err(failed)? {
        return Ok(footer.count == count);
    }
    let found = scan(&file, &*shared.disk, segment.spec.uid, count).map_err(failed)?;
    Ok(found.count >= count && found.damaged.is_empty())
}

/// The footer and the index of a file that has a valid end.
pub(super) fn read_footer(file: &File, disk: &dyn Disk, uid: SegmentUid) -> io::Result<Option<(Footer, SparseIndex)>> {
    let length = file.metadata()?.len();
    let Some(at) = length.checked_sub(FOOTER_BYTES as u64) else { return Ok(None) };
    let mut bytes = vec![0; FOOTER_BYTES];
    disk.read(file, at, &mut bytes)?;
    let Ok(footer) = Footer::decode(&bytes) else { return Ok(None) };
    if footer.uid != uid || footer.data_end + footer.total_bytes() != length {
        return Ok(None);
    }
    bytes.resize(footer.total_bytes() as usize, 0);
    disk.read(file, footer.data_end, &mut bytes)?;
    Ok(Footer::decode_index(&bytes).ok().map(|entries| (footer, SparseIndex::from_entries(entries))))
}

/// What a scan found.
#[derive(Debug, Default)]
struct Scan {
    count: u64,
    epoch: u64,
    end: u64,
    torn_bytes: u64,
    index: SparseIndex,
    damaged: Vec<Range<u64>>,
}

impl Scan {
    fn into_state(self) -> State {
        State {
            index: self.index,
            durable_position: self.end,
            writeback_position: self.end,
            reserved_end: self.end,
            damaged: self.damaged,
            loaded: true,
            ..State::default()
        }
    }
}

/// Reads all batches of a file, up to record `limit`.
fn scan(file: &File, disk: &dyn Disk, uid: SegmentUid, limit: u64) -> io::Result<Scan> {
    let mut window = Window { file, disk, length: file.metadata()?.len(), start: 0, bytes: Vec::new() };
    let header = window.at(0, FileHeader::BYTES as u64)?.map(FileHeader::decode);
    let mark = window.at(MARK_POSITION, FlushedMark::BYTES as u64)?.map(FlushedMark::decode).unwrap_or_default();
    match header {
        Some(Ok(header)) if header.uid == uid => {}
        Some(Err(FormatError::Version(found))) => {
            return Err(io::Error::other(format!("format version {found} is not ours")));
        }
        // Nothing was ever acknowledged before the header was written whole.
        _ if mark == FlushedMark::default() => return Ok(Scan { end: DATA_START, ..Scan::default() }),
        _ => return Err(io::Error::other("the file's header is damaged; restore it from a replica or a backup")),
    }
    let mut scan = Scan { end: DATA_START, ..Scan::default() };
    while scan.count < limit {
        if let Some(batch) = window.batch(scan.end, uid)?.filter(|batch| batch.base_index == scan.count) {
            scan.take(&batch);
        } else if scan.end >= mark.position || !scan.skip_damage(&mut window, uid, mark)? {
            break;
        }
    }
    scan.torn_bytes = window.nonzero_after(scan.end)?;
    Ok(scan)
}

impl Scan {
    fn take(&mut self, batch: &BatchHeader) {
        self.index.note(batch.base_index, self.end);
        self.count = batch.base_index + u64::from(batch.count);
        self.epoch = batch.epoch;
        self.end += batch.total_bytes();
    }

    /// Finds the next valid batch behind damage and goes on there; false if there is none: then
    /// the range up to the mark is damaged and the log ends.
    fn skip_damage(&mut self, window: &mut Window<'_>, uid: SegmentUid, mark: FlushedMark) -> io::Result<bool> {
        let mut position = self.end + 1;
        while position + BATCH_HEADER_BYTES as u64 <= window.length {
            let Some(found) = window.find_magic(position)? else { break };
            if let Some(batch) = window.batch(found, uid)?.filter(|batch| batch.base_index > self.count) {
                self.damaged.push(self.count..batch.base_index);
                self.end = found;
                self.count = batch.base_index;
                self.index.note_always(batch.base_index, found);
                return Ok(true);
            }
            position = found + 1;
        }
        if mark.index > self.count {
            self.damaged.push(self.count..mark.index);
            self.count = mark.index;
        }
        self.end = mark.position;
        Ok(false)
    }
}

/// A moving view of a file, so that a scan of small batches costs few system calls.
struct Window<'a> {
    file: &'a File,
    disk: &'a dyn Disk,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// The bytes at a range; `None` past the end of the file.
    fn at(&mut self, position: u64, length: u64) -> io::Result<Option<&[u8]>> {
        if position + length > self.length {
            return Ok(None);
        }
        let end = self.start + self.bytes.len() as u64;
        if position < self.start || position + length > end {
            let wanted = length.max(WINDOW_BYTES).min(self.length - position);
            self.bytes.resize(wanted as usize, 0);
            self.start = position;
            self.disk.read(self.file, position, &mut self.bytes)?;
        }
        let from = (position - self.start) as usize;
        Ok(Some(&self.bytes[from..from + length as usize]))
    }

    /// The valid batch of this segment at a position.
    fn batch(&mut self, position: u64, uid: SegmentUid) -> io::Result<Option<BatchHeader>> {
        let header = self.at(position, BATCH_HEADER_BYTES as u64)?.and_then(|bytes| BatchHeader::decode(bytes).ok());
        let Some(header) = header.filter(|header| header.uid == uid && header.count > 0) else { return Ok(None) };
        let Some(bytes) = self.at(position, header.total_bytes())? else { return Ok(None) };
        Ok(header.verify(bytes).is_ok().then_some(header))
    }

    /// The next place at or after `position` where a batch's magic stands.
    fn find_magic(&mut self, mut position: u64) -> io::Result<Option<u64>> {
        while position < self.length {
            let length = WINDOW_BYTES.min(self.length - position);
            let Some(bytes) = self.at(position, length)? else { break };
            if let Some(found) = bytes.windows(4).position(|four| four == BATCH_MAGIC_BYTES) {
                return Ok(Some(position + found as u64));
            }
            if length < WINDOW_BYTES {
                break;
            }
            position += length - 3;
        }
        Ok(None)
    }

    /// Bytes that are not zero behind `position` (reserved space reads as zeros).
    fn nonzero_after(&mut self, mut position: u64) -> io::Result<u64> {
        let mut count = 0;
        while position < self.length {
            let length = WINDOW_BYTES.min(self.length - position);
            let Some(bytes) = self.at(position, length)? else { break };
            count += bytes.iter().filter(|byte| **byte != 0).count() as u64;
            position += length;
        }
        Ok(count)
    }
}
