//! One run of one row: start, load, (kill,) read back, stop, clean up.
//!
//! ```text
//!  start server ─▶ spawn worker ─ready▶ take counters ─go▶ samples … drained ─▶ take counters
//!                                                              │ killed run: SIGKILL to the process
//!                                                              │ that holds the data, then restart
//!  summary row ◀─ stop, remove data, wait for the device ◀─ fresh worker proves what was acked
//! ```

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use walrus_drivers::{Deployment, Server, Setup, System, Tier, Tools, registry};

use crate::child::{RunError, Worker};
use crate::csv::{LatencyRow, SummaryRow, ThroughputRow};
use crate::fleet::{self, Fleet, Running};
use crate::latency;
use crate::machine;
use crate::meter::{Meter, Reading};
use crate::proc::Device;
use crate::profile::RowName;
use crate::settings;
use crate::verify::{Claim, Proof};
use crate::wire::{Drained, Event, Job, Load, Spec};
use crate::workload::{Case, Kind};

/// A worker that says nothing for so long is stuck.
const PATIENCE: Duration = Duration::from_mins(3);

/// A cold read with more of its files still in the page cache is not cold.
const CACHED_PCT_MAX: f64 = 5.0;

/// What all runs share.
#[derive(Debug, Clone)]
pub struct Env {
    /// Where systems put their data.
    pub bench_dir: PathBuf,
    /// Programs that drivers start.
    pub tools: Tools,
    /// Directory of the systems' settings.
    pub settings_dir: Option<PathBuf>,
    /// The block device below `bench_dir`.
    pub device: Option<Device>,
    /// A Kafka broker that is already there.
    pub kafka_bootstrap: Option<String>,
    /// The best `raw` of each tier, with a window and (`true`) with one record in flight.
    pub raw_settings: HashMap<(Tier, bool), toml::Table>,
    /// CPUs of the machine.
    pub cores: u32,
    /// Settings to use instead of those of the profiles (trials of `harness tune`).
    pub settings_override: Option<toml::Table>,
}

impl Env {
    /// The same, with these settings for every row.
    #[must_use]
    pub fn with_settings(&self, settings: toml::Table) -> Env {
        Env { settings_override: Some(settings), ..self.clone() }
    }
}

/// One run that is to be done.
#[derive(Debug, Clone)]
pub struct Task {
    /// Unique in the results directory.
    pub run_id: String,
    /// Name of the workload.
    pub workload: String,
    /// Its point.
    pub case: Case,
    /// The system and how it is used.
    pub row: RowName,
    /// Number of the repeat, from 1.
    pub repeat: u32,
    /// SIGKILL after the last acknowledgement?
    pub kill: bool,
    /// The load; of reads: what is written before.
    pub load: Load,
    /// Words that go into the marks.
    pub marks: Vec<String>,
}

/// What a run gave.
#[derive(Debug)]
pub struct Outcome {
    /// Its row.
    pub summary: SummaryRow,
    /// Its curve.
    pub throughput: Vec<ThroughputRow>,
    /// Its latencies.
    pub latencies: Vec<LatencyRow>,
}

/// Runs a task. A failure of the system is an outcome with an error; only an interruption is `Err`.
pub fn run(env: &Env, fleet: &mut Fleet, task: &Task) -> Result<Outcome, RunError> {
    let mut outcome = Outcome { summary: blank_row(task), throughput: Vec::new(), latencies: Vec::new() };
    let data_dir = env.bench_dir.join("run");
    let result = clean(&data_dir).and_then(|()| attempt(env, fleet, task, &mut outcome));
    let cleaned = clean(&data_dir).and_then(|()| machine::quiesce());
    for result in [result, cleaned] {
        match result {
            Err(RunError::Interrupted) => return Err(RunError::Interrupted),
            Err(error) if outcome.summary.error.is_empty() => {
                outcome.summary.error = error.to_string();
                outcome.summary.verified = false;
            }
            _ => {}
        }
    }
    Ok(outcome)
}

