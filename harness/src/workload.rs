//! Workloads: what is done to every system alike. They are data, `harness/workloads/*.toml`.
//!
//! ```toml
//! about = "…"
//! [[case]]                  # lists make a case of each combination
//! kind = "burst"            # burst, sustained, timed, volume, open, tail, read-cold, read-warm
//! producers = [10]
//! topics = [10]
//! record_bytes = [{ min = 500, max = 1024 }]
//! tier = "page-cache"
//! in_flight = ["4MiB"]      # or "1": one record
//! rates_per_s = [10000]     # open and tail only
//! systems = ["walrus"]      # only these (default: all)
//! nodes = 3                 # a cluster, three replicas (default: 1)
//! ```

use serde::Deserialize;
use walrus_drivers::Tier;

use crate::csv::LoadMode;
use crate::load::OPEN_LOOP_BYTES_MAX;
use crate::record::RecordBytes;

/// Every workload that is built in.
const TEXTS: [(&str, &str); 10] = [
    ("writes-burst", include_str!("../workloads/writes-burst.toml")),
    ("writes", include_str!("../workloads/writes.toml")),
    ("writes-synced", include_str!("../workloads/writes-synced.toml")),
    ("scaling", include_str!("../workloads/scaling.toml")),
    ("sizes", include_str!("../workloads/sizes.toml")),
    ("latency", include_str!("../workloads/latency.toml")),
    ("read", include_str!("../workloads/read.toml")),
    ("cluster", include_str!("../workloads/cluster.toml")),
    ("failover", include_str!("../workloads/failover.toml")),
    ("failover-1000", include_str!("../workloads/failover-1000.toml")),
];

/// What a case measures, and so when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Closed loop over one volume below the kernel's throttling point.
    Burst,
    /// Closed loop over the profile's `sustained_s`.
    Sustained,
    /// Closed loop over the profile's `timed_s`.
    Timed,
    /// Closed loop over the profile's `volume_bytes`.
    Volume,
    /// Open loop over the profile's `open_s`.
    Open,
    /// Open loop over 30 s, in which the leader of the first topic is killed after 10 s.
    Failover,
    /// Open loop, timed at readers that follow the tail.
    Tail,
    /// Read what was written, after its files were dropped from the page cache.
    ReadCold,
    /// Read what was written, from the page cache.
    ReadWarm,
}

impl Kind {
    /// The word in the CSV's column `load_mode`.
    pub fn load_mode(self) -> LoadMode {
        match self {
            Kind::Burst | Kind::Sustained | Kind::Timed | Kind::Volume => LoadMode::Closed,
            Kind::Open | Kind::Failover => LoadMode::Open,
            Kind::Tail => LoadMode::Tail,
            Kind::ReadCold | Kind::ReadWarm => LoadMode::Read,
        }
    }
}

/// One point of a workload.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// What is measured.
    pub kind: Kind,
    /// Producers at the same time.
    pub producers: u32,
    /// Topics they write to.
    pub topics: u32,
    /// Sizes of the records.
    pub record_bytes: RecordBytes,
    /// Tier asked for.
    pub tier: Tier,
    /// Bound on unacknowledged bytes of each producer; `None`: one record.
    pub window_bytes: Option<u64>,
    /// Offered rate over all producers.
    pub rate_per_s: Option<f64>,
    /// Only these systems; empty: all.
    pub systems: Vec<String>,
    /// Server processes; more than one: a cluster.
    pub nodes: u32,
}

impl Case {
    /// Short and unique within its workload; part of the run id.
    pub fn key(&self) -> String {
        let kind = match self.kind {
            Kind::ReadCold => "cold".to_owned(),
            Kind::ReadWarm => "warm".to_owned(),
            Kind::Tail => "tail".to_owned(),
            _ => String::new(),
        };
        let one = if self.window_bytes.is_none() { "one" } else { "" };
        let load = self.rate_per_s.map_or_else(|| one.to_owned(), |rate| format!("{rate}ps"));
        let size = format!("p{}-t{}-b{}", self.producers, self.topics, self.record_bytes.max);
        [size, kind, load].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
    }

    /// Cases with the same key share their best `raw`: tier, and whether it is one in flight.
    pub fn ceiling_key(&self) -> (Tier, bool) {
        (self.tier, self.window_bytes.is_none())
    }

    /// The CSV's column `in_flight`.
    pub fn in_flight(&self) -> String {
        // What is offered at a rate is not held back by a window, only by a bound on memory.
        let bound = self.rate_per_s.map(|_| OPEN_LOOP_BYTES_MAX).or(self.window_bytes);
        bound.map_or_else(|| "1".to_owned(), words_of_bytes)
    }
}

