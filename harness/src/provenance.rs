//! `env.json`: on what machine, with what versions and settings, by what command.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use walrus_drivers::registry;

use crate::machine::Throttle;
use crate::plan::Plan;
use crate::proc;
use crate::run::Env;
use crate::settings;

/// The filesystem below a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `ext4`, `xfs`, `tmpfs` …
    pub kind: String,
    /// What is mounted.
    pub source: String,
    /// Options of mount and superblock.
    pub options: String,
}

impl Mount {
    /// From `/proc/self/mountinfo`: the longest mount point that is a prefix of `dir`.
    pub fn of(dir: &Path) -> Option<Mount> {
        let dir = fs::canonicalize(dir).ok()?;
        let text = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let mounts = text.lines().filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let left: Vec<&str> = left.split(' ').collect();
            let right: Vec<&str> = right.split(' ').collect();
            let options = format!("{},{}", left.get(5)?, right.get(2)?);
            let mount = Mount { kind: (*right.first()?).into(), source: (*right.get(1)?).into(), options };
            Some((left.get(4)?.to_owned(), mount))
        });
        let below = mounts.filter(|(point, _)| dir.starts_with(point));
        below.max_by_key(|(point, _)| point.len()).map(|(_, mount)| mount)
    }
}

/// Free bytes for ordinary users on the filesystem of `dir`.
pub fn free_bytes(dir: &Path) -> Option<u64> {
    let path = CString::new(dir.as_os_str().as_bytes()).ok()?;
    // SAFETY: an all-zero `statvfs` is a valid value of that plain C struct.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends with a zero byte, and the struct lives through the call.
    let failed = unsafe { libc::statvfs(path.as_ptr(), &raw mut stat) } != 0;
    (!failed).then(|| stat.f_bavail * stat.f_frsize)
}

/// Everything that a reader needs in order to judge or repeat the run.
pub fn describe(env: &Env, plan: &Plan, profile: &str, throttle: Throttle, warnings: &[String]) -> Value {
    json!({
        "started_utc": utc_now(),
        "command_line": command_line(),
        "profile": profile,
        "git_revision": output("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
        "harness_version": env!("CARGO_PKG_VERSION"),
        "warnings": warnings,
        "machine": machine(env.cores),
        "filesystem": filesystem(env),
        "page_cache": {
            "throttle": throttle,
            "burst_bytes": plan.burst_bytes,
            "settings": dirty_settings(),
        },
        "versions": versions(env),
        "raw": raw_settings(env),
        "settings": system_settings(env),
        "java": output("java", &["-version"]),
        "rustc": output("rustc", &["--version"]),
    })
}

/// As it was typed, with the program's name alone: where it lies is nobody's business.
fn command_line() -> Vec<String> {
    let mut words: Vec<String> = std::env::args().collect();
    if let Some(program) = words.first_mut()
        && let Some(name) = Path::new(program.as_str()).file_name()
    {
        *program = name.to_string_lossy().into_owned();
    }
    words
}

fn machine(cores: u32) -> Value {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    json!({
        "cpu": model.map(|(_, name)| name),
        "cores": cores,
        "hypervisor": cpuinfo.contains(" hypervisor"),
        "memory_bytes": proc::meminfo_bytes("MemTotal"),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "os": os_name(),
        "tcp_congestion_control": fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")
            .unwrap_or_default().trim(),
        "clock_source": fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource")
            .unwrap_or_default().trim(),
    })
}

fn os_name() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(line.trim_matches('"').to_owned())
}

fn filesystem(env: &Env) -> Value {
    let mount = Mount::of(&env.bench_dir);
    json!({
        "kind": mount.as_ref().map(|mount| &mount.kind),
        "options": mount.as_ref().map(|mount| &mount.options),
        "device": env.device.as_ref().map(|device| &device.name),
        "device_cache": env.device.as_ref().map(proc::Device::cache_mode),
        "free_bytes": free_bytes(&env.bench_dir),
    })
}

fn dirty_settings() -> BTreeMap<String, String> {
    let names = [
        "dirty_background_bytes",
        "dirty_background_ratio",
        "dirty_bytes",
        "dirty_ratio",
        "dirty_expire_centisecs",
        "dirty_writeback_centisecs",
    ];
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/vm/{name}")).ok();
    names.iter().filter_map(|&name| Some((name.to_owned(), read(name)?.trim().to_owned()))).collect()
}

fn versions(env: &Env) -> BTreeMap<String, String> {
    registry::systems().iter().map(|system| (system.name().to_owned(), system.version(&env.tools))).collect()
}

fn system_settings(env: &Env) -> BTreeMap<String, Value> {
    registry::systems()
        .iter()
        .filter_map(|system| {
            let mut table = settings::read(env.settings_dir.as_deref(), system.name()).ok()?;
            table.retain(|name, _| settings::is_profile(name));
            Some((system.name().to_owned(), json!(table)))
        })
        .collect()
}

/// The combinations that won the trials of `raw`.
fn raw_settings(env: &Env) -> BTreeMap<String, Value> {
    let name = |(tier, is_one): &(walrus_drivers::Tier, bool)| {
        format!("{tier:?}, {}", if *is_one { "one in flight" } else { "windowed" })
    };
    env.raw_settings.iter().map(|(key, table)| (name(key), json!(table))).collect()
}

/// First line of what a program says (Java says it on stderr).
fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&text).lines().next().map(str::to_owned)
}

/// `2026-01-31T12:00:00Z`.
pub fn utc_now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    utc(since.unwrap_or_default().as_secs())
}

/// Civil date from seconds since 1970 (proleptic Gregorian, years of 400-year eras from March).
fn utc(seconds: u64) -> String {
    let (days, second_of_day) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(utc(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn the_root_has_a_filesystem_with_space() {
        let mount = Mount::of(Path::new("/proc"));
        assert_eq!(mount.map(|mount| mount.kind), Some("proc".to_owned()));
        assert!(free_bytes(Path::new("/")).is_some());
    }
}
