//! Keeps the machine in the same state for every run: memory warmed, page cache written out.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::child::{RunError, check_stop};
use crate::proc;

/// Below this much unwritten data the device counts as quiet.
const QUIET_BYTES: u64 = 64 << 20;
/// So long the device may take to get quiet.
const QUIET_TIMEOUT: Duration = Duration::from_secs(60);
/// Part of the throttling point that a burst uses: systems write more than the payload.
const BURST_SHARE: f64 = 0.7;

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
        let safe = (self.point_bytes as f64 * BURST_SHARE) as u64;
        (safe.min(max) >> 24 << 24).max(16 << 20)
    }
}

/// Touches `bytes` of memory and writes and deletes a file of `file_bytes`: on a virtual machine
/// the first use of each page costs a fault in the host, which no system should pay for another.
pub fn warm_memory(dir: &Path, bytes: u64, file_bytes: u64) -> Result<(), RunError> {
    const STEP: usize = 64 << 20;
    let available = proc::meminfo_bytes("MemAvailable") * 7 / 10;
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    for _ in 0..bytes.min(available) / STEP as u64 {
        check_stop()?;
        blocks.push(vec![1; STEP]);
    }
    drop(blocks);
    let path = dir.join("warm-up");
    let mut file = File::create(&path)?;
    let chunk = vec![7u8; 1 << 20];
    for _ in 0..file_bytes >> 20 {
        check_stop()?;
        file.write_all(&chunk)?;
    }
    drop(file);
    fs::remove_file(&path)?;
    quiesce()
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

/// Drops the clean pages of all files below `dir` from the page cache; returns the share of bytes
/// that is still there (from `cachestat` it would be exact; `mincore` works everywhere).
pub fn drop_cache(dir: &Path) -> Result<(), RunError> {
    quiesce()?;
    visit(dir, &|file| {
        use std::os::fd::AsRawFd;
        // SAFETY: the descriptor is open for the length of the call; no memory is passed.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    })
}

fn visit(dir: &Path, job: &dyn Fn(&File)) -> Result<(), RunError> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            visit(&path, job)?;
        } else if let Ok(file) = File::open(&path) {
            job(&file);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_stays_below_the_throttling_point() {
        let throttle = Throttle::new(2_000_000_000, 4_000_000_000);
        assert_eq!(throttle.point_bytes, 3_000_000_000);
        assert!(throttle.burst_bytes(u64::MAX) < 2_200_000_000);
        assert_eq!(throttle.burst_bytes(1 << 30), 1 << 30);
        assert_eq!(Throttle::new(0, 0).burst_bytes(1 << 30), 16 << 20);
    }
}
