//! The shared journal: one flush for the small synced batches of many segments.
//!
//! Ten producers that each wait for their own record would cost ten flushes of ten files. Here
//! the batches that are ready at the same time are written one behind the other into one
//! preallocated, zero-filled file, with one flush, and acknowledged; their own files get the same
//! bytes at once, but unflushed. The file has two halves: when one is full, the segments that it
//! holds batches of are flushed in the background, and only then may it be overwritten. After a
//! crash [`replay`] writes what the journal holds into the segments again: the bytes are the same
//! at the same place, so doing it twice is harmless.
//!
//! Large batches pay for their own flush and never come here.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
#[cfg(not(feature = "sim"))]
use std::thread::{self, JoinHandle};

use super::appender::{Write, complete};
use super::background::{self, Task};
use super::disk::Disk;
use super::files::Files;
use super::format::{PartHeader, RoundHeader};
use super::pool::lock;
use super::segment::Inner;
use super::{Shared, StoreError, recovery};
use crate::types::SegmentUid;

const HALF_BYTES: u64 = if cfg!(feature = "sim") { 2 << 20 } else { 32 << 20 };
const PAGE: u64 = 4096;
/// A round takes no more batches once it holds this much.
const ROUND_BYTES_MAX: usize = 1024 * 1024;
/// Files that a replay keeps open before it flushes them.
const REPLAY_FILES_MAX: usize = 64;

/// The queue in front of the journal's thread.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    id: u64,
    queue: Mutex<Pending>,
    arrived: Condvar,
    /// May each half be overwritten?
    half_free: [AtomicBool; 2],
    /// Segments that a full half holds batches of, until somebody begins to flush them.
    to_flush: [Mutex<Option<Vec<Arc<Inner>>>>; 2],
    /// Nothing is written to it any more, see [`Journal::release`].
    held: AtomicBool,
}

#[derive(Debug, Default)]
struct Pending {
    writes: Vec<Write>,
    stopping: bool,
}

impl Journal {
    /// A journal at `path`, with a fresh random `id`. The file is made at the first round.
    pub(super) fn new(path: PathBuf, id: u64) -> Self {
        Journal {
            path,
            id,
            queue: Mutex::default(),
            arrived: Condvar::new(),
            half_free: [AtomicBool::new(true), AtomicBool::new(true)],
            to_flush: Default::default(),
            held: AtomicBool::new(false),
        }
    }

    /// Takes a write; its segment hears of it through [`complete`].
    pub(super) fn submit(&self, write: Write) {
        lock(&self.queue).writes.push(write);
        self.arrived.notify_one();
    }

    /// Is there nothing to write?
    #[cfg(feature = "sim")]
    pub(super) fn is_idle(&self) -> bool {
        lock(&self.queue).writes.is_empty()
    }

    /// Ends the thread once everything submitted is done.
    pub(super) fn stop(&self) {
        lock(&self.queue).stopping = true;
        self.arrived.notify_all();
    }

    /// Flushes the segments that a full half holds batches of, and lets it be overwritten; unless
    /// somebody else has begun to. If a flush fails, the journal may have the only copy: it is left as
    /// it is for the next start to replay, and every batch pays for a flush of its own from now on.
    pub(super) fn release(&self, half: usize) {
        let Some(segments) = lock(&self.to_flush[half]).take() else { return };
        background::each(&segments, background::flush_or_fail);
        if segments.iter().any(|segment| lock(&segment.state).flush_failed) {
            self.held.store(true, Ordering::Release);
        } else {
            self.half_free[half].store(true, Ordering::Release);
        }
        self.tell_writer();
    }

    /// A half is full: nothing of it may be overwritten before these segments are flushed.
    pub(super) fn fill(&self, half: usize, segments: Vec<Arc<Inner>>) {
        self.half_free[half].store(false, Ordering::Release);
        *lock(&self.to_flush[half]) = Some(segments);
    }

    /// Is nothing written to it any more?
    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    fn tell_writer(&self) {
        // The lock orders what was stored with a writer that is just about to wait.
        drop(lock(&self.queue));
        self.arrived.notify_all();
    }