/// A workload of the benchmark.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// Name as in the CSV.
    pub name: String,
    /// One sentence.
    pub about: String,
    /// Its points.
    pub cases: Vec<Case>,
}

/// Why a workload is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// There is none of this name.
    #[error("no workload is called `{0}`; there are {1}")]
    Unknown(String, String),
    /// The file is wrong.
    #[error("workload {0}: {1}")]
    Bad(String, String),
}

/// Names of all workloads.
pub fn names() -> impl Iterator<Item = &'static str> {
    TEXTS.iter().map(|(name, _)| *name)
}

/// The workload of this name; `rates_per_s`, if any, take the place of its own.
pub fn find(name: &str, rates_per_s: &[f64]) -> Result<Workload, WorkloadError> {
    let (_, text) = TEXTS
        .iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(|| WorkloadError::Unknown(name.to_owned(), names().collect::<Vec<_>>().join(", ")))?;
    parse(name, text, rates_per_s).map_err(|why| WorkloadError::Bad(name.to_owned(), why))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    about: String,
    case: Vec<Cases>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    kind: Kind,
    producers: Vec<u32>,
    topics: Vec<u32>,
    record_bytes: Vec<RecordBytes>,
    tier: Tier,
    in_flight: Vec<String>,
    #[serde(default)]
    rates_per_s: Vec<f64>,
    #[serde(default)]
    systems: Vec<String>,
    #[serde(default = "one")]
    nodes: u32,
}

fn one() -> u32 {
    1
}

fn parse(name: &str, text: &str, rates_per_s: &[f64]) -> Result<Workload, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut cases = Vec::new();
    for list in &file.case {
        list.expand(rates_per_s, &mut cases)?;
    }
    Ok(Workload { name: name.to_owned(), about: file.about, cases })
}

impl Cases {
    fn expand(&self, rates_per_s: &[f64], cases: &mut Vec<Case>) -> Result<(), String> {
        let own = if rates_per_s.is_empty() { &self.rates_per_s[..] } else { rates_per_s };
        let rates: Vec<Option<f64>> = match self.kind {
            Kind::Open | Kind::Failover => own.iter().copied().map(Some).collect(),
            Kind::Tail => self.rates_per_s.iter().copied().map(Some).collect(),
            _ => vec![None],
        };
        for &producers in &self.producers {
            for &topics in &self.topics {
                for &record_bytes in &self.record_bytes {
                    for in_flight in &self.in_flight {
                        for &rate_per_s in &rates {
                            cases.push(Case {
                                kind: self.kind,
                                producers,
                                topics,
                                record_bytes,
                                tier: self.tier,
                                window_bytes: bytes_of_words(in_flight)?,
                                rate_per_s,
                                systems: self.systems.clone(),
                                nodes: self.nodes,
                            });
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

const UNITS: [(&str, u64); 2] = [("MiB", 1 << 20), ("KiB", 1 << 10)];

/// `4MiB` → bytes, `1` → `None`.
fn bytes_of_words(text: &str) -> Result<Option<u64>, String> {
    if text == "1" {
        return Ok(None);
    }
    UNITS
        .iter()
        .find_map(|(unit, bytes)| text.strip_suffix(unit)?.parse::<u64>().ok().map(|n| Some(n * bytes)))
        .ok_or_else(|| format!("in_flight `{text}`: `1`, `<n>KiB` or `<n>MiB`"))
}

fn words_of_bytes(bytes: u64) -> String {
    UNITS
        .iter()
        .find(|(_, unit)| bytes.is_multiple_of(*unit))
        .map_or_else(|| format!("{bytes}B"), |(name, unit)| format!("{}{name}", bytes / unit))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_workload_parses_and_its_cases_have_different_keys() {
        for name in names() {
            let workload = find(name, &[]).unwrap();
            let keys: HashSet<String> = workload.cases.iter().map(Case::key).collect();
            assert_eq!(keys.len(), workload.cases.len(), "{name}");
            assert!(workload.cases.iter().all(|case| case.record_bytes.min >= 16));
        }
        assert!(find("wirtes", &[]).unwrap_err().to_string().contains("writes-burst"));
    }

    #[test]
    fn the_seed_workload_is_the_seed_workload() {
        let workload = find("writes", &[]).unwrap();
        let case = &workload.cases[0];
        assert_eq!((case.producers, case.topics), (10, 10));
        assert_eq!((case.record_bytes.min, case.record_bytes.max), (500, 1024));
        assert_eq!(case.in_flight(), "4MiB");
        assert_eq!(find("latency", &[1000.0]).unwrap().cases[0].in_flight(), "64MiB");
    }
}
