//! Which rows are compared with which: like with like, each competitor at its best.
//!
//! Rows meet in an *arena*: same workload, tier, deployment, load, offered rate, and the same
//! class of records in flight. In it each of our modes (`PUT`, `APPEND`, embedded) meets the best
//! row of each competitor, whichever client, backend or settings that is; and default settings
//! meet default settings.

use serde::Serialize;
use walrus_drivers::{Deployment, Tier};

use crate::chart::pick;
use crate::csv::{LoadMode, SummaryRow};
use crate::results::{Group, RowKey};
use crate::stats::{Better, Spread, Verdict, paired_ratio};

/// Ours against one competitor in one arena.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// Workload.
    pub workload: String,
    /// `warm` or `cold` for reads, the number of topics for scaling; else empty.
    pub phase: String,
    /// What an ack promises.
    pub tier: Tier,
    /// In process or through a socket.
    pub deployment: Deployment,
    /// Our row.
    pub ours: String,
    /// The competitor's row.
    pub theirs: String,
    /// `put`, `append` or empty (embedded).
    pub mode: String,
    /// The competitor: `kafka`, `rocksdb`, `upstream`.
    pub rival: String,
    /// Both with default settings?
    pub is_vanilla: bool,
    /// One record in flight a producer?
    pub is_one_in_flight: bool,
    /// Compared quantity.
    pub measure: Measure,
    /// Our median.
    pub ours_median: f64,
    /// Their median.
    pub theirs_median: f64,
    /// Ours ÷ theirs, repeat by repeat.
    pub ratio: Spread,
    /// What the repeats show.
    pub verdict: Verdict,
}

/// A quantity that rows are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// Acknowledged (or read) records a second.
    RecordsPerS,
    /// 99th percentile of latency in µs.
    P99Us,
    /// Longest time in ms that a topic took no writes, after its leader was killed.
    GapMs,
}

impl Measure {
    /// Its value in a row.
    pub fn of(self, row: &SummaryRow) -> Option<f64> {
        match self {
            Self::RecordsPerS => Some(row.records_per_s),
            Self::P99Us => row.p99_us,
            Self::GapMs => row.mark_value("gap_ms"),
        }
    }

    /// Which way it is better.
    pub fn better(self) -> Better {
        match self {
            Self::RecordsPerS => Better::Higher,
            Self::P99Us | Self::GapMs => Better::Lower,
        }
    }
}

/// What two rows must have in common to be compared.
#[derive(Debug, Clone, PartialEq)]
struct Arena {
    workload: String,
    phase: String,
    tier: Tier,
    deployment: Deployment,
    load: (u32, u32, u64, u64),
    cluster: (u32, u32),
    is_one_in_flight: bool,
    load_mode: LoadMode,
}

impl Arena {
    fn of(key: &RowKey) -> Self {
        Self {
            workload: key.workload.clone(),
            phase: if key.workload == SCALING { topics(key.topics) } else { key.phase.to_owned() },
            tier: key.tier,
            deployment: key.deployment,
            load: (key.producers, key.topics, key.record_bytes, key.offered_per_s),
            cluster: (key.nodes, key.replicas),
            is_one_in_flight: key.is_one_in_flight(),
            load_mode: key.load_mode,
        }
    }
}

/// The workloads whose comparisons stand in the table, in its order. Scaling and sizes are
/// curves, where a ratio at each point would say less: of them only the end of many topics is told.
const WORKLOADS: [&str; 9] =
    ["writes-burst", "writes", "writes-synced", "latency", "read", SCALING, "cluster", "failover", "failover-1000"];
const SCALING: &str = "scaling";
/// Fewer topics than this are not many.
const MANY_TOPICS: u32 = 100;
/// Ways to write to Walrus, each of which meets the competitors on its own. The first that fits counts.
const MODES: [&str; 4] = ["all", "direct", "put", "append"];
const RIVALS: [&[&str]; 3] = [&["kafka", "kafka-java"], &["rocksdb"], &["upstream"]];

