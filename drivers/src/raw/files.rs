//! The files that the ceilings write to: as many as there are topics, grown ahead of the writes.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Least and greatest growth of a file's allocation.
const STEP_BYTES_MIN: u64 = 1 << 20;
const STEP_BYTES_MAX: u64 = 64 << 20;

/// An append-only file.
pub(super) struct LogFile {
    file: File,
    end: AtomicU64,
    allocated: AtomicU64,
}

impl LogFile {
    pub(super) fn create(path: &Path, direct: bool) -> std::io::Result<LogFile> {
        let flags = if direct { libc::O_DIRECT } else { 0 };
        let file = OpenOptions::new().create(true).truncate(true).write(true).custom_flags(flags).open(path)?;
        Ok(LogFile { file, end: AtomicU64::new(0), allocated: AtomicU64::new(0) })
    }

    pub(super) fn fd(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Takes the next `length` bytes of the file for one write and returns where they start.
    pub(super) fn reserve(&self, length: u64) -> u64 {
        let start = self.end.fetch_add(length, Ordering::Relaxed);
        let allocated = self.allocated.load(Ordering::Relaxed);
        if start + length > allocated {
            self.grow(allocated, start + length);
        }
        start
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
