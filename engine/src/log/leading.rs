//! The leader's side of one replicated segment: who has stored how much, and what is committed.
//!
//! ```text
//!              submitted                      progressed / stored
//! store ──(a batch, before its write)──▶ Leading ◀──(acknowledgements of each copy)── streams
//!                                          │ committed_tail(needed), while the lease runs
//!                                          ▼
//!                                   Segment::commit ──▶ acks, readers
//! ```
//! A copy is fed *live* (each batch as it is submitted) while it keeps up; if it falls behind its
//! stream's window, or was away, it is fed from the file until it has caught up.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::lock;
use super::messages::{Message, Open};
use super::outgoing::Outgoing;
use super::quorum::committed_tail;
use crate::metadata::lease::Lease;
use crate::metadata::state::{Replica, SegmentAt};
use crate::store::{Batch, Observer, Segment};

/// One segment that this node writes and others keep copies of.
pub struct Leading {
    /// The segment and the epoch in which this node leads it.
    pub at: SegmentAt,
    /// Its set.
    pub replicas: Vec<Replica>,
    /// Copies that must have a record before it is committed.
    needed: usize,
    lease: Lease,
    /// The streams to the other nodes of the set, in the order of `Progress::copies`.
    streams: Vec<Arc<Outgoing>>,
    progress: Mutex<Progress>,
}

/// How a copy gets its batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Feed {
    /// It has not said where it is (yet).
    Away,
    /// From the file, until it has caught up.
    Behind,
    /// Each batch as it is submitted.
    Live,
}

#[derive(Debug)]
struct Progress {
    /// First index that is not stored here.
    stored_here: u64,
    /// Index after the last batch that was submitted.
    submitted: u64,
    copies: Vec<CopyProgress>,
    /// The lease did not run when enough copies had more than is committed.
    held: bool,
    /// Since when something waits to be committed.
    waiting_since: Option<Instant>,
}

#[derive(Debug)]
struct CopyProgress {
    /// First index that it has not stored.
    stored: u64,
    /// Index to send next.
    next: u64,
    feed: Feed,
    /// It has not been told of the newest commit.
    commit_due: bool,
    /// Not 0: it is in doubt, and wants to hear this when it holds everything.
    doubt: u64,
}

/// What a copy that is behind gets next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Batches from this index on, out of the file.
    From(u64),
    /// Nothing: it is fed live, or away.
    Nothing,
}

impl std::fmt::Debug for Leading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leading").field("at", &self.at).field("progress", &self.progress).finish_non_exhaustive()
    }
}

impl Leading {
    /// A segment that is about to be opened. Its records are committed once `needed` copies have
    /// them, the leader's included; `streams` lead to the other nodes of the set.
    pub fn new(
        at: SegmentAt,
        replicas: Vec<Replica>,
        needed: usize,
        streams: Vec<Arc<Outgoing>>,
        lease: Lease,
    ) -> Self {
        let fresh = |_: &_| CopyProgress { stored: 0, next: 0, feed: Feed::Away, commit_due: false, doubt: 0 };
        let progress = Progress {
            stored_here: 0,
            submitted: 0,
            copies: streams.iter().map(fresh).collect(),
            held: false,
            waiting_since: None,
        };
        Leading { at, replicas, needed, lease, streams, progress: Mutex::new(progress) }
    }

    /// Tells the other nodes of the segment, before its first batch.
    pub fn announce(&self, segment: &Segment) {
        let mut progress = lock(&self.progress);
        for (copy, stream) in progress.copies.iter_mut().zip(&self.streams) {
            // A new segment is empty everywhere.
            if stream.push_message(&self.open_message(segment, Some(0))) {
                copy.feed = Feed::Live;
            }
        }
    }

    /// The stream to a node was made anew: the node is asked where it is.
    pub fn reconnected(&self, segment: &Segment, node_id: u64) {
        let mut progress = lock(&self.progress);
        if let Some(index) = self.index_of(node_id) {
            progress.copies[index].feed = Feed::Away;
            self.streams[index].push_message(&self.open_message(segment, None));
        }
    }

    fn open_message(&self, segment: &Segment, from: Option<u64>) -> Message {
        Message::Open(Open { spec: (*segment.spec()).into(), replicas: self.replicas.clone(), from })
    }

    /// A copy says from where on it wants batches.
    pub fn position(&self, node_id: u64, next: u64, doubt: u64) {
        let Some(index) = self.index_of(node_id) else { return };
        let mut progress = lock(&self.progress);
        let submitted = progress.submitted;
        let copy = &mut progress.copies[index];
        copy.next = next;
        copy.doubt = doubt;
        // What it says counts, also if it has lost what it once said that it had stored.
        copy.stored = copy.stored.min(next);
        copy.feed = if next == submitted { Feed::Live } else { Feed::Behind };
        if copy.feed == Feed::Behind {
            self.streams[index].push_laggard(self.at.uid);
        }
    }

    /// A copy takes no more of this segment.
    pub fn refused(&self, node_id: u64) {
        if let Some(index) = self.index_of(node_id) {
            lock(&self.progress).copies[index].feed = Feed::Away;
        }
    }