    /// Everything that is queued, up to a round's size; waits for the first. Empty: stop.
    fn next_round(&self) -> Vec<Write> {
        let mut queue = lock(&self.queue);
        while queue.writes.is_empty() && !queue.stopping {
            queue = self.arrived.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        let mut bytes = 0;
        let fitting = queue.writes.iter().take_while(|write| {
            bytes += write.batch.total_bytes();
            bytes <= ROUND_BYTES_MAX
        });
        let count = fitting.count().max(1).min(queue.writes.len());
        queue.writes.drain(..count).collect()
    }

    /// Waits until a half may be overwritten; an error if that will not come.
    fn wait_for_half(&self, half: usize) -> io::Result<()> {
        let mut queue = lock(&self.queue);
        while !self.half_free[half].load(Ordering::Acquire) {
            if self.is_held() {
                return Err(io::Error::other("the journal is held"));
            }
            queue = self.arrived.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        Ok(())
    }
}

/// Starts the journal's thread.
#[cfg(not(feature = "sim"))]
pub(super) fn start(shared: &Arc<Shared>) -> io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    thread::Builder::new().name("walrus-journal".into()).spawn(move || {
        let mut writer = Writer::new(shared);
        while writer.write_next() {}
    })
}

/// The one who writes the journal.
pub(super) struct Writer {
    shared: Arc<Shared>,
    file: Option<File>,
    /// The half that is being filled. The position does not tell: where one half is exactly full, the
    /// other one begins.
    half: usize,
    position: u64,
    sequence: u64,
    /// Segments with batches in the current half.
    touched: Vec<Arc<Inner>>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Writer { shared, file: None, half: 0, position: 0, sequence: 0, touched: Vec::new() }
    }

    /// Waits for the next round and writes it. False: the journal was stopped.
    pub(super) fn write_next(&mut self) -> bool {
        let writes = self.shared.journal.next_round();
        if writes.is_empty() {
            return false;
        }
        let journaled =
            if self.shared.journal.is_held() { Err(io::ErrorKind::Other.into()) } else { self.write_round(&writes) };
        for write in writes {
            let result = match &journaled {
                // The journal has it durably; its own file follows, flushed later.
                Ok(()) => write.run_unsynced(),
                Err(_) if self.shared.journal.is_held() => write.run(),
                Err(error) => Err(copy_of(error)),
            };
            self.touch(&write.segment);
            complete(write, result);
        }
        true
    }

    fn write_round(&mut self, writes: &[Write]) -> io::Result<()> {
        let parts: Vec<[u8; PartHeader::BYTES]> = writes.iter().map(|write| part_header(write).encode()).collect();
        let body = || {
            parts.iter().zip(writes).flat_map(|(part, write)| std::iter::once(&part[..]).chain(write.batch.pieces()))
        };
        let length: usize = body().map(<[u8]>::len).sum();
        let header = RoundHeader {
            crc: 0,
            sequence: self.sequence,
            length: length as u32,
            parts: parts.len() as u32,
            journal_id: self.shared.journal.id,
        }
        .seal(body());
        let unpadded = (RoundHeader::BYTES + length) as u64;
        let padding = [0; PAGE as usize];
        let padding = &padding[..(unpadded.next_multiple_of(PAGE) - unpadded) as usize];
        let mut pieces: Vec<IoSlice<'_>> = Vec::with_capacity(writes.len() * 4);
        pieces.push(IoSlice::new(&header));
        pieces.extend(body().map(IoSlice::new));
        pieces.push(IoSlice::new(padding));
        let position = self.place(unpadded.next_multiple_of(PAGE))?;
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        self.shared.disk.write(file, position, &mut pieces, true)?;
        self.position = position + unpadded.next_multiple_of(PAGE);
        self.sequence += 1;
        Ok(())
    }

    /// Where a round of `bytes` goes: behind the last one, or at the start of the other half.
    fn place(&mut self, bytes: u64) -> io::Result<u64> {
        if self.file.is_none() {
            self.file = Some(make_file(&self.shared.journal.path, &*self.shared.disk)?);
        }
        let half = self.half;
        let half_end = (half as u64 + 1) * HALF_BYTES;
        if self.position + bytes <= half_end {
            return Ok(self.position);
        }
        let journal = &self.shared.journal;
        for segment in &self.touched {
            lock(&segment.state).journaled = false;
        }
        journal.fill(half, std::mem::take(&mut self.touched));
        self.shared.background.send(Task::ReleaseJournal { half });
        let other = 1 - half;
        // The background thread may be waiting for a write that is queued here: not for it alone.
        journal.release(other);
        journal.wait_for_half(other)?;
        self.half = other;
        self.position = other as u64 * HALF_BYTES;
        Ok(self.position)
    }

    fn touch(&mut self, segment: &Arc<Inner>) {
        if !std::mem::replace(&mut lock(&segment.state).journaled, true) {
            self.touched.push(Arc::clone(segment));
        }
    }
}

fn part_header(write: &Write) -> PartHeader {
    PartHeader { uid: write.segment.spec.uid, position: write.position, length: write.batch.total_bytes() as u32 }
}

fn copy_of(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::new(error.kind(), error.to_string()), io::Error::from_raw_os_error)
}

/// Makes the journal's file at its full size, with real zeros: overwriting them later changes no
/// metadata of the file system, so that a flush is one write and one flush of the device.
fn make_file(path: &Path, disk: &dyn Disk) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let zeros = vec![0; 1024 * 1024];
    let mut position = file.metadata()?.len() / PAGE * PAGE;
    while position < 2 * HALF_BYTES {
        disk.write(&file, position, &mut [IoSlice::new(&zeros)], false)?;
        position += zeros.len() as u64;
    }
    file.sync_all()?;
    if let Some(dir) = path.parent() {
        super::files::sync_dir(dir)?;
    }
    Ok(file)
}

