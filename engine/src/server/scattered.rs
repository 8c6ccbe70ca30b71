//! Writes of one read for topics that different nodes lead.
//!
//! What this node leads is appended, the rest is sent to the leaders, one message a node, and
//! everything is waited for before the connection goes on: so nothing newer of a topic is sent
//! anywhere before everything older is settled. What a leader hands back because it leads no more
//! is sent again to whoever leads next. What a lost leader did not answer is never sent again: it
//! may have been stored.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::broker::{Broker, TRY_AGAIN};
use crate::error::Refusal;
use crate::log::acks::{Acks, Batch};
use crate::log::forward::{self, ForwardError, Rest, Written, put_group};
use crate::log::rollover;
use crate::log::topic::{Route, Topic};
use crate::log::writer::{Accepted, Blocked, try_append};
use crate::metadata::state::SegmentAt;
use crate::store::Take;

/// How long a leader that another one has replaced may take to answer.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The writes, topic by topic.
pub struct Scattered<'a> {
    groups: Vec<Group<'a>>,
    deadline: Instant,
}

/// The records of one topic.
struct Group<'a> {
    topic: Result<Arc<Topic>, String>,
    take: Take,
    /// Not settled yet.
    rest: &'a [&'a [u8]],
    /// Who led the topic, and which segment, when that was last tried. Whatever differs from it is worth
    /// another try, also if it came while the answer was on its way.
    tried: Option<(Route, SegmentAt)>,
    parts: Vec<Part>,
}

/// Records that are settled, or stored here.
enum Part {
    Here(Arc<Topic>, Accepted),
    Answered { first_offset: u64, count: u32, stored: u32, refusal: Option<Refusal> },
}

/// What a group can do next.
enum Step {
    Done,
    Wait,
    Send(u64),
}

impl<'a> Scattered<'a> {
    /// Nothing yet. What has found no leader within `limit` is refused.
    pub fn new(limit: Duration) -> Self {
        Scattered { groups: Vec::new(), deadline: Instant::now() + limit }
    }

