//! From a profile and the user's wishes to the list of blocks, with what they cost.

use walrus_drivers::Deployment;

use crate::machine::Throttle;
use crate::profile::{self, BlockTable, Profile, RowName};
use crate::wire::Load;
use crate::workload::{self, Case, Kind};

/// Length of a failover run in seconds: long enough for a broker whose session lasts 9 s.
pub const FAILOVER_S: f64 = 30.0;
/// When its leader is killed, in seconds.
pub const KILL_AT_S: f64 = 10.0;

/// Copies of a record, at most.
const COPIES_MAX: u32 = 3;
/// What the fastest system writes on a fast device in the long run.
const SUSTAINED_BYTES_PER_S: f64 = 1.5e9;

/// What the user asked for on the command line.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// Name of the profile.
    pub profile: String,
    /// Only these workloads; empty: those of the profile.
    pub workloads: Vec<String>,
    /// Only these systems (and the ceilings); empty: all.
    pub systems: Vec<String>,
    /// Repeats instead of the profile's.
    pub repeats: Option<u32>,
    /// Seconds of timed runs instead of the profile's.
    pub seconds: Option<f64>,
}

/// One case of a workload with the rows that are compared in it.
#[derive(Debug, Clone)]
pub struct Block {
    /// Name of the workload.
    pub workload: String,
    /// Its point.
    pub case: Case,
    /// Systems, without the embedded `raw`, which is run before and after.
    pub rows: Vec<RowName>,
    /// How often.
    pub repeats: u32,
}

/// Everything that will be run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Seconds and volumes.
    pub profile: Profile,
    /// Volume of a burst on this machine.
    pub burst_bytes: u64,
    /// In order.
    pub blocks: Vec<Block>,
}

/// Longest time in which what is to be read is written.
const FIXTURE_S_MAX: f64 = 120.0;

impl Plan {
    /// Picks blocks and rows.
    pub fn make(wishes: &Wishes, throttle: Throttle) -> Result<Plan, String> {
        let mut profile = profile::find(&wishes.profile)?;
        if let Some(seconds) = wishes.seconds {
            profile.sustained_s = seconds;
            profile.timed_s = seconds;
            profile.open_s = seconds;
            profile.open_warmup_s = profile.open_warmup_s.min(seconds / 4.0);
        }
        let mut blocks = Vec::new();
        for table in tables(&profile, &wishes.workloads)? {
            add_blocks(&table, &profile, wishes, &mut blocks)?;
        }
        if blocks.is_empty() {
            return Err("no row is left; `harness systems` lists the systems".into());
        }
        let burst_bytes = throttle.burst_bytes(profile.burst_bytes_max);
        Ok(Plan { profile, burst_bytes, blocks })
    }

    /// How a case is loaded.
    pub fn load(&self, case: &Case) -> Load {
        let profile = &self.profile;
        let (seconds, payload_bytes) = match case.kind {
            // A cluster on one machine writes every byte once a replica.
            Kind::Burst => (profile.closed_s_max, Some(self.burst_bytes / u64::from(case.nodes.min(COPIES_MAX)))),
            // What is read is the same in every system, however long it takes to write it.
            Kind::ReadCold | Kind::ReadWarm => (FIXTURE_S_MAX, Some(self.burst_bytes)),
            Kind::Volume => (profile.closed_s_max, Some(profile.volume_bytes.min(self.burst_bytes))),
            Kind::Sustained => (profile.sustained_s, None),
            Kind::Timed => (profile.timed_s, None),
            Kind::Open | Kind::Tail => (profile.open_s, None),
            Kind::Failover => (FAILOVER_S, None),
        };
        Load {
            record_bytes: case.record_bytes,
            seconds: Some(seconds),
            payload_bytes,
            rate_per_s: case.rate_per_s,
            warmup_s: if case.rate_per_s.is_some() { profile.open_warmup_s } else { 0.0 },
            tail: case.kind == Kind::Tail,
            kill_at_s: (case.kind == Kind::Failover).then_some(KILL_AT_S),
        }
    }
}

/// Bytes of page cache that a closed loop may fill, also on its way to the device; an open one, and one
/// record in flight, are slower than what the first use of memory costs.
pub fn page_cache_bytes(case: &Case, load: &Load) -> u64 {
    match case.kind {
        Kind::Burst | Kind::Volume => load.payload_bytes.unwrap_or(0) * u64::from(case.nodes.clamp(1, COPIES_MAX)),
        Kind::Timed if case.window_bytes.is_none() => 0,
        Kind::Sustained | Kind::Timed => (load.seconds.unwrap_or(0.0) * SUSTAINED_BYTES_PER_S) as u64,
        _ => 0,
    }
}

/// Closed loops that write have ceilings to be compared with.
pub fn has_ceilings(case: &Case) -> bool {
    // Three copies on one device are no match for a ceiling that writes once.
    case.nodes == 1 && matches!(case.kind, Kind::Burst | Kind::Sustained | Kind::Timed | Kind::Volume)
}

