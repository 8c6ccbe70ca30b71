//! What takes the place of the operating system in the deterministic simulation (feature `sim`,
//! driven by `tests/sim`).
//!
//! ```text
//!            a node as it is                    what is under it
//!  server · log · store · metadata ──▶ net      turmoil's network: delays, partitions
//!                                  ──▶ exec     no threads: one task after the other
//!                                  ──▶ random   numbers from the seed
//!                                  ──▶ clock    turmoil's time
//!                                  ──▶ Machine  clock and disk of the test
//! ```
//! Everything is on one thread, and nothing here asks the system for time or chance. So one seed is
//! one run, and [`trace`] proves it.

pub mod bugs;
pub mod net;
pub mod probe;
pub mod promises;
pub mod random;
pub mod trace;

/// What the clock on the wall shows.
pub mod clock {
    use std::time::Duration;

    /// When the simulation begins, in milliseconds since 1970.
    const EPOCH_MS: u64 = 1_600_000_000_000;

    /// Milliseconds since 1970 in the simulation.
    pub fn now_ms() -> u64 {
        EPOCH_MS + super::elapsed().as_millis() as u64
    }

    /// Nothing has been simulated yet.
    pub(super) const START: Duration = Duration::ZERO;
}

/// How long the simulation has been running, the same on all nodes.
pub fn elapsed() -> std::time::Duration {
    turmoil::sim_elapsed().unwrap_or(clock::START)
}
