//! When writing goes on for long, a ceiling must not run into the kernel's throttle either: what
//! was written is handed to the device early, as every store does that is meant to write for long.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that are handed over in one go.
const CHUNK_BYTES: u64 = 8 << 20;

/// Bytes that may wait where the kernel does not say when it begins by itself.
const WAITING_BYTES_UNKNOWN: u64 = 1 << 30;

/// What all files of a run have written to the page cache.
#[derive(Debug)]
pub(super) struct Writeback {
    written: AtomicU64,
    /// Below this, the device gets nothing early: a burst keeps its CPU.
    begin_bytes: u64,
}

impl Default for Writeback {
    fn default() -> Writeback {
        Writeback { written: AtomicU64::new(0), begin_bytes: begin_bytes() }
    }
}

impl Writeback {
    /// A file has got the range `start .. start + length`. Returns a range of it (start, length)
    /// that should go to the device now: the chunks that end in it.
    pub(super) fn due(&self, start: u64, length: u64) -> Option<(u64, u64)> {
        let written = self.written.fetch_add(length, Ordering::Relaxed) + length;
        let (from, to) = (start / CHUNK_BYTES, (start + length) / CHUNK_BYTES);
        (written > self.begin_bytes && to > from).then(|| (from * CHUNK_BYTES, (to - from) * CHUNK_BYTES))
    }
}

/// The kernel begins to write by itself at this many dirty bytes (`vm.dirty_background_*`). Half as
/// many again may wait here: a burst, which is sized below the kernel's limit, must not lose CPU to
/// its own early writeback, and the hard limit (`vm.dirty_*`) is still far away.
fn begin_bytes() -> u64 {
    let background_bytes = background_bytes();
    background_bytes + background_bytes / 2
}

fn background_bytes() -> u64 {
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let bytes = number("/proc/sys/vm/dirty_background_bytes").filter(|&bytes| bytes > 0);
    let available = || {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
    };
    let ratio = || Some(available()? / 100 * number("/proc/sys/vm/dirty_background_ratio")?);
    bytes.or_else(ratio).unwrap_or(WAITING_BYTES_UNKNOWN)
}

/// Starts to write the range to the device and does not wait for it.
pub(super) fn start(file: &File, from: u64, bytes: u64) {
    // SAFETY: plain system call on an open descriptor. Its failure costs speed only.
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), from.cast_signed(), bytes.cast_signed(), libc::SYNC_FILE_RANGE_WRITE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_chunks_are_due_once_enough_was_written() {
        let writeback = Writeback { written: AtomicU64::new(0), begin_bytes: 20 << 20 };
        assert_eq!(writeback.due(0, 9 << 20), None, "too little was written");
        assert_eq!(writeback.due(9 << 20, 12 << 20), Some((8 << 20, 8 << 20)));
        assert_eq!(writeback.due(21 << 20, 1 << 20), None, "no chunk ends here");
    }
}
