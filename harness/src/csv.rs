//! The rows of the three CSV files. Their columns are a stable interface: charts, reports and
//! comparisons are made from these files alone.
//!
//! ```text
//! results/<run>/summary.csv      one row per run             SummaryRow
//!              throughput.csv    one row each 500 ms         ThroughputRow (failover: 100 ms)
//!              latency.csv       one row per percentile      LatencyRow
//!              env.json          the machine and versions    provenance.rs
//! ```
//!
//! Rows are appended and flushed one by one, so an interrupted run keeps what it measured.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use walrus_drivers::{Deployment, Tier};

/// Why a CSV file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CsvError {
    /// The file could not be opened, or a row could not be written.
    #[error("{path}: {source}")]
    Csv {
        /// The file.
        path: PathBuf,
        /// What went wrong, with line and field where they are known.
        source: csv::Error,
    },
}

/// How records are offered to the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoadMode {
    /// The next record goes out as soon as the window has room.
    Closed,
    /// Records go out at the times of a fixed schedule, whatever the system does.
    Open,
    /// Nothing is written; what was written before is read.
    Read,
    /// Records go out on a schedule and are read at the tail meanwhile.
    Tail,
}

/// One row of `summary.csv`: one run of one row of the plan. Empty cells are figures that this
/// run does not have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SummaryRow {
    /// Unique in the results directory; the key to the other two files.
    pub run_id: String,
    /// Name of the workload (`writes-burst`, `latency` …).
    pub workload: String,
    /// Name of the system (`walrus`, `kafka` …; `raw` and `null` are the ceilings).
    pub system: String,
    /// Words joined by `-`: `put-tuned`, `batch-vanilla` …
    pub variant: String,
    /// In process or through a socket.
    pub deployment: Deployment,
    /// Tier that the acknowledgements promised (and the proof confirmed).
    pub tier: Tier,
    /// Producers that ran at the same time.
    pub producers: u32,
    /// Topics that they wrote to.
    pub topics: u32,
    /// Mean record size in bytes.
    pub record_bytes_mean: f64,
    /// Bound on unacknowledged work of a producer: `1` record, or `<n>` bytes as `4MiB`.
    pub in_flight: String,
    /// Number of the repeat, from 1.
    pub repeat: u32,
    /// Measured seconds: first send to last ack (and settling), without warm-up.
    pub duration_s: f64,
    /// Acknowledged records (read workloads: records read).
    pub records_acked: u64,
    /// `records_acked / duration_s`.
    pub records_per_s: f64,
    /// Acknowledged payload, 10^6 bytes a second.
    pub payload_mb_per_s: f64,
    /// Median latency in µs; closed loop: send to ack; open loop: intended send to ack.
    pub p50_us: Option<f64>,
    /// 99th percentile.
    pub p99_us: Option<f64>,
    /// 99.9th percentile.
    pub p999_us: Option<f64>,
    /// CPU seconds of the worker (client; for embedded systems client and system) per 10^6 records.
    pub cpu_s_per_million_client: Option<f64>,
    /// CPU seconds of the server process per 10^6 records; empty for embedded systems.
    pub cpu_s_per_million_server: Option<f64>,
    /// Bytes that the processes gave to the file system for writing, per payload byte.
    pub disk_bytes_per_payload_byte: Option<f64>,
    /// Peak resident memory in MB of the process that holds the data.
    pub peak_rss_mb: Option<f64>,
    /// Percent of the matching ceiling's median in the same block.
    pub ceiling_pct: Option<f64>,
    /// Was every acknowledged record read back unaltered, once, in order?
    pub verified: bool,
    /// Why the row failed; empty if it did not.
    pub error: String,
    /// How records were offered.
    pub load_mode: LoadMode,
    /// Offered rate, records a second over all producers (open loop).
    pub offered_per_s: Option<f64>,
    /// 99.99th percentile.
    pub p9999_us: Option<f64>,
    /// Best 500 ms, as records a second.
    pub peak_records_per_s: Option<f64>,
    /// Nodes of the system.
    pub nodes: u32,
    /// Replicas of each record.
    pub replicas: u32,
    /// Seconds at full load before the measured part.
    pub warmup_s: f64,
    /// Acknowledged payload bytes.
    pub payload_bytes_total: u64,
    /// Flushes that the device completed during the run.
    pub device_flushes: Option<u64>,
    /// Time stolen by the hypervisor, percent of all CPU time.
    pub steal_pct: Option<f64>,
    /// Records that the system stored more than once.
    pub duplicates: u64,
    /// Words separated by spaces: `killed` (proved after SIGKILL), `client-bound`, `noisy`,
    /// `superseded` (noisy, and run again: `rerun=<n>`), `time-limit` (the fixed volume was not
    /// reached), `external` (a server that is not ours), `unacked-stored=<n>`, `refused=<n>`,
    /// `late_p99_us=<n>` (of the generator itself), `flushes_per_1000=<n>`, `cached_pct=<n>`.
    pub marks: String,
}

impl SummaryRow {
    /// A row that counts: proved and without an error. (`null` and `raw` store nothing that could
    /// be proved; they count as ceilings when they have no error.)
    pub fn is_valid(&self) -> bool {
        self.error.is_empty() && (self.verified || self.is_ceiling())
    }

    /// Is it a ceiling (`raw`, `null`) instead of a system under test?
    pub fn is_ceiling(&self) -> bool {
        matches!(self.system.as_str(), "raw" | "null")
    }

    /// Adds a word to `marks`.
    pub fn add_mark(&mut self, mark: &str) {
        if !self.marks.is_empty() {
            self.marks.push(' ');
        }
        self.marks.push_str(mark);
    }

