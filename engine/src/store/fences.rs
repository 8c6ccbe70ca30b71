//! What this node has promised about its copies of replicated segments: the file `fences`.
//!
//! A promise must never be forgotten: a replica that had promised to refuse an old leader, and
//! then takes a record of it after a restart, could make that leader acknowledge what the seal cuts
//! off. So each change is written and flushed (`O_DSYNC`) before [`Fences::record`] returns, and
//! nobody is told of it before. The file is preallocated and zero-filled, so that this is one write
//! without a commit of the file system's journal; changes of many segments share one.
//!
//! The same entry says whether the copy is *in doubt*, that is, whether records that this node once
//! acknowledged may be missing. In the page-cache tier every crash of the machine puts every copy
//! in doubt that was not known to be whole after it, also one whose file has vanished: that is why
//! an entry is made before a node acknowledges the first record of a segment.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::StoreError;
use super::disk::Disk;
use super::files::sync_dir;
use super::format::FenceEntry;
use super::pool::lock;
use crate::types::{SegmentUid, Tier};

/// Least size of the file: 16,384 entries.
const CAPACITY_BYTES_MIN: u64 = 1 << 20;

/// The promises, in memory and on disk.
#[derive(Debug)]
pub(super) struct Fences {
    /// Crashes of the machine that this disk has seen.
    crashes: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    /// Made at the first change: a node alone needs none.
    file: Option<File>,
    end: u64,
    capacity: u64,
    entries: HashMap<SegmentUid, FenceEntry>,
    /// A failed write: what is on disk is unknown, so nothing is promised any more.
    failed: bool,
}

impl Fences {
    /// Reads the file at `path`, if there is one. `crashes`: crashes of the machine so far.
    pub(super) fn open(path: PathBuf, crashes: u64, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        let what = format!("opening {}", path.display());
        let failed = |error| StoreError::io(what.clone(), error);
        let entries = read(&path).map_err(failed)?;
        let mut inner = Inner { path, disk, file: None, end: 0, capacity: 0, entries, failed: false };
        if inner.path.exists() {
            // Only the last entry of each segment is kept.
            inner.write_anew().map_err(failed)?;
        }
        Ok(Fences { crashes, inner: Mutex::new(inner) })
    }

    /// The entry of a segment, if this node has had anything to do with it.
    pub(super) fn get(&self, uid: SegmentUid) -> Option<FenceEntry> {
        lock(&self.inner).entries.get(&uid).copied()
    }

    /// May records be missing that this node once acknowledged?
    pub(super) fn in_doubt(&self, uid: SegmentUid, tier: Tier) -> bool {
        self.get(uid).is_some_and(|entry| {
            let lost_by_crash = tier == Tier::PageCache && entry.whole_since < self.crashes;
            entry.damaged || lost_by_crash
        })
    }

