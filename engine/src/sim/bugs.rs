//! Bugs that can be switched on, to prove that the simulation would find them. Each is at one place
//! in the code, and exists only with the feature `sim`.

use std::cell::Cell;

/// A rule that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A replica promises an epoch in memory only, and forgets it when its process ends.
    FenceNotPersisted,
    /// A lease is counted from the moment when the reply came, not from when the request left.
    LeaseFromReply,
    /// A recovery takes what one replica knows to be committed for the end of the segment.
    SealAtOneCommittedTail,
}

/// All of them, with the names by which they are chosen.
pub const ALL: [(&str, Bug); 3] = [
    ("fence-not-persisted", Bug::FenceNotPersisted),
    ("lease-from-reply", Bug::LeaseFromReply),
    ("seal-at-one-committed-tail", Bug::SealAtOneCommittedTail),
];

thread_local! {
    static ON: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Switches one on, for everything that is simulated on this thread.
pub fn switch_on(bug: Bug) {
    ON.set(Some(bug));
}

/// Is it on?
pub fn is_on(bug: Bug) -> bool {
    ON.get() == Some(bug)
}