/// Writes the batches of all complete rounds of journal `id` into their segments, in order, and
/// flushes them. Returns how many batches that were.
pub(super) fn replay(path: &Path, id: u64, files: &Files, disk: &dyn Disk) -> Result<u64, StoreError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(StoreError::io(format!("reading {}", path.display()), error)),
    };
    let mut rounds = complete_rounds(&bytes, id);
    rounds.sort_unstable_by_key(|(header, _)| header.sequence);
    let mut written = 0;
    let mut touched = BTreeMap::new();
    for (header, body) in rounds {
        let mut rest = body;
        for _ in 0..header.parts {
            let Ok(part) = PartHeader::decode(rest) else { break };
            let (batch, after) = rest[PartHeader::BYTES..].split_at(part.length as usize);
            rest = after;
            // Any other error may be over at the next start, and only the journal holds the batch.
            let failed = |error| StoreError::io(format!("replaying the journal into segment {}", part.uid), error);
            let file = match files.get(part.uid) {
                Ok(file) => file,
                // It was removed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            // It was flushed before it got its footer.
            if recovery::read_footer(&file, disk, part.uid).map_err(failed)?.is_some() {
                continue;
            }
            disk.write(&file, part.position, &mut [IoSlice::new(batch)], false).map_err(failed)?;
            touched.insert(part.uid, file);
            written += 1;
            if touched.len() >= REPLAY_FILES_MAX {
                flush_all(std::mem::take(&mut touched), disk)?;
            }
        }
    }
    flush_all(touched, disk)?;
    Ok(written)
}

fn flush_all(files: BTreeMap<SegmentUid, Arc<File>>, disk: &dyn Disk) -> Result<(), StoreError> {
    for (uid, file) in files {
        disk.flush(&file).map_err(|error| StoreError::io(format!("flushing segment {uid}"), error))?;
    }
    Ok(())
}

/// Rounds of this journal whose checksum holds, with their parts.
fn complete_rounds(bytes: &[u8], id: u64) -> Vec<(RoundHeader, &[u8])> {
    let mut rounds = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let round = RoundHeader::decode(&bytes[at..]).ok().filter(|header| header.journal_id == id);
        match round {
            Some(header) if header.verify(&bytes[at..]).is_ok() => {
                let body = at + RoundHeader::BYTES;
                let end = body + header.length as usize;
                rounds.push((header, &bytes[body..end]));
                at = end.next_multiple_of(PAGE as usize);
            }
            _ => at += PAGE as usize,
        }
    }
    rounds
}

#[cfg(all(test, not(feature = "sim")))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{SegmentSpec, Store, StoreConfig};
    use super::*;
    use crate::types::Tier;

    #[test]
    fn a_half_that_is_exactly_full_is_left_as_any_other() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreConfig::new(dir.path().join("data"))).unwrap();
        let segment = store.create(spec(1));
        let mut writer = Writer::new(Arc::clone(&store.running.shared));
        for start in [HALF_BYTES, 0, HALF_BYTES] {
            writer.touch(segment.inner());
            let first = writer.place(PAGE).unwrap();
            for page in 0..HALF_BYTES / PAGE {
                assert_eq!(writer.place(PAGE).unwrap(), first + page * PAGE);
                writer.position += PAGE;
            }
            assert_eq!(writer.touched.len(), 1);
            assert_eq!(writer.place(PAGE).unwrap(), start);
            assert!(writer.touched.is_empty(), "what the full half holds is being flushed");
        }
    }

    /// The background thread ends a file once its last write is over. While that write waits here, the
    /// journal must not wait for the background thread.
    #[test]
    fn full_halves_wait_for_no_file_that_is_being_ended() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreConfig::new(dir.path().join("data"))).unwrap();
        let (segment, sealed) = (store.create(spec(1)), store.create(spec(2)));
        let inner = Arc::clone(sealed.inner());
        {
            let mut state = lock(&inner.state);
            (state.sealed_count, state.in_flight) = (Some(1), true);
        }
        let shared = Arc::clone(&store.running.shared);
        shared.background.send(Task::Seal(Arc::clone(&inner)));
        let (done, filled) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let mut writer = Writer::new(shared);
            for _ in 0..4 {
                writer.touch(segment.inner());
                writer.place(HALF_BYTES).unwrap();
                writer.position += HALF_BYTES;
            }
            done.send(()).unwrap();
        });
        let waited = filled.recv_timeout(std::time::Duration::from_mins(1));
        lock(&inner.state).in_flight = false;
        inner.waiters.wake_all();
        waited.expect("the halves are flushed and overwritten");
    }

    fn spec(number: u64) -> SegmentSpec {
        SegmentSpec {
            uid: SegmentUid { topic_id: 1, number },
            epoch: 1,
            tier: Tier::Synced,
            segment_entries: 10,
            segment_bytes: 1 << 20,
        }
    }
}
