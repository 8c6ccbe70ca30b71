//! What openraft is told about us.

use std::io::Cursor;

use serde::{Deserialize, Serialize};

use super::state::{Command, Outcome};

openraft::declare_raft_types!(
    /// The types of the metadata group.
    pub TypeConfig:
        D = Batch,
        R = Vec<Outcome>,
        NodeId = u64,
        Node = openraft::BasicNode,
        SnapshotData = Cursor<Vec<u8>>,
);

/// Raft id: `generation * 65536 + node id`. A node that comes back with an empty directory has
/// another one, because it has forgotten whom it voted for.
pub(super) type NodeId = u64;
pub(super) type Entry = openraft::Entry<TypeConfig>;
pub(super) type EntryPayload = openraft::EntryPayload<TypeConfig>;
pub(super) type Raft = openraft::Raft<TypeConfig>;

/// Node ids are below this.
const NODE_IDS: u64 = 65_536;

/// The Raft id of a node in one of its generations.
pub(super) fn raft_id(generation: u64, node_id: u64) -> NodeId {
    generation * NODE_IDS + node_id
}

/// The node that a Raft id belongs to.
pub(super) fn node_of(raft_id: NodeId) -> u64 {
    raft_id % NODE_IDS
}

/// One entry of the Raft log: commands that were proposed at the same time, so that they cost one
/// write and one round together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Batch {
    /// Applied only if the entry is of this term, else every command is stale.
    pub term: Option<u64>,
    /// The commands, in order.
    pub commands: Vec<Command>,
    /// Number that the proposing process gave it, from 1, so that it can tell whether the batch
    /// came into its log. Means nothing elsewhere.
    #[serde(skip)]
    pub number: u64,
}
