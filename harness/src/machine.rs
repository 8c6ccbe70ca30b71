//! Keeps the machine in the same state for every run: memory warmed, page cache written out.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::child::{RunError, check_stop};
use crate::proc;

/// Below this much unwritten data the device counts as quiet.
const QUIET_BYTES: u64 = 64 << 20;
/// So long the device may take to get quiet.
const QUIET_TIMEOUT: Duration = Duration::from_mins(1);
/// A guest looks for free pages to report this often (`PAGE_REPORTING_DELAY`), in seconds.
const REPORTING_INTERVAL_S: f64 = 2.0;
/// Part of the throttling point that a burst uses: systems write more than the payload.
const BURST_SHARE_PCT: u64 = 70;

/// When the kernel starts to slow writers down, from `/proc/sys/vm/dirty_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Throttle {
    /// `dirty_background_*`, in bytes: from here on the kernel writes in the background.
    pub background_bytes: u64,
    /// `dirty_*`, in bytes: from here on writers wait.
    pub dirty_bytes: u64,
    /// Half-way between both, where writers begin to be slowed down.
    pub point_bytes: u64,
}

impl Throttle {
    /// Reads the settings; they are never changed.
    pub fn read() -> Throttle {
        let number = |name: &str| -> u64 {
            let text = fs::read_to_string(format!("/proc/sys/vm/{name}")).unwrap_or_default();
            text.trim().parse().unwrap_or(0)
        };
        let available = proc::meminfo_bytes("MemAvailable");
        let bytes = |absolute: &str, ratio: &str| match number(absolute) {
            0 => available / 100 * number(ratio),
            bytes => bytes,
        };
        Throttle::new(bytes("dirty_background_bytes", "dirty_background_ratio"), bytes("dirty_bytes", "dirty_ratio"))
    }

    fn new(background_bytes: u64, dirty_bytes: u64) -> Throttle {
        Throttle { background_bytes, dirty_bytes, point_bytes: background_bytes.midpoint(dirty_bytes) }
    }

    /// Payload of a burst: safely below the throttling point, at most `max` bytes, whole 16 MiB.
    pub fn burst_bytes(self, max: u64) -> u64 {
        let safe = self.point_bytes / 100 * BURST_SHARE_PCT;
        (safe.min(max) >> 24 << 24).max(16 << 20)
    }
}

/// Touches `bytes` of memory, and then the page cache that files of `file_bytes` will use: on a virtual
/// machine the first use of each page costs a fault in the host, which no system should pay for another.
pub fn warm_memory(dir: &Path, bytes: u64, file_bytes: u64) -> Result<(), RunError> {
    const STEP: usize = 64 << 20;
    let available = proc::meminfo_bytes("MemAvailable") * 7 / 10;
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    for _ in 0..bytes.min(available) / STEP as u64 {
        check_stop()?;
        blocks.push(vec![1; STEP]);
    }
    drop(blocks);
    drop(warm_page_cache(dir, file_bytes, 0.0)?);
    quiesce()
}

/// Lets the page cache find memory for `bytes` of files that was used a moment ago: reads a sparse
/// file, whose pages the kernel fills with zeros. Nothing gets dirty and nothing goes to the device.
///
/// To be done right before a run: a guest that reports its free pages (`page_reporting`) gives the
/// host back within seconds what the run before has freed, and each page of it then costs a fault
/// again. Every two seconds it takes a sixteenth of what is free, the pages last used first: so
/// more is warmed for a run of `seconds`. Memory of a process does not do in place of a file:
/// the page cache takes other pages.
///
/// A run that goes on until it has used a good part of what is free meets a page cache that is full,
/// as on a server that has been up for long: the file stays until the returned value is dropped, and
/// the kernel takes its pages, which are in use until then and so cannot be given back to the host.
pub fn warm_page_cache(dir: &Path, bytes: u64, seconds: f64) -> Result<Option<WarmFile>, RunError> {
    let free_bytes = proc::meminfo_bytes("MemFree");
    let fills = seconds > 0.0 && bytes > free_bytes / 3;
    let passes = 1.0 + (seconds / REPORTING_INTERVAL_S).floor();
    let reported_bytes = bytes.min((passes * free_bytes as f64 / 16.0) as u64);
    let bytes = if fills { free_bytes / 16 * 15 } else { bytes + reported_bytes };
    let warm = WarmFile(dir.join("warm-up"));
    File::create(&warm.0)?.set_len(bytes.min(proc::meminfo_bytes("MemAvailable") / 100 * 90))?;
    let mut file = File::open(&warm.0)?;
    let mut chunk = vec![0; 1 << 20];
    while file.read(&mut chunk)? > 0 {
        check_stop()?;
    }
    Ok(fills.then_some(warm))
}

