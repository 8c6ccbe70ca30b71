//! What a plan will cost, in time and disk, before it starts. Rough: from rates that a small machine
//! reaches.

use walrus_drivers::{Deployment, Tier};

use crate::plan::{Block, Plan, has_ceilings, page_cache_bytes};
use crate::profile::{Profile, RowName};
use crate::workload::Kind;

/// What the page cache takes before the device sets the pace.
const CACHE_BYTES: f64 = 3e9;
/// What a device writes in the long run, and what is read back.
const DEVICE_BYTES_PER_S: f64 = 600e6;
const READ_BYTES_PER_S: f64 = 800e6;
/// Memory that was given back to the host costs it a fault a page; some of it was not.
const WARMED_BYTES_PER_S: f64 = 1.5e9;
/// What the page cache is filled with before a run that goes on.
const FULL_CACHE_BYTES: f64 = 16e9;
/// A JVM until it is up, and until its topics are gone, beside its warm-up.
const JVM_START_S: f64 = 5.0;

/// What a plan, or one run of it, will cost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Estimate {
    /// Seconds.
    pub seconds: f64,
    /// Bytes given to the disk over all runs.
    pub written_bytes: f64,
    /// Most bytes on the disk at one time.
    pub held_bytes: f64,
}

impl Estimate {
    fn add(&mut self, other: Estimate, times: f64) {
        self.seconds += other.seconds * times;
        self.written_bytes += other.written_bytes * times;
        self.held_bytes = self.held_bytes.max(other.held_bytes);
    }
}

/// Cost of the whole plan.
pub fn of_plan(plan: &Plan) -> Estimate {
    let raw = RowName { system: "raw".into(), deployment: Deployment::Embedded, variant: String::new() };
    let mut sum = Estimate { seconds: preparation_s(&plan.profile), ..Estimate::default() };
    for block in &plan.blocks {
        let repeats = f64::from(block.repeats);
        for row in &block.rows {
            sum.add(of_row(plan, block, row), repeats);
        }
        if has_ceilings(&block.case) {
            sum.add(of_row(plan, block, &raw), 2.0 * repeats);
        }
    }
    sum
}

/// Seconds before the first row: memory is warmed, and the best `raw` is searched for two tiers,
/// with a window and with one record in flight.
fn preparation_s(profile: &Profile) -> f64 {
    let warming_s = profile.warm_memory_bytes as f64 / WARMED_BYTES_PER_S;
    warming_s + 4.0 * profile.raw_trials_max as f64 * profile.raw_trial_s
}

/// Cost of one run of one row.
pub fn of_row(plan: &Plan, block: &Block, row: &RowName) -> Estimate {
    let load = plan.load(&block.case);
    let habits = Habits::of(row, block.case.tier, jvm_start_s(plan, block)).on(block.case.nodes);
    let longest_s = load.seconds.unwrap_or(0.0);
    let offered = load.rate_per_s.map_or(f64::MAX, |rate| rate * block.case.record_bytes.mean());
    let bytes_per_s = habits.bytes_per_s.min(offered);
    let most = match (load.payload_bytes, block.case.kind) {
        (Some(bytes), _) => bytes as f64,
        (None, Kind::Sustained) => CACHE_BYTES + DEVICE_BYTES_PER_S * longest_s,
        (None, _) => f64::MAX,
    };
    let bytes = (bytes_per_s * longest_s).min(most);
    let load_s = if load.payload_bytes.is_some() { bytes / bytes_per_s } else { longest_s };
    let stored = if row.system == "null" { 0.0 } else { bytes };
    let is_proved = !matches!(row.system.as_str(), "null" | "raw");
    let proof_s = if is_proved { bytes / READ_BYTES_PER_S + 0.5 } else { 0.0 };
    let writeback_s = stored.min(CACHE_BYTES) / DEVICE_BYTES_PER_S / 2.0;
    let warmed_bytes = match block.case.kind {
        Kind::Sustained => FULL_CACHE_BYTES,
        _ => page_cache_bytes(&block.case, &load) as f64,
    };
    let warming_s = warmed_bytes / WARMED_BYTES_PER_S;
    Estimate {
        seconds: habits.start_s + warming_s + load_s + proof_s + writeback_s,
        written_bytes: stored * habits.amplification,
        held_bytes: stored * habits.amplification,
    }
}

/// A broker is started and warmed for all repeats of a block, and once more after it was killed.
fn jvm_start_s(plan: &Plan, block: &Block) -> f64 {
    let starts = (2.0 / f64::from(block.repeats)).min(1.0);
    1.0 + (JVM_START_S + plan.profile.warmup_s_max) * starts
}

impl Habits {
    /// The same for so many nodes on one machine, each of which stores everything.
    fn on(self, nodes: u32) -> Habits {
        let copies = f64::from(nodes.min(3));
        Habits {
            start_s: self.start_s * copies.sqrt(),
            bytes_per_s: self.bytes_per_s / copies,
            amplification: self.amplification * copies,
        }
    }
}

/// What is typical of a system on two cores.
struct Habits {
    start_s: f64,
    bytes_per_s: f64,
    amplification: f64,
}

impl Habits {
    fn of(row: &RowName, tier: Tier, jvm_start_s: f64) -> Habits {
        let is_vanilla = row.variant.contains("vanilla");
        let (start_s, bytes_per_s, amplification) = match row.system.as_str() {
            "null" => (0.2, 4e9, 0.0),
            "raw" => (0.3, 1.3e9, 1.0),
            "walrus" | "walrus-embedded" => (0.5, 900e6, 1.1),
            "kafka" | "kafka-java" => (jvm_start_s, 250e6, 1.1),
            "rocksdb" if is_vanilla => (0.5, 60e6, 1.7),
            "rocksdb" => (0.5, 200e6, 1.7),
            _ => (0.5, 180e6, 1.2),
        };
        let bytes_per_s = if tier == Tier::Synced { bytes_per_s / 4.0 } else { bytes_per_s };
        Habits { start_s, bytes_per_s, amplification }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::machine::Throttle;
    use crate::plan::Wishes;

    fn estimate(profile: &str) -> Estimate {
        let throttle = Throttle { background_bytes: 2 << 30, dirty_bytes: 4 << 30, point_bytes: 3 << 30 };
        let wishes = Wishes { profile: profile.into(), ..Wishes::default() };
        of_plan(&Plan::make(&wishes, throttle).unwrap())
    }

    #[test]
    fn profiles_keep_their_promises_of_time() {
        let quick = estimate("quick");
        assert!(quick.seconds < 1260.0, "{} s", quick.seconds);
        assert!(quick.written_bytes > 1e9);
        assert!(estimate("smoke").seconds < 330.0, "{} s", estimate("smoke").seconds);
        assert!(estimate("reference").seconds < 7200.0, "{} s", estimate("reference").seconds);
        assert!(estimate("full").seconds > 3600.0);
    }

    #[test]
    fn no_run_holds_more_than_a_small_disk() {
        assert!(estimate("full").held_bytes < 60e9, "{}", estimate("full").held_bytes);
        assert!(estimate("quick").held_bytes < 15e9);
    }
}