/// What a system keeps of its throughput when the same records go to more topics.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The row.
    pub row: String,
    /// In process or through a socket.
    pub deployment: Deployment,
    /// Fewer topics.
    pub few: u32,
    /// Records a second to them, median.
    pub few_median: f64,
    /// More topics.
    pub many: u32,
    /// Records a second to them, median.
    pub many_median: f64,
    /// More ÷ fewer, repeat by repeat.
    pub ratio: Spread,
}

/// The fewest topics that others are compared with: in a single one all producers meet.
const FEW_TOPICS: u32 = 10;

/// Each row of `scaling` at each number of topics, against itself at the fewest.
pub fn kept(groups: &[Group<'_>]) -> Vec<Kept> {
    let scaling: Vec<&Group<'_>> = groups
        .iter()
        .filter(|g| g.key.workload == SCALING && g.key.topics >= FEW_TOPICS && pick::is_system(g))
        .collect();
    let with_few = |many: &Group<'_>| {
        let same = scaling.iter().filter(|few| RowKey { topics: many.key.topics, ..few.key.clone() } == many.key);
        same.min_by_key(|few| few.key.topics).copied()
    };
    scaling.iter().filter_map(|many| kept_of(with_few(many)?, many)).collect()
}

fn kept_of(few: &Group<'_>, many: &Group<'_>) -> Option<Kept> {
    if few.key.topics == many.key.topics {
        return None;
    }
    let value = |row: &SummaryRow| Some(row.records_per_s);
    Some(Kept {
        row: pick::full_name(&many.key),
        deployment: many.key.deployment,
        few: few.key.topics,
        few_median: few.median_per_s(),
        many: many.key.topics,
        many_median: many.median_per_s(),
        ratio: paired_ratio(&many.repeats(value), &few.repeats(value))?,
    })
}

