//! What can be asked of the metadata, and what became of it.

use serde::{Deserialize, Serialize};

use super::state::{CursorInfo, NodeInfo, Replica, Run, TopicConfig};
use crate::types::SegmentUid;

/// Names one segment as the caller believes it to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SegmentAt {
    /// Which segment.
    pub uid: SegmentUid,
    /// The epoch that the caller knows.
    pub epoch: u64,
}

/// Who will hold a segment that is about to be opened. Proposers leave it empty
/// (`Placement::default()`): the Raft leader knows who is alive and fills it in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Placement {
    /// The node that appends.
    pub leader: u64,
    /// The run of that node.
    pub leader_run: u64,
    /// The copies, leader included.
    pub replicas: Vec<Replica>,
    /// Copies needed for an acknowledgement.
    pub write_quorum: u32,
}

/// One closing and opening (see [`Command::SealAndOpen`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// The segment, with the newest epoch.
    pub segment: SegmentAt,
    /// Its final number of records.
    pub count: u64,
    /// Bytes in its file.
    pub bytes: u64,
    /// Acknowledged records may be missing past `count`.
    pub possible_loss: bool,
    /// The copies that are known to hold everything below `count`: after a recovery they become
    /// the segment's set. `None`: the set stays as it is.
    pub holders: Option<Vec<Replica>>,
    /// Who holds the next segment.
    pub next: Placement,
    /// Positions that moved since the last commit.
    pub cursors: Vec<CursorMove>,
}

/// A new position of one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorMove {
    /// The group.
    pub group: String,
    /// Where it is and in which generation.
    pub cursor: CursorInfo,
}

/// The positions of one topic's groups (see [`Command::CommitCursors`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorCommit {
    /// The open segment of the topic, whose leader owns the cursors.
    pub segment: SegmentAt,
    /// The moves.
    pub moves: Vec<CursorMove>,
}

/// Everything that can change the state. Lists are applied item by item: a stale item changes
/// nothing, the others count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A node joins or comes back: a known one with its generation and its disk, an unknown or
    /// empty one with the next generation.
    RegisterNode {
        /// Node id.
        node_id: u64,
        /// Its addresses, disk and run.
        info: NodeInfo,
    },
    /// A node is to leave, if it still has this generation: it gets no new segments.
    LeaveNode {
        /// Node id.
        node_id: u64,
        /// Generation that the caller means.
        generation: u64,
    },
    /// A node that was to leave is gone, if no segment names it any more. The Raft leader proposes it.
    RemoveNode {
        /// Node id.
        node_id: u64,
        /// Generation that the caller means.
        generation: u64,
    },
    /// Creates a topic with segment 1 open, unless the name is taken.
    CreateTopic {
        /// Name.
        name: String,
        /// Settings.
        config: TopicConfig,
        /// Who holds segment 1.
        placement: Placement,
        /// Milliseconds since 1970.
        at_ms: u64,
    },
    /// Removes a topic, if it still has this id.
    DeleteTopic {
        /// Name.
        name: String,
        /// Id that the caller means.
        id: u64,
    },
    /// `Open(e)` or `Sealing(e)` → `Sealing(e+1)`.
    BeginSeal {
        /// The segments.
        segments: Vec<SegmentAt>,
        /// Who recovers each of them. Proposers leave it empty, the Raft leader fills it in.
        recoverers: Vec<Run>,
    },
    /// Closes N at its count and opens N+1 at epoch+1 in one step.
    SealAndOpen {
        /// The segments.
        closings: Vec<Closing>,
        /// Milliseconds since 1970.
        at_ms: u64,
    },
    /// Changes the copies of a sealed segment (repair).
    SetReplicas {
        /// The segment.
        uid: SegmentUid,
        /// The copies that the caller knows.
        from: Vec<Replica>,
        /// The copies that there are now: each holds everything, verified and flushed.
        to: Vec<Replica>,
    },
    /// Forgets sealed segments that end at or below an offset.
    Trim {
        /// Topic id.
        topic_id: u64,
        /// First offset to keep (rounded down to a segment's start).
        upto: u64,
    },
    /// Moves cursors forward within their generation.
    CommitCursors {
        /// Topics with moves.
        commits: Vec<CursorCommit>,
    },
    /// Sets a cursor anywhere and starts a new generation. Only the leader of the open segment
    /// proposes it.
    Seek {
        /// The open segment of the topic.
        segment: SegmentAt,
        /// Group.
        group: String,
        /// Generation that the caller knows.
        generation: u64,
        /// New position.
        offset: u64,
    },
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was applied as asked (lists: item by item, `true` for applied).
    Applied(Vec<bool>),
    /// The node is registered with this generation.
    Registered(u64),
    /// The topic was created with this id.
    Created(u64),
    /// The name is taken by the topic with this id; nothing changed.
    Exists(u64),
    /// The caller's picture is out of date; nothing changed.
    Stale,
}
