//! Topics: appending, replication, rolling over, recovery, acknowledging, reading, cursors, retention.
//!
//! ```text
//!                 try_append ──▶ open segment ──full or failed──▶ rollover: close, wait for the
//!                      ▲              │  │                        commit, propose SealAndOpen
//!     acks ◀─ committed tail ◀─ leading  └─▶ outgoing ──(other nodes)──▶ replica ──▶ its copy
//!                                  ▲────────────┘ stored up to ...                      ▲
//!                                                                                       │
//!   metadata ──applied──▶ reconciler: opens, follows, seals, removes;   seal: fences, finds the
//!                                     starts recoveries                 end, copies, SealAndOpen
//! ```

use std::sync::{Mutex, MutexGuard, PoisonError};

pub mod acks;
pub mod calls;
pub mod copies;
pub mod cursor;
pub mod forward;
pub mod given_up;
pub mod leading;
pub mod letting_go;
pub mod messages;
pub mod outgoing;
pub mod peer_server;
pub mod quorum;
pub mod read_ahead;
pub mod reader;
pub mod reconciler;
pub mod repair;
pub mod replica;
pub mod retention;
pub mod rollover;
pub mod seal;
pub mod topic;
pub mod topics;
pub mod watchdog;
pub mod writer;

/// Locks, also after a panic elsewhere: the guarded values are valid between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