    /// Adds the records of one topic, or of a name that nobody registered.
    pub fn add(&mut self, topic: Result<Arc<Topic>, String>, records: &'a [&'a [u8]]) {
        self.groups.push(Group { topic, take: Take::UpToLimit, rest: records, tried: None, parts: Vec::new() });
    }

    /// Adds records that are stored together or not at all.
    pub fn add_whole(&mut self, topic: &Arc<Topic>, records: &'a [&'a [u8]]) {
        let topic = Ok(Arc::clone(topic));
        self.groups.push(Group { topic, take: Take::AllOrNone, rest: records, tried: None, parts: Vec::new() });
    }

    /// Stores everything, here and elsewhere; what is stored here may not be committed yet.
    pub async fn store(&mut self, broker: &Arc<Broker>) {
        loop {
            let mut by_node: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
            let mut waiting = false;
            for (index, group) in self.groups.iter_mut().enumerate() {
                match group.step(broker).await {
                    Step::Done => {}
                    Step::Wait => waiting = true,
                    Step::Send(node_id) => by_node.entry(node_id).or_default().push(index),
                }
            }
            if by_node.is_empty() && !waiting {
                return;
            }
            let moved = self.send(broker, by_node).await;
            if !waiting && !moved {
                continue;
            }
            if Instant::now() >= self.deadline {
                self.groups.iter_mut().for_each(|group| group.refuse(rollover::too_slow()));
                return;
            }
            self.wait_for_change().await;
        }
    }

    /// Sends each node what it leads; true if something came back that another node must take.
    async fn send(&mut self, broker: &Arc<Broker>, by_node: BTreeMap<u64, Vec<usize>>) -> bool {
        let mut tasks = JoinSet::new();
        let mut unanswered: Vec<usize> = by_node.values().flatten().copied().collect();
        for (node_id, indices) in by_node {
            let mut message = Vec::new();
            for index in &indices {
                let group = &self.groups[*index];
                if let Ok(topic) = &group.topic {
                    put_group(&mut message, &topic.name, topic.last_at(), group.take, group.rest);
                }
            }
            let topic = indices.first().and_then(|index| self.groups[*index].topic.clone().ok());
            let broker = Arc::clone(broker);
            tasks.spawn(async move {
                let outcome = tokio::select! {
                    outcome = forward::write(&broker, node_id, &message) => outcome,
                    () = deposed(topic, node_id) => Err(ForwardError::Unknown),
                };
                (indices, outcome)
            });
        }
        let mut moved = false;
        while let Some(done) = tasks.join_next().await {
            let Ok((indices, outcome)) = done else { continue };
            unanswered.retain(|index| !indices.contains(index));
            moved |= self.note(&indices, outcome);
        }
        // A task that panicked may have sent its groups.
        for index in unanswered {
            self.groups[index].refuse(forward::unknown_outcome());
        }
        moved
    }

    fn note(&mut self, indices: &[usize], outcome: Result<Vec<Written>, ForwardError>) -> bool {
        match outcome {
            Err(ForwardError::NotSent) => return true,
            Ok(all) if all.len() == indices.len() => {
                let groups = indices.iter().zip(all);
                return groups.fold(false, |moved, (index, written)| self.groups[*index].note(written) || moved);
            }
            Ok(_) | Err(ForwardError::Unknown) => {
                for index in indices {
                    self.groups[*index].refuse(forward::unknown_outcome());
                }
            }
        }
        false
    }

    /// Until the chain of one of the unsettled topics is another one than when it was tried. Not for
    /// long: a lease may run again, or a node be reached again, without any change.
    async fn wait_for_change(&self) {
        let mut unsettled = self.groups.iter().filter(|group| !group.rest.is_empty());
        let tried = unsettled.find_map(|group| Some((group.topic.as_ref().ok()?, group.tried?)));
        let Some((topic, seen)) = tried else { return tokio::time::sleep(TRY_AGAIN).await };
        // Either way there is something to try.
        let _ = tokio::time::timeout(TRY_AGAIN, topic.changed_since(seen)).await;
    }

    /// Adds what became of the records to the batch, group by group.
    pub fn into_parts(self, batch: &mut Batch) {
        for part in self.groups.into_iter().flat_map(|group| group.parts) {
            match part {
                Part::Here(topic, accepted) => batch.accepted(&topic, accepted),
                Part::Answered { count, stored, refusal, .. } => batch.answered(count, stored, refusal),
            };
        }
    }

    /// Records that this node has taken itself.
    pub fn stored_here(&self) -> u64 {
        let parts = self.groups.iter().flat_map(|group| &group.parts);
        parts.map(|part| if let Part::Here(_, accepted) = part { accepted.count } else { 0 }).sum()
    }

    /// Owes the reply to the `APPEND` that this was.
    pub fn into_append(self, acks: &mut Acks) -> Result<(), Refusal> {
        match self.groups.into_iter().flat_map(|group| group.parts).next() {
            Some(Part::Here(topic, accepted)) => acks.push_append(&topic, accepted),
            Some(Part::Answered { refusal: Some(refusal), .. }) => return Err(refusal),
            Some(Part::Answered { first_offset, count, .. }) => {
                acks.push_answered_append(first_offset, u64::from(count));
            }
            None => return Err(rollover::too_slow()),
        }
        Ok(())
    }
}

/// Completes once a node has lost a topic for so long that its answer would have come.
async fn deposed(topic: Option<Arc<Topic>>, node_id: u64) {
    let Some(topic) = topic else { return std::future::pending().await };
    topic
        .wait_for(|chain| {
            (!matches!(chain.route(), Route::Wait) && chain.route() != Route::Node(node_id)).then_some(())
        })
        .await;
    tokio::time::sleep(LAST_WORDS).await;
}

