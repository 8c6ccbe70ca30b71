//! A topic on this node: its chain of segments, and which of them takes appends.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::Notify;

use super::cursor::Cursors;
use crate::error::Refusal;
use crate::metadata::state::{Phase, SegmentAt, SegmentInfo, TopicConfig, TopicInfo};
use crate::store::{Segment, SegmentSpec, Store};
use crate::types::SegmentUid;

/// One segment of the chain with its handle.
#[derive(Clone)]
pub struct Link {
    /// Offset of its first record.
    pub base_offset: u64,
    /// Its final number of records; `None` for the last one.
    pub sealed_count: Option<u64>,
    /// Where the records are.
    pub segment: Segment,
}

impl Link {
    /// Position in the chain.
    pub fn number(&self) -> u64 {
        self.segment.spec().uid.number
    }

    /// First offset past its committed records.
    pub fn end_offset(&self) -> u64 {
        self.base_offset + self.sealed_count.unwrap_or_else(|| self.segment.watermark())
    }
}

/// What an append meets.
#[derive(Debug, Clone)]
pub enum Writing {
    /// The last segment takes it.
    Open,
    /// The next segment is being opened; wait.
    RollingOver,
    /// Refused until the cause is gone (a full disk).
    Refusing(Refusal),
    /// The topic was deleted.
    Deleted,
}

/// The chain as this node has it, in step with the metadata.
pub struct Chain {
    /// Never empty; all but the last are sealed.
    pub links: VecDeque<Link>,
    /// What an append meets.
    pub writing: Writing,
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
}

/// A topic on this node. An idle one costs its chain and a few hundred bytes: no task, no timer.
pub struct Topic {
    /// Id; a topic that is deleted and registered again has another one.
    pub id: u64,
    /// Name.
    pub name: Arc<str>,
    /// Settings.
    pub config: TopicConfig,
    /// Reader positions.
    pub cursors: Cursors,
    chain: RwLock<Chain>,
    changed: Notify,
}

impl Topic {
    /// Builds it from metadata; `open` is the handle for its last segment.
    pub fn new(name: &str, info: &TopicInfo, store: &Store, open: Segment) -> Self {
        let mut links: VecDeque<Link> = info
            .segments
            .iter()
            .filter_map(|segment| match segment.phase {
                Phase::Sealed { count, .. } => Some(Link {
                    base_offset: segment.base_offset,
                    sealed_count: Some(count),
                    segment: store.sealed(spec(info.id, &info.config, segment), count),
                }),
                Phase::Open | Phase::Sealing { .. } => None,
            })
            .collect();
        links.push_back(Link { base_offset: info.last().base_offset, sealed_count: None, segment: open });
        Topic {
            id: info.id,
            name: name.into(),
            config: info.config.clone(),
            cursors: Cursors::new(&info.cursors),
            chain: RwLock::new(Chain { links, writing: Writing::Open }),
            changed: Notify::new(),
        }
    }

    /// The chain, for a short look.
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

    /// The last segment as metadata names it, for compare-and-set.
    pub fn last_at(&self) -> SegmentAt {
        let chain = self.chain();
        let spec = chain.last().segment.spec();
        SegmentAt { uid: spec.uid, epoch: spec.epoch }
    }

    /// First offset that is not committed yet.
    pub fn tail(&self) -> u64 {
        self.chain().last().end_offset()
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
