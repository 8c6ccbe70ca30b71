//! The command line.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use walrus_drivers::{Tools, registry};

use crate::child::{RunError, STOP};
use crate::csv::SummaryRow;
use crate::machine::{self, Throttle};
use crate::plan::{Plan, Wishes};
use crate::proc::Device;
use crate::run::Env;
use crate::session::{Session, SessionError};
use crate::{show, worker};

/// Something is missing in the results.
const EXIT_INCOMPLETE: i32 = 1;
/// The command itself was wrong.
const EXIT_USAGE: i32 = 2;
/// Interrupted, as shells count it.
const EXIT_INTERRUPTED: i32 = 130;

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
    /// A process in which a client runs (started by `run`).
    #[command(hide = true)]
    Worker,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Rows, seconds and repeats: smoke, quick or full.
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
        Command::Systems => systems(),
        Command::Show(command) => match show::run(&command) {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("harness: {error}");
                EXIT_USAGE
            }
        },
        Command::Run(args) => match run(&args) {
            Ok(code) => code,
            Err(error) => {
                eprintln!("harness: {error}");
                EXIT_USAGE
            }
        },
    }
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
        println!("{:<16} {:<10?} {state}", system.name(), system.deployment());
    }
    0
}

fn run(args: &RunArgs) -> Result<i32, String> {
    watch_signals()?;
    let wishes = Wishes {
        profile: args.profile.clone(),
        workloads: args.workload.clone(),
        systems: args.systems.clone(),
        repeats: args.repeats,
        seconds: args.seconds,
    };
    let plan = Plan::make(&wishes, Throttle::read())?;
    let estimate = plan.estimate();
    let out = args.out.clone().unwrap_or_else(|| default_out(&args.profile));
    println!(
        "{}: about {:.0} minutes, {:.0} GB written, {:.1} GB of disk; results in {}",
        plan.profile.about,
        (estimate.seconds / 60.0).ceil(),
        estimate.written_bytes / 1e9,
        estimate.held_bytes / 1e9,
        out.display()
    );
    let bench_dir = args.bench_dir.join(format!("walrus-bench-{}", std::process::id()));
    std::fs::create_dir_all(&bench_dir).map_err(|e| format!("{}: {e}", bench_dir.display()))?;
    std::fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    let env = Env {
        device: Device::of(&bench_dir),
        bench_dir: bench_dir.clone(),
        tools: tools(),
        settings_dir: Some(args.settings.clone()),
        kafka_bootstrap: args.kafka_bootstrap.clone(),
        raw_settings: std::collections::HashMap::new(),
        cores: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
    };
    let result = machine::warm_memory(&bench_dir, plan.profile.warm_memory_bytes, plan.burst_bytes)
        .map_err(SessionError::from)
        .and_then(|()| Session::open(&env, &plan, &out)?.run());
    let _ = std::fs::remove_dir_all(&bench_dir);
    point_latest_at(&out);
    conclude(result, &out)
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
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    PathBuf::from("results").join(format!("{}-{profile}", now.as_secs()))
}

/// `results/latest` names the newest run.
fn point_latest_at(out: &Path) {
    let (Some(parent), Some(name)) = (out.parent(), out.file_name()) else { return };
    let link = parent.join("latest");
    if link.is_symlink() {
        let _ = std::fs::remove_file(&link);
    }
    // Only a convenience: a file of that name, or a filesystem without links, is left alone.
    let _ = std::os::unix::fs::symlink(name, &link);
}

fn conclude(result: Result<Vec<SummaryRow>, SessionError>, out: &Path) -> Result<i32, String> {
    match result {
        Ok(rows) => {
            let failed: Vec<&SummaryRow> = rows.iter().filter(|row| !row.error.is_empty()).collect();
            for row in &failed {
                eprintln!("missing: {}: {}", row.run_id, row.error);
            }
            println!("{} rows, {} of them failed; see {}", rows.len(), failed.len(), out.display());
            Ok(if failed.is_empty() { 0 } else { EXIT_INCOMPLETE })
        }
        Err(SessionError::Run(RunError::Interrupted)) => {
            eprintln!("interrupted; what was measured is in {}; the same --out goes on", out.display());
            Ok(EXIT_INTERRUPTED)
        }
        Err(error) => Err(error.to_string()),
    }
}
