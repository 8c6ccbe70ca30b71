//! One file per system under test. A driver adapts and never measures: it starts and stops the
//! system, hands records over, reports acknowledgements, and reads records back.
//!
//! ```text
//! harness (parent)  ── System::start ──▶ Server (child process; networked systems only)
//!    └─ worker (child) ── System::open ──▶ Session ──▶ Producer × P, then Consumer × topics
//! ```
//!
//! Embedded systems live inside the worker, so that killing the worker kills the system.

#[cfg(feature = "kafka")]
pub mod kafka;
pub mod not_built;
pub mod null;
pub mod ports;
pub mod process;
#[cfg(target_os = "linux")]
pub mod raw;
pub mod registry;
#[cfg(feature = "rocksdb")]
pub mod rocksdb;
mod server_process;
mod settings;
mod topic_batch;
pub mod upstream;
pub mod walrus;
pub mod walrus_embedded;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Does the system run inside the client's process or behind a socket?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deployment {
    /// In the client's process.
    Embedded,
    /// A process of its own, through a socket.
    Networked,
}

/// What an acknowledgement of the system promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Acknowledged from process memory.
    Memory,
    /// Acknowledged once the kernel has it.
    PageCache,
    /// Acknowledged once flushed to the device.
    Synced,
}

/// Everything that a driver needs to know about one run. Goes to the worker as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Setup {
    /// Empty directory for the system's data; the harness removes it afterwards.
    pub data_dir: PathBuf,
    /// Topics, one partition each.
    pub topics: Vec<String>,
    /// Tier that the run asks for.
    pub tier: Tier,
    /// How many producers will run; ids are 0..producers.
    pub producers: u32,
    /// One record in flight a producer, instead of `in_flight_bytes`.
    pub one_in_flight: bool,
    /// Bound on unacknowledged payload bytes of each producer (the harness keeps to it; drivers
    /// may size their buffers from it).
    pub in_flight_bytes: u64,
    /// Words of the row's variant (`put`, `append`, `vanilla`, `tuned`, `batch`, `idempotent` …).
    pub variant: Vec<String>,
    /// Settings from the profile (`drivers/profiles/*.toml`), by the system's own names.
    pub settings: toml::Table,
    /// Where things that were built or resolved are: the `walrus` binary, Kafka's jars.
    pub tools: Tools,
    /// `host:port` of a running server, once there is one; of a cluster all, separated by commas.
    pub endpoint: Option<String>,
    /// Server processes that form one cluster. With more than one, each topic has as many replicas
    /// (three at most), of which a majority must have a record before it is acknowledged.
    #[serde(default = "one")]
    pub nodes: u32,
}

fn one() -> u32 {
    1
}

impl Setup {
    /// Copies of each record.
    pub fn replicas(&self) -> u32 {
        self.nodes.min(3)
    }
}

/// Paths of programs that drivers start.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Tools {
    /// The shipped `walrus` release binary.
    pub walrus_bin: Option<PathBuf>,
    /// Directory with Kafka's jars (`mvn dependency:copy-dependencies`).
    pub kafka_libs: Option<PathBuf>,
    /// The harness itself, for helper processes such as the raw server.
    pub harness_bin: Option<PathBuf>,
}

/// Errors of drivers; each text names the cause and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The system cannot run on this machine (no Java, port taken, not built in …).
    #[error("{cause}; {remedy}")]
    Unavailable {
        /// What is missing.
        cause: String,
        /// What to type or change.
        remedy: String,
    },
    /// The system answered with an error.
    #[error("{0}")]
    System(String),
    /// An I/O failure.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// A running server process. Dropping it stops it (SIGTERM, then SIGKILL); it also dies with the
/// harness (`PR_SET_PDEATHSIG`).
pub trait Server: Send {
    /// `host:port` for clients; of a cluster all, separated by commas.
    fn endpoint(&self) -> &str;
    /// Ids of all processes, for CPU and memory accounting.
    fn pids(&self) -> Vec<u32>;
    /// SIGKILL to the one process of a cluster that leads this topic, and wait until it is gone.
    fn kill_leader_of(&mut self, topic: &str) -> Result<(), DriverError> {
        Err(DriverError::System(format!("a single server has no leader of {topic} to lose apart from itself")))
    }
    /// SIGKILL to all processes, and wait until they are gone.
    fn kill(&mut self) -> Result<(), DriverError>;
    /// Starts it again on the same data and the same port; returns when it is ready.
    fn restart(&mut self) -> Result<(), DriverError>;
    /// Clean stop.
    fn stop(&mut self) -> Result<(), DriverError>;
}

