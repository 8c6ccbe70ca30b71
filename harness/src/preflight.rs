//! Before anything runs: can it work here? Each finding has its remedy.

use std::collections::BTreeSet;
use std::path::Path;

use walrus_drivers::{Tools, registry};

use crate::estimate::{self, Estimate};
use crate::plan::Plan;
use crate::proc;
use crate::provenance::{Mount, free_bytes};
use crate::run;
use crate::tuned_on::{self, Machine};

/// Descriptors that 1,000 topics and their clients need.
const DESCRIPTORS_MIN: u64 = 16_384;
/// Memory that systems and clients take beside the page cache.
const MEMORY_BYTES_MIN: u64 = 3 << 30;

/// What each broker of a Kafka cluster takes: a heap of 512 MB, and as much again beside it.
const BROKER_BYTES: u64 = 1 << 30;

/// Something that is in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Nothing can be measured until it is mended.
    pub is_fatal: bool,
    /// What it is, and what to do about it.
    pub text: String,
}

fn fatal(text: String) -> Finding {
    Finding { is_fatal: true, text }
}

fn warning(text: String) -> Finding {
    Finding { is_fatal: false, text }
}

/// Looks at disk, memory, filesystem, limits, load, and at what each system needs and how it is set
/// (`settings_dir`).
pub fn look(plan: &Plan, dir: &Path, tools: &Tools, cores: u32, settings_dir: Option<&Path>) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(disk(&estimate::of_plan(plan), dir));
    findings.extend(memory(plan));
    findings.extend(filesystem(dir));
    findings.extend(descriptors());
    findings.extend(load(cores));
    findings.extend(systems(plan, tools));
    findings.extend(profiles(plan, settings_dir, &Machine::here(dir, cores)));
    findings
}

fn disk(estimate: &Estimate, dir: &Path) -> Option<Finding> {
    let needed = estimate.held_bytes * 1.2 + 1e9;
    let free = free_bytes(dir)? as f64;
    (free < needed).then(|| {
        fatal(format!(
            "{} has {:.1} GB free, {:.1} GB are needed; free some, or choose another directory with BENCH_DIR=",
            dir.display(),
            free / 1e9,
            needed / 1e9
        ))
    })
}

fn memory(plan: &Plan) -> Option<Finding> {
    let available = proc::meminfo_bytes("MemAvailable");
    let brokers = plan.blocks.iter().filter(|block| block.rows.iter().any(|row| row.system.starts_with("kafka")));
    let more_brokers = brokers.map(|block| u64::from(block.case.nodes - 1)).max().unwrap_or(0);
    let needed = MEMORY_BYTES_MIN + plan.burst_bytes + more_brokers * BROKER_BYTES;
    (available < needed).then(|| {
        warning(format!(
            "{:.1} GB of memory are available, {:.1} GB are wanted; close other programs",
            available as f64 / 1e9,
            needed as f64 / 1e9
        ))
    })
}

fn filesystem(dir: &Path) -> Option<Finding> {
    let mount = Mount::of(dir)?;
    matches!(mount.kind.as_str(), "tmpfs" | "ramfs" | "devtmpfs").then(|| {
        fatal(format!(
            "{} is on {}, which is memory: rows of the tiers page-cache and synced would be wrong; \
             choose a directory on a disk with BENCH_DIR=",
            dir.display(),
            mount.kind
        ))
    })
}

/// Raises the soft limit to the hard one; too low even so is a warning.
fn descriptors() -> Option<Finding> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls only read and write the struct that is passed.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
    (limit.rlim_max < DESCRIPTORS_MIN).then(|| {
        warning(format!(
            "a process may open {} files, rows with many topics need {DESCRIPTORS_MIN}; \
             raise `ulimit -Hn`",
            limit.rlim_max
        ))
    })
}

fn load(cores: u32) -> Option<Finding> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    let load: f64 = text.split_whitespace().next()?.parse().ok()?;
    (load > f64::from(cores) * 0.5).then(|| {
        warning(format!(
            "the machine is busy (load {load:.1} on {cores} cores); the figures will suffer; \
             stop what else is running"
        ))
    })
}

fn systems(plan: &Plan, tools: &Tools) -> Vec<Finding> {
    let rows = plan.blocks.iter().flat_map(|block| &block.rows);
    let names: BTreeSet<_> = rows.map(|row| (row.system.clone(), row.deployment)).collect();
    let reason = |(name, deployment): &(String, _)| match registry::find(name, *deployment) {
        None => Some(run::not_built(name)),
        Some(system) => system.check(tools).err().map(|error| format!("{name}: {error}")),
    };
    names.iter().filter_map(reason).map(warning).collect()
}

fn profiles(plan: &Plan, settings_dir: Option<&Path>, here: &Machine) -> Vec<Finding> {
    let rows = plan.blocks.iter().flat_map(|block| &block.rows);
    let names: BTreeSet<&str> = rows.map(|row| row.system.as_str()).collect();
    let look = |name: &&str| match tuned_on::warning(settings_dir, name, here) {
        Ok(found) => found.map(warning),
        Err(error) => Some(fatal(error.to_string())),
    };
    names.iter().filter_map(look).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_memory_disk_are_in_the_way() {
        let estimate = Estimate { seconds: 1.0, written_bytes: 1e18, held_bytes: 1e18 };
        let found = disk(&estimate, Path::new("/"));
        assert!(found.is_some_and(|f| f.is_fatal && f.text.contains("BENCH_DIR")));
        if Mount::of(Path::new("/dev/shm")).is_some_and(|mount| mount.kind == "tmpfs") {
            assert!(filesystem(Path::new("/dev/shm")).is_some_and(|f| f.is_fatal));
        }
    }

    #[test]
    fn a_busy_machine_is_only_a_warning() {
        assert!(load(0).is_none_or(|finding| !finding.is_fatal));
        assert_eq!(load(1_000_000), None);
    }
}
