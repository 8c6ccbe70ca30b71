//! Load jobs: a thread per producer, and one that tells what was achieved.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use walrus_drivers::{DriverError, Session, Setup};

use super::{SAMPLE_EVERY, SAMPLE_OFTEN, WorkerError, ready, say};
use crate::latency::Latencies;
use crate::load::{Lane, LaneResult, Limit, Progress, Schedule};
use crate::record::Assignment;
use crate::verify::Claim;
use crate::wire::{Drained, Event, Load};
use crate::worker::read::Tails;

/// How lanes learn that the clock runs.
#[derive(Default)]
struct Gate {
    run: OnceLock<Run>,
    open: Mutex<bool>,
    opened: Condvar,
}

/// What all lanes share once the clock runs.
struct Run {
    limit: Limit,
    schedule: Option<Schedule>,
}

impl Gate {
    /// Opens the gate, with `None` for "go home".
    fn open(&self, run: Option<Run>) {
        if let Some(run) = run {
            let _ = self.run.set(run);
        }
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.opened.notify_all();
    }

    fn wait(&self) -> Option<&Run> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.opened.wait_while(open, |open| !*open).unwrap_or_else(PoisonError::into_inner));
        self.run.get()
    }
}

/// What lanes tell the main thread.
enum Note {
    Ready,
    Done(Box<LaneResult>),
    Failed(DriverError),
}

/// Runs the load; returns after the last acknowledgement.
pub(super) fn run(setup: &Setup, session: &dyn Session, load: &Load) -> Result<Drained, WorkerError> {
    let assignment = Assignment { producers: setup.producers, topics: setup.topics.len() as u32 };
    let progress: Vec<Progress> = (0..setup.producers).map(|_| Progress::default()).collect();
    let gate = Gate::default();
    let (notes, inbox) = mpsc::channel();
    std::thread::scope(|scope| {
        let tails = if load.tail { Some(Tails::start(scope, setup, session, assignment)?) } else { None };
        for (id, progress) in (0..setup.producers).zip(&progress) {
            let (notes, gate) = (notes.clone(), &gate);
            scope.spawn(move || lane(setup, session, load, id, gate, progress, &notes));
        }
        drop(notes);
        let outcome = conduct(setup, load, &gate, tails.as_ref(), &progress, &inbox);
        gate.open(None);
        match (outcome, tails) {
            (Ok(mut drained), Some(tails)) => {
                drained.latency_us = tails.finish(drained.records)?.percentiles_us();
                Ok(drained)
            }
            (outcome, tails) => {
                tails.map(Tails::stop).transpose()?;
                outcome
            }
        }
    })
}

/// The life of a producer thread.
fn lane(
    setup: &Setup,
    session: &dyn Session,
    load: &Load,
    id: u32,
    gate: &Gate,
    progress: &Progress,
    notes: &Sender<Note>,
) {
    let work = || -> Result<Option<LaneResult>, DriverError> {
        let mut producer = session.producer(id)?;
        let assignment = Assignment { producers: setup.producers, topics: setup.topics.len() as u32 };
        let lane = Lane::new(id, assignment, &setup.topics, load.record_bytes);
        let _ = notes.send(Note::Ready);
        let Some(run) = gate.wait() else { return Ok(None) };
        let window = (!setup.one_in_flight).then_some(setup.in_flight_bytes);
        let result = match &run.schedule {
            Some(schedule) => lane.run_open(producer.as_mut(), schedule, &run.limit, progress),
            None => lane.run_closed(producer.as_mut(), window, &run.limit, progress),
        };
        result.inspect_err(|_| run.limit.abort()).map(Some)
    };
    let _ = match work() {
        Ok(Some(result)) => notes.send(Note::Done(Box::new(result))),
        Ok(None) => Ok(()),
        Err(error) => notes.send(Note::Failed(error)),
    };
}

