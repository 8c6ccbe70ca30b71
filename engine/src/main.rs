//! `walrus`: the server.

use std::num::NonZero;
use std::process::ExitCode;
use std::thread;

use clap::Parser;
use tracing_subscriber::EnvFilter;
use walrus_engine::{config::Config, node};

/// Threads for each core. Connections write into the page cache themselves, and the kernel may have
/// them wait there (for a block bitmap, or because too much is dirty); the core then serves others.
const WORKERS_PER_CORE: usize = 2;

fn main() -> ExitCode {
    let config = Config::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,openraft=off"));
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
    Ok(runtime.block_on(node::run(config))?)
}