fn clean(dir: &Path) -> Result<(), RunError> {
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    std::fs::create_dir_all(dir)?;
    Ok(())
}

fn attempt(env: &Env, fleet: &mut Fleet, task: &Task, outcome: &mut Outcome) -> Result<(), RunError> {
    let system = registry::find(&task.row.system, task.row.deployment)
        .ok_or_else(|| RunError::System(not_built(&task.row.system)))?;
    system.check(&env.tools)?;
    let mut run = Run { env, task, system: system.as_ref(), setup: setup(env, task)?, kill: task.kill };
    if !system.needs_warmup() {
        let mut server = system.start(&run.setup)?;
        // The proof reads what two of three nodes have; the third one may stay away.
        run.kill &= task.case.kind != Kind::Failover;
        run.setup.endpoint = server.as_ref().map(|server| server.endpoint().to_owned());
        run.measure(&mut server, outcome)?;
        return server.map_or(Ok(()), |mut server| Ok(server.stop()?));
    }
    // Topics of their own, since the server has a past and a future.
    run.setup.topics = fleet.fresh_topics(task.case.topics);
    let Some(running) = fleet.take(run.system, &mut run.setup, &task.load)? else {
        return run.measure_external(outcome);
    };
    outcome.summary.warmup_s = running.warmup_s;
    let Running { key, server, data_dir, warmup_s } = running;
    let mut server = Some(server);
    run.measure(&mut server, outcome)?;
    match server {
        Some(server) => {
            let running = Running { key, server, data_dir, warmup_s };
            let is_cold = task.kill || task.case.kind == Kind::Failover;
            fleet.give_back(running, &run.setup, run.system, is_cold)
        }
        None => Ok(()),
    }
}

/// Cause and remedy for a system that this binary does not know.
pub fn not_built(system: &str) -> String {
    format!("{system} is not built into this harness; build it with `--features kafka,rocksdb`")
}

fn setup(env: &Env, task: &Task) -> Result<Setup, RunError> {
    let variant: Vec<String> = task.row.variant.split('-').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let is_latency = matches!(task.case.kind, Kind::Open | Kind::Tail | Kind::Failover);
    let best_raw = env.raw_settings.get(&task.case.ceiling_key()).filter(|_| is_embedded_raw(&task.row));
    // The networked ceiling is driven by our client, with our client's settings.
    let is_networked_raw = task.row.system == "raw" && task.row.deployment == Deployment::Networked;
    let whose = if is_networked_raw { "walrus" } else { &task.row.system };
    let mut words = variant.clone();
    words.extend((task.case.nodes > 1).then(|| "cluster".to_owned()));
    let mut settings = match env.settings_override.as_ref().or(best_raw) {
        Some(table) => table.clone(),
        None => settings::for_row(env.settings_dir.as_deref(), whose, &words, task.case.tier, is_latency)
            .map_err(|error| RunError::System(error.to_string()))?,
    };
    if is_networked_raw {
        settings.remove("server");
    }
    Ok(Setup {
        data_dir: env.bench_dir.join("run"),
        topics: (0..task.case.topics).map(|topic| format!("bench-{topic}")).collect(),
        tier: task.case.tier,
        producers: task.case.producers,
        one_in_flight: task.case.window_bytes.is_none(),
        in_flight_bytes: task.case.window_bytes.unwrap_or(task.case.record_bytes.max as u64),
        variant,
        settings,
        tools: env.tools.clone(),
        endpoint: env.kafka_bootstrap.clone().filter(|_| task.row.system.starts_with("kafka")),
        nodes: task.case.nodes,
    })
}

fn is_embedded_raw(row: &RowName) -> bool {
    row.system == "raw" && row.deployment == Deployment::Embedded
}

/// A run whose server is up.
struct Run<'a> {
    env: &'a Env,
    task: &'a Task,
    system: &'a dyn System,
    setup: Setup,
    kill: bool,
}

type MaybeServer = Option<Box<dyn Server>>;

