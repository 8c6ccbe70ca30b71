//! When the load ends, and how far it is: what all lanes share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Producers take the fixed volume in portions of this, so that they all end together.
const PORTION_BYTES: u64 = 256 << 10;

/// When the load ends, shared by all lanes.
#[derive(Debug)]
pub struct Limit {
    pub(super) deadline: Option<Instant>,
    bytes_left: Option<AtomicU64>,
    abort: AtomicBool,
}

impl Limit {
    /// After `seconds`, or after `payload_bytes`, whatever comes first.
    pub fn new(start: Instant, seconds: Option<f64>, payload_bytes: Option<u64>) -> Limit {
        Limit {
            deadline: seconds.map(|s| start + Duration::from_secs_f64(s)),
            bytes_left: payload_bytes.map(AtomicU64::new),
            abort: AtomicBool::new(false),
        }
    }

    /// Ends the load now: another lane has failed.
    pub fn abort(&self) {
        self.abort.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.abort.load(Ordering::Relaxed)
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.is_aborted() || self.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// Takes a portion of the volume; 0 when it is used up.
    pub(super) fn take_portion(&self) -> u64 {
        let Some(left) = &self.bytes_left else { return u64::MAX };
        let take = |left: u64| Some(left.saturating_sub(PORTION_BYTES));
        // Cannot fail: the closure always returns a value.
        let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).unwrap_or(0);
        before.min(PORTION_BYTES)
    }
}

/// What a lane has achieved so far; read by the sampler.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Progress {
    /// Records acknowledged.
    pub records: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
}
