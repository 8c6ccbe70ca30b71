//! One results directory in memory, and its rows grouped into what can be compared.
//!
//! ```text
//! SummaryRow ─┬─ valid ───▶ Group: same work, same system and variant; one value a repeat
//!             └─ failed ──▶ listed in the report, in no chart and in no ratio
//! ```

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use walrus_drivers::{Deployment, Tier};

use crate::csv::{self, LatencyRow, LoadMode, SummaryRow, ThroughputRow};
use crate::stats::Spread;

/// Name of the file with machine, versions and settings.
pub const ENV_FILE: &str = "env.json";

/// Why a results directory could not be read, or something could not be made of it.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// There is no `summary.csv`.
    #[error("{0}: no summary.csv; give the directory of a run, such as results/latest")]
    NotResults(PathBuf),
    /// A CSV file cannot be read.
    #[error(transparent)]
    Csv(#[from] csv::CsvError),
    /// `env.json` is not JSON.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A chart cannot be drawn.
    #[error("drawing {chart}: {cause}")]
    Draw {
        /// File name of the chart, without its ending.
        chart: String,
        /// What the drawing library said.
        cause: String,
    },
}

impl ReportError {
    /// Wraps an I/O error with the path it is about.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// The contents of `results/<run>/`.
#[derive(Debug, Clone)]
pub struct Results {
    /// Where they were read from.
    pub dir: PathBuf,
    /// All rows, failed ones too, in the order of the file.
    pub rows: Vec<SummaryRow>,
    /// Progress of each run, by run id.
    pub throughput: HashMap<String, Vec<ThroughputRow>>,
    /// Percentiles of each run, by run id.
    pub latency: HashMap<String, Vec<LatencyRow>>,
    /// `env.json`, or `null` if there is none.
    pub env: serde_json::Value,
}

impl Results {
    /// Reads the CSV files and `env.json` of a run.
    pub fn load(dir: &Path) -> Result<Self, ReportError> {
        let summary = dir.join(csv::SUMMARY_FILE);
        if !summary.exists() {
            return Err(ReportError::NotResults(dir.to_owned()));
        }
        let mut throughput: HashMap<String, Vec<ThroughputRow>> = HashMap::new();
        for row in csv::read::<ThroughputRow>(&dir.join(csv::THROUGHPUT_FILE))? {
            throughput.entry(row.run_id.clone()).or_default().push(row);
        }
        let mut latency: HashMap<String, Vec<LatencyRow>> = HashMap::new();
        for row in csv::read::<LatencyRow>(&dir.join(csv::LATENCY_FILE))? {
            latency.entry(row.run_id.clone()).or_default().push(row);
        }
        Ok(Self {
            dir: dir.to_owned(),
            rows: csv::read(&summary)?,
            throughput,
            latency,
            env: read_env(&dir.join(ENV_FILE))?,
        })
    }

    /// Rows that failed: with an error, or not proved.
    pub fn failed(&self) -> impl Iterator<Item = &SummaryRow> {
        self.rows.iter().filter(|row| !row.is_valid())
    }

    /// Acknowledged records a second in the second half of a run: the pace of the device, once the page
    /// cache has taken what it can.
    pub fn second_half_per_s(&self, row: &SummaryRow) -> Option<f64> {
        let samples = self.throughput.get(&row.run_id)?;
        let end = samples.iter().rfind(|sample| sample.records_acked > 0)?;
        let middle = samples.iter().rfind(|sample| sample.t_ms * 2 <= end.t_ms)?;
        let ms = end.t_ms.checked_sub(middle.t_ms).filter(|ms| *ms > 0)?;
        Some(end.records_acked.saturating_sub(middle.records_acked) as f64 * 1e3 / ms as f64)
    }

    /// Valid rows, grouped by what was measured, in the order of their first appearance.
    pub fn groups(&self) -> Vec<Group<'_>> {
        let mut order: Vec<RowKey> = Vec::new();
        let mut tries: HashMap<RowKey, BTreeMap<(u32, u32), &SummaryRow>> = HashMap::new();
        for row in self.rows.iter().filter(|row| row.is_valid() && !row.has_mark("superseded")) {
            let key = RowKey::of(row);
            if !tries.contains_key(&key) {
                order.push(key.clone());
            }
            // A block that was disturbed is run again; its last try is the one that counts.
            // Ceilings are measured more than once in a repeat, and each of these counts.
            let tries = tries.entry(key).or_default();
            let place = if row.is_ceiling() { tries.len() as u32 } else { 0 };
            tries.insert((row.repeat, place), row);
        }
        order
            .into_iter()
            .filter_map(|key| {
                let repeats = tries.remove(&key)?;
                Some(Group { key, rows: repeats.into_values().collect() })
            })
            .collect()
    }
}

fn read_env(path: &Path) -> Result<serde_json::Value, ReportError> {
    if !path.exists() {
        return Ok(serde_json::Value::Null);
    }
    let text = std::fs::read_to_string(path).map_err(ReportError::io(path))?;
    serde_json::from_str(&text).map_err(|source| ReportError::Json { path: path.to_owned(), source })
}

