//! What the kernel tells about processes, the device and the machine (`/proc`).

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// CPU, memory and writes of one process. All zero once it is gone.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessUse {
    /// User and system time of all its threads.
    pub cpu: Duration,
    /// Bytes that it made the kernel write, now or later (page cache pages count when they get
    /// dirty).
    pub write_bytes: u64,
    /// Peak resident memory.
    pub rss_peak_bytes: u64,
}

impl ProcessUse {
    /// Reads the figures of `pid`.
    pub fn read(pid: u32) -> ProcessUse {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        ProcessUse {
            cpu: cpu_of(&format!("/proc/{pid}/stat")).unwrap_or_default(),
            write_bytes: field(&io, "write_bytes:").unwrap_or(0),
            rss_peak_bytes: field(&status, "VmHWM:").unwrap_or(0) * 1024,
        }
    }
}

impl ProcessUse {
    /// The sum over several processes.
    pub fn read_all(pids: &[u32]) -> ProcessUse {
        pids.iter().map(|pid| ProcessUse::read(*pid)).fold(ProcessUse::default(), |sum, one| ProcessUse {
            cpu: sum.cpu + one.cpu,
            write_bytes: sum.write_bytes + one.write_bytes,
            rss_peak_bytes: sum.rss_peak_bytes + one.rss_peak_bytes,
        })
    }
}

/// Lets the peak of `pid` begin anew (a server may have had other runs before).
pub fn reset_rss_peak(pid: u32) {
    // Where the kernel does not allow it, the peak is that of the process's whole life.
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// CPU time of each thread of `pid`, by thread id.
pub fn thread_cpu(pid: u32) -> HashMap<u32, Duration> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return HashMap::new() };
    tasks
        .flatten()
        .filter_map(|task| {
            let tid = task.file_name().to_str()?.parse().ok()?;
            Some((tid, cpu_of(&format!("/proc/{pid}/task/{tid}/stat"))?))
        })
        .collect()
}

/// `utime + stime` of a `stat` file.
fn cpu_of(path: &str) -> Option<Duration> {
    let text = fs::read_to_string(path).ok()?;
    // The command name may hold spaces and parentheses; the numbers follow the last one.
    let numbers = &text[text.rfind(')')? + 1..];
    let mut fields = numbers.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    // SAFETY: plain query of a constant of the system.
    let ticks_per_s = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Some(Duration::from_secs_f64(ticks as f64 / u64::try_from(ticks_per_s).ok()? as f64))
}

/// The number that follows `name` in a text of lines.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line[name.len()..].split_whitespace().next()?.parse().ok()
}

/// A field of `/proc/meminfo` in bytes.
pub fn meminfo_bytes(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    field(&text, &format!("{name}:")).unwrap_or(0) * 1024
}

/// Bytes in the page cache that are not on the device yet.
pub fn dirty_bytes() -> u64 {
    meminfo_bytes("Dirty") + meminfo_bytes("Writeback")
}

/// CPU time of the machine in ticks, since boot.
#[derive(Debug, Clone, Copy, Default)]
pub struct MachineCpu {
    total: u64,
    stolen: u64,
}

impl MachineCpu {
    /// Reads `/proc/stat`.
    pub fn read() -> MachineCpu {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|t| t.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal; guest time is part of user.
        MachineCpu { total: ticks.iter().take(8).sum(), stolen: ticks.get(7).copied().unwrap_or(0) }
    }

    /// Percent of all CPU time since `before` that the hypervisor gave to others.
    pub fn steal_pct_since(self, before: MachineCpu) -> f64 {
        let total = self.total.saturating_sub(before.total).max(1);
        self.stolen.saturating_sub(before.stolen) as f64 * 100.0 / total as f64
    }
}

/// The block device below a directory.
#[derive(Debug, Clone)]
pub struct Device {
    /// Kernel name, as in `/proc/diskstats`.
    pub name: String,
}

/// Counters of a device since boot.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeviceUse {
    /// Bytes written.
    pub written_bytes: u64,
    /// Flush requests completed; `None` if the kernel does not count them here.
    pub flushes: Option<u64>,
}

impl Device {
    /// The whole disk that holds `dir`, if it is on one.
    pub fn of(dir: &Path) -> Option<Device> {
        let dev = fs::metadata(dir).ok()?.dev();
        let (major, minor) = (libc::major(dev), libc::minor(dev));
        let sys = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
        // Flushes are counted for the whole disk, not for its partitions.
        let disk = if sys.join("partition").exists() { sys.parent()?.to_owned() } else { sys };
        Some(Device { name: disk.file_name()?.to_str()?.to_owned() })
    }

    /// Its counters now.
    pub fn read(&self) -> DeviceUse {
        let text = fs::read_to_string("/proc/diskstats").unwrap_or_default();
        let Some(numbers) = text.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_ours = fields.get(2) == Some(&self.name.as_str());
            is_ours.then(|| fields[3..].iter().filter_map(|f| f.parse().ok()).collect::<Vec<u64>>())
        }) else {
            return DeviceUse::default();
        };
        DeviceUse { written_bytes: numbers.get(6).copied().unwrap_or(0) * 512, flushes: numbers.get(15).copied() }
    }

    /// `write back` or `write through`: does the device hold written data in a volatile cache?
    pub fn cache_mode(&self) -> String {
        let path = PathBuf::from("/sys/block").join(&self.name).join("queue/write_cache");
        fs::read_to_string(path).map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_is_seen_to_work() {
        let before = ProcessUse::read(std::process::id());
        while ProcessUse::read(std::process::id()).cpu < before.cpu + Duration::from_millis(20) {}
        assert!(before.rss_peak_bytes > 1 << 20);
        assert!(!thread_cpu(std::process::id()).is_empty());
        assert!(MachineCpu::read().total > 0);
        assert!(meminfo_bytes("MemTotal") > 1 << 27);
    }

    #[test]
    fn a_process_that_is_gone_used_nothing() {
        assert_eq!(ProcessUse::read(u32::MAX - 1).cpu, Duration::ZERO);
    }
}
