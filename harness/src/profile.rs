//! Profiles: which rows, how long, how often. They are data, `harness/profiles/*.toml`.

use serde::Deserialize;
use walrus_drivers::Deployment;

use crate::workload::Case;

const TEXTS: [(&str, &str); 4] = [
    ("smoke", include_str!("../profiles/smoke.toml")),
    ("quick", include_str!("../profiles/quick.toml")),
    ("reference", include_str!("../profiles/reference.toml")),
    ("full", include_str!("../profiles/full.toml")),
];

/// A table of exact rows, seconds and repeats.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// One sentence.
    pub about: String,
    /// Repeats of every row.
    pub repeats: u32,
    /// How often a noisy block is run again, at most.
    pub block_reruns_max: u32,
    /// Largest volume of a burst in bytes (smaller if the page cache asks for it).
    pub burst_bytes_max: u64,
    /// Volume of a `volume` case in bytes.
    pub volume_bytes: u64,
    /// No closed loop runs longer, in seconds: a bound for systems that take minutes for a burst.
    pub closed_s_max: f64,
    /// Seconds of a `sustained` case.
    pub sustained_s: f64,
    /// Seconds of a `timed` case.
    pub timed_s: f64,
    /// Seconds of an open loop, warm-up included.
    pub open_s: f64,
    /// Seconds of it that are not timed.
    pub open_warmup_s: f64,
    /// Seconds of a window of the warm-up of a server that needs one; three must agree. 0: none.
    pub warmup_window_s: f64,
    /// Longest such warm-up in seconds.
    pub warmup_s_max: f64,
    /// Memory touched before the first run, in bytes, as far as it is free.
    pub warm_memory_bytes: u64,
    /// Seconds of each trial that looks for the best `raw`. 0: the first one is taken.
    pub raw_trial_s: f64,
    /// Most trials of that kind for a tier.
    pub raw_trials_max: usize,
    /// What is run.
    pub block: Vec<BlockTable>,
}

/// The rows of one workload.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockTable {
    /// Its name.
    pub workload: String,
    /// Take the place of the workload's own rates.
    #[serde(default)]
    pub rates_per_s: Vec<f64>,
    /// Only the workload's cases with so many producers; empty: all.
    #[serde(default)]
    pub producers: Vec<u32>,
    /// Only the workload's cases with so many topics; empty: all.
    #[serde(default)]
    pub topics: Vec<u32>,
    /// Only the workload's cases with records of so many bytes at most; empty: all.
    #[serde(default)]
    pub record_bytes: Vec<usize>,
    /// Repeats of these rows, if not those of the profile.
    pub repeats: Option<u32>,
    /// `system/variant` or `system@deployment/variant`.
    pub rows: Vec<String>,
}

impl BlockTable {
    /// Is this case of the workload among those wanted?
    pub fn wants(&self, case: &Case) -> bool {
        among(&self.producers, &case.producers)
            && among(&self.topics, &case.topics)
            && among(&self.record_bytes, &case.record_bytes.max)
    }
}

fn among<T: PartialEq>(list: &[T], value: &T) -> bool {
    list.is_empty() || list.contains(value)
}

/// A system and how it is used.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RowName {
    /// Name of the system.
    pub system: String,
    /// Where it runs.
    pub deployment: Deployment,
    /// Words joined by `-`.
    pub variant: String,
}

impl RowName {
    /// Reads `system/variant` or `system@networked/variant`.
    pub fn parse(text: &str) -> Result<RowName, String> {
        let (place, variant) = text.split_once('/').unwrap_or((text, ""));
        let (system, deployment) = match place.split_once('@') {
            None => (place, natural_deployment(place)),
            Some((system, "embedded")) => (system, Deployment::Embedded),
            Some((system, "networked")) => (system, Deployment::Networked),
            Some(_) => return Err(format!("row `{text}`: @embedded or @networked")),
        };
        Ok(RowName { system: system.into(), deployment, variant: variant.into() })
    }
}

/// Where a system runs if the row does not say it.
fn natural_deployment(system: &str) -> Deployment {
    match system {
        "walrus" | "kafka" | "kafka-java" => Deployment::Networked,
        _ => Deployment::Embedded,
    }
}

/// The built-in profile of this name.
pub fn find(name: &str) -> Result<Profile, String> {
    let names = || TEXTS.map(|(name, _)| name).join(", ");
    let (_, text) = TEXTS
        .iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(|| format!("no profile is called `{name}`; there are {}", names()))?;
    toml::from_str(text).map_err(|error| format!("profile {name}: {error}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::workload;

    #[test]
    fn all_profiles_parse_and_name_known_workloads_and_rows() {
        for (name, _) in TEXTS {
            let profile = find(name).unwrap();
            assert!(profile.repeats >= 1);
            for block in &profile.block {
                workload::find(&block.workload, &block.rates_per_s).unwrap();
                assert!(block.rows.iter().all(|row| RowName::parse(row).is_ok()), "{name}");
            }
        }
    }

    #[test]
    fn a_row_name_says_system_deployment_and_variant() {
        let row = RowName::parse("raw@networked/tuned").unwrap();
        assert_eq!((row.system.as_str(), row.deployment), ("raw", Deployment::Networked));
        assert_eq!(RowName::parse("kafka/tuned").unwrap().deployment, Deployment::Networked);
        assert_eq!(RowName::parse("rocksdb/put-tuned").unwrap().variant, "put-tuned");
        assert!(RowName::parse("raw@moon/x").is_err());
    }
}