    /// The number behind this word in `marks`, as in `gap_ms=1200`.
    pub fn mark_value(&self, word: &str) -> Option<f64> {
        self.marks.split(' ').find_map(|mark| mark.strip_prefix(word)?.strip_prefix('=')?.parse().ok())
    }

    /// Does `marks` hold this word (the part before `=`)?
    pub fn has_mark(&self, word: &str) -> bool {
        self.marks.split(' ').any(|mark| mark.split('=').next() == Some(word))
    }
}

/// One row of `throughput.csv`: what happened up to `t_ms` after the start of the load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThroughputRow {
    /// The run.
    pub run_id: String,
    /// Milliseconds since the first send.
    pub t_ms: u64,
    /// Records acknowledged since the start.
    pub records_acked: u64,
    /// Payload bytes acknowledged since the start.
    pub bytes_acked: u64,
    /// Dirty page-cache bytes of the machine at this moment.
    pub dirty_bytes: u64,
}

/// One row of `latency.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LatencyRow {
    /// The run.
    pub run_id: String,
    /// Offered rate, records a second over all producers; empty in a closed loop.
    pub offered_per_s: Option<f64>,
    /// Achieved rate.
    pub achieved_per_s: f64,
    /// 0 to 100.
    pub percentile: f64,
    /// Latency at that percentile in µs.
    pub latency_us: f64,
}

/// Name of the file with one row per run.
pub const SUMMARY_FILE: &str = "summary.csv";
/// Name of the file with one row each 500 ms.
pub const THROUGHPUT_FILE: &str = "throughput.csv";
/// Name of the file with one row per percentile.
pub const LATENCY_FILE: &str = "latency.csv";

/// Appends rows to `path` (with the header if the file is new) and flushes them.
pub fn append<T: Serialize>(path: &Path, rows: &[T]) -> Result<(), CsvError> {
    let wrap = |source: csv::Error| CsvError::Csv { path: path.to_owned(), source };
    let file = OpenOptions::new().create(true).append(true).open(path).map_err(|e| wrap(e.into()))?;
    let is_new = file.metadata().map_err(|e| wrap(e.into()))?.len() == 0;
    let mut writer = csv::WriterBuilder::new().has_headers(is_new).from_writer(file);
    for row in rows {
        writer.serialize(row).map_err(wrap)?;
    }
    writer.flush().map_err(|e| wrap(e.into()))
}

/// Replaces the file with these rows (after a block, when ceilings are known).
pub fn rewrite<T: Serialize>(path: &Path, rows: &[T]) -> Result<(), CsvError> {
    let temporary = path.with_extension("csv.new");
    let _ = std::fs::remove_file(&temporary);
    append(&temporary, rows)?;
    std::fs::rename(&temporary, path).map_err(|e| CsvError::Csv { path: path.to_owned(), source: e.into() })
}

/// Reads all rows; a file that does not exist has none.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, CsvError> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let wrap = |source: csv::Error| CsvError::Csv { path: path.to_owned(), source };
    let mut reader = csv::Reader::from_path(path).map_err(wrap)?;
    reader.deserialize().map(|row| row.map_err(wrap)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const COLUMNS: &str = "run_id,workload,system,variant,deployment,tier,producers,topics,record_bytes_mean,in_flight,repeat,duration_s,records_acked,records_per_s,payload_mb_per_s,p50_us,p99_us,p999_us,cpu_s_per_million_client,cpu_s_per_million_server,disk_bytes_per_payload_byte,peak_rss_mb,ceiling_pct,verified,error,load_mode,offered_per_s,p9999_us,peak_records_per_s,nodes,replicas,warmup_s,payload_bytes_total,device_flushes,steal_pct,duplicates,marks";

    fn row() -> SummaryRow {
        SummaryRow {
            run_id: "a-1".into(),
            workload: "writes".into(),
            system: "walrus".into(),
            variant: "put-tuned".into(),
            deployment: Deployment::Networked,
            tier: Tier::PageCache,
            producers: 10,
            topics: 10,
            record_bytes_mean: 762.0,
            in_flight: "4MiB".into(),
            repeat: 1,
            duration_s: 2.0,
            records_acked: 2_000_000,
            records_per_s: 1e6,
            payload_mb_per_s: 762.0,
            p50_us: Some(1.0),
            p99_us: None,
            p999_us: None,
            cpu_s_per_million_client: None,
            cpu_s_per_million_server: None,
            disk_bytes_per_payload_byte: None,
            peak_rss_mb: None,
            ceiling_pct: None,
            verified: true,
            error: "a \"quoted\", text".into(),
            load_mode: LoadMode::Closed,
            offered_per_s: None,
            p9999_us: None,
            peak_records_per_s: None,
            nodes: 1,
            replicas: 1,
            warmup_s: 0.0,
            payload_bytes_total: 1,
            device_flushes: Some(3),
            steal_pct: Some(0.1),
            duplicates: 0,
            marks: "killed rerun=1".into(),
        }
    }

    #[test]
    fn summary_has_the_published_columns_and_survives_a_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SUMMARY_FILE);
        append(&path, &[row()]).unwrap();
        append(&path, &[row()]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().next(), Some(COLUMNS));
        assert_eq!(read::<SummaryRow>(&path).unwrap(), vec![row(), row()]);
    }

    #[test]
    fn marks_are_words_with_values() {
        assert!(row().has_mark("killed"));
        assert!(row().has_mark("rerun"));
        assert!(!row().has_mark("client-bound"));
    }
}
