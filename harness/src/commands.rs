//! The command line.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use walrus_drivers::raw::server::RawServerConfig;
use walrus_drivers::{Tools, registry};

use crate::bench_dir::BenchDir;
use crate::child::{RunError, STOP};
use crate::conclude::{EXIT_INCOMPLETE, EXIT_INTERRUPTED, conclude};
use crate::machine::{self, Throttle};
use crate::plan::{Plan, Wishes};
use crate::preflight::Finding;
use crate::proc::Device;
use crate::profile::RowName;
use crate::results::ENV_FILE;
use crate::run::Env;
use crate::session::{Session, SessionError};
use crate::{estimate, preflight, provenance, show, tune, worker};

/// The command itself was wrong.
const EXIT_USAGE: i32 = 2;

#[allow(clippy::doc_markdown, reason = "the text is the help page")]
/// Runs the same workload on Walrus, Kafka and RocksDB, proves what was stored, and draws it.
#[derive(Debug, Parser)]
#[command(name = "harness", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure; results go to a directory of CSV files.
    Run(RunArgs),
    #[command(flatten)]
    Show(show::Show),
    /// List the systems that can be measured, and what is missing for the others.
    Systems,
    /// Sweep the grids of the systems' settings; results go beside the settings.
    Tune(TuneArgs),
    /// The networked ceiling (started by `run`).
    #[command(hide = true)]
    RawServer(RawServerArgs),
    /// A process in which a client runs (started by `run`).
    #[command(hide = true)]
    Worker,
}

#[derive(Debug, Args)]
struct RawServerArgs {
    /// Existing directory for the files.
    #[arg(long)]
    data_dir: PathBuf,
    /// Port on the loopback interface.
    #[arg(long)]
    port: u16,
    /// Flush each write before it is answered.
    #[arg(long)]
    synced: bool,
    /// Bytes that one read takes at most.
    #[arg(long, default_value_t = 1 << 20)]
    read_bytes: usize,
}

#[derive(Debug, Args)]
struct TuneArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Rows to tune, `system/variant`.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "walrus/put-tuned,walrus-embedded/tuned,kafka/tuned,kafka-java/tuned,rocksdb/batch-tuned,upstream/batch-tuned"
    )]
    rows: Vec<String>,
    /// Trials of every row with each workload (`--workload`: writes-burst, latency, writes-synced).
    #[arg(long, default_value_t = 12)]
    trials: usize,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Rows, seconds and repeats: smoke, quick, reference (what `results/reference` shows) or full.
    #[arg(long, default_value = "quick")]
    profile: String,
    /// Only these workloads (repeatable, or separated by commas).
    #[arg(long, value_delimiter = ',')]
    workload: Vec<String>,
    /// Only these systems, and the ceilings that they need.
    #[arg(long, value_delimiter = ',', env = "SYSTEMS")]
    systems: Vec<String>,
    /// Repeats of each row, instead of the profile's.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: Option<u32>,
    /// Seconds of each timed run, instead of the profile's.
    #[arg(long)]
    seconds: Option<f64>,
    /// Where the systems put their data (a directory of ours is made in it).
    #[arg(long, env = "BENCH_DIR", default_value = "/var/tmp")]
    bench_dir: PathBuf,
    /// Results directory; an existing one is continued. Default: results/<date>-<profile>.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Use this Kafka broker, `host:port`, instead of starting one.
    #[arg(long)]
    kafka_bootstrap: Option<String>,
    /// Directory of the systems' settings.
    #[arg(long, default_value = "drivers/profiles")]
    settings: PathBuf,
    /// Do not ask before a long run.
    #[arg(long, short)]
    yes: bool,
}

/// Parses and runs; the exit code of the process.
pub(crate) fn main() -> i32 {
    match Cli::parse().command {
        Command::Worker => worker::main(),
        Command::RawServer(args) => raw_server(&args),
        Command::Tune(args) => report(tune(&args)),
        Command::Systems => systems(),
        Command::Show(command) => report(show::run(&command).map(|()| 0).map_err(|error| error.to_string())),
        Command::Run(args) => report(run(&args)),
    }
}

