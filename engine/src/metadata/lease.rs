//! Leases: who may believe, by its own clock, that its segments are still its own.
//!
//! ```text
//!      node (own clock)                          Raft leader (its own clock)        its quorum
//!   t_send │── request ────────────────────────────▶│── round that begins now ──────────▶│
//!          │                                        │◀────────────── still your term ────│
//!          │◀─ grant{last index of the log} ────────│ t_grant
//!          │  once that index is applied: valid     │ gives the node's segments away only
//!          ▼  while now < t_send + L(1−ρ)           ▼ when now ≥ t_grant + L(1+ρ)
//! ```
//! The two sides, [`valid_until`] and [`Granter`], are pure: the time is handed to them, so that
//! tests try every mixture of clocks. L is [`LENGTH`]; ρ, by how much a clock may run wrong, 1 %.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::placement::Live;
use crate::clock::{Clock, Instant};

/// L: the length of a lease.
pub const LENGTH: Duration = Duration::from_millis(1000);
/// A node asks again after this much of it.
pub(super) const RENEWAL: Duration = Duration::from_millis(250);
/// L(1−ρ): how long its holder counts on it.
const HELD: Duration = Duration::from_millis(990);
/// L(1+ρ): how long its granter waits.
const WAITED: Duration = Duration::from_millis(1010);

/// When a lease ends whose request left at `sent`, by the holder's clock. It runs *before* that.
pub(super) fn valid_until(sent: Instant) -> Instant {
    sent.plus(HELD)
}

/// The Raft leader's side: what it has granted, and what it may give away.
#[derive(Debug, Default)]
pub(super) struct Granter {
    /// While this node leads.
    leading: Option<Leading>,
}

#[derive(Debug)]
struct Leading {
    term: u64,
    /// Every node may hold a lease of an earlier leader until then.
    floor: Instant,
    /// A quorum has confirmed this leader, and so an entry of its own term is committed.
    confirmed: bool,
    nodes: BTreeMap<u64, Granted>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Granted {
    run_id: u64,
    /// Nothing of the node is given away before this.
    not_before: Instant,
    /// Its segments are being given away; the entry may not be in the log yet.
    giving_away: bool,
}

impl Granter {
    /// This node became the Raft leader, or its process has started as one: as if every node had
    /// just been granted a lease.
    pub(super) fn enter(&mut self, term: u64, now: Instant) {
        self.leading = Some(Leading { term, floor: now.plus(WAITED), confirmed: false, nodes: BTreeMap::new() });
    }

    /// This node leads no more.
    pub(super) fn leave(&mut self) {
        self.leading = None;
    }

    /// The term of the leadership that was entered.
    pub(super) fn term(&self) -> Option<u64> {
        self.leading.as_ref().map(|leading| leading.term)
    }

    /// A round of a quorum, begun in this leadership, has ended well.
    pub(super) fn confirm(&mut self, term: u64) {
        if let Some(leading) = self.leading.as_mut().filter(|leading| leading.term == term) {
            leading.confirmed = true;
        }
    }

    /// Grants a lease, after a round that began when the request was here already. The last index
    /// of the log must be read *after* this. `false`: no grant.
    pub(super) fn grant(&mut self, node_id: u64, run_id: u64, now: Instant) -> bool {
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.confirmed) else { return false };
        let granted = leading.nodes.entry(node_id).or_default();
        if granted.giving_away {
            return false;
        }
        *granted = Granted { run_id, not_before: granted.not_before.max(now.plus(WAITED)), giving_away: false };
        true
    }

    /// May the segments of this node be given away?
    pub(super) fn is_lost(&self, node_id: u64, now: Instant) -> bool {
        let Some(leading) = self.leading.as_ref().filter(|leading| leading.confirmed) else { return false };
        let granted = leading.nodes.get(&node_id).copied().unwrap_or_default();
        now >= leading.floor.max(granted.not_before)
    }

    /// The segments of lost nodes are about to be given away: until [`Granter::given_away`] these
    /// nodes get no lease, because the entry that a grant has to name is not in the log yet.
    pub(super) fn give_away(&mut self, nodes: &[u64]) {
        for node_id in nodes {
            if let Some(leading) = &mut self.leading {
                leading.nodes.entry(*node_id).or_default().giving_away = true;
            }
        }
    }

    /// What [`Granter::give_away`] announced is in the log, or will never be in this leader's.
    pub(super) fn given_away(&mut self, nodes: &[u64]) {
        for node_id in nodes {
            if let Some(granted) = self.leading.as_mut().and_then(|leading| leading.nodes.get_mut(node_id)) {
                granted.giving_away = false;
            }
        }
    }

    /// Nodes that hold a lease of this leader.
    pub(super) fn live(&self, now: Instant) -> Live {
        let nodes = self.leading.iter().flat_map(|leading| &leading.nodes);
        nodes.filter(|(_, granted)| now < granted.not_before).map(|(id, granted)| (*id, granted.run_id)).collect()
    }
}

/// This node's lease, as everyone on the node asks for it. Cheap to clone and to ask.
///
/// A write is checked when it is accepted and again after it is durable, before its
/// acknowledgement; a tail read before and after. The second check asks two things: that the lease
/// runs, and that the metadata still show *this* segment as this run's own.
#[derive(Clone)]
pub struct Lease {
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Valid while the clock shows less than this many nanoseconds.
    valid_until: AtomicU64,
    /// Never valid again in this process.
    revoked: AtomicBool,
}

impl Lease {
    /// A lease that is not held yet.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Lease { clock, shared: Arc::default() }
    }

    /// Does it run now?
    pub fn is_valid(&self) -> bool {
        self.clock.now() < self.end()
    }

    /// Milliseconds until it ends, rounded down; 0 if it does not run.
    pub fn remaining_ms(&self) -> u64 {
        self.end().since(self.clock.now()).as_millis() as u64
    }

    /// A newer grant counts from now on. An older one never shortens it.
    pub(super) fn extend(&self, until: Instant) {
        self.shared.valid_until.fetch_max(until.0, Ordering::AcqRel);
    }

    /// Ends it now, for as long as the process lives.
    pub(super) fn revoke(&self) {
        self.shared.revoked.store(true, Ordering::Release);
    }

    fn end(&self) -> Instant {
        if self.shared.revoked.load(Ordering::Acquire) {
            return Instant(0);
        }
        Instant(self.shared.valid_until.load(Ordering::Acquire))
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
