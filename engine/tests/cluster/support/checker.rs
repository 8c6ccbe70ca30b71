//! Decides from a history and what can be read afterwards whether a topic kept its promises.
//!
//! | checked | promise |
//! |---|---|
//! | every acknowledged record is in the log, where the reply said | S1 |
//! | offsets are dense; each holds one record, the same on every node | S2, S5 |
//! | each record is there at most once for each time it was sent; a refused one never | protocol |
//! | records of one connection keep their order; a record sent after another's acknowledgement lies behind it | order |
//! | what a reader saw stays, and later readers everywhere see at least that much | S6 |
//! | a group's cursor skips nothing | S10 |

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::history::{Answer, Delivery, History, Id, Nanos, Outcome, Read, Sent};

/// A whole topic, read from offset 0 on one node.
#[derive(Debug, Clone)]
pub struct Log {
    pub node: u64,
    pub records: Vec<Read>,
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    Lost { id: Id },
    WrongOffset { id: Id, promised: u64, found: u64 },
    Disagree { offset: u64, one: u64, other: u64 },
    NeverSent { offset: u64, read: Read },
    Twice { id: Id, offsets: [u64; 2] },
    RefusedButStored { id: Id, offset: u64 },
    OutOfOrder { earlier: Id, later: Id },
    BeforeItsCause { id: Id, offset: u64, acked_before: Id },
    Gap { node: u64, from: u64, first: u64 },
    Changed { node: u64, offset: u64, then: Read, now: Read },
    Vanished { node: u64, offset: u64, then: Read },
    Stale { node: u64, from: u64, known: u64 },
    Skipped { group: String, from: u64, to: u64 },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Lost { id } => write!(f, "acknowledged and lost: {id:?}"),
            Violation::WrongOffset { id, promised, found } => {
                write!(f, "{id:?} was acknowledged at offset {promised} and lies at {found}")
            }
            Violation::Disagree { offset, one, other } => {
                write!(f, "nodes {one} and {other} have different records at offset {offset}")
            }
            Violation::NeverSent { offset, read } => write!(f, "nobody sent what lies at offset {offset}: {read:?}"),
            Violation::Twice { id, offsets } => write!(f, "{id:?} was sent once and lies at offsets {offsets:?}"),
            Violation::RefusedButStored { id, offset } => {
                write!(f, "{id:?} was refused (nothing stored) and lies at offset {offset}")
            }
            Violation::OutOfOrder { earlier, later } => {
                write!(f, "{later:?} lies before {earlier:?}, which was sent first on the same connection")
            }
            Violation::BeforeItsCause { id, offset, acked_before } => {
                write!(f, "{id:?} was sent after {acked_before:?} was acknowledged, and lies before it at {offset}")
            }
            Violation::Gap { node, from, first } => {
                write!(f, "node {node} was asked for offset {from} and answered from {first} on")
            }
            Violation::Changed { node, offset, then, now } => {
                write!(f, "node {node} showed {then:?} at offset {offset}, where {now:?} is now")
            }
            Violation::Vanished { node, offset, then } => {
                write!(f, "node {node} showed {then:?} at offset {offset}, past today's end")
            }
            Violation::Stale { node, from, known } => {
                write!(f, "node {node} showed nothing at offset {from} when everything below {known} was known")
            }
            Violation::Skipped { group, from, to } => write!(f, "group {group} was at {from} and then got {to}"),
        }
    }
}

/// All broken promises; none if all is well. `logs` were read after the last request was answered.
pub fn check(history: &History, logs: &[Log]) -> Vec<Violation> {
    let Some(longest) = logs.iter().max_by_key(|log| log.records.len()) else { return Vec::new() };
    let mut checker = Checker {
        log: &longest.records,
        sent: history.sent.iter().map(|sent| (sent.id, sent)).collect(),
        at: HashMap::new(),
        violations: Vec::new(),
    };
    checker.nodes_agree(longest.node, logs);
    checker.every_record_was_sent_once();
    checker.outcomes_hold(&history.sent);
    checker.connections_keep_their_order();
    checker.acknowledged_comes_before_what_is_sent_later();
    checker.what_was_seen_stays(history);
    checker.later_readers_see_as_much(history);
    checker.cursors_skip_nothing(&history.deliveries);
    checker.violations
}

struct Checker<'a> {
    log: &'a [Read],
    sent: HashMap<Id, &'a Sent>,
    /// Where each record lies.
    at: HashMap<Id, u64>,
    violations: Vec<Violation>,
}