fn report(result: Result<i32, String>) -> i32 {
    result.unwrap_or_else(|error| {
        eprintln!("harness: {error}");
        EXIT_USAGE
    })
}

fn tools() -> Tools {
    let harness_bin = std::env::current_exe().ok();
    let walrus_bin = harness_bin.as_deref().and_then(Path::parent).map(|dir| dir.join("walrus"));
    Tools { walrus_bin: walrus_bin.filter(|path| path.exists()), kafka_libs: None, harness_bin }
}

fn systems() -> i32 {
    let tools = tools();
    for system in registry::systems() {
        let state = match system.check(&tools) {
            Ok(()) => system.version(&tools),
            Err(error) => format!("cannot run: {error}"),
        };
        let deployment = format!("{:?}", system.deployment()).to_lowercase();
        println!("{:<16} {deployment:<10} {state}", system.name());
    }
    0
}

fn run(args: &RunArgs) -> Result<i32, String> {
    watch_signals()?;
    let throttle = Throttle::read();
    let plan = Plan::make(&args.wishes(), throttle)?;
    let out = args.out.clone().unwrap_or_else(|| default_out(&args.profile));
    announce(&plan, &out);
    if !args.yes && !agreed(&plan)? {
        return Ok(EXIT_INTERRUPTED);
    }
    let place = BenchDir::make(&args.bench_dir)?;
    std::fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    let mut env = environment(args, &place.0);
    let found = preflight::look(&plan, &place.0, &env.tools, env.cores, env.settings_dir.as_deref());
    let warnings = judge(&found)?;
    let result = prepare(&mut env, &plan).map_err(SessionError::from).and_then(|()| {
        keep_provenance(&out, &provenance::describe(&env, &plan, &args.profile, throttle, &warnings))?;
        Session::open(&env, &plan, &out)?.run()
    });
    drop(place);
    conclude(result, &out)
}

impl RunArgs {
    fn wishes(&self) -> Wishes {
        Wishes {
            profile: self.profile.clone(),
            workloads: self.workload.clone(),
            systems: self.systems.clone(),
            repeats: self.repeats,
            seconds: self.seconds,
        }
    }
}

fn announce(plan: &Plan, out: &Path) {
    let estimate = estimate::of_plan(plan);
    let minutes = (estimate.seconds / 60.0).ceil();
    let plural = if minutes > 1.0 { "s" } else { "" };
    println!(
        "{}: about {minutes:.0} minute{plural}, {:.0} GB written, {:.1} GB of disk; results in {}",
        plan.profile.about,
        estimate.written_bytes / 1e9,
        estimate.held_bytes / 1e9,
        out.display()
    );
}

/// Asks before a run of more than half an hour, if there is somebody to ask.
fn agreed(plan: &Plan) -> Result<bool, String> {
    use std::io::{IsTerminal, Write};
    if estimate::of_plan(plan).seconds < 1800.0 || !std::io::stdin().is_terminal() {
        return Ok(true);
    }
    print!("Start? [Y/n] ");
    let mut answer = String::new();
    std::io::stdout().flush().map_err(|e| e.to_string())?;
    std::io::stdin().read_line(&mut answer).map_err(|e| e.to_string())?;
    Ok(!answer.trim().to_lowercase().starts_with('n'))
}

fn environment(args: &RunArgs, bench_dir: &Path) -> Env {
    Env {
        device: Device::of(bench_dir),
        bench_dir: bench_dir.to_owned(),
        tools: tools(),
        settings_dir: Some(args.settings.clone()),
        kafka_bootstrap: args.kafka_bootstrap.clone(),
        raw_settings: HashMap::new(),
        cores: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
        settings_override: None,
    }
}

