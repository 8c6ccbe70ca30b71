//! The deterministic simulation: three real nodes on one thread, on a simulated network, clock and
//! disk, under random crashes, partitions and delays, with a checker of everything that clients saw.
//!
//! One seed is one run, in a process of its own: no state of an earlier run can leak into it.
//!
//! ```text
//! sim                         50 seeds, two of them twice, and every bug that must be found
//! sim --seeds 1000            more of them        (--first 7: not from 0 on)
//! sim --seed 42 [--trace]     one, here and now   (--trace: everything that happens)
//! sim --bug NAME --seeds 20   with a bug switched on, until it is found
//! ```

#[path = "../cluster/support/checker.rs"]
#[allow(unused, reason = "its own tests run with the real clusters' tests")]
mod checker;
mod client;
mod clock;
mod cluster;
mod disk;
mod entropy;
mod faults;
#[path = "../cluster/support/history.rs"]
#[allow(dead_code, reason = "the real clusters' tests use more of it")]
mod history;
mod load;
mod run;
mod seeds;

use std::process::ExitCode;

use walrus_engine::sim::bugs;

/// What the command line asks for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Run this one here.
    seed: Option<u64>,
    /// Run so many, from `first` on, each in a process of its own.
    seeds: Option<u64>,
    first: u64,
    bug: Option<String>,
    trace: bool,
}

impl Options {
    fn parse() -> Result<Self, String> {
        let mut options = Options::default();
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value"));
            let number = |text: String| text.parse().map_err(|_| format!("{text} is no number"));
            match arg.as_str() {
                "--seed" => options.seed = Some(number(value()?)?),
                "--seeds" => options.seeds = Some(number(value()?)?),
                "--first" => options.first = number(value()?)?,
                "--bug" => options.bug = Some(value()?),
                "--trace" => options.trace = true,
                // `cargo test` hands its own arguments to every test.
                _ => {}
            }
        }
        if let Some(name) = &options.bug
            && !bugs::ALL.iter().any(|(known, _)| known == name)
        {
            let names: Vec<&str> = bugs::ALL.iter().map(|(name, _)| *name).collect();
            return Err(format!("there is no bug {name}; there are {}", names.join(", ")));
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    let options = match Options::parse() {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    let well = match (options.seed, options.seeds, &options.bug) {
        (Some(seed), _, _) => run::one(seed, &options),
        (None, Some(seeds), Some(bug)) => seeds::find_bug(bug, options.first..options.first + seeds),
        (None, Some(seeds), None) => seeds::run_all(options.first..options.first + seeds),
        (None, None, _) => seeds::test(),
    };
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