/// The profile's tables for the workloads asked for. A workload that the profile does not have
/// takes its rows from `full`.
fn tables(profile: &Profile, workloads: &[String]) -> Result<Vec<BlockTable>, String> {
    if workloads.is_empty() {
        return Ok(profile.block.clone());
    }
    let full = profile::find("full")?;
    let mut tables = Vec::new();
    for name in workloads {
        workload::find(name, &[]).map_err(|error| error.to_string())?;
        let of = |profile: &Profile| -> Vec<BlockTable> {
            profile.block.iter().filter(|table| table.workload == *name).cloned().collect()
        };
        let found = Some(of(profile)).filter(|own| !own.is_empty()).unwrap_or_else(|| of(&full));
        if found.is_empty() {
            return Err(format!("no profile has rows for workload {name}"));
        }
        tables.extend(found);
    }
    Ok(tables)
}

fn add_blocks(table: &BlockTable, profile: &Profile, wishes: &Wishes, blocks: &mut Vec<Block>) -> Result<(), String> {
    let workload = workload::find(&table.workload, &table.rates_per_s).map_err(|e| e.to_string())?;
    let rows: Vec<RowName> = table.rows.iter().map(|row| RowName::parse(row)).collect::<Result<_, _>>()?;
    for case in workload.cases.into_iter().filter(|case| table.wants(case)) {
        let mut chosen: Vec<RowName> = rows.clone();
        chosen.retain(|row| is_wanted(row, &case, &wishes.systems));
        let repeats = wishes.repeats.or(table.repeats).unwrap_or(profile.repeats);
        if has_ceilings(&case) {
            keep_needed_ceilings(&mut chosen);
        } else {
            chosen.retain(|row| !matches!(row.system.as_str(), "raw" | "null"));
        }
        let only_raw = wishes.systems.iter().any(|name| name == "raw") && has_ceilings(&case);
        if !chosen.is_empty() || only_raw {
            let workload = workload.name.clone();
            blocks.push(Block { workload, case, rows: chosen, repeats });
        }
    }
    Ok(())
}

fn is_wanted(row: &RowName, case: &Case, systems: &[String]) -> bool {
    let is_asked = systems.is_empty() || systems.contains(&row.system) || row.system == "raw";
    is_asked && (case.systems.is_empty() || case.systems.contains(&row.system))
}

/// The embedded `raw` is run before and after the block anyway; the networked one only makes sense
/// beside networked rows.
fn keep_needed_ceilings(rows: &mut Vec<RowName>) {
    let is_raw = |row: &RowName| row.system == "raw";
    let networked = |row: &RowName| row.deployment == Deployment::Networked;
    let has_networked = rows.iter().any(|row| networked(row) && !is_raw(row));
    rows.retain(|row| !is_raw(row) || (networked(row) && has_networked));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const THROTTLE: Throttle = Throttle { background_bytes: 2 << 30, dirty_bytes: 4 << 30, point_bytes: 3 << 30 };

    fn plan(profile: &str, workloads: &[&str], systems: &[&str]) -> Plan {
        let words = |list: &[&str]| list.iter().map(|&word| word.to_owned()).collect();
        let wishes = Wishes {
            profile: profile.into(),
            workloads: words(workloads),
            systems: words(systems),
            ..Wishes::default()
        };
        Plan::make(&wishes, THROTTLE).unwrap()
    }

    #[test]
    fn chosen_systems_keep_their_ceilings() {
        let plan = plan("quick", &["writes-burst"], &["walrus", "kafka"]);
        let names: Vec<&str> = plan.blocks[0].rows.iter().map(|row| row.system.as_str()).collect();
        assert!(names.contains(&"walrus") && names.contains(&"kafka") && names.contains(&"raw"));
        assert!(!names.contains(&"rocksdb") && !names.contains(&"null"));
    }

    #[test]
    fn the_page_cache_is_warmed_for_what_all_copies_fill() {
        let filled = |workload: &str| {
            let plan = plan("reference", &[workload], &["walrus"]);
            let case = &plan.blocks.last().unwrap().case;
            page_cache_bytes(case, &plan.load(case)).div_ceil(1 << 20)
        };
        let burst = THROTTLE.burst_bytes(u64::MAX) >> 20;
        assert_eq!((filled("writes-burst"), filled("cluster")), (burst, burst));
        assert!(filled("writes") > burst, "a long run goes on where a burst ends");
        assert!(filled("writes-synced") > 0, "what is flushed at once goes through the page cache as well");
        assert_eq!(filled("latency"), 0);
    }

    #[test]
    fn embedded_systems_alone_need_no_networked_ceiling() {
        let plan = plan("quick", &["writes-burst"], &["rocksdb"]);
        assert!(plan.blocks[0].rows.iter().all(|row| row.system == "rocksdb"));
    }

    #[test]
    fn a_workload_that_the_profile_lacks_comes_from_full() {
        let plan = plan("smoke", &["sizes"], &[]);
        assert_eq!(plan.blocks.len(), 9);
        assert_eq!(plan.load(&plan.blocks[0].case).payload_bytes, Some(33_554_432));
    }

    #[test]
    fn a_profile_may_take_some_cases_of_a_workload() {
        let plan = plan("reference", &["scaling"], &[]);
        let points: Vec<(u32, u32)> = plan.blocks.iter().map(|b| (b.case.producers, b.case.topics)).collect();
        assert_eq!(points, [(10, 10), (10, 1000), (1, 10), (4, 10), (32, 10)]);
    }

    #[test]
    fn chosen_workloads_keep_the_order_of_the_command_line() {
        let plan = plan("quick", &["writes", "writes-burst"], &["walrus"]);
        let names: Vec<&str> = plan.blocks.iter().map(|block| block.workload.as_str()).collect();
        assert_eq!(names, ["writes", "writes-burst"]);
    }
}
