//! Loopback addresses for clusters that run side by side.

use std::sync::atomic::{AtomicU32, Ordering};

/// `127.x.y`, which no other cluster of this machine uses now: all of 127/8 is loopback on Linux, so
/// that every cluster can have the same ports, before and after a restart.
pub fn prefix() -> String {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    let number = std::process::id().wrapping_mul(61).wrapping_add(STARTED.fetch_add(1, Ordering::Relaxed)) % 60_000;
    format!("127.{}.{}", 10 + number / 256, number % 256)
}
