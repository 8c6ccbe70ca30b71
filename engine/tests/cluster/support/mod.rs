//! What the scenarios share: processes, load, history, checker.

pub mod checker;
pub mod cluster;
pub mod history;
pub mod load;
pub mod network;
pub mod process;
pub mod under_load;

use std::time::{Duration, Instant};

/// Longest wait for anything; reached only by a test that fails.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Tries until something comes out; fails the test when nothing ever does.
pub fn eventually<T>(what: &str, attempt: impl FnMut() -> Option<T>) -> T {
    within_patience(attempt).unwrap_or_else(|| panic!("never happened: {what}"))
}

/// Tries until something comes out, or patience is at its end.
pub fn within_patience<T>(mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = attempt() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