    /// Changes the entries of `segments` and makes them durable with one flush. A new entry starts
    /// with no promise, and whole. Entries that `change` leaves as they were cost nothing.
    pub(super) fn record(
        &self,
        segments: impl IntoIterator<Item = SegmentUid>,
        change: impl Fn(&mut FenceEntry),
    ) -> Result<(), StoreError> {
        let mut inner = lock(&self.inner);
        let mut bytes = Vec::new();
        let mut changed = Vec::new();
        for uid in segments {
            let known = inner.entries.get(&uid).copied();
            let mut entry = known.unwrap_or(FenceEntry {
                uid,
                promised: 0,
                whole_since: self.crashes,
                damaged: false,
                forgotten: false,
            });
            change(&mut entry);
            if known != Some(entry) {
                bytes.extend_from_slice(&entry.encode());
                changed.push(entry);
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        inner.write(&bytes)?;
        for entry in changed {
            if entry.forgotten {
                inner.entries.remove(&entry.uid);
            } else {
                inner.entries.insert(entry.uid, entry);
            }
        }
        Ok(())
    }

    /// Is there an entry, and, for a segment that was opened just now, one that does not doubt it?
    pub(super) fn is_known(&self, uid: SegmentUid, fresh: bool) -> bool {
        self.get(uid).is_some_and(|entry| !fresh || (entry.whole_since == self.crashes && !entry.damaged))
    }

    /// An entry for each of the segments, before the first acknowledgement. What was opened just now
    /// (`true`) is whole.
    pub(super) fn know(&self, segments: &[(SegmentUid, bool)]) -> Result<(), StoreError> {
        let fresh: HashSet<SegmentUid> = segments.iter().filter(|(_, fresh)| *fresh).map(|(uid, _)| *uid).collect();
        self.record(segments.iter().map(|(uid, _)| *uid), |entry| {
            if fresh.contains(&entry.uid) {
                entry.whole_since = self.crashes;
                entry.damaged = false;
            }
        })
    }

    /// Segments that have an entry.
    pub(super) fn all(&self) -> Vec<SegmentUid> {
        lock(&self.inner).entries.keys().copied().collect()
    }

    /// The copy holds everything again that its leader ever assigned.
    pub(super) fn clear_doubt(&self, uid: SegmentUid) -> Result<(), StoreError> {
        let crashes = self.crashes;
        self.record([uid], |entry| {
            entry.whole_since = crashes;
            entry.damaged = false;
        })
    }

    /// The segments are sealed and whole here, or gone.
    pub(super) fn forget(&self, segments: &[SegmentUid]) -> Result<(), StoreError> {
        let known: Vec<SegmentUid> = {
            let inner = lock(&self.inner);
            segments.iter().copied().filter(|uid| inner.entries.contains_key(uid)).collect()
        };
        #[cfg(feature = "sim")]
        for uid in &known {
            crate::sim::promises::forgotten(&lock(&self.inner).disk, *uid);
        }
        self.record(known, |entry| entry.forgotten = true)
    }
}

impl Inner {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if self.failed {
            let error = io::Error::other("an earlier write failed");
            return Err(StoreError::io(format!("writing {}", self.path.display()), error));
        }
        self.append(bytes).map_err(|error| StoreError::io(format!("writing {}", self.path.display()), error))
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        while self.end + bytes.len() as u64 > self.capacity {
            self.write_anew()?;
            self.capacity = self.capacity.max(self.end + bytes.len() as u64);
        }
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        self.disk.write(file, self.end, &mut [IoSlice::new(bytes)], true).inspect_err(|_| self.failed = true)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Puts a file with the entries, and zeros behind them, in the place of the one that there is. If
    /// that fails before the new one has the name (the disk may be full), the old one still counts.
    fn write_anew(&mut self) -> io::Result<()> {
        let mut bytes: Vec<u8> = self.entries.values().flat_map(FenceEntry::encode).collect();
        let end = bytes.len() as u64;
        let capacity = (2 * end).max(CAPACITY_BYTES_MIN);
        bytes.resize(capacity as usize, 0);
        let temporary = self.path.with_extension("tmp");
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        (self.file, self.end, self.capacity) = (Some(file), end, capacity);
        // Which of the two a crash would leave is not known until this is done.
        self.path.parent().map_or(Ok(()), sync_dir).inspect_err(|_| self.failed = true)
    }
}

/// All entries of the file, the last one of each segment. An invalid entry in the midst of valid
/// ones was torn by a crash of the machine: nobody was told of it, and those after it that did
/// reach the disk promise more than was said, which harms nobody.
fn read(path: &Path) -> io::Result<HashMap<SegmentUid, FenceEntry>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(error) => return Err(error),
    };
    let mut entries = HashMap::new();
    for slot in bytes.chunks_exact(FenceEntry::BYTES) {
        match FenceEntry::decode(slot) {
            Ok(entry) if entry.forgotten => {
                entries.remove(&entry.uid);
            }
            Ok(entry) => {
                entries.insert(entry.uid, entry);
            }
            Err(_) if slot.iter().all(|byte| *byte == 0) => {}
            Err(error) => tracing::warn!(path = %path.display(), %error, "an entry is torn; nobody was told of it"),
        }
    }
    Ok(entries)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::disk::RealDisk;
    use super::*;

