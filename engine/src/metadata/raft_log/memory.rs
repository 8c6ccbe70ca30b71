//! The log as it is in memory: what openraft reads, and what waits to be written.

use std::collections::VecDeque;
use std::io;
use std::ops::{Bound, RangeBounds};

use openraft::{LogId, Vote};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::log_file::{Kind, Operations, operation_bytes};
use super::super::raft_types::{Entry, EntryPayload, NodeId};
use super::writer::Flushed;

/// A message to a follower takes no more entries once they have this many bytes.
const MESSAGE_BYTES: usize = 256 << 10;

/// An entry and its bytes, which a checkpoint needs again.
struct Stored {
    entry: Entry,
    encoded: Box<[u8]>,
}

/// The state behind the lock of [`super::RaftLog`].
#[derive(Default)]
pub(super) struct Log {
    pub(super) vote: Option<Vote<NodeId>>,
    pub(super) committed: Option<LogId<NodeId>>,
    pub(super) purged: Option<LogId<NodeId>>,
    /// Consecutive, the oldest first.
    entries: VecDeque<Stored>,
    /// What `entries` take in a checkpoint.
    bytes: usize,
    pub(super) queue: Operations,
    pub(super) waiting: Vec<Flushed>,
    pub(super) stopping: bool,
    pub(super) failed: bool,
    pub(super) roomy_bytes: usize,
}

pub(super) fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(io::Error::other)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

impl Log {
    pub(super) fn last_id(&self) -> Option<LogId<NodeId>> {
        self.entries.back().map(|stored| stored.entry.log_id).or(self.purged)
    }

    pub(super) fn wants_snapshot(&self) -> bool {
        self.bytes > self.roomy_bytes / 4
    }

    /// Nothing more fits until a snapshot has let the log be purged.
    pub(super) fn is_full(&self) -> bool {
        self.bytes > self.roomy_bytes * 3 / 4
    }

    /// How many of these entries, the first ones, a follower takes now: those that the log holds
    /// already, and new ones while there is room. The room ends a little above where the leader
    /// refuses commands, so that the entry with which a new leader begins always has some.
    pub(super) fn room_for(&self, entries: &[Entry]) -> usize {
        let held = self.last_id().map(|last| last.index);
        let limit = self.roomy_bytes * 7 / 8;
        let mut bytes = self.bytes;
        let fits = |entry: &&Entry| {
            // What a leader writes itself lets a log that is full of what is not committed go on.
            if Some(entry.log_id.index) <= held || !matches!(entry.payload, EntryPayload::Normal(_)) {
                return true;
            }
            let room = bytes < limit;
            bytes += encode(entry).map_or(0, |encoded| operation_bytes(encoded.len()));
            room
        };
        entries.iter().take_while(fits).count()
    }

    /// Up to where to purge, so that nodes that lag a little still find what they need.
    pub(super) fn purge_upto(&self, snapshot: u64) -> Option<u64> {
        let keep_bytes = self.roomy_bytes / 16;
        let mut excess = self.bytes.saturating_sub(keep_bytes);
        let mut upto = None;
        for stored in &self.entries {
            if stored.entry.log_id.index > snapshot || excess == 0 {
                break;
            }
            excess = excess.saturating_sub(operation_bytes(stored.encoded.len()));
            upto = Some(stored.entry.log_id.index);
        }
        upto
    }

    fn first_index(&self) -> Option<u64> {
        self.entries.front().map(|stored| stored.entry.log_id.index)
    }

    pub(super) fn push(&mut self, entry: Entry, encoded: Vec<u8>) {
        self.truncate(entry.log_id.index);
        self.bytes += operation_bytes(encoded.len());
        self.entries.push_back(Stored { entry, encoded: encoded.into_boxed_slice() });
    }

    pub(super) fn truncate(&mut self, from: u64) {
        while self.entries.back().is_some_and(|last| last.entry.log_id.index >= from) {
            self.forget(VecDeque::pop_back);
        }
    }

    pub(super) fn purge(&mut self, upto: LogId<NodeId>) {
        while self.first_index().is_some_and(|first| first <= upto.index) {
            self.forget(VecDeque::pop_front);
        }
        self.purged = self.purged.max(Some(upto));
    }

    fn forget(&mut self, pop: impl Fn(&mut VecDeque<Stored>) -> Option<Stored>) {
        if let Some(stored) = pop(&mut self.entries) {
            self.bytes -= operation_bytes(stored.encoded.len());
        }
    }

    pub(super) fn replay(&mut self, kind: Kind, body: &[u8]) -> Result<(), String> {
        match kind {
            Kind::Vote => self.vote = Some(decode(body)?),
            Kind::Committed => self.committed = decode(body)?,
            Kind::Purge => self.purge(decode(body)?),
            Kind::Entry => {
                let entry: Entry = decode(body)?;
                self.push(entry, body.to_vec());
            }
            Kind::Truncate => {
                let index = body.try_into().map_err(|_| "a truncation is cut")?;
                self.truncate(u64::from_le_bytes(index));
            }
        }
        Ok(())
    }

    /// Everything, as a checkpoint holds it.
    pub(super) fn whole(&self) -> io::Result<Operations> {
        let mut all = Operations::default();
        if let Some(vote) = &self.vote {
            all.push(Kind::Vote, &encode(vote)?);
        }
        if let Some(purged) = &self.purged {
            all.push(Kind::Purge, &encode(purged)?);
        }
        all.push(Kind::Committed, &encode(&self.committed)?);
        for stored in &self.entries {
            all.push(Kind::Entry, &stored.encoded);
        }
        Ok(all)
    }

    /// The index behind the last entry that goes into a message which begins with `start`.
    pub(super) fn end_of_message(&self, start: u64) -> u64 {
        let skipped = self.first_index().map_or(0, |first| start.saturating_sub(first)) as usize;
        let mut bytes = 0;
        let fits = |stored: &&Stored| {
            let room = bytes < MESSAGE_BYTES;
            bytes += stored.encoded.len();
            room
        };
        start + self.entries.iter().skip(skipped).take_while(fits).count() as u64
    }

    pub(super) fn read(&self, range: &impl RangeBounds<u64>) -> Vec<Entry> {
        let Some(first) = self.first_index() else { return Vec::new() };
        let position = |bound: Bound<&u64>, unbounded: usize, after: u64| match bound {
            Bound::Included(index) => (index + after).saturating_sub(first) as usize,
            Bound::Excluded(index) => (index + 1 - after).saturating_sub(first) as usize,
            Bound::Unbounded => unbounded,
        };
        let count = self.entries.len();
        let start = position(range.start_bound(), 0, 0).min(count);
        let end = position(range.end_bound(), count, 1).min(count).max(start);
        self.entries.range(start..end).map(|stored| stored.entry.clone()).collect()
    }
}
