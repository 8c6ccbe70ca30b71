//! The worker during a run: ready, under load (while a node may be killed), settled.

use std::time::{Duration, Instant};

use walrus_drivers::Server;

use crate::child::{RunError, Worker};
use crate::csv::ThroughputRow;
use crate::meter::Meter;
use crate::wire::{Drained, Event};

/// A worker that says nothing for so long is stuck.
pub(super) const PATIENCE: Duration = Duration::from_mins(3);

/// Waits until the worker has opened the system.
pub(super) fn hear_ready(worker: &Worker) -> Result<(), RunError> {
    match worker.hear(PATIENCE, "it opened the system")? {
        Event::Ready => Ok(()),
        _ => Err(RunError::WorkerDied),
    }
}

/// What is done to a cluster in the middle of a failover run.
pub(super) struct Fault<'a> {
    pub(super) server: &'a mut dyn Server,
    pub(super) topic: &'a str,
    pub(super) at_ms: u64,
}

/// Collects samples until the worker has drained.
pub(super) fn watch(
    worker: &Worker,
    meter: &mut Meter,
    curve: &mut Vec<ThroughputRow>,
    run_id: &str,
    mut fault: Option<Fault<'_>>,
) -> Result<Drained, RunError> {
    loop {
        match worker.hear(PATIENCE, "it was under load")? {
            Event::Sample { t_ms, records, bytes } => {
                meter.sample();
                if let Some(Fault { server, topic, .. }) = fault.take_if(|fault| t_ms >= fault.at_ms) {
                    server.kill_leader_of(topic)?;
                }
                curve.push(ThroughputRow {
                    run_id: run_id.to_owned(),
                    t_ms,
                    records_acked: records,
                    bytes_acked: bytes,
                    dirty_bytes: crate::proc::dirty_bytes(),
                });
            }
            Event::Drained(drained) => {
                curve.push(ThroughputRow {
                    run_id: run_id.to_owned(),
                    t_ms: Duration::from_secs_f64(drained.duration_s).as_millis() as u64 + 1,
                    records_acked: drained.records,
                    bytes_acked: drained.bytes,
                    dirty_bytes: crate::proc::dirty_bytes(),
                });
                return Ok(*drained);
            }
            _ => {}
        }
    }
}

/// Lets the system flush and compact what it still holds; how long that took.
pub(super) fn settle(worker: &mut Worker) -> Result<f64, RunError> {
    worker.say("settle")?;
    let asked = Instant::now();
    match worker.hear(PATIENCE * 2, "it flushed and compacted")? {
        Event::Settled { seconds } => Ok(seconds),
        _ => Ok(asked.elapsed().as_secs_f64()),
    }
}
