//! `harness`: runs one workload on several systems, proves what was stored, and draws it.

pub mod acks;
pub mod chart;
pub mod compare;
pub mod csv;
#[cfg(test)]
mod fixture;
pub mod latency;
pub mod load;
pub mod record;
pub mod report;
pub mod results;
pub mod show;
pub mod stats;
pub mod verify;
pub mod wire;
pub mod worker;

use clap::Parser;

/// Runs the same workload on Walrus, Kafka and RocksDB, proves what was stored, and draws it.
#[derive(Debug, Parser)]
#[command(name = "harness", version)]
struct Cli {
    #[command(subcommand)]
    command: show::Show,
}

fn main() {
    if let Err(error) = show::run(&Cli::parse().command) {
        eprintln!("harness: {error}");
        std::process::exit(2);
    }
}
