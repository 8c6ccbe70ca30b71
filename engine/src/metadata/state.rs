//! The metadata state machine: nodes, topics with their chains of segments, cursors.
//!
//! Pure and deterministic: the same commands in the same order give the same state on every
//! node, so nothing here asks for the time, the disk or chance (a command carries what it needs).
//! Every change is compare-and-set: a caller whose picture is out of date changes nothing and is
//! told so by [`Outcome::Stale`].
//!
//! ```text
//! topic "logs"   chain:  [1: Sealed{100}] [2: Sealed{80}] [4: Open]        (3 was empty and left)
//!                offset:  0 ……………………… 100 ………………… 180 ………▶ tail
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use super::command::{Closing, Command, CursorCommit, CursorMove, Outcome, Placement, SegmentAt};
use crate::types::{AckPolicy, SegmentUid, Tier};

/// Settings of a topic, fixed at its creation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicConfig {
    /// Copies asked for; an opening takes at most as many as there are nodes.
    pub replicas: u32,
    /// What an acknowledgement promises.
    pub tier: Tier,
    /// How many copies it waits for.
    #[serde(default)]
    pub acks: AckPolicy,
    /// Records in a segment.
    pub segment_entries: u64,
    /// Bytes in a segment, batch headers included.
    pub segment_bytes: u64,
    /// Oldest sealed segments go while the topic is larger than this. `None`: kept for ever.
    pub retention_bytes: Option<u64>,
    /// Sealed segments go when they are older than this. `None`: kept for ever.
    pub retention_ms: Option<u64>,
}

/// One run of one node's process. A process draws its run id when it starts, so what an earlier
/// run led or was recovering does not belong to a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Run {
    /// Node id; 0 while nobody is chosen.
    pub node_id: u64,
    /// Random id of the run.
    pub run_id: u64,
}

/// A node as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// How often this node id came with an empty directory before. Its Raft id is
    /// `generation * 65536 + node id`.
    pub generation: u64,
    /// Disk id of its data directory, in hexadecimal.
    pub disk_id: String,
    /// Run id of its last start.
    pub run_id: u64,
    /// `host:port` for other nodes.
    pub peer_address: String,
    /// `host:port` for clients.
    pub client_address: String,
}

/// One copy of a segment: a node and the very disk that it is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Node id.
    pub node_id: u64,
    /// Disk id, in hexadecimal.
    pub disk_id: String,
}

/// Where a segment is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// The leader may append.
    Open,
    /// Fenced; `recoverer` finds out where it ends.
    Sealing {
        /// Node that recovers it.
        recoverer: u64,
        /// Run of that node which may do so.
        recoverer_run: u64,
    },
    /// Ends for ever after `count` records.
    Sealed {
        /// Records in it.
        count: u64,
        /// Bytes in its file when it was sealed.
        bytes: u64,
        /// When, in milliseconds since 1970, by the proposer's clock.
        at_ms: u64,
    },
}

/// One link of a topic's chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentInfo {
    /// Position in the chain, from 1; never used twice within a topic.
    pub number: u64,
    /// Offset of its first record in the topic.
    pub base_offset: u64,
    /// Fences writers; rises along the chain and with every `BeginSeal`.
    pub epoch: u64,
    /// The one node that appends.
    pub leader: u64,
    /// The one run of that node which may do so.
    pub leader_run: u64,
    /// The copies, leader included.
    pub replicas: Vec<Replica>,
    /// Copies that must store a record before it is acknowledged (with [`AckPolicy::All`] the others
    /// as well); recovery counts on these.
    pub write_quorum: u32,
    /// Open, sealing or sealed.
    pub phase: Phase,
    /// When it was opened, in milliseconds since 1970, by the proposer's clock.
    pub opened_at_ms: u64,
    /// Acknowledged records may be missing at its end.
    pub possible_loss: bool,
}