impl Checker<'_> {
    fn nodes_agree(&mut self, one: u64, logs: &[Log]) {
        for other in logs {
            let differs = other.records.iter().zip(self.log).position(|(theirs, ours)| theirs != ours);
            if let Some(offset) = differs {
                self.violations.push(Violation::Disagree { offset: offset as u64, one, other: other.node });
            }
        }
    }

    fn every_record_was_sent_once(&mut self) {
        for (offset, &read) in (0..).zip(self.log) {
            let Some(id) = read.filter(|id| self.sent.contains_key(id)) else {
                self.violations.push(Violation::NeverSent { offset, read });
                continue;
            };
            if let Some(first) = self.at.insert(id, offset) {
                self.violations.push(Violation::Twice { id, offsets: [first, offset] });
            }
        }
    }

    fn outcomes_hold(&mut self, sent: &[Sent]) {
        for Sent { id, outcome, .. } in sent {
            let id = *id;
            match (*outcome, self.at.get(&id).copied()) {
                (Outcome::Acked(_), None) => self.violations.push(Violation::Lost { id }),
                (Outcome::Acked(Some(promised)), Some(found)) if promised != found => {
                    self.violations.push(Violation::WrongOffset { id, promised, found });
                }
                (Outcome::Refused, Some(offset)) => self.violations.push(Violation::RefusedButStored { id, offset }),
                _ => {}
            }
        }
    }

    fn connections_keep_their_order(&mut self) {
        let mut last: HashMap<(u32, u32), Id> = HashMap::new();
        for sent in self.log.iter().flatten().filter_map(|id| self.sent.get(id)) {
            let before = last.insert((sent.id.producer, sent.connection), sent.id);
            if let Some(before) = before.filter(|before| before.sequence > sent.id.sequence) {
                self.violations.push(Violation::OutOfOrder { earlier: sent.id, later: before });
            }
        }
    }

    fn acknowledged_comes_before_what_is_sent_later(&mut self) {
        // From the end to the start: the earliest acknowledgement of all records that lie behind.
        let mut earliest: Option<(Nanos, Id)> = None;
        for (offset, read) in self.log.iter().enumerate().rev() {
            let Some(sent) = read.and_then(|id| self.sent.get(&id)) else { continue };
            let (id, offset) = (sent.id, offset as u64);
            if let Some((_, acked_before)) = earliest.filter(|(answered_at, _)| *answered_at < sent.asked_at) {
                self.violations.push(Violation::BeforeItsCause { id, offset, acked_before });
            }
            let acked = matches!(sent.outcome, Outcome::Acked(_));
            if acked && earliest.is_none_or(|(answered_at, _)| sent.answered_at < answered_at) {
                earliest = Some((sent.answered_at, id));
            }
        }
    }

    fn what_was_seen_stays(&mut self, history: &History) {
        for fetch in &history.fetches {
            let Answer::Records { first, records } = &fetch.answer else { continue };
            if *first != fetch.from && !records.is_empty() {
                self.violations.push(Violation::Gap { node: fetch.node, from: fetch.from, first: *first });
            }
            for (offset, &then) in (*first..).zip(records) {
                match self.log.get(offset as usize) {
                    None => self.violations.push(Violation::Vanished { node: fetch.node, offset, then }),
                    Some(&now) if now != then => {
                        self.violations.push(Violation::Changed { node: fetch.node, offset, then, now });
                    }
                    Some(_) => {}
                }
            }
        }
    }

    fn later_readers_see_as_much(&mut self, history: &History) {
        let known = self.known_ends(history);
        for fetch in &history.fetches {
            let nothing = match &fetch.answer {
                Answer::Records { records, .. } => records.is_empty(),
                Answer::OutOfRange => true,
            };
            let before = known.partition_point(|(time, _)| *time < fetch.asked_at);
            let known_end = before.checked_sub(1).map_or(0, |index| known[index].1);
            if nothing && fetch.from < known_end {
                self.violations.push(Violation::Stale { node: fetch.node, from: fetch.from, known: known_end });
            }
        }
    }

    /// From each time on, the offset below which clients knew everything to be committed.
    fn known_ends(&self, history: &History) -> Vec<(Nanos, u64)> {
        let acked = history.sent.iter().filter(|sent| matches!(sent.outcome, Outcome::Acked(_)));
        let acked = acked.filter_map(|sent| Some((sent.answered_at, self.at.get(&sent.id)? + 1)));
        let seen = history.fetches.iter().filter_map(|fetch| match &fetch.answer {
            Answer::Records { first, records } => Some((fetch.answered_at, first + records.len() as u64)),
            Answer::OutOfRange => None,
        });
        let mut ends: Vec<(Nanos, u64)> = acked.chain(seen).collect();
        ends.sort_unstable();
        let mut highest = 0;
        for (_, end) in &mut ends {
            highest = highest.max(*end);
            *end = highest;
        }
        ends
    }

    fn cursors_skip_nothing(&mut self, groups: &BTreeMap<String, Vec<Delivery>>) {
        for (group, deliveries) in groups {
            // The next offset, and how far beyond it lost replies may have moved the cursor.
            let (mut next, mut unknown) = (0, 0);
            for delivery in deliveries {
                match delivery {
                    Delivery::Nothing => {}
                    Delivery::Unknown => unknown += 1,
                    Delivery::Record(read) => match read.and_then(|id| self.at.get(&id).copied()) {
                        None => self.violations.push(Violation::Vanished { node: 0, offset: next, then: *read }),
                        Some(offset) if offset > next + unknown => {
                            self.violations.push(Violation::Skipped { group: group.clone(), from: next, to: offset });
                            next = offset + 1;
                        }
                        Some(offset) => {
                            unknown -= offset.saturating_sub(next);
                            next = next.max(offset + 1);
                        }
                    },
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "checker_tests.rs"]
mod tests;
