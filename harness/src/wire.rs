//! What the harness and its workers say to each other, as types. The protocol itself is described
//! in [`crate::worker`].

use serde::{Deserialize, Serialize};
use walrus_drivers::{Deployment, Setup};

use crate::record::RecordBytes;
use crate::verify::{Claim, Proof};

/// First line that a worker reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// Name of the system.
    pub system: String,
    /// With the name, picks the driver.
    pub deployment: Deployment,
    /// What the driver is told.
    pub setup: Setup,
    /// What to do.
    pub job: Job,
}

/// What a worker does.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Job {
    /// Write.
    Load(Load),
    /// Read everything back and prove the claims.
    Verify {
        /// What the load did.
        claims: Vec<Claim>,
        /// Topics read at the same time.
        threads: u32,
    },
    /// Read everything, measured: counts records and bytes.
    Read {
        /// Records that are there; reading ends when they were all seen.
        records: u64,
        /// Topics read at the same time.
        threads: u32,
    },
    /// Remove the topics of the setup from the running server.
    Remove,
}

/// How to write.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Load {
    /// Sizes of the records.
    pub record_bytes: RecordBytes,
    /// Stop after so many seconds …
    pub seconds: Option<f64>,
    /// … or once so many bytes were sent by all producers together, whatever comes first.
    pub payload_bytes: Option<u64>,
    /// Records a second over all producers: open loop. Without it: closed loop.
    pub rate_per_s: Option<f64>,
    /// Open loop: leave the first seconds out of the latencies.
    pub warmup_s: f64,
    /// Also read all topics at their tails, and take the latency at the reader.
    pub tail: bool,
    /// A node is killed after so many seconds: samples come each 100 ms, and the longest time without
    /// an acknowledgement of one topic that ends later is told.
    #[serde(default)]
    pub kill_at_s: Option<f64>,
}

/// A line that a worker writes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// Everything is open and prepared; waiting for `go`.
    Ready,
    /// Each 500 ms (100 ms when a node is to be killed), cumulative.
    Sample {
        /// Milliseconds since `go`.
        t_ms: u64,
        /// Records acknowledged (or read).
        records: u64,
        /// Their payload bytes.
        bytes: u64,
    },
    /// The last acknowledgement has arrived (or the last record was read).
    Drained(Box<Drained>),
    /// Answer to `settle`.
    Settled {
        /// Seconds that it took.
        seconds: f64,
    },
    /// End of a `verify` job.
    Verified {
        /// What was found.
        proof: Proof,
        /// Seconds for opening the system again.
        open_s: f64,
    },
    /// The worker gives up; this is its last line.
    Failed {
        /// Cause and remedy.
        error: String,
    },
}

/// Result of a load or read job.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Drained {
    /// From `go` to the last acknowledgement.
    pub duration_s: f64,
    /// Records acknowledged (or read).
    pub records: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Records that the system refused.
    #[serde(default)]
    pub refused: u64,
    /// What the proof has to confirm (loads only).
    #[serde(default)]
    pub claims: Vec<Claim>,
    /// (percentile 0–100, µs) of the latency of the acknowledged records.
    #[serde(default)]
    pub latency_us: Vec<(f64, f64)>,
    /// With `kill_at_s`: the longest time that a producer's topic was without an acknowledgement.
    #[serde(default)]
    pub longest_pause_ms: Option<f64>,
    /// Open loop: how late the generator itself was, the same way.
    #[serde(default)]
    pub lateness_us: Vec<(f64, f64)>,
}