/// A reader's durable position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CursorInfo {
    /// Next offset to deliver.
    pub offset: u64,
    /// Rises with every `Seek`; within one generation the offset only advances.
    pub generation: u64,
}

/// A topic: its settings, its chain, its cursors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicInfo {
    /// Number of the command that created it; never reused.
    pub id: u64,
    /// Settings.
    pub config: TopicConfig,
    /// The chain in order. The last one is never sealed.
    pub segments: Vec<SegmentInfo>,
    /// Positions by group.
    pub cursors: BTreeMap<String, CursorInfo>,
    /// Segments that were closed with possible loss, trimmed ones included.
    pub losses: u64,
    /// Number of the command that last changed the chain.
    #[serde(default)]
    pub changed: u64,
}

impl TopicInfo {
    /// The last segment: open, or being sealed.
    pub fn last(&self) -> &SegmentInfo {
        // A topic is created with a segment, and closing one opens the next in the same step.
        &self.segments[self.segments.len() - 1]
    }

    /// First offset that is still kept.
    pub fn first_offset(&self) -> u64 {
        self.segments[0].base_offset
    }
}

/// The whole metadata.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct State {
    /// Commands applied so far. The number of the command that creates a topic is its id.
    pub commands: u64,
    /// Nodes by id.
    pub nodes: BTreeMap<u64, NodeInfo>,
    /// Nodes that are to leave.
    #[serde(default)]
    pub leaving: BTreeSet<u64>,
    /// Newest generation of every node id that was ever registered, also of those that left.
    generations: BTreeMap<u64, u64>,
    /// Topics by name.
    pub topics: BTreeMap<String, TopicInfo>,
    /// Name by topic id.
    names: BTreeMap<u64, String>,
}

impl State {
    /// Applies the next command.
    pub fn apply(&mut self, command: &Command) -> Outcome {
        self.commands += 1;
        match command {
            Command::RegisterNode { node_id, info } => self.register_node(*node_id, info),
            Command::LeaveNode { node_id, generation } => self.leave_node(*node_id, *generation),
            Command::RemoveNode { node_id, generation } => self.remove_node(*node_id, *generation),
            Command::CreateTopic { name, config, placement, at_ms } => {
                self.create_topic(name, config, placement, *at_ms)
            }
            Command::DeleteTopic { name, id } => self.delete_topic(name, *id),
            Command::BeginSeal { segments, recoverers } => {
                let recoverer = |index: usize| recoverers.get(index).copied().unwrap_or_default();
                let seal = |(index, at): (usize, &SegmentAt)| self.begin_seal(*at, recoverer(index));
                Outcome::Applied(segments.iter().enumerate().map(seal).collect())
            }
            Command::SealAndOpen { closings, at_ms } => {
                Outcome::Applied(closings.iter().map(|closing| self.seal_and_open(closing, *at_ms)).collect())
            }
            Command::SetReplicas { uid, from, to } => self.set_replicas(*uid, from, to),
            Command::Trim { topic_id, upto } => self.trim(*topic_id, *upto),
            Command::CommitCursors { commits } => {
                Outcome::Applied(commits.iter().map(|commit| self.commit_cursors(commit)).collect())
            }
            Command::Seek { segment, group, generation, offset } => self.seek(*segment, group, *generation, *offset),
        }
    }

    /// The generation of a node that comes with an empty directory.
    pub fn next_generation(&self, node_id: u64) -> u64 {
        self.generations.get(&node_id).map_or(0, |newest| newest + 1)
    }

    /// How many nodes there are to hold copies: those that are to leave do not count.
    pub fn members(&self) -> usize {
        self.nodes.keys().filter(|node_id| !self.leaving.contains(node_id)).count()
    }

    /// Copies that a segment of a topic is to have: as many as were asked for, if there are so many nodes.
    pub fn wanted_copies(&self, config: &TopicConfig) -> usize {
        (config.replicas as usize).min(self.members()).max(1)
    }

