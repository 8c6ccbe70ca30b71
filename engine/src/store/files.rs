//! The store's directory of segment files, and an LRU of open descriptors.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::pool::lock;
use crate::types::SegmentUid;

/// Segment files by uid.
#[derive(Debug)]
pub struct Files {
    dir: PathBuf,
    open: Mutex<Lru>,
    dir_changed: AtomicBool,
    /// Held while the directory is flushed: who finds nothing to do must not go on before that is over.
    syncing: Mutex<()>,
}

#[derive(Debug)]
struct Lru {
    files: HashMap<SegmentUid, (Arc<File>, u64)>,
    clock: u64,
    capacity: usize,
}

impl Lru {
    fn touch(&mut self, uid: SegmentUid) -> Option<Arc<File>> {
        self.clock += 1;
        let clock = self.clock;
        self.files.get_mut(&uid).map(|(file, used)| {
            *used = clock;
            Arc::clone(file)
        })
    }

    fn insert(&mut self, uid: SegmentUid, file: &Arc<File>) {
        if self.files.len() >= self.capacity {
            // Half of them at once, so that the sort is paid once in many openings.
            let mut ages: Vec<u64> = self.files.values().map(|(_, used)| *used).collect();
            ages.sort_unstable();
            let cut = ages[ages.len() / 2];
            self.files.retain(|_, (_, used)| *used > cut);
        }
        self.clock += 1;
        self.files.insert(uid, (Arc::clone(file), self.clock));
    }
}

impl Files {
    /// Opens (or makes) the directory; keeps at most `capacity` descriptors.
    pub fn open(dir: PathBuf, capacity: usize) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        let open = Lru { files: HashMap::new(), clock: 0, capacity: capacity.max(8) };
        Ok(Files { dir, open: Mutex::new(open), dir_changed: AtomicBool::new(true), syncing: Mutex::default() })
    }

    /// Where the segment's file is.
    pub fn path(&self, uid: SegmentUid) -> PathBuf {
        self.dir.join(format!("{:016x}-{:010}.seg", uid.topic_id, uid.number))
    }

    /// The existing file of a segment.
    pub fn get(&self, uid: SegmentUid) -> io::Result<Arc<File>> {
        if let Some(file) = lock(&self.open).touch(uid) {
            return Ok(file);
        }
        let file = Arc::new(OpenOptions::new().read(true).write(true).open(self.path(uid))?);
        lock(&self.open).insert(uid, &file);
        Ok(file)
    }

    /// Makes an empty file for a new segment.
    pub fn create(&self, uid: SegmentUid) -> io::Result<Arc<File>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(self.path(uid))?;
        self.dir_changed.store(true, Ordering::Release);
        let file = Arc::new(file);
        lock(&self.open).insert(uid, &file);
        Ok(file)
    }

    /// Removes a segment's file, if there is one.
    pub fn remove(&self, uid: SegmentUid) -> io::Result<()> {
        lock(&self.open).files.remove(&uid);
        self.dir_changed.store(true, Ordering::Release);
        match fs::remove_file(self.path(uid)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes creations and removals so far durable.
    pub fn sync_dir(&self) -> io::Result<()> {
        let _syncing = lock(&self.syncing);
        if self.dir_changed.swap(false, Ordering::AcqRel) {
            sync_dir(&self.dir).inspect_err(|_| self.dir_changed.store(true, Ordering::Release))?;
        }
        Ok(())
    }

    /// Uids of all files, in order.
    pub fn list(&self) -> io::Result<Vec<SegmentUid>> {
        let mut uids = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            uids.extend(entry?.file_name().to_str().and_then(parse_name));
        }
        uids.sort_unstable();
        Ok(uids)
    }
}

fn parse_name(name: &str) -> Option<SegmentUid> {
    let (topic, number) = name.strip_suffix(".seg")?.split_once('-')?;
    Some(SegmentUid { topic_id: u64::from_str_radix(topic, 16).ok()?, number: number.parse().ok()? })
}

/// Flushes a directory, so that the names in it survive a crash of the machine.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Replaces a small file so that a crash leaves the old one or the new one, never a mixture.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Free bytes for us on a directory's file system; 0 if that cannot be told.
pub fn free_bytes(dir: &Path) -> u64 {
    use std::os::unix::ffi::OsStrExt;
    let Ok(path) = std::ffi::CString::new(dir.as_os_str().as_bytes()) else { return 0 };
    let mut stats = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` is a C string, and `stats` has room for what the call fills in.
    if unsafe { libc::statvfs(path.as_ptr(), stats.as_mut_ptr()) } != 0 {
        return 0;
    }
    // SAFETY: the call succeeded, so it is filled in.
    let stats = unsafe { stats.assume_init() };
    stats.f_bavail * stats.f_frsize
}

/// How many descriptors the process may have open.
pub fn descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: fills in `limit`.
    let done = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if done == 0 { limit.rlim_cur } else { 256 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_few_descriptors_and_finds_all_files() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open(dir.path().join("segments"), 8).unwrap();
        for topic_id in 0..50 {
            files.create(SegmentUid { topic_id, number: 1 }).unwrap();
        }
        assert!(lock(&files.open).files.len() <= 8);
        let listed = files.list().unwrap();
        assert_eq!(listed.len(), 50);
        for uid in listed {
            files.get(uid).unwrap();
            files.remove(uid).unwrap();
            assert!(files.get(uid).is_err());
            files.remove(uid).unwrap();
        }
    }
}
