//! Forwarded writes that nobody waits for any more, and that may still be on their way.
//!
//! *Invariant:* a write whose sender has given it up is not stored behind a newer one of that sender.
//! The newer one may have taken another connection, and overtaken it.
//!
//! Each write bears the number of writes that its sender had given up on that node before: its
//! *generation*. A node that has heard of a newer generation stores nothing of an older one. What
//! is handed back for that reason though its sender still waits is sent again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use super::lock;

/// The sender's side: the current generation of the writes to each node.
#[derive(Default)]
pub struct Generations {
    by_node: Mutex<HashMap<u64, u64>>,
}

/// A write that is about to be sent. Dropped before it is answered, it is given up.
pub struct Awaited<'a> {
    generations: &'a Generations,
    node_id: u64,
    /// What the write bears.
    pub generation: u64,
    answered: bool,
}

impl Generations {
    /// Begins a write to a node.
    pub fn begin(&self, node_id: u64) -> Awaited<'_> {
        let generation = lock(&self.by_node).get(&node_id).copied().unwrap_or(0);
        Awaited { generations: self, node_id, generation, answered: false }
    }
}

impl Awaited<'_> {
    /// The reply is here, so nothing of the write is on its way.
    pub fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        if !self.answered {
            let mut by_node = lock(&self.generations.by_node);
            let current = by_node.entry(self.node_id).or_default();
            // Another one of the same generation may have ended it already.
            *current = (*current).max(self.generation + 1);
        }
    }
}

/// The receiver's side: what each run of each node has given up.
#[derive(Default)]
pub struct Senders {
    by_run: Mutex<HashMap<(u64, u64), Arc<Sender>>>,
}

/// One run of another node.
#[derive(Default)]
pub struct Sender {
    newest: RwLock<u64>,
}

impl Senders {
    /// The sender's entry; all its connections share it.
    pub fn get(&self, node_id: u64, run_id: u64) -> Arc<Sender> {
        Arc::clone(lock(&self.by_run).entry((node_id, run_id)).or_default())
    }
}

impl Sender {
    /// Lets a write of this generation store something, as long as the guard lives: nothing newer of
    /// the sender is stored meanwhile. `None`: the write may have been given up.
    pub fn enter(&self, generation: u64) -> Option<RwLockReadGuard<'_, u64>> {
        loop {
            let newest = self.newest.read().unwrap_or_else(PoisonError::into_inner);
            if *newest >= generation {
                return (*newest == generation).then_some(newest);
            }
            drop(newest);
            let mut newest = self.newest.write().unwrap_or_else(PoisonError::into_inner);
            *newest = (*newest).max(generation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_is_dropped_without_an_answer_ends_its_generation_for_its_node() {
        let generations = Generations::default();
        generations.begin(1).answered();
        assert_eq!(generations.begin(1).generation, 0, "it was answered");
        // The look above was given up.
        let (one, other) = (generations.begin(1), generations.begin(1));
        assert_eq!((one.generation, other.generation), (1, 1));
        drop(one);
        let after = generations.begin(1);
        assert_eq!(after.generation, 2);
        drop(other);
        assert_eq!(generations.begin(1).generation, 2, "both were of the same generation");
        assert_eq!(generations.begin(2).generation, 0, "other nodes do not mind");
        after.answered();
    }

    #[test]
    fn a_sender_is_let_in_with_nothing_older_than_its_newest_generation() {
        let senders = Senders::default();
        assert!(senders.get(1, 7).enter(0).is_some());
        assert!(senders.get(1, 7).enter(2).is_some());
        assert!(senders.get(1, 7).enter(1).is_none(), "an older one may lie behind what is newer");
        assert!(senders.get(1, 7).enter(2).is_some());
        assert!(senders.get(1, 8).enter(0).is_some(), "a new run counts anew");
    }
}
