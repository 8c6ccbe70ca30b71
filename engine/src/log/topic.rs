//! A topic on this node: its chain of segments, and which of them takes appends.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::Notify;

use super::cursor::Cursors;
use crate::error::Refusal;
use crate::metadata::state::{SegmentAt, SegmentInfo, TopicConfig, TopicInfo};
use crate::store::{Segment, SegmentSpec};
use crate::types::SegmentUid;

/// One segment of the chain.
#[derive(Clone)]
pub struct Link {
    /// Position in the chain.
    pub number: u64,
    /// The newest epoch that this node's metadata show.
    pub epoch: u64,
    /// Offset of its first record.
    pub base_offset: u64,
    /// Its final number of records; `None` for the last one.
    pub sealed_count: Option<u64>,
    /// This node's copy, if it has one.
    pub segment: Option<Segment>,
}

impl Link {
    /// First offset past the committed records that this node knows of.
    pub fn end_offset(&self) -> u64 {
        let open_end = || self.segment.as_ref().map_or(0, Segment::readable_end);
        self.base_offset + self.sealed_count.unwrap_or_else(open_end)
    }
}

/// What an append meets.
#[derive(Debug, Clone)]
pub enum Writing {
    /// This node leads, and the last segment takes it.
    Open,
    /// The next segment is being opened, or the last one recovered; wait.
    RollingOver,
    /// That node leads: pass it on.
    Elsewhere(u64),
    /// Refused until the cause is gone (a full disk).
    Refusing(Refusal),
    /// The topic was deleted.
    Deleted,
}

/// Who does the work for a topic now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// This node.
    Here,
    /// Nobody yet; wait for a change.
    Wait,
    /// Another node.
    Node(u64),
    /// Nobody ever again.
    Deleted,
}

/// The chain as this node has it, in step with the metadata.
pub struct Chain {
    /// Never empty; all but the last are sealed.
    pub links: VecDeque<Link>,
    /// What an append meets.
    pub writing: Writing,
    /// This node moves the topic's cursors. Not any more once their positions are on their way
    /// into metadata together with the end of the segment.
    pub cursors_here: bool,
    /// The disk was full: the next segment takes nothing before there is space.
    pub waits_for_space: bool,
}

impl Chain {
    /// The last link.
    pub fn last(&self) -> &Link {
        // A chain is built with one segment and only loses those before the last.
        &self.links[self.links.len() - 1]
    }

    /// First offset kept.
    pub fn first_offset(&self) -> u64 {
        self.links[0].base_offset
    }

    /// The link that holds `offset`, or the last one for offsets at and past the tail.
    pub fn link_at(&self, offset: u64) -> Option<&Link> {
        let after = self.links.partition_point(|link| link.base_offset <= offset);
        after.checked_sub(1).map(|index| &self.links[index])
    }

    /// Who does the work now.
    pub fn route(&self) -> Route {
        match self.writing {
            Writing::Open | Writing::Refusing(_) => Route::Here,
            Writing::RollingOver => Route::Wait,
            Writing::Elsewhere(node_id) => Route::Node(node_id),
            Writing::Deleted => Route::Deleted,
        }
    }
}

/// A topic on this node. An idle one costs its chain and a few hundred bytes: no task, no timer.
pub struct Topic {
    /// Id; a topic that is deleted and registered again has another one.
    pub id: u64,
    /// Name.
    pub name: Arc<str>,
    /// Settings.
    pub config: TopicConfig,
    cursors: RwLock<Arc<Cursors>>,
    chain: RwLock<Chain>,
    changed: Notify,
}

impl Topic {
    /// A topic that metadata have, without any segment handle yet.
    pub fn new(name: &str, info: &TopicInfo) -> Self {
        let first = &info.segments[0];
        let link =
            Link { number: first.number, epoch: 0, base_offset: first.base_offset, sealed_count: None, segment: None };
        Topic {
            id: info.id,
            name: name.into(),
            config: info.config.clone(),
            cursors: RwLock::new(Arc::new(Cursors::new(&info.cursors))),
            chain: RwLock::new(Chain {
                links: VecDeque::from([link]),
                writing: Writing::RollingOver,
                cursors_here: false,
                waits_for_space: false,
            }),
            changed: Notify::new(),
        }
    }