    fn open(dir: &Path, crashes: u64) -> Fences {
        Fences::open(dir.join("fences"), crashes, Arc::new(RealDisk)).unwrap()
    }

    fn uid(number: u64) -> SegmentUid {
        SegmentUid { topic_id: 1, number }
    }

    #[test]
    fn promises_survive_restarts_and_the_file_is_written_anew_when_it_is_full() {
        let dir = tempfile::tempdir().unwrap();
        let fences = open(dir.path(), 0);
        // Twice as many changes as the file has room for, of few segments.
        let rounds = 2 * CAPACITY_BYTES_MIN / FenceEntry::BYTES as u64 / 100;
        for epoch in 1..=rounds {
            fences.record((0..100).map(uid), |entry| entry.promised = epoch).unwrap();
        }
        fences.forget(&[uid(7)]).unwrap();
        drop(fences);
        let fences = open(dir.path(), 0);
        assert_eq!(fences.get(uid(3)).unwrap().promised, rounds);
        assert!(fences.get(uid(7)).is_none());
        assert_eq!(fs::metadata(dir.path().join("fences")).unwrap().len(), CAPACITY_BYTES_MIN);
    }

    #[test]
    fn a_crash_of_the_machine_puts_what_was_known_in_doubt_until_it_is_whole_again() {
        let dir = tempfile::tempdir().unwrap();
        let fences = open(dir.path(), 0);
        fences.know(&[(uid(1), true)]).unwrap();
        assert!(!fences.in_doubt(uid(1), Tier::PageCache));
        drop(fences);
        let fences = open(dir.path(), 1);
        assert!(fences.in_doubt(uid(1), Tier::PageCache));
        assert!(!fences.in_doubt(uid(1), Tier::Synced), "nothing that a synced copy acknowledged can be missing");
        assert!(!fences.in_doubt(uid(2), Tier::PageCache), "it never acknowledged anything");
        fences.clear_doubt(uid(1)).unwrap();
        fences.know(&[(uid(2), true)]).unwrap();
        assert!(!fences.in_doubt(uid(1), Tier::PageCache));
        drop(fences);
        assert!(open(dir.path(), 2).in_doubt(uid(2), Tier::PageCache));
    }

    #[test]
    fn a_torn_entry_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let fences = open(dir.path(), 0);
        fences.record([uid(1)], |entry| entry.promised = 4).unwrap();
        fences.record([uid(1)], |entry| entry.promised = 9).unwrap();
        drop(fences);
        let file = OpenOptions::new().write(true).open(dir.path().join("fences")).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[0xaa; 10], 64 + 30).unwrap();
        assert_eq!(open(dir.path(), 0).get(uid(1)).unwrap().promised, 4);
    }

    #[test]
    fn a_file_that_cannot_be_written_anew_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let fences = open(dir.path(), 0);
        fences.record([uid(1)], |entry| entry.promised = 1).unwrap();
        lock(&fences.inner).capacity = 0;
        let in_the_way = dir.path().join("fences.tmp");
        fs::create_dir(&in_the_way).unwrap();
        assert!(fences.record([uid(2)], |entry| entry.promised = 2).is_err());
        assert!(fences.get(uid(2)).is_none(), "what is not on the device is not promised");
        fs::remove_dir(&in_the_way).unwrap();
        fences.record([uid(2)], |entry| entry.promised = 2).unwrap();
        drop(fences);
        let fences = open(dir.path(), 0);
        assert_eq!([1, 2].map(|number| fences.get(uid(number)).unwrap().promised), [1, 2]);
    }
}