/// Everything in which two rows must agree to be repeats of one measurement.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RowKey {
    /// Workload.
    pub workload: String,
    /// System.
    pub system: String,
    /// Variant, its words joined by `-`.
    pub variant: String,
    /// `warm`, `cold` or `tail` for reads; else empty.
    pub phase: &'static str,
    /// In process or through a socket.
    pub deployment: Deployment,
    /// What an ack promises.
    pub tier: Tier,
    /// Producers at the same time.
    pub producers: u32,
    /// Topics.
    pub topics: u32,
    /// Mean record size in bytes, to two digits (it varies with the random sizes).
    pub record_bytes: u64,
    /// Bound on what is unacknowledged.
    pub in_flight: String,
    /// How records are offered.
    pub load_mode: LoadMode,
    /// Offered records a second; 0 in a closed loop.
    pub offered_per_s: u64,
    /// Nodes.
    pub nodes: u32,
    /// Replicas.
    pub replicas: u32,
}

impl RowKey {
    /// The key of a row.
    pub fn of(row: &SummaryRow) -> Self {
        Self {
            workload: row.workload.clone(),
            system: row.system.clone(),
            variant: row.variant.clone(),
            phase: phase(row),
            deployment: row.deployment,
            tier: row.tier,
            producers: row.producers,
            topics: row.topics,
            record_bytes: two_digits(row.record_bytes_mean),
            in_flight: row.in_flight.clone(),
            load_mode: row.load_mode,
            offered_per_s: whole(row.offered_per_s.unwrap_or(0.0)),
            nodes: row.nodes,
            replicas: row.replicas,
        }
    }

    /// Does the variant contain this word?
    pub fn has(&self, word: &str) -> bool {
        self.variant.split('-').any(|w| w == word)
    }

    /// One record in flight for each producer?
    pub fn is_one_in_flight(&self) -> bool {
        self.in_flight == "1"
    }
}

/// Part of a read workload. The columns do not tell it; a mark, the workload's name or the case in
/// the run id (`read.p10-t10-b1024-cold.kafka…`) does.
fn phase(row: &SummaryRow) -> &'static str {
    if !matches!(row.load_mode, LoadMode::Read | LoadMode::Tail) {
        return "";
    }
    let case = row.run_id.split('.').nth(1).unwrap_or("");
    let has = |text: &str, word: &str| text.split('-').any(|w| w == word);
    ["warm", "cold", "tail"]
        .into_iter()
        .find(|word| row.has_mark(word) || [case, &row.workload, &row.variant].iter().any(|t| has(t, word)))
        .unwrap_or(if row.load_mode == LoadMode::Tail { "tail" } else { "" })
}

/// Rates and sizes are not negative; what is not a number becomes 0.
#[allow(clippy::cast_sign_loss)]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// Rounds to two significant digits, but keeps small numbers and powers of two exact.
fn two_digits(value: f64) -> u64 {
    let whole = whole(value);
    if whole < 100 || whole.is_power_of_two() {
        return whole;
    }
    let unit = 10u64.pow(whole.ilog10() - 1);
    (whole + unit / 2) / unit * unit
}

/// The repeats of one measurement, all valid, ordered by repeat.
#[derive(Debug, Clone)]
pub struct Group<'a> {
    /// What they have in common.
    pub key: RowKey,
    /// At least one row.
    pub rows: Vec<&'a SummaryRow>,
}

impl<'a> Group<'a> {
    /// `(repeat, value)` of each row that has the value.
    pub fn repeats(&self, value: impl Fn(&SummaryRow) -> Option<f64>) -> Vec<(u32, f64)> {
        self.rows.iter().filter_map(|row| Some((row.repeat, value(row)?))).collect()
    }

    /// Spread of a value over the repeats.
    pub fn spread(&self, value: impl Fn(&SummaryRow) -> Option<f64>) -> Option<Spread> {
        let values: Vec<f64> = self.rows.iter().filter_map(|row| value(row)).collect();
        Spread::of(&values)
    }

    /// Median of the acknowledged records a second.
    pub fn median_per_s(&self) -> f64 {
        self.spread(|row| Some(row.records_per_s)).map_or(0.0, |s| s.median)
    }

    /// The row whose throughput is nearest to the median: the one to show when only one can be.
    pub fn typical(&self) -> &'a SummaryRow {
        let median = self.median_per_s();
        let distance = |row: &SummaryRow| (row.records_per_s - median).abs();
        self.rows
            .iter()
            .copied()
            .min_by(|a, b| distance(a).total_cmp(&distance(b)))
            .expect("a group has at least one row: it is made from one")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::plain_row;

    #[test]
    fn the_second_half_is_the_pace_after_the_page_cache_is_full() {
        let mut row = plain_row("writes", "kafka", "tuned", 1.0);
        row.run_id = "r".into();
        let sample = |t_ms, records_acked| ThroughputRow {
            run_id: "r".into(),
            t_ms,
            records_acked,
            bytes_acked: 0,
            dirty_bytes: 0,
        };
        let samples = vec![sample(500, 900), sample(1000, 1000), sample(1500, 1100), sample(2000, 1300)];
        let results = Results {
            dir: PathBuf::new(),
            rows: Vec::new(),
            throughput: HashMap::from([("r".to_owned(), samples)]),
            latency: HashMap::new(),
            env: serde_json::Value::Null,
        };
        assert_eq!(results.second_half_per_s(&row).map(f64::round), Some(300.0));
        row.run_id = "not there".into();
        assert_eq!(results.second_half_per_s(&row), None);
    }

    #[test]
    fn nearly_equal_sizes_are_one_measurement_and_powers_of_two_stay_apart() {
        assert_eq!(two_digits(762.4), two_digits(758.0));
        assert_eq!(two_digits(1024.0), 1024);
        assert_eq!(two_digits(1_048_576.0), 1_048_576);
        assert_eq!(two_digits(16.0), 16);
    }
}