    /// The chain, for a short look. Never take it twice at a time, not even within one expression: a
    /// writer that waits in between would make the second one wait for the first, for ever.
    pub fn chain(&self) -> RwLockReadGuard<'_, Chain> {
        self.chain.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the chain and wakes everyone who waits for a change.
    pub fn change<R>(&self, change: impl FnOnce(&mut Chain) -> R) -> R {
        let result = change(&mut self.chain_mut());
        self.changed.notify_waiters();
        result
    }

    /// Waits until `check` finds something in the chain.
    pub async fn wait_for<R>(&self, check: impl Fn(&Chain) -> Option<R>) -> R {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Listening begins before the look, so that no change falls in between.
            changed.as_mut().enable();
            if let Some(found) = check(&self.chain()) {
                return found;
            }
            changed.await;
        }
    }

    /// Waits until an append may be tried again, or for the refusal that it would meet.
    pub async fn wait_writable(&self) {
        self.wait_for(|chain| (!matches!(chain.writing, Writing::RollingOver)).then_some(())).await;
    }

    /// Does this node take the topic's records, or is it about to hand it on?
    pub fn is_led_here(&self) -> bool {
        matches!(self.chain().writing, Writing::Open)
    }

    /// Reader positions, which count while this node leads.
    pub fn cursors(&self) -> Arc<Cursors> {
        Arc::clone(&self.cursors.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// This node becomes the leader: the positions start from what metadata have.
    pub fn take_cursors(&self, info: &TopicInfo) {
        *self.cursors.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Cursors::new(&info.cursors));
    }

    /// The last segment as metadata names it, for compare-and-set.
    pub fn last_at(&self) -> SegmentAt {
        self.route_and_last().1
    }

    /// The last segment.
    pub fn segment_uid(&self) -> SegmentUid {
        self.last_at().uid
    }

    /// Who does the work now, and the last segment.
    pub fn route_and_last(&self) -> (Route, SegmentAt) {
        self.look_at(&self.chain())
    }

    /// Completes once [`Topic::route_and_last`] is something else than `seen`, also if it is already.
    pub async fn changed_since(&self, seen: (Route, SegmentAt)) {
        self.wait_for(|chain| (self.look_at(chain) != seen).then_some(())).await;
    }

    fn look_at(&self, chain: &Chain) -> (Route, SegmentAt) {
        let last = chain.last();
        let at = SegmentAt { uid: SegmentUid { topic_id: self.id, number: last.number }, epoch: last.epoch };
        (chain.route(), at)
    }

    /// First offset that is kept, and the first that is not committed yet, as far as this node knows.
    pub fn bounds(&self) -> (u64, u64) {
        let chain = self.chain();
        (chain.first_offset(), chain.last().end_offset())
    }

    /// First offset that is not committed yet, as far as this node knows.
    pub fn tail(&self) -> u64 {
        self.chain().last().end_offset()
    }

    /// This node's copy of a segment of the chain.
    pub fn segment(&self, number: u64) -> Option<Segment> {
        self.chain().links.iter().find(|link| link.number == number)?.segment.clone()
    }

    fn chain_mut(&self) -> RwLockWriteGuard<'_, Chain> {
        self.chain.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the store needs to know about a segment.
pub fn spec(topic_id: u64, config: &TopicConfig, segment: &SegmentInfo) -> SegmentSpec {
    SegmentSpec {
        uid: SegmentUid { topic_id, number: segment.number },
        epoch: segment.epoch,
        tier: config.tier,
        segment_entries: config.segment_entries,
        segment_bytes: config.segment_bytes,
    }
}