    /// Does the replica set of any segment name this node?
    pub fn holds_segments(&self, node_id: u64) -> bool {
        let mut segments = self.topics.values().flat_map(|topic| &topic.segments);
        segments.any(|segment| segment.replicas.iter().any(|replica| replica.node_id == node_id))
    }

    /// The topic with this id, and its name.
    pub fn topic_by_id(&self, id: u64) -> Option<(&str, &TopicInfo)> {
        let name = self.names.get(&id)?;
        self.topics.get(name).map(|topic| (name.as_str(), topic))
    }

    fn topic_by_id_mut(&mut self, id: u64) -> Option<&mut TopicInfo> {
        self.topics.get_mut(self.names.get(&id)?)
    }

    /// The last segment of a topic, if it is the one meant and at that epoch.
    fn last_at(&mut self, at: SegmentAt) -> Option<&mut TopicInfo> {
        let topic = self.topic_by_id_mut(at.uid.topic_id)?;
        let last = topic.last();
        (last.number == at.uid.number && last.epoch == at.epoch).then_some(topic)
    }

    fn register_node(&mut self, node_id: u64, info: &NodeInfo) -> Outcome {
        let known = self.nodes.get(&node_id);
        let same = known.is_some_and(|is| (is.generation, &is.disk_id) == (info.generation, &info.disk_id));
        if !same && info.generation != self.next_generation(node_id) {
            return Outcome::Stale;
        }
        if !same {
            self.leaving.remove(&node_id);
        }
        self.generations.insert(node_id, info.generation);
        self.nodes.insert(node_id, info.clone());
        Outcome::Registered(info.generation)
    }

    fn leave_node(&mut self, node_id: u64, generation: u64) -> Outcome {
        if self.nodes.get(&node_id).is_none_or(|info| info.generation != generation) {
            return Outcome::Stale;
        }
        self.leaving.insert(node_id);
        Outcome::Applied(vec![true])
    }

    fn remove_node(&mut self, node_id: u64, generation: u64) -> Outcome {
        let meant = self.nodes.get(&node_id).is_some_and(|info| info.generation == generation);
        if !meant || !self.leaving.contains(&node_id) || self.holds_segments(node_id) {
            return Outcome::Stale;
        }
        self.nodes.remove(&node_id);
        self.leaving.remove(&node_id);
        Outcome::Applied(vec![true])
    }

    fn create_topic(&mut self, name: &str, config: &TopicConfig, placement: &Placement, at_ms: u64) -> Outcome {
        if let Some(topic) = self.topics.get(name) {
            return Outcome::Exists(topic.id);
        }
        let id = self.commands;
        let topic = TopicInfo {
            id,
            config: config.clone(),
            segments: vec![open_segment(1, 0, 1, placement, at_ms)],
            cursors: BTreeMap::new(),
            losses: 0,
            changed: id,
        };
        self.topics.insert(name.to_owned(), topic);
        self.names.insert(id, name.to_owned());
        Outcome::Created(id)
    }

    fn delete_topic(&mut self, name: &str, id: u64) -> Outcome {
        if self.topics.get(name).is_none_or(|topic| topic.id != id) {
            return Outcome::Stale;
        }
        self.topics.remove(name);
        self.names.remove(&id);
        Outcome::Applied(vec![true])
    }

    fn begin_seal(&mut self, at: SegmentAt, recoverer: Run) -> bool {
        let changed = self.commands;
        let Some(topic) = self.last_at(at) else { return false };
        topic.changed = changed;
        let Some(last) = topic.segments.last_mut() else { return false };
        last.epoch += 1;
        last.phase = Phase::Sealing { recoverer: recoverer.node_id, recoverer_run: recoverer.run_id };
        true
    }

