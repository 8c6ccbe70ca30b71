//! What nodes ask each other on control connections.
//!
//! A body is `[u32 length of the JSON][JSON][bytes that need no encoding]`.

use openraft::error::{InstallSnapshotError, RaftError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::MetadataError;
use super::raft_types::{NodeId, TypeConfig};
use super::state::{Command, NodeInfo, Outcome};
use crate::peer::control::{CallError, Control};

/// A request.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Raft: entries or a heartbeat. `target` is the Raft id that is meant: the node may have come
    /// back as another one.
    Append { target: NodeId, request: AppendEntriesRequest<TypeConfig> },
    /// Raft: an election.
    Vote { target: NodeId, request: VoteRequest<NodeId> },
    /// Raft: a piece of a snapshot; its data travel behind the JSON.
    Snapshot { target: NodeId, piece: InstallSnapshotRequest<TypeConfig> },
    /// To the Raft leader: a change.
    Propose(Command),
    /// To the Raft leader: up to where must I apply to have seen everything that is committed?
    ReadIndex,
    /// To the Raft leader: a lease for a run of a node.
    Lease { node_id: u64, run_id: u64 },
    /// From a leader that stops: stand for election.
    Elect { target: NodeId },
    /// To any node: let an empty directory in. Its generation is filled in.
    Join { node_id: u64, info: NodeInfo },
}

/// A reply, to the request of the same name.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Append(Result<AppendEntriesResponse<NodeId>, RaftError<NodeId>>),
    Vote(Result<VoteResponse<NodeId>, RaftError<NodeId>>),
    Snapshot(Result<InstallSnapshotResponse<NodeId>, RaftError<NodeId, InstallSnapshotError>>),
    /// Log index of the entry, and what became of the command.
    Propose(Result<(u64, Outcome), Refused>),
    ReadIndex(Result<u64, Refused>),
    /// The lease counts once this index is applied.
    Lease(Result<u64, Refused>),
    Join(Result<Joined, Refused>),
    Elect,
    /// The request makes no sense here.
    Bad(String),
}

/// What a node needs to become a member.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Joined {
    /// In hexadecimal, because JSON has no such numbers.
    pub(super) cluster_id: String,
    /// Generation under which the node was registered.
    pub(super) generation: u64,
}

/// Why a request to the Raft leader was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub(super) enum Refused {
    /// Another node leads, or none. Nothing was done.
    #[error("this node is not the Raft leader")]
    NotLeader,
    /// The node has not registered this run. Nothing was done.
    #[error("the run is not registered")]
    NotRegistered,
    /// Too few nodes are alive. Nothing was done.
    #[error("{needed} live nodes are needed and there are {live}")]
    TooFewNodes { needed: usize, live: usize },
    /// The node id belongs to a node that is alive. Nothing was done.
    #[error("node id {0} belongs to a node that is running; choose another --node-id")]
    NodeIdInUse(u64),
    /// Nothing was done.
    #[error("a metadata command of {0} bytes is too large")]
    TooLarge(usize),
    /// The log has no space. Nothing was done.
    #[error("the metadata log is full")]
    Full,
    /// It may have been done, or be done yet.
    #[error("the outcome is not known")]
    Unknown,
}

impl From<Refused> for MetadataError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotLeader | Refused::NotRegistered => MetadataError::NoLeader,
            Refused::TooFewNodes { needed, live } => MetadataError::TooFewNodes { needed, live },
            Refused::NodeIdInUse(node_id) => MetadataError::NodeIdInUse(node_id),
            Refused::TooLarge(bytes) => MetadataError::TooLarge { bytes },
            Refused::Full => MetadataError::Full,
            Refused::Unknown => MetadataError::Unknown,
        }
    }
}

fn encode<T: Serialize>(message: &T, tail: &[u8]) -> Vec<u8> {
    let mut body = vec![0; 4];
    // Our own types have string keys only and cannot fail; an empty body is answered as bad.
    if serde_json::to_writer(&mut body, message).is_err() {
        body.truncate(4);
    }
    let length = (body.len() - 4) as u32;
    body[..4].copy_from_slice(&length.to_le_bytes());
    body.extend_from_slice(tail);
    body
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<(T, &[u8]), String> {
    let (length, rest) = body.split_first_chunk::<4>().ok_or("the body is cut")?;
    let json = rest.get(..u32::from_le_bytes(*length) as usize).ok_or("the body is cut")?;
    let message = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    Ok((message, &rest[json.len()..]))
}

impl Request {
    pub(super) fn encode(mut self) -> Vec<u8> {
        let tail = match &mut self {
            Request::Snapshot { piece, .. } => std::mem::take(&mut piece.data),
            _ => Vec::new(),
        };
        encode(&self, &tail)
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, String> {
        let (mut request, tail) = decode(body)?;
        if let Request::Snapshot { piece, .. } = &mut request {
            piece.data = tail.to_vec();
        }
        Ok(request)
    }
}

impl Reply {
    pub(super) fn encode(&self) -> Vec<u8> {
        encode(self, &[])
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, String> {
        decode(body).map(|(reply, _)| reply)
    }
}

/// Asks a node.
pub(super) async fn call(node: &Control, request: Request) -> Result<Reply, CallError> {
    let body = node.call(request.encode()).await?;
    Ok(Reply::decode(&body).unwrap_or_else(Reply::Bad))
}