/// Prints what the preflight found; the warnings, unless something is fatal.
fn judge(findings: &[Finding]) -> Result<Vec<String>, String> {
    for finding in findings.iter().filter(|finding| !finding.is_fatal) {
        eprintln!("warning: {}", finding.text);
    }
    let fatal: Vec<&str> =
        findings.iter().filter(|finding| finding.is_fatal).map(|finding| finding.text.as_str()).collect();
    if !fatal.is_empty() {
        return Err(fatal.join("\n"));
    }
    Ok(findings.iter().map(|finding| finding.text.clone()).collect())
}

fn prepare(env: &mut Env, plan: &Plan) -> Result<(), RunError> {
    machine::warm_memory(&env.bench_dir, plan.profile.warm_memory_bytes, plan.burst_bytes)?;
    tune::best_raw(env, plan)
}

/// A continued run keeps the first description and adds its own.
fn keep_provenance(out: &Path, now: &serde_json::Value) -> Result<(), RunError> {
    let path = out.join(ENV_FILE);
    let before = std::fs::read_to_string(&path).ok();
    let before: Option<serde_json::Value> = before.and_then(|text| serde_json::from_str(&text).ok());
    let mut all = before.unwrap_or_else(|| now.clone());
    if let Some(map) = all.as_object_mut().filter(|map| map.get("started_utc") != now.get("started_utc")) {
        let continued = map.entry("continued").or_insert_with(|| serde_json::json!([]));
        if let Some(list) = continued.as_array_mut() {
            list.push(now.clone());
        }
    }
    let text = serde_json::to_string_pretty(&all).map_err(std::io::Error::from)?;
    Ok(std::fs::write(path, text)?)
}

fn tune(args: &TuneArgs) -> Result<i32, String> {
    watch_signals()?;
    let place = BenchDir::make(&args.run.bench_dir)?;
    let env = environment(&args.run, &place.0);
    let mut rows: Vec<RowName> = args.rows.iter().map(|row| RowName::parse(row)).collect::<Result<_, _>>()?;
    let wanted = &args.run.systems;
    rows.retain(|row| wanted.is_empty() || wanted.contains(&row.system));
    if rows.is_empty() {
        return Err(format!("no row of {} is to be tuned; name some with --rows system/variant", wanted.join(",")));
    }
    let every = || ["writes-burst", "latency", "writes-synced"].map(str::to_owned).to_vec();
    let sweep = tune::Sweep {
        rows,
        workloads: if args.run.workload.is_empty() { every() } else { args.run.workload.clone() },
        trials: args.trials,
        seconds: args.run.seconds.unwrap_or(5.0),
    };
    let result = tune::sweep(&env, &sweep, &args.run.settings);
    drop(place);
    match result {
        Ok(()) => Ok(0),
        Err(tune::TuneError::Run(RunError::Interrupted)) => Ok(EXIT_INTERRUPTED),
        Err(error) => Err(error.to_string()),
    }
}

fn raw_server(args: &RawServerArgs) -> i32 {
    let config = RawServerConfig {
        data_dir: args.data_dir.clone(),
        port: args.port,
        synced: args.synced,
        read_bytes: args.read_bytes,
    };
    match walrus_drivers::raw::server::run(&config) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("raw-server: {error}");
            EXIT_INCOMPLETE
        }
    }
}

fn watch_signals() -> Result<(), String> {
    // A second signal ends the process at once; its children die with it.
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        signal_hook::flag::register_conditional_shutdown(signal, EXIT_INTERRUPTED, stop.clone())
            .and_then(|_| signal_hook::flag::register(signal, stop))
            .map_err(|error| format!("signal handler: {error}"))?;
        // SAFETY: the action only stores to an atomic.
        unsafe {
            signal_hook::low_level::register(signal, || {
                STOP.store(true, std::sync::atomic::Ordering::Relaxed);
            })
        }
        .map_err(|error| format!("signal handler: {error}"))?;
    }
    Ok(())
}

fn default_out(profile: &str) -> PathBuf {
    let now = provenance::utc_now().replace(':', "");
    PathBuf::from("results").join(format!("{now}-{profile}"))
}
