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

use std::cell::Cell;
use std::time::Duration;

thread_local! {
    /// For who looks at a node from outside.
    static DRIVER_TIME: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// How long the simulation has been running, the same on all nodes.
pub fn elapsed() -> Duration {
    turmoil::sim_elapsed().unwrap_or_else(|| DRIVER_TIME.get())
}

/// The driver of the simulation has come to this time.
pub fn set_elapsed(time: Duration) {
    DRIVER_TIME.set(time);
}

/// What the clock on the wall shows.
pub mod clock {
    /// When the simulation begins, in milliseconds since 1970.
    const EPOCH_MS: u64 = 1_600_000_000_000;

    /// Milliseconds since 1970 in the simulation.
    pub fn now_ms() -> u64 {
        EPOCH_MS + super::elapsed().as_millis() as u64
    }
}