impl Run<'_> {
    fn spec(&self, job: Job) -> Spec {
        Spec {
            system: self.task.row.system.clone(),
            deployment: self.task.row.deployment,
            setup: self.setup.clone(),
            job,
        }
    }

    /// A server that somebody else runs: it is not ours to kill, and not ours to litter.
    fn measure_external(mut self, outcome: &mut Outcome) -> Result<(), RunError> {
        self.kill = false;
        outcome.summary.add_mark("external");
        let measured = self.measure(&mut None, outcome);
        fleet::remove_topics(self.system, &self.setup)?;
        measured
    }

    fn measure(&self, server: &mut MaybeServer, outcome: &mut Outcome) -> Result<(), RunError> {
        let reads = matches!(self.task.case.kind, Kind::ReadCold | Kind::ReadWarm);
        let loaded = self.load(server, outcome, reads)?;
        if is_unprovable(&self.task.row) {
            return if reads { Err(RunError::System("it keeps nothing to read".into())) } else { Ok(()) };
        }
        let (proof, settle_s) = self.prove(loaded.claims)?;
        if self.kill {
            // What the kill left to be flushed and compacted belongs to the measured time.
            rate(&mut outcome.summary, settle_s);
        }
        judge(&mut outcome.summary, &proof);
        if reads {
            self.read(server, loaded.records, outcome)?;
        }
        Ok(())
    }

    /// Writes. Of a read workload this part is not measured.
    fn load(&self, server: &mut MaybeServer, outcome: &mut Outcome, unmeasured: bool) -> Result<Drained, RunError> {
        let command = self.system.worker_command(&self.setup)?;
        let spec = self.spec(Job::Load(self.task.load.clone()));
        let mut worker = Worker::spawn(&spec, command)?;
        hear_ready(&worker)?;
        let mut meter = self.go(&mut worker, server.as_deref())?;
        let mut scrap = Outcome { summary: outcome.summary.clone(), throughput: Vec::new(), latencies: Vec::new() };
        let fault = (self.task.case.kind == Kind::Failover).then_some(server.as_mut()).flatten();
        let fault = fault.zip(self.task.load.kill_at_s).map(|(server, at_s)| Fault {
            server: server.as_mut(),
            topic: &self.setup.topics[0],
            at_ms: (at_s * 1e3) as u64,
        });
        let drained = watch(&worker, &mut meter, &mut outcome.throughput, &self.task.run_id, fault)?;
        let mut reading = meter.read();
        let mut settle_s = 0.0;
        if self.kill {
            if let Some(server) = server {
                server.kill()?;
            }
            // Embedded: it holds the data. Networked: a client whose server is gone has no manners.
            worker.kill()?;
            outcome.summary.add_mark("killed");
        } else {
            settle_s = settle(&mut worker)?;
            reading = meter.read();
            worker.quit()?;
        }
        if let (true, Some(server)) = (self.kill, server) {
            server.restart()?;
        }
        let target = if unmeasured { &mut scrap } else { &mut *outcome };
        self.account(&drained, settle_s, &reading, target);
        if unmeasured {
            outcome.throughput.clear();
        }
        Ok(drained)
    }

    /// Takes the counters and starts the clock of a worker that is ready.
    fn go(&self, worker: &mut Worker, server: Option<&dyn Server>) -> Result<Meter, RunError> {
        let server_pids = server.map(Server::pids);
        let meter = Meter::start(worker.pid(), server_pids, self.env.device.clone());
        worker.say("go")?;
        Ok(meter)
    }

    /// Reads everything back in a fresh worker; the proof, and seconds spent on settling.
    fn prove(&self, claims: Vec<Claim>) -> Result<(Proof, f64), RunError> {
        let spec = self.spec(Job::Verify { claims, threads: self.env.cores });
        let mut worker = Worker::spawn(&spec, None)?;
        let patience = PATIENCE + Duration::from_mins(10);
        let Event::Verified { proof, .. } = worker.hear(patience, "it read everything back")? else {
            return Err(RunError::WorkerDied);
        };
        let settle_s = if self.kill { settle(&mut worker)? } else { 0.0 };
        worker.quit()?;
        Ok((proof, settle_s))
    }

    fn read(&self, server: &mut MaybeServer, records: u64, outcome: &mut Outcome) -> Result<(), RunError> {
        let threads = self.task.case.topics.min(10);
        let mut worker = Worker::spawn(&self.spec(Job::Read { records, threads }), None)?;
        hear_ready(&worker)?;
        // Only now: opening an embedded store may read its files.
        if self.task.case.kind == Kind::ReadCold {
            let left_pct = machine::drop_cache(&self.setup.data_dir)?;
            outcome.summary.add_mark(&format!("cached_pct={left_pct:.1}"));
            if left_pct > CACHED_PCT_MAX {
                return Err(RunError::System(format!("{left_pct:.0} % of the files stayed in the page cache")));
            }
        }
        let mut meter = self.go(&mut worker, server.as_deref())?;
        let drained = watch(&worker, &mut meter, &mut outcome.throughput, &self.task.run_id, None)?;
        let reading = meter.read();
        worker.quit()?;
        self.account(&drained, 0.0, &reading, outcome);
        if drained.records < records {
            let text = format!("read {} of {records} records", drained.records);
            return Err(RunError::System(text));
        }
        Ok(())
    }

    /// Fills the summary row from what the worker and the kernel said.
    fn account(&self, drained: &Drained, settle_s: f64, reading: &Reading, outcome: &mut Outcome) {
        let task = self.task;
        let row = &mut outcome.summary;
        row.duration_s = drained.duration_s;
        row.records_acked = drained.records;
        row.payload_bytes_total = drained.bytes;
        if drained.records > 0 {
            row.record_bytes_mean = drained.bytes as f64 / drained.records as f64;
        }
        rate(row, settle_s);
        row.p50_us = latency::at(&drained.latency_us, 50.0);
        row.p99_us = latency::at(&drained.latency_us, 99.0);
        row.p999_us = latency::at(&drained.latency_us, 99.9);
        row.p9999_us = latency::at(&drained.latency_us, 99.99);
        row.peak_records_per_s = peak(&outcome.throughput);
        reading.fill(row, self.env.cores);
        if task.load.payload_bytes.is_some_and(|bytes| drained.bytes < bytes / 100 * 95) {
            row.add_mark("time-limit");
        }
        if drained.refused > 0 {
            row.add_mark(&format!("refused={}", drained.refused));
        }
        if let Some(ms) = drained.longest_pause_ms {
            row.add_mark(&format!("gap_ms={ms:.0}"));
        }
        if let Some(late) = latency::at(&drained.lateness_us, 99.0) {
            row.add_mark(&format!("late_p99_us={late:.0}"));
        }
        if task.case.tier == Tier::Synced {
            self.require_flushes(row);
        }
        let achieved_per_s = row.records_per_s;
        outcome.latencies = drained
            .latency_us
            .iter()
            .map(|&(percentile, latency_us)| LatencyRow {
                run_id: task.run_id.clone(),
                offered_per_s: task.case.rate_per_s,
                achieved_per_s,
                percentile,
                latency_us,
            })
            .collect();
    }

    /// Rule 2: a synced row without device flushes is a failed row.
    fn require_flushes(&self, row: &mut SummaryRow) {
        let Some(flushes) = row.device_flushes else { return };
        let per_1000 = flushes as f64 * 1000.0 / row.records_acked.max(1) as f64;
        row.add_mark(&format!("flushes_per_1000={per_1000:.2}"));
        if flushes == 0 && row.error.is_empty() && self.task.row.system != "null" {
            row.error = "the device saw no flush, so nothing was synced".into();
        }
    }
}