/// A system under test.
pub trait System: Send + Sync {
    /// Short name as in the CSV (`walrus`, `kafka`, `rocksdb`, …).
    fn name(&self) -> &'static str;
    /// Where it runs.
    fn deployment(&self) -> Deployment;
    /// Version of what is really running, for `env.json`.
    fn version(&self, tools: &Tools) -> String;
    /// Says early, with a remedy, why the system cannot run here.
    fn check(&self, tools: &Tools) -> Result<(), DriverError>;
    /// Starts the server and waits until it is ready. `None` for embedded systems.
    fn start(&self, setup: &Setup) -> Result<Option<Box<dyn Server>>, DriverError>;
    /// Opens the client side, or the embedded store, in this process. Opening an existing
    /// `data_dir` again (after a kill) finds the data of before.
    fn open(&self, setup: &Setup) -> Result<Box<dyn Session>, DriverError>;
    /// Command line of a worker in another language, which speaks the protocol of the harness's
    /// `worker.rs` on stdin and stdout, for systems whose client is not Rust. The harness spawns
    /// it instead of its own worker for *loading*; reading back goes through `open`.
    fn worker_command(&self, _setup: &Setup) -> Result<Option<Vec<String>>, DriverError> {
        Ok(None)
    }
    /// Does a fresh server process need minutes of load before it is fast (a JVM)? Then the
    /// harness keeps one server for several runs with the same settings and warms it once.
    fn needs_warmup(&self) -> bool {
        false
    }
    /// Setups with equal keys can share one running server (see `needs_warmup`). A driver whose
    /// settings are partly the client's leaves those out of the key.
    fn server_key(&self, setup: &Setup) -> String {
        format!("{} {:?} {}", self.name(), setup.tier, setup.settings)
    }
}

/// An open system, shared by the threads of one worker.
pub trait Session: Send + Sync {
    /// Creates the topics of the setup (existing ones are fine).
    fn create_topics(&self) -> Result<(), DriverError>;
    /// A producer, used by one thread. `id` < `setup.producers`.
    fn producer(&self, id: u32) -> Result<Box<dyn Producer + '_>, DriverError>;
    /// A reader of one topic from its start (or, `at_end`, of what comes after the call).
    fn consumer(&self, topic: usize, at_end: bool) -> Result<Box<dyn Consumer + '_>, DriverError>;
    /// Removes the topics of the setup and their data from a running server, for systems whose
    /// server outlives one run (`System::needs_warmup`). `false`: this system can't.
    fn remove_topics(&self) -> Result<bool, DriverError> {
        Ok(false)
    }
    /// Flushes what the system still holds (`RocksDB`: memtables and compaction), inside the
    /// measured time.
    fn settle(&self) -> Result<(), DriverError> {
        Ok(())
    }
}

/// Acknowledgement of the records `first_ticket .. first_ticket + count` of one producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// Ticket of the first record (tickets are given by the caller of `send`, rising from 0).
    pub first_ticket: u64,
    /// How many consecutive tickets.
    pub count: u64,
    /// False: the system refused them.
    pub ok: bool,
}

/// Hands records over. Used by one thread.
pub trait Producer: Send {
    /// Takes one record (copied or written before it returns). May coalesce; may block while the
    /// system pushes back. Tickets rise by one from 0 over all topics of this producer.
    fn send(&mut self, topic: usize, ticket: u64, record: &[u8]) -> Result<(), DriverError>;
    /// Pushes out what was coalesced (as far as the profile's own linger asks for it) and
    /// collects acknowledgements; waits up to `wait` for at least one if none is there.
    fn poll(&mut self, wait: Duration, acks: &mut Vec<Ack>) -> Result<(), DriverError>;
    /// Are acknowledgements there to be collected? Only systems whose calls return once the record is
    /// stored say so: there the load does not wait for a full window to hear of it.
    fn has_acks(&self) -> bool {
        false
    }
    /// Pushes out everything now; the run is about to drain.
    fn flush(&mut self) -> Result<(), DriverError>;
}

/// Reads records back in order. Used by one thread.
pub trait Consumer: Send {
    /// Calls `sink` for each of the next records and returns how many; waits up to `wait` for
    /// data; 0 means that none came (the end, unless more is being written).
    fn fetch(&mut self, wait: Duration, sink: &mut dyn FnMut(&[u8])) -> Result<usize, DriverError>;
}

/// Sizes a directory tree in bytes; helper for drivers and the harness.
pub fn dir_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => dir_bytes(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}
