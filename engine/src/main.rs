//! `walrus`: the server.

use std::num::NonZero;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Parser;
use tracing_subscriber::EnvFilter;
use walrus_engine::{config::Config, node};

/// Threads for each core. Connections write into the page cache themselves, and the kernel may have
/// them wait there (for a block bitmap, or because too much is dirty); the core then serves others.
const WORKERS_PER_CORE: usize = 2;
/// How long the end of the process waits for calls that block.
const BLOCKING_WAIT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let config = Config::parse();
    let filter = match EnvFilter::try_new(&config.log_filter) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("walrus: --log {}: {error}", config.log_filter);
            return ExitCode::FAILURE;
        }
    };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("walrus: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(cores * WORKERS_PER_CORE).enable_all().build()?;
    let ended = runtime.block_on(node::run(config));
    // Nothing is owed any more; a call that still waits for a store that has stopped would wait for ever.
    runtime.shutdown_timeout(BLOCKING_WAIT);
    Ok(ended?)
}