/// A sparse file whose pages fill the page cache; deleted when dropped.
#[derive(Debug)]
pub struct WarmFile(PathBuf);

impl Drop for WarmFile {
    fn drop(&mut self) {
        // What is left behind is empty, and goes with the run's directory.
        let _ = fs::remove_file(&self.0);
    }
}

/// Writes everything out and waits until the device is quiet.
pub fn quiesce() -> Result<(), RunError> {
    // SAFETY: takes no arguments and cannot fail.
    unsafe { libc::sync() };
    let deadline = Instant::now() + QUIET_TIMEOUT;
    while proc::dirty_bytes() > QUIET_BYTES && Instant::now() < deadline {
        check_stop()?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Writes everything out, drops all files below `dir` from the page cache, and returns how many
/// percent of their bytes are there all the same.
pub fn drop_cache(dir: &Path) -> Result<f64, RunError> {
    quiesce()?;
    let (mut cached, mut all) = (0, 0);
    visit(dir, &mut |file| {
        // SAFETY: the descriptor is open for the length of the call; no memory is passed.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        let bytes = file.metadata()?.len();
        all += bytes;
        cached += cached_bytes(file, bytes)?;
        Ok(())
    })?;
    Ok(cached as f64 * 100.0 / all.max(1) as f64)
}

/// Bytes of the file that are in the page cache, from `mincore`.
fn cached_bytes(file: &File, bytes: u64) -> Result<u64, std::io::Error> {
    const PAGE_BYTES: usize = 4096;
    if bytes == 0 {
        return Ok(0);
    }
    let length = bytes as usize;
    let mut pages = vec![0u8; length.div_ceil(PAGE_BYTES)];
    // SAFETY: a fresh read-only mapping of an open file, unmapped below; `mincore` writes one byte
    // for each of its pages into `pages`, which is that long. No byte of the mapping is touched.
    let failed = unsafe {
        let address = libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0);
        if address == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let failed = libc::mincore(address, length, pages.as_mut_ptr()) != 0;
        libc::munmap(address, length);
        failed
    };
    if failed {
        return Err(std::io::Error::last_os_error());
    }
    Ok(pages.iter().filter(|page| **page & 1 == 1).count() as u64 * PAGE_BYTES as u64)
}

fn visit(dir: &Path, job: &mut dyn FnMut(&File) -> Result<(), std::io::Error>) -> Result<(), RunError> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            visit(&path, job)?;
        } else if let Ok(file) = File::open(&path) {
            job(&file)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_burst_stays_below_the_throttling_point() {
        let throttle = Throttle::new(2_000_000_000, 4_000_000_000);
        assert_eq!(throttle.point_bytes, 3_000_000_000);
        assert!(throttle.burst_bytes(u64::MAX) < 2_200_000_000);
        assert_eq!(throttle.burst_bytes(1 << 30), 1 << 30);
        assert_eq!(Throttle::new(0, 0).burst_bytes(1 << 30), 16 << 20);
    }

    #[test]
    fn warming_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let kept = warm_page_cache(dir.path(), 8 << 20, 1.0).unwrap();
        assert!(kept.is_none(), "a small part of what is free");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_page_cache_that_is_kept_full_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("warm-up");
        File::create(&path).unwrap();
        let kept = WarmFile(path.clone());
        assert!(path.exists());
        drop(kept);
        assert!(!path.exists());
    }

    #[test]
    fn dropped_files_are_seen_to_be_gone() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = dir.path().join("data");
        let file = File::create(&path).unwrap();
        (&file).write_all(&vec![1; 1 << 20]).unwrap();
        file.sync_all().unwrap();
        assert_eq!(cached_bytes(&File::open(&path).unwrap(), 1 << 20).unwrap(), 1 << 20);
        // On a filesystem in memory nothing can be dropped; there is no cold read there.
        if crate::provenance::Mount::of(dir.path()).is_some_and(|mount| mount.kind != "tmpfs") {
            assert!(drop_cache(dir.path()).unwrap() < 50.0);
        }
    }
}