    /// What a copy that is behind gets next.
    pub fn next_for(&self, node_id: u64) -> Next {
        let Some(index) = self.index_of(node_id) else { return Next::Nothing };
        let mut progress = lock(&self.progress);
        let submitted = progress.submitted;
        let copy = &mut progress.copies[index];
        if copy.feed != Feed::Behind {
            return Next::Nothing;
        }
        if copy.next == submitted {
            copy.feed = Feed::Live;
            return Next::Nothing;
        }
        Next::From(copy.next)
    }

    /// Batches `from..to` were sent out of the file. False: the copy needs no more of them.
    pub fn fed(&self, node_id: u64, from: u64, to: u64) -> bool {
        let Some(index) = self.index_of(node_id) else { return false };
        let mut progress = lock(&self.progress);
        let submitted = progress.submitted;
        let copy = &mut progress.copies[index];
        if copy.feed != Feed::Behind || copy.next != from {
            return copy.feed == Feed::Behind;
        }
        copy.next = to;
        if copy.next == submitted {
            copy.feed = Feed::Live;
        }
        copy.feed == Feed::Behind
    }

    /// A copy has stored everything below `stored`. Returns what to tell it if that ends its doubt.
    pub fn stored(&self, segment: &Segment, node_id: u64, stored: u64) -> Option<(u64, u64)> {
        let index = self.index_of(node_id)?;
        let mut progress = lock(&self.progress);
        let copy = &mut progress.copies[index];
        copy.stored = copy.stored.max(stored);
        let whole = copy.doubt != 0 && copy.stored == segment.next_index();
        let clears = whole.then(|| (copy.stored, std::mem::take(&mut copy.doubt)));
        self.count(&mut progress, segment);
        clears
    }

    /// Is a commit to be told to this node? Once it is, it is taken as told.
    pub fn take_commit_due(&self, node_id: u64) -> bool {
        let Some(index) = self.index_of(node_id) else { return false };
        std::mem::take(&mut lock(&self.progress).copies[index].commit_due)
    }

    /// Looks again at a commit that the lease held up.
    pub fn lease_renewed(&self, segment: &Segment) {
        let mut progress = lock(&self.progress);
        if progress.held {
            self.count(&mut progress, segment);
        }
    }

    /// How long the oldest record that is not committed has been waiting.
    pub fn waiting(&self) -> Option<Duration> {
        lock(&self.progress).waiting_since.map(|since| since.elapsed())
    }

    /// The longest time that a node of the set could not be reached by now.
    pub fn away_for(&self) -> Option<Duration> {
        self.streams.iter().filter_map(|stream| stream.away_for()).max()
    }

    /// Is there a node of the set that has not stored everything below `count`?
    pub fn lacking(&self, count: u64) -> bool {
        lock(&self.progress).copies.iter().any(|copy| copy.stored < count)
    }

    fn index_of(&self, node_id: u64) -> Option<usize> {
        self.streams.iter().position(|stream| stream.node_id() == node_id)
    }

    /// Commits what enough copies have, if the lease runs: the check after the write, before the
    /// acknowledgement.
    fn count(&self, progress: &mut Progress, segment: &Segment) {
        let copies = progress.copies.iter().map(|copy| copy.stored);
        let tail = committed_tail(copies.chain([progress.stored_here]), self.needed);
        let before = segment.committed();
        if tail > before {
            progress.held = !self.lease.is_valid();
            if progress.held {
                return;
            }
            segment.commit(tail);
            for (index, stream) in self.streams.iter().enumerate() {
                let copy = &mut progress.copies[index];
                if copy.feed != Feed::Away && !std::mem::replace(&mut copy.commit_due, true) {
                    stream.push_commit(self.at);
                }
            }
        }
        progress.waiting_since = match progress.waiting_since {
            _ if progress.submitted <= tail => None,
            Some(since) if tail <= before => Some(since),
            _ => Some(Instant::now()),
        };
    }
}

impl Observer for Leading {
    fn submitted(&self, segment: &Segment, batch: &Arc<Batch>) {
        let mut progress = lock(&self.progress);
        progress.submitted = batch.end_index();
        progress.waiting_since.get_or_insert_with(Instant::now);
        for (copy, stream) in progress.copies.iter_mut().zip(&self.streams) {
            if copy.feed != Feed::Live {
                continue;
            }
            if copy.next == batch.base_index && stream.push_batch(segment, self.at, batch) {
                copy.next = batch.end_index();
                copy.commit_due = false;
            } else {
                copy.feed = Feed::Behind;
                stream.push_laggard(self.at.uid);
            }
        }
    }

    fn progressed(&self, segment: &Segment) {
        let mut progress = lock(&self.progress);
        progress.stored_here = segment.watermark();
        self.count(&mut progress, segment);
        for (copy, stream) in progress.copies.iter().zip(&self.streams) {
            if copy.feed == Feed::Behind {
                // The file has more now.
                stream.wake();
            }
        }
    }
}
