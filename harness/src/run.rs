//! One run of one row: start, load, (kill,) read back, stop, clean up.
//!
//! ```text
//!  start server ─▶ spawn worker ─ready▶ take counters ─go▶ samples … drained ─▶ take counters
//!                                                              │ killed run: SIGKILL to the process
//!                                                              │ that holds the data, then restart
//!  summary row ◀─ stop, remove data, wait for the device ◀─ fresh worker proves what was acked
//! ```

mod row;
mod setup;
mod watch;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use walrus_drivers::{Server, Setup, System, Tier, Tools, registry};

use crate::child::{RunError, Worker};
use crate::csv::{LatencyRow, SummaryRow, ThroughputRow};
use crate::fleet::{self, Fleet, Running};
use crate::machine;
use crate::meter::Meter;
use crate::plan;
use crate::proc::Device;
use crate::profile::RowName;
use crate::verify::{Claim, Proof};
use crate::wire::{Drained, Event, Job, Load, Spec};
use crate::workload::{Case, Kind};
use watch::{Fault, PATIENCE, hear_ready};

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
    let mut outcome = Outcome { summary: row::blank_row(task), throughput: Vec::new(), latencies: Vec::new() };
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
    let setup = setup::setup(env, task)?;
    // A broker that is there already needs nothing of ours, unless the client does.
    if setup.endpoint.is_none() || task.row.system != "kafka" {
        system.check(&env.tools)?;
    }
    let mut run = Run { env, task, system: system.as_ref(), setup, kill: task.kill };
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
    let Running { key, server, data_dir, warmed } = running;
    outcome.summary.warmup_s = warmed.seconds;
    if warmed.is_cut {
        outcome.summary.add_mark("warm-up-cut");
    }
    let mut server = Some(server);
    run.measure(&mut server, outcome)?;
    match server {
        Some(server) => {
            let running = Running { key, server, data_dir, warmed };
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
            row::rate(&mut outcome.summary, settle_s);
        }
        row::judge(&mut outcome.summary, &proof);
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
        // The last thing before the clock starts: what is free does not stay warm for long.
        let (case, load) = (&self.task.case, &self.task.load);
        // Bursts are over before much of it is given back.
        let seconds = load.seconds.filter(|_| case.kind == Kind::Sustained).unwrap_or(0.0);
        let page_cache_bytes = plan::page_cache_bytes(case, load);
        let full_cache = machine::warm_page_cache(&self.env.bench_dir, page_cache_bytes, seconds)?;
        let mut meter = self.go(&mut worker, server.as_deref())?;
        let mut scrap = Outcome { summary: outcome.summary.clone(), throughput: Vec::new(), latencies: Vec::new() };
        let fault = (self.task.case.kind == Kind::Failover).then_some(server.as_mut()).flatten();
        let fault = fault.zip(self.task.load.kill_at_s).map(|(server, at_s)| Fault {
            server: server.as_mut(),
            topic: &self.setup.topics[0],
            at_ms: (at_s * 1e3) as u64,
        });
        let drained = watch::watch(&worker, &mut meter, &mut outcome.throughput, &self.task.run_id, fault)?;
        drop(full_cache);
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
            settle_s = watch::settle(&mut worker)?;
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
        let settle_s = if self.kill { watch::settle(&mut worker)? } else { 0.0 };
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
        let drained = watch::watch(&worker, &mut meter, &mut outcome.throughput, &self.task.run_id, None)?;
        let reading = meter.read();
        worker.quit()?;
        self.account(&drained, 0.0, &reading, outcome);
        if drained.records < records {
            let text = format!("read {} of {records} records", drained.records);
            return Err(RunError::System(text));
        }
        Ok(())
    }
}

/// Ceilings that keep nothing in a form that could be read back.
fn is_unprovable(row: &RowName) -> bool {
    matches!(row.system.as_str(), "null" | "raw")
}
