//! Many seeds, each in a process of its own.

use std::ops::Range;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use walrus_engine::sim::bugs;

/// Seeds of a plain `cargo test`.
const TEST_SEEDS: u64 = 50;
/// Within so many seeds each bug has to be found. (Most are found by one of the first twenty.)
const BUG_SEEDS: u64 = 200;

fn run(seed: u64, bug: Option<&str>) -> Output {
    let program = std::env::current_exe().expect("a running program has a path");
    let mut command = Command::new(program);
    command.args(["--seed", &seed.to_string()]);
    if let Some(bug) = bug {
        command.args(["--bug", bug]);
    }
    command.output().expect("this program can be started")
}

fn text(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
    let end = signal.map_or(String::new(), |signal| format!("the run was ended by signal {signal}\n"));
    format!("{out}{err}{end}")
}

/// Runs seeds, as many at a time as there are processors, until `each` says that it is enough.
fn in_parallel(seeds: Range<u64>, bug: Option<&str>, each: impl Fn(u64, Output) -> bool + Sync) {
    let next = AtomicU64::new(seeds.start);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    if !each(seed, run(seed, bug)) {
                        next.store(seeds.end, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

/// Runs all of them; false if one broke a promise.
pub fn run_all(seeds: Range<u64>) -> bool {
    let began = Instant::now();
    let failed = Mutex::new(Vec::new());
    in_parallel(seeds.clone(), None, |seed, output| {
        if !output.status.success() {
            println!("seed {seed}:\n{}", text(&output));
            failed.lock().expect("nobody panics here").push(seed);
        }
        true
    });
    let failed = failed.into_inner().expect("nobody panics here");
    let (count, seconds) = (seeds.end - seeds.start, began.elapsed().as_secs_f64());
    println!("simulation: {count} seeds in {seconds:.1} s, {:.0} a minute", count as f64 / seconds * 60.0);
    if !failed.is_empty() {
        println!("simulation: {} of them BROKEN: {failed:?}", failed.len());
    }
    failed.is_empty()
}

/// Runs seeds with a bug switched on until it is found; false if it is not.
pub fn find_bug(bug: &str, seeds: Range<u64>) -> bool {
    let found = Mutex::new(None::<(u64, String)>);
    in_parallel(seeds.clone(), Some(bug), |seed, output| {
        if output.status.success() {
            return true;
        }
        let mut found = found.lock().expect("nobody panics here");
        if found.as_ref().is_none_or(|(first, _)| seed < *first) {
            *found = Some((seed, text(&output)));
        }
        false
    });
    let found = found.into_inner().expect("nobody panics here");
    let Some((seed, text)) = found else {
        println!("bug {bug}: NOT found by seeds {seeds:?}");
        return false;
    };
    let property = text.lines().find(|line| line.starts_with("  ")).unwrap_or(&text).trim();
    let (number, count) = (seed - seeds.start + 1, seeds.end - seeds.start);
    println!("bug {bug}: found by seed {seed}, number {number} of {count}: {property}");
    true
}

/// The same seed twice is the same run.
fn is_deterministic(seed: u64) -> bool {
    let (one, other) = (text(&run(seed, None)), text(&run(seed, None)));
    if one != other {
        println!("seed {seed} is not the same run twice:\n{one}{other}");
    }
    one == other
}

/// What a plain `cargo test` does.
pub fn test() -> bool {
    let deterministic = (0..2).all(is_deterministic);
    let well = run_all(0..TEST_SEEDS);
    let found = bugs::ALL.iter().all(|(name, _)| find_bug(name, 0..BUG_SEEDS));
    deterministic && well && found
}