impl Group<'_> {
    /// Appends what this node leads.
    async fn step(&mut self, broker: &Arc<Broker>) -> Step {
        while !self.rest.is_empty() {
            let Ok(topic) = self.topic.clone() else {
                self.look_up(broker).await;
                continue;
            };
            self.tried = Some(topic.route_and_last());
            match try_append(broker, &topic, self.rest, self.take) {
                Ok(accepted) => {
                    self.rest = &self.rest[accepted.count as usize..];
                    self.parts.push(Part::Here(topic, accepted));
                }
                Err(Blocked::Pool) => broker.store.pool_available().await,
                Err(Blocked::RollingOver | Blocked::OtherSegment | Blocked::NoLease) => return Step::Wait,
                Err(Blocked::Elsewhere(node_id)) => return Step::Send(node_id),
                Err(Blocked::Deleted) => self.topic = Err(topic.name.to_string()),
                Err(Blocked::Refused(refusal)) => self.refuse(refusal),
            }
        }
        Step::Done
    }

    async fn look_up(&mut self, broker: &Arc<Broker>) {
        let Err(name) = &self.topic else { return };
        match super::appends::find_or_create(broker, name).await {
            Ok(()) => {
                if let Some(topic) = broker.topics.get(name) {
                    self.topic = Ok(topic);
                }
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// Everything that is not settled is refused.
    fn refuse(&mut self, refusal: Refusal) {
        let count = std::mem::take(&mut self.rest).len() as u32;
        if count > 0 {
            self.parts.push(Part::Answered { first_offset: 0, count, stored: 0, refusal: Some(refusal) });
        }
    }

    /// Takes a leader's answer; true if some records have to go elsewhere.
    fn note(&mut self, written: Written) -> bool {
        let Written { first_offset, stored, rest } = written;
        let stored = stored.min(self.rest.len() as u32);
        if stored > 0 {
            self.parts.push(Part::Answered { first_offset, count: stored, stored, refusal: None });
            self.rest = &self.rest[stored as usize..];
        }
        match rest {
            Rest::Nothing => false,
            Rest::Moved => !self.rest.is_empty(),
            Rest::Refused(refusal) => {
                self.refuse(refusal);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::topic::Writing;
    use crate::metadata::state::{Phase, SegmentInfo, TopicConfig, TopicInfo};
    use crate::types::{AckPolicy, Tier};

    fn topic() -> Arc<Topic> {
        let config = TopicConfig {
            replicas: 3,
            tier: Tier::PageCache,
            acks: AckPolicy::default(),
            segment_entries: 10,
            segment_bytes: 1 << 20,
            retention_bytes: None,
            retention_ms: None,
        };
        let segment = SegmentInfo {
            number: 1,
            base_offset: 0,
            epoch: 1,
            leader: 1,
            leader_run: 1,
            replicas: Vec::new(),
            write_quorum: 2,
            phase: Phase::Open,
            opened_at_ms: 0,
            possible_loss: false,
        };
        let info =
            TopicInfo { id: 1, config, segments: vec![segment], cursors: BTreeMap::new(), losses: 0, changed: 0 };
        Arc::new(Topic::new("t", &info))
    }

    /// At a rollover the chain is often there before the old leader's answer is.
    #[tokio::test(start_paused = true)]
    async fn a_change_while_the_answer_was_on_its_way_is_not_waited_for_again() {
        let topic = topic();
        topic.change(|chain| chain.writing = Writing::Elsewhere(2));
        let records: &[&[u8]] = &[b"record"];
        let mut writes = Scattered::new(Duration::from_secs(5));
        writes.add(Ok(Arc::clone(&topic)), records);
        writes.groups[0].tried = Some(topic.route_and_last());

        let began = Instant::now();
        writes.wait_for_change().await;
        assert_eq!(began.elapsed(), TRY_AGAIN, "nothing has changed");

        topic.change(|chain| chain.writing = Writing::Elsewhere(3));
        let began = Instant::now();
        writes.wait_for_change().await;
        assert_eq!(began.elapsed(), Duration::ZERO, "node 3 can be tried at once");
    }
}