/// Every comparison that the groups allow.
pub fn comparisons(groups: &[Group<'_>]) -> Vec<Comparison> {
    let mut all = Vec::new();
    for workload in WORKLOADS {
        let in_table = |name: &str| name == workload || (workload == "read" && name.starts_with("read"));
        let of_workload: Vec<&Group<'_>> =
            groups.iter().filter(|g| in_table(&g.key.workload) && pick::is_system(g)).collect();
        let mut arenas: Vec<Arena> = Vec::new();
        for arena in of_workload.iter().map(|g| Arena::of(&g.key)) {
            if !arenas.contains(&arena) {
                arenas.push(arena);
            }
        }
        arenas.sort_by_key(|a| (a.deployment == Deployment::Embedded, a.is_one_in_flight));
        for arena in arenas.iter().filter(|arena| is_told(arena, &of_workload)) {
            let rows: Vec<&Group<'_>> = of_workload.iter().copied().filter(|g| Arena::of(&g.key) == *arena).collect();
            all.extend(in_arena(&rows, arena));
        }
    }
    all
}

/// Of the latency rates only the one next to half of Kafka's knee is told, of scaling only the most
/// topics that more than one system has; the charts have all.
fn is_told(arena: &Arena, groups: &[&Group<'_>]) -> bool {
    if arena.workload == SCALING {
        return many_topics(groups, arena.deployment) == Some(arena.load.1);
    }
    if arena.load_mode != LoadMode::Open || arena.workload != "latency" {
        return true;
    }
    let of_tier: Vec<&Group<'_>> = groups.iter().copied().filter(|g| g.key.tier == arena.tier).collect();
    pick::half_knee(&of_tier).is_none_or(|rate| rate == arena.load.3)
}

fn many_topics(groups: &[&Group<'_>], deployment: Deployment) -> Option<u32> {
    let of_a_rival = groups.iter().filter(|g| g.key.deployment == deployment && !pick::is_walrus(&g.key));
    of_a_rival.map(|g| g.key.topics).filter(|topics| *topics >= MANY_TOPICS).max()
}

/// The number of topics in words.
pub fn topics(count: u32) -> String {
    format!("{count} topics")
}

fn in_arena(rows: &[&Group<'_>], arena: &Arena) -> Vec<Comparison> {
    let measure = if arena.workload.starts_with("failover") {
        Measure::GapMs
    } else if matches!(arena.load_mode, LoadMode::Open | LoadMode::Tail) {
        Measure::P99Us
    } else {
        Measure::RecordsPerS
    };
    let mut all = Vec::new();
    for is_vanilla in [false, true] {
        for mode in ["put", "append", "direct", "all", ""] {
            let is_ours = |g: &&&Group<'_>| pick::is_walrus(&g.key) && mode_of(&g.key) == mode;
            let Some(ours) = best(rows.iter().filter(is_ours), measure, is_vanilla) else {
                continue;
            };
            for rival in RIVALS {
                let is_theirs =
                    |g: &&&Group<'_>| rival.contains(&g.key.system.as_str()) && has_as_much_in_flight(&g.key, arena);
                let Some(theirs) = best(rows.iter().filter(is_theirs), measure, is_vanilla) else {
                    continue;
                };
                // Where only default settings were run, they are the best ones too.
                let is_told = |c: &Comparison, all: &[Comparison]| {
                    all.iter().any(|old| (&old.ours, &old.theirs) == (&c.ours, &c.theirs))
                };
                let new = compare(ours, theirs, arena, measure, is_vanilla);
                all.extend(new.filter(|c| !is_told(c, &all)));
            }
        }
    }
    all
}

/// A synced `Put` of `RocksDB` returns after its flush, so it has one record in flight in any window.
fn has_as_much_in_flight(key: &RowKey, arena: &Arena) -> bool {
    let waits_for_each = key.system == "rocksdb" && key.has("put") && arena.tier == Tier::Synced;
    arena.is_one_in_flight || !waits_for_each
}

fn compare(
    ours: &Group<'_>,
    theirs: &Group<'_>,
    arena: &Arena,
    measure: Measure,
    is_vanilla: bool,
) -> Option<Comparison> {
    let value = |row: &SummaryRow| measure.of(row);
    let ratio = paired_ratio(&ours.repeats(value), &theirs.repeats(value))?;
    Some(Comparison {
        workload: arena.workload.clone(),
        phase: arena.phase.clone(),
        tier: arena.tier,
        deployment: arena.deployment,
        ours: pick::full_name(&ours.key),
        theirs: pick::full_name(&theirs.key),
        mode: mode_of(&ours.key).to_owned(),
        rival: theirs.key.system.replace("-java", ""),
        is_vanilla,
        is_one_in_flight: arena.is_one_in_flight,
        measure,
        ours_median: ours.spread(value)?.median,
        theirs_median: theirs.spread(value)?.median,
        verdict: Verdict::of(&ratio, measure.better()),
        ratio,
    })
}

fn mode_of(key: &RowKey) -> &'static str {
    MODES.into_iter().find(|mode| key.system == "walrus" && key.has(mode)).unwrap_or("")
}

/// The best row by median: among rows with default settings only, or among all, as default
/// settings may turn out to be the better ones. A row that was run far less often than others shows
/// no difference, so it counts only where there is no other.
fn best<'g, 'a: 'g>(
    rows: impl Iterator<Item = &'g &'g Group<'a>>,
    measure: Measure,
    is_vanilla: bool,
) -> Option<&'g Group<'a>> {
    let rows: Vec<&Group<'_>> = rows.copied().filter(|g| !is_vanilla || g.key.has("vanilla")).collect();
    let often = pick::often(&rows);
    rows.into_iter()
        .filter(|g| g.rows.len() >= often)
        .filter_map(|g| Some((g, g.spread(|row| measure.of(row))?.median)))
        .max_by(|(_, a), (_, b)| match measure.better() {
            Better::Higher => a.total_cmp(b),
            Better::Lower => b.total_cmp(a),
        })
        .map(|(group, _)| group)
}
