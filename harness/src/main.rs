//! `harness`: runs one workload on several systems, proves what was stored, and draws it.
//!
//! ```text
//!  profile + workload ─▶ plan ─▶ session ─▶ run (a row) ─▶ worker (a process): load, verify, read
//!   (tables, TOML)                  │            └─ meter: CPU, memory, device, from /proc
//!                                   ▼
//!                 results/<run>/*.csv + env.json ─▶ chart, report, compare
//! ```

pub mod acks;
mod bench_dir;
pub mod chart;
pub mod child;
mod commands;
pub mod compare;
mod conclude;
pub mod csv;
pub mod estimate;
#[cfg(test)]
mod fixture;
pub mod fleet;
pub mod latency;
pub mod load;
pub mod machine;
pub mod meter;
pub mod noise;
pub mod plan;
pub mod preflight;
pub mod proc;
pub mod profile;
pub mod provenance;
pub mod record;
pub mod report;
pub mod results;
pub mod run;
pub mod session;
pub mod settings;
pub mod show;
pub mod stats;
pub mod tune;
mod tuned_on;
pub mod verify;
pub mod wire;
pub mod worker;
pub mod workload;

fn main() {
    std::process::exit(commands::main());
}
