//! The open loop: when each record should go out.

use std::time::{Duration, Instant};

/// Intended send times of the open loop.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    pub(super) start: Instant,
    producers: u32,
    rate_per_s: f64,
    /// Records due earlier than this after the start are not timed.
    pub warmup: Duration,
    /// When a node is killed, after the start.
    pub kill_at: Option<Duration>,
}

impl Schedule {
    /// All producers together offer `rate_per_s`; they take turns.
    pub fn new(start: Instant, producers: u32, rate_per_s: f64, warmup: Duration) -> Schedule {
        Schedule { start, producers, rate_per_s, warmup, kill_at: None }
    }

    /// When `producer` should send its record number `ticket`, counted from the start.
    pub fn due_after(&self, producer: u32, ticket: u64) -> Duration {
        let turn = ticket as f64 * f64::from(self.producers) + f64::from(producer);
        Duration::from_secs_f64(turn / self.rate_per_s)
    }

    /// The same as a point in time.
    pub fn due(&self, producer: u32, ticket: u64) -> Instant {
        self.start + self.due_after(producer, ticket)
    }

    /// Latency of a record that was acknowledged (or read) at `now`; `None` during the warm-up.
    pub fn latency(&self, producer: u32, ticket: u64, now: Instant) -> Option<Duration> {
        let after = self.due_after(producer, ticket);
        (after >= self.warmup).then(|| now.saturating_duration_since(self.start + after))
    }
}
