//! A machine's clock, which runs wrong.

use walrus_engine::clock::{Clock, Instant};
use walrus_engine::sim;

/// Shows the simulation's time, faster or slower.
#[derive(Debug, Clone, Copy)]
pub struct SimClock {
    /// Seconds that it counts in one.
    pub rate: f64,
}

impl Clock for SimClock {
    fn now(&self) -> Instant {
        // A machine has been up for a while when its node starts.
        Instant(((100.0 + sim::elapsed().as_secs_f64()) * self.rate * 1e9) as u64)
    }
}
