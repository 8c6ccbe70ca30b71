//! `walrus-cli`: the command line client, and a shell when no subcommand is given.
//!
//! Data goes to stdout and everything else to stderr, so that pipes carry records only.

mod args;
mod bulk;
mod commands;
mod complete;
mod output;
mod shell;
mod words;

use std::process::ExitCode;

use clap::Parser;

use args::Args;
use commands::{Failure, Session};
use output::Output;

fn main() -> ExitCode {
    let args = Args::parse();
    let output = Output::new(args.json, args.raw, args.color);
    let mut session = Session::new(args.client_config(), output);
    let result = match args.command {
        Some(command) => session.run(&command),
        None => shell::run(&mut session),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough (`walrus-cli fetch logs | head`).
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            session.output.failure(&failure);
            failure.exit_code()
        }
    }
}
