//! The clock that leases are measured by.

use std::sync::Arc;
use std::time::Duration;

/// A point in time by one machine's clock, in nanoseconds since some start of that clock. Points of
/// different machines cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// This much later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Instant(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// From `earlier` to this; zero if that is not earlier.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Where the time comes from; tests have clocks of their own.
pub trait Clock: Send + Sync + 'static {
    /// Now. Never goes back, and goes on while the machine is suspended.
    fn now(&self) -> Instant;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct BootClock;

impl BootClock {
    /// The clock as the parts of a node share it.
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(BootClock)
    }
}

/// Where there is no `CLOCK_BOOTTIME`, the monotonic clock also counts through suspension.
#[cfg(target_os = "linux")]
const CLOCK: libc::clockid_t = libc::CLOCK_BOOTTIME;
#[cfg(not(target_os = "linux"))]
const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;

impl Clock for BootClock {
    fn now(&self) -> Instant {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a valid place for the result, and nothing else is touched. The call
        // cannot fail for a clock that exists on every supported system.
        unsafe { libc::clock_gettime(CLOCK, &raw mut time) };
        Instant(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }
}

/// Milliseconds since 1970 by this machine's clock.
#[cfg(not(feature = "sim"))]
pub fn now_ms() -> u64 {
    use std::time::{SystemTime, UNIX_EPOCH};
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(feature = "sim")]
pub use crate::sim::clock::now_ms;
