//! The files that the ceilings write to: as many as there are topics, or one a connection.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::buffer::BLOCK_BYTES;
use super::writeback::{self, Writeback};

/// Least and greatest growth of a file's allocation.
const STEP_BYTES_MIN: u64 = 1 << 20;
const STEP_BYTES_MAX: u64 = 64 << 20;

/// Where the next write goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Behind the last one.
    Append,
    /// Behind the last one, and again from the start of a file of so many bytes, which were written
    /// before: nothing but data goes to the device, no size and no extent of the file system.
    Ring { bytes: u64 },
}

/// A file that is written from its start to its end.
pub(super) struct LogFile {
    file: File,
    layout: Layout,
    end: AtomicU64,
    allocated: AtomicU64,
    writeback: Arc<Writeback>,
}

impl LogFile {
    pub(super) fn create(path: &Path, direct: bool, layout: Layout, writeback: &Arc<Writeback>) -> io::Result<LogFile> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).write(true);
        let mut file = options.open(path)?;
        if let Layout::Ring { bytes } = layout {
            fill(&file, bytes)?;
        }
        if direct {
            file = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path)?;
        }
        let writeback = Arc::clone(writeback);
        Ok(LogFile { file, layout, end: AtomicU64::new(0), allocated: AtomicU64::new(0), writeback })
    }

    pub(super) fn fd(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Takes the next `length` bytes of the file for one write and returns where they start.
    pub(super) fn reserve(&self, length: u64) -> u64 {
        if let Layout::Ring { bytes } = self.layout {
            return self.reserve_in_ring(length, bytes);
        }
        let start = self.end.fetch_add(length, Ordering::Relaxed);
        let allocated = self.allocated.load(Ordering::Relaxed);
        if start + length > allocated {
            self.grow(allocated, start + length);
        }
        start
    }

    /// A write that is longer than the ring starts at its front.
    fn reserve_in_ring(&self, length: u64, ring_bytes: u64) -> u64 {
        let fits = |end: u64| if end + length <= ring_bytes { end } else { 0 };
        let taken = self.end.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |end| Some(fits(end) + length));
        // Cannot fail: the closure always returns a value.
        fits(taken.unwrap_or_default())
    }

    /// A write to the page cache is done: once much of that waits, the device begins to get it.
    pub(super) fn note_cached(&self, start: u64, length: u64) {
        if let Some((from, bytes)) = self.writeback.due(start, length) {
            writeback::start(&self.file, from, bytes);
        }
    }

    /// Allocates ahead, keeping the file's size (`FALLOC_FL_KEEP_SIZE`). A failure is left to the
    /// write itself, which needs no allocation to be correct.
    fn grow(&self, allocated: u64, wanted: u64) {
        let step = allocated.clamp(STEP_BYTES_MIN, STEP_BYTES_MAX);
        let end = wanted.max(allocated + step);
        let won = self.allocated.compare_exchange(allocated, end, Ordering::Relaxed, Ordering::Relaxed);
        if won.is_ok() {
            // SAFETY: plain system call on a descriptor that `self` keeps open.
            unsafe {
                libc::fallocate(
                    self.fd(),
                    libc::FALLOC_FL_KEEP_SIZE,
                    allocated.cast_signed(),
                    (end - allocated).cast_signed(),
                );
            }
        }
    }
}

/// Writes `bytes` bytes of anything and flushes them.
fn fill(file: &File, bytes: u64) -> io::Result<()> {
    let piece = vec![0xA5; 256 * BLOCK_BYTES];
    let mut at = 0;
    while at < bytes {
        let length = (bytes - at).min(piece.len() as u64);
        file.write_all_at(&piece[..length as usize], at)?;
        at += length;
    }
    file.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_written_from_the_front_when_a_write_does_not_fit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ring");
        let ring = LogFile::create(&path, false, Layout::Ring { bytes: 100 }, &Arc::default()).unwrap();
        assert_eq!([60, 40, 1, 100].map(|length| ring.reserve(length)), [0, 60, 0, 0]);
        assert_eq!(path.metadata().unwrap().len(), 100);
    }
}
