//! What happened, in order: every message, every write to a disk, every reply to a client goes into
//! one hash, so that two runs of a seed can be compared. What a reader wants to see is kept as text.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::elapsed;
use super::random::mix;

/// Notes that are kept; older ones go.
const NOTES_MAX: usize = 400;

/// Something that a person may want to read about.
#[derive(Debug, Clone)]
pub struct Note {
    /// When, since the start of the simulation.
    pub at: Duration,
    /// On which node, or whatever else did it.
    pub place: String,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9.3} s  {:<8}  {}", self.at.as_secs_f64(), self.place, self.what)
    }
}

#[derive(Default)]
struct Trace {
    hash: u64,
    events: u64,
    notes: VecDeque<Note>,
    print: bool,
}

thread_local! {
    static TRACE: RefCell<Trace> = RefCell::default();
}

/// Begins anew. `print`: everything goes to the standard output as well.
pub fn start(print: bool) {
    TRACE.replace(Trace { print, ..Trace::default() });
}

/// The hash over everything so far, and the number of events in it.
pub fn digest() -> (u64, u64) {
    TRACE.with_borrow(|trace| (trace.hash, trace.events))
}

/// The newest notes.
pub fn notes() -> Vec<Note> {
    TRACE.with_borrow(|trace| trace.notes.iter().cloned().collect())
}

/// Something happened. `bytes` and `numbers` go into the hash, `what` is told only if somebody reads.
pub fn event(what: &str, numbers: &[u64], bytes: &[u8]) {
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes);
    TRACE.with_borrow_mut(|trace| {
        let now = elapsed();
        let words = [now.as_nanos() as u64, bytes.len() as u64, crc];
        for word in words.iter().chain(numbers) {
            trace.hash = mix(trace.hash.rotate_left(5) ^ word);
        }
        trace.events += 1;
        if trace.print {
            println!("{:>9.3} s  {what} {numbers:x?} {} bytes, CRC {crc:08x}", now.as_secs_f64(), bytes.len());
        }
    });
}

/// As [`event`], for what a person may want to read about.
pub fn note(place: impl Into<String>, what: impl Into<String>) {
    let (place, what) = (place.into(), what.into());
    event("note", &[], format!("{place} {what}").as_bytes());
    TRACE.with_borrow_mut(|trace| {
        let note = Note { at: elapsed(), place, what };
        if trace.print {
            println!("{note}");
        }
        if trace.notes.len() == NOTES_MAX {
            trace.notes.pop_front();
        }
        trace.notes.push_back(note);
    });
}