    fn seal_and_open(&mut self, closing: &Closing, at_ms: u64) -> bool {
        let changed = self.commands;
        let Some(topic) = self.last_at(closing.segment) else { return false };
        topic.changed = changed;
        let Some(mut last) = topic.segments.pop() else { return false };
        // Who recovers a segment knows nothing of its readers.
        let by_leader = last.phase == Phase::Open;
        let next =
            open_segment(last.number + 1, last.base_offset + closing.count, last.epoch + 1, &closing.next, at_ms);
        if closing.count > 0 {
            last.phase = Phase::Sealed { count: closing.count, bytes: closing.bytes, at_ms };
            last.possible_loss = closing.possible_loss;
            if let Some(holders) = &closing.holders {
                last.replicas = holders.clone();
            }
            topic.segments.push(last);
        }
        topic.losses += u64::from(closing.possible_loss);
        let tail = next.base_offset;
        topic.segments.push(next);
        if by_leader {
            move_cursors(topic, &closing.cursors, tail);
        }
        true
    }

    fn set_replicas(&mut self, uid: SegmentUid, from: &[Replica], to: &[Replica]) -> Outcome {
        let changed = self.commands;
        let Some(topic) = self.topic_by_id_mut(uid.topic_id) else { return Outcome::Stale };
        let segment = topic.segments.iter_mut().find(|segment| segment.number == uid.number);
        match segment {
            Some(segment) if matches!(segment.phase, Phase::Sealed { .. }) && segment.replicas == from => {
                segment.replicas = to.to_vec();
                topic.changed = changed;
                Outcome::Applied(vec![true])
            }
            _ => Outcome::Stale,
        }
    }

    fn trim(&mut self, topic_id: u64, upto: u64) -> Outcome {
        let changed = self.commands;
        let Some(topic) = self.topic_by_id_mut(topic_id) else { return Outcome::Stale };
        let expired = topic
            .segments
            .iter()
            .take_while(
                |segment| matches!(segment.phase, Phase::Sealed { count, .. } if segment.base_offset + count <= upto),
            )
            .count();
        if expired == 0 {
            return Outcome::Stale;
        }
        topic.segments.drain(..expired);
        topic.changed = changed;
        Outcome::Applied(vec![true])
    }

    fn commit_cursors(&mut self, commit: &CursorCommit) -> bool {
        let Some(topic) = self.last_at(commit.segment) else { return false };
        if topic.last().phase != Phase::Open {
            return false;
        }
        // How far the open segment is only its leader knows, so there is no upper bound here.
        move_cursors(topic, &commit.moves, u64::MAX);
        // A cursor that somebody has set meanwhile is not where the leader believes it to be.
        commit.moves.iter().all(|moved| {
            topic.cursors.get(&moved.group).is_none_or(|cursor| cursor.generation == moved.cursor.generation)
        })
    }

    fn seek(&mut self, segment: SegmentAt, group: &str, generation: u64, offset: u64) -> Outcome {
        let Some(topic) = self.last_at(segment) else { return Outcome::Stale };
        let current = topic.cursors.get(group).copied().unwrap_or_default();
        if topic.last().phase != Phase::Open || current.generation != generation {
            return Outcome::Stale;
        }
        topic.cursors.insert(group.to_owned(), CursorInfo { offset, generation: generation + 1 });
        Outcome::Applied(vec![true])
    }
}

fn open_segment(number: u64, base_offset: u64, epoch: u64, placement: &Placement, at_ms: u64) -> SegmentInfo {
    SegmentInfo {
        number,
        base_offset,
        epoch,
        leader: placement.leader,
        leader_run: placement.leader_run,
        replicas: placement.replicas.clone(),
        write_quorum: placement.write_quorum,
        phase: Phase::Open,
        opened_at_ms: at_ms,
        possible_loss: false,
    }
}

/// Within its generation a cursor only advances, and never past `limit`.
fn move_cursors(topic: &mut TopicInfo, moves: &[CursorMove], limit: u64) {
    for CursorMove { group, cursor } in moves {
        let current = topic.cursors.get(group).copied().unwrap_or_default();
        if cursor.generation == current.generation && cursor.offset > current.offset && cursor.offset <= limit {
            topic.cursors.insert(group.clone(), *cursor);
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
