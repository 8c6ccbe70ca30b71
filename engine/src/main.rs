//! `walrus`: the server.

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;
use walrus_engine::{config::Config, node};

#[tokio::main]
async fn main() -> ExitCode {
    let config = Config::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,openraft=off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match node::run(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("walrus: {error}");
            ExitCode::FAILURE
        }
    }
}