/// Waits for all lanes, starts the clock, tells samples, and puts the results together.
fn conduct(
    setup: &Setup,
    load: &Load,
    gate: &Gate,
    tails: Option<&Tails<'_>>,
    progress: &[Progress],
    inbox: &Receiver<Note>,
) -> Result<Drained, WorkerError> {
    for _ in progress {
        match inbox.recv().map_err(|_| WorkerError::Panic)? {
            Note::Failed(error) => return Err(error.into()),
            Note::Ready | Note::Done(_) => {}
        }
    }
    if !ready()? {
        return Err(std::io::Error::other("no `go`").into());
    }
    let start = Instant::now();
    let warmup = Duration::from_secs_f64(load.warmup_s);
    let kill_at = load.kill_at_s.map(Duration::from_secs_f64);
    let schedule = load.rate_per_s.map(|rate| {
        let mut schedule = Schedule::new(start, setup.producers, rate, warmup);
        schedule.kill_at = kill_at;
        schedule
    });
    let limit = Limit::new(start, load.seconds, load.payload_bytes);
    if let (Some(tails), Some(schedule)) = (tails, schedule) {
        tails.set_schedule(schedule);
    }
    gate.open(Some(Run { limit, schedule }));
    let sample_every = if kill_at.is_some() { SAMPLE_OFTEN } else { SAMPLE_EVERY };
    let results = sample_until_done(start, sample_every, progress, inbox)?;
    Ok(put_together(start, results, progress))
}

fn sample_until_done(
    start: Instant,
    sample_every: Duration,
    progress: &[Progress],
    inbox: &Receiver<Note>,
) -> Result<Vec<LaneResult>, WorkerError> {
    let mut results = Vec::new();
    let mut next_sample = start + sample_every;
    let mut failure = None;
    while results.len() < progress.len() {
        match inbox.recv_timeout(next_sample.saturating_duration_since(Instant::now())) {
            Ok(Note::Done(result)) => results.push(*result),
            Ok(Note::Failed(error)) => failure = failure.or(Some(error)),
            Ok(Note::Ready) => {}
            Err(RecvTimeoutError::Timeout) => {
                sample(start, progress)?;
                next_sample += sample_every;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    match failure {
        Some(error) => Err(error.into()),
        None if results.len() < progress.len() => Err(WorkerError::Panic),
        None => Ok(results),
    }
}

/// Tells the sums of all lanes.
pub(super) fn sample(start: Instant, progress: &[Progress]) -> Result<(), std::io::Error> {
    let (records, bytes) = sums(progress);
    say(&Event::Sample { t_ms: start.elapsed().as_millis() as u64, records, bytes })
}

/// Records and bytes of all lanes.
pub(super) fn sums(progress: &[Progress]) -> (u64, u64) {
    use std::sync::atomic::Ordering::Relaxed;
    progress
        .iter()
        .map(|p| (p.records.load(Relaxed), p.bytes.load(Relaxed)))
        .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

fn put_together(start: Instant, results: Vec<LaneResult>, progress: &[Progress]) -> Drained {
    let (records, bytes) = sums(progress);
    let last_ack = results.iter().map(|r| r.last_ack).max().unwrap_or(start);
    let (mut latencies, mut lateness) = (Latencies::default(), Latencies::default());
    let mut claims: Vec<Claim> = Vec::new();
    let mut refused = 0;
    let pause = results.iter().filter_map(|result| result.longest_pause).max();
    for result in results {
        latencies.add(&result.latencies);
        lateness.add(&result.lateness);
        refused += result.refused;
        claims.push(result.claim);
    }
    claims.sort_by_key(|claim| claim.producer);
    Drained {
        duration_s: last_ack.saturating_duration_since(start).as_secs_f64(),
        records,
        bytes,
        refused,
        claims,
        latency_us: latencies.percentiles_us(),
        longest_pause_ms: pause.map(|pause| pause.as_secs_f64() * 1e3),
        lateness_us: lateness.percentiles_us(),
    }
}