/// Waits until the worker has opened the system.
fn hear_ready(worker: &Worker) -> Result<(), RunError> {
    match worker.hear(PATIENCE, "it opened the system")? {
        Event::Ready => Ok(()),
        _ => Err(RunError::WorkerDied),
    }
}

/// Ceilings that keep nothing in a form that could be read back.
fn is_unprovable(row: &RowName) -> bool {
    matches!(row.system.as_str(), "null" | "raw")
}

/// What is done to a cluster in the middle of a failover run.
struct Fault<'a> {
    server: &'a mut dyn Server,
    topic: &'a str,
    at_ms: u64,
}

/// Collects samples until the worker has drained.
fn watch(
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

fn settle(worker: &mut Worker) -> Result<f64, RunError> {
    worker.say("settle")?;
    let asked = Instant::now();
    match worker.hear(PATIENCE * 2, "it flushed and compacted")? {
        Event::Settled { seconds } => Ok(seconds),
        _ => Ok(asked.elapsed().as_secs_f64()),
    }
}

/// Adds `extra_s` to the measured time and derives the rates.
fn rate(row: &mut SummaryRow, extra_s: f64) {
    // Most systems settle in no time; do not let the clock's noise into their rows.
    if extra_s > 0.001 {
        row.duration_s += extra_s;
    }
    let seconds = row.duration_s.max(1e-9);
    row.records_per_s = row.records_acked as f64 / seconds;
    row.payload_mb_per_s = row.payload_bytes_total as f64 / seconds / 1e6;
}

/// Best interval between two samples (the last one may be short and does not count).
fn peak(curve: &[ThroughputRow]) -> Option<f64> {
    let full = |pair: &&[ThroughputRow]| pair[1].t_ms - pair[0].t_ms >= 400;
    let per_s = |pair: &[ThroughputRow]| {
        let records = pair[1].records_acked.saturating_sub(pair[0].records_acked);
        records as f64 * 1000.0 / (pair[1].t_ms - pair[0].t_ms) as f64
    };
    let first = curve.first().filter(|row| row.t_ms >= 400);
    let first = first.map(|row| row.records_acked as f64 * 1000.0 / row.t_ms as f64);
    curve
        .windows(2)
        .filter(full)
        .map(per_s)
        .chain(first)
        .fold(None, |best: Option<f64>, rate| Some(best.map_or(rate, |best| best.max(rate))))
}

/// Takes the findings into the row.
fn judge(row: &mut SummaryRow, proof: &Proof) {
    row.duplicates = proof.duplicates;
    if proof.unacked_stored > 0 {
        row.add_mark(&format!("unacked-stored={}", proof.unacked_stored));
    }
    match proof.verdict() {
        Ok(()) => row.verified = true,
        Err(why) if row.has_mark("killed") => {
            row.error = format!("after SIGKILL and restart {why}: not the tier that it claims");
        }
        Err(why) => row.error = why,
    }
}

/// The row before anything was measured; it stays like this if the system cannot run.
pub fn blank_row(task: &Task) -> SummaryRow {
    let case = &task.case;
    SummaryRow {
        run_id: task.run_id.clone(),
        workload: task.workload.clone(),
        system: task.row.system.clone(),
        variant: task.row.variant.clone(),
        deployment: task.row.deployment,
        tier: case.tier,
        producers: case.producers,
        topics: case.topics,
        record_bytes_mean: case.record_bytes.mean(),
        in_flight: case.in_flight(),
        repeat: task.repeat,
        duration_s: 0.0,
        records_acked: 0,
        records_per_s: 0.0,
        payload_mb_per_s: 0.0,
        p50_us: None,
        p99_us: None,
        p999_us: None,
        cpu_s_per_million_client: None,
        cpu_s_per_million_server: None,
        disk_bytes_per_payload_byte: None,
        peak_rss_mb: None,
        ceiling_pct: None,
        verified: false,
        error: String::new(),
        load_mode: case.kind.load_mode(),
        offered_per_s: case.rate_per_s,
        p9999_us: None,
        peak_records_per_s: None,
        nodes: case.nodes,
        replicas: case.nodes.min(3),
        warmup_s: 0.0,
        payload_bytes_total: 0,
        device_flushes: None,
        steal_pct: None,
        duplicates: 0,
        marks: task.marks.join(" "),
    }
}
