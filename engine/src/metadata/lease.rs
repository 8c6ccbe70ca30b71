//! Leases: who may believe, by its own clock, that its segments are still its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::{Clock, Instant};

/// This node's lease, as everyone on the node asks for it. Cheap to clone and to ask.
///
/// A write is checked when it is accepted and again after it is durable, before its
/// acknowledgement; a tail read before and after. The second check asks two things: that the lease
/// runs, and that the metadata still show *this* segment as this run's own.
#[derive(Clone)]
pub struct Lease {
    clock: Arc<dyn Clock>,
    /// Valid while the clock shows less than this many nanoseconds.
    valid_until: Arc<AtomicU64>,
}

impl Lease {
    /// A lease that is not held yet.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Lease { clock, valid_until: Arc::default() }
    }

    /// Does it run now?
    pub fn is_valid(&self) -> bool {
        self.clock.now().0 < self.valid_until.load(Ordering::Acquire)
    }

    /// Milliseconds until it ends, rounded down; 0 if it does not run.
    pub fn remaining_ms(&self) -> u64 {
        Instant(self.valid_until.load(Ordering::Acquire)).since(self.clock.now()).as_millis() as u64
    }

    /// A newer grant counts from now on. An older one never shortens it.
    pub(super) fn extend(&self, until: Instant) {
        self.valid_until.fetch_max(until.0, Ordering::AcqRel);
    }
}
