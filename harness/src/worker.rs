//! The worker: the process in which the client (or the embedded store) runs.
//!
//! # Protocol
//! The harness starts a worker for each job and talks to it in lines of JSON. A worker in another
//! language does the same with `load` jobs.
//!
//! ```text
//! harness                                   worker
//!   │ stdin, line 1: the spec                  │
//!   │─────────────────────────────────────────▶│ open the system, create topics, prepare records
//!   │◀──────────────────────── {"event":"ready"}
//!   │ go                                       │
//!   │─────────────────────────────────────────▶│ the clock starts
//!   │◀─────── {"event":"sample","t_ms":500,"records":N,"bytes":N}     each 500 ms, cumulative acks
//!   │◀─────── {"event":"drained", …}           │ after the last ack; nothing is closed yet
//!   │ settle                                   │ (or SIGKILL, when the proof asks for it)
//!   │─────────────────────────────────────────▶│
//!   │◀─────── {"event":"settled","seconds":S}  │ all is flushed; S counts as measured time
//!   │ quit (or end of file)                    │
//!   │─────────────────────────────────────────▶│ exit 0
//! ```
//! At any time `{"event":"failed","error":"cause; remedy"}`, then exit. What else a worker has to
//! tell people goes to stderr.
//!
//! The spec: `{"system", "deployment", "setup", "job"}`. Of `setup` a loading client needs
//! `endpoint` ("host:port"), `topics` (names), `producers`, `one_in_flight`, `in_flight_bytes`
//! (bound per producer), `variant` (words) and `settings`. The job of a load:
//! ```json
//! {"kind":"load", "record_bytes":{"min":500,"max":1024}, "seconds":10.0, "payload_bytes":null,
//!  "rate_per_s":null, "warmup_s":0.0, "tail":false}
//! ```
//! - Closed loop (`rate_per_s` is null): each producer keeps at most `in_flight_bytes` (or one
//!   record) unacknowledged. It ends after `seconds`, or after `payload_bytes` over all producers
//!   together, whatever comes first (one of them may be null). Then the window is drained.
//! - Open loop: record number t of producer p of P is due `(t·P + p) / rate_per_s` seconds after
//!   `go`. Latency counts from then. Records due before `warmup_s` are not timed.
//! - Records are made and numbered as [`crate::record`] says. A producer's records have tickets
//!   0, 1, 2 …; ticket t goes to its topic number t mod k, with sequence t div k, where its k topics
//!   are p, p+P, p+2P … (with more producers than topics, the one topic p mod T).
//!
//! `drained`:
//! ```json
//! {"event":"drained", "duration_s":1.5, "records":10, "bytes":7600, "refused":0,
//!  "claims":[{"producer":0, "sent":10, "acked":[[0,10]]}],
//!  "latency_us":[[50.0,120.5],[99.0,900.0]], "lateness_us":[]}
//! ```
//! `duration_s` runs from `go` to the last ack; `acked` holds half-open, sorted ranges of tickets;
//! `latency_us` holds pairs of percentile and µs at [`crate::latency::PERCENTILES`].

mod read;
mod write;

use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use walrus_drivers::{DriverError, Session, registry};

use crate::wire::{Event, Job, Spec};

/// Time between two samples.
pub const SAMPLE_EVERY: Duration = Duration::from_millis(500);
/// The same when a node is killed meanwhile.
const SAMPLE_OFTEN: Duration = Duration::from_millis(100);

/// Why a worker gave up.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The harness sent something that is no spec.
    #[error("bad spec: {0}")]
    Spec(#[from] serde_json::Error),
    /// The pipe to the harness broke; it is gone.
    #[error("the harness is gone: {0}")]
    Pipe(#[from] std::io::Error),
    /// The driver failed.
    #[error("{0}")]
    Driver(#[from] DriverError),
    /// A thread of the worker panicked.
    #[error("a thread of the worker panicked")]
    Panic,
}

/// Runs one job from stdin to stdout; the exit code of the process.
pub fn main() -> i32 {
    match run() {
        Ok(()) => 0,
        Err(WorkerError::Pipe(_)) => 2,
        Err(error) => {
            let _ = say(&Event::Failed { error: error.to_string() });
            1
        }
    }
}

fn run() -> Result<(), WorkerError> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let spec: Spec = serde_json::from_str(&line)?;
    let system = registry::find(&spec.system, spec.deployment).ok_or_else(|| DriverError::Unavailable {
        cause: format!("{} is not built into this harness", spec.system),
        remedy: "build it with its feature (`--features kafka,rocksdb`)".into(),
    })?;
    let opening = Instant::now();
    let session = system.open(&spec.setup)?;
    run_job(&spec, session.as_ref(), opening)
}

fn run_job(spec: &Spec, session: &dyn Session, opening: Instant) -> Result<(), WorkerError> {
    match &spec.job {
        Job::Load(load) => {
            session.create_topics()?;
            let drained = write::run(&spec.setup, session, load)?;
            say(&Event::Drained(Box::new(drained)))?;
            settle(session)
        }
        Job::Verify { claims, threads } => {
            let open_s = opening.elapsed().as_secs_f64();
            let proof = read::verify(&spec.setup, session, claims, *threads)?;
            say(&Event::Verified { proof, open_s })?;
            settle(session)
        }
        Job::Read { records, threads } => {
            let drained = read::measure(&spec.setup, session, *records, *threads)?;
            say(&Event::Drained(Box::new(drained)))?;
            settle(session)
        }
        Job::Remove => {
            let started = Instant::now();
            if !session.remove_topics()? {
                let error = "this system cannot remove topics from a running server".to_owned();
                return Ok(say(&Event::Failed { error })?);
            }
            Ok(say(&Event::Settled { seconds: started.elapsed().as_secs_f64() })?)
        }
    }
}

/// Waits for `settle` or the end.
fn settle(session: &dyn Session) -> Result<(), WorkerError> {
    while let Some(command) = hear()? {
        match command.as_str() {
            "settle" => {
                let started = Instant::now();
                session.settle()?;
                say(&Event::Settled { seconds: started.elapsed().as_secs_f64() })?;
            }
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// Says that everything is prepared and waits for `go`; false if the harness hung up instead.
fn ready() -> Result<bool, WorkerError> {
    say(&Event::Ready)?;
    Ok(hear()?.as_deref() == Some("go"))
}

/// Next command; `None` at the end of file.
fn hear() -> Result<Option<String>, std::io::Error> {
    let mut line = String::new();
    let bytes = std::io::stdin().lock().read_line(&mut line)?;
    Ok((bytes > 0).then(|| line.trim().to_owned()))
}

fn say(event: &Event) -> Result<(), std::io::Error> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}
