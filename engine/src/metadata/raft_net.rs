//! How openraft reaches the other nodes: requests on the control connection to each.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption, RPCTypes, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::{AnyError, BasicNode};

use super::raft_types::{NodeId, TypeConfig, node_of};
use super::rpc::{self, Reply, Request};
use crate::peer::Peers;
use crate::peer::control::{CallError, Control};

/// How long a node that cannot be reached is left alone. Short, because a restarted node wants to
/// hear of the cluster at once.
const BACKOFF: Duration = Duration::from_millis(100);

/// The control connections of this node, one a node.
#[derive(Clone)]
pub(super) struct Nodes {
    peers: Peers,
    controls: Arc<Mutex<HashMap<u64, Control>>>,
}

impl Nodes {
    pub(super) fn new(peers: Peers) -> Self {
        Nodes { peers, controls: Arc::default() }
    }

    /// The connection to a node. Must be called on the runtime of the Raft thread.
    pub(super) fn control(&self, node_id: u64) -> Control {
        let mut controls = self.controls.lock().unwrap_or_else(PoisonError::into_inner);
        controls.entry(node_id).or_insert_with(|| Control::spawn(self.peers.clone(), node_id)).clone()
    }
}

impl RaftNetworkFactory<TypeConfig> for Nodes {
    type Network = Link;

    async fn new_client(&mut self, target: NodeId, _node: &BasicNode) -> Link {
        Link { target, control: self.control(node_of(target)) }
    }
}

/// openraft's way to one Raft id.
pub(super) struct Link {
    target: NodeId,
    control: Control,
}

type Failed<E> = RPCError<NodeId, BasicNode, RaftError<NodeId, E>>;

impl Link {
    async fn ask<T, E: std::error::Error>(
        &self,
        action: RPCTypes,
        request: Request,
        option: &RPCOption,
        unpack: impl FnOnce(Reply) -> Option<Result<T, RaftError<NodeId, E>>>,
    ) -> Result<T, Failed<E>> {
        let timeout = option.hard_ttl();
        let reply = match tokio::time::timeout(timeout, rpc::call(&self.control, request)).await {
            Err(_) => return Err(Timeout { action, id: 0, target: self.target, timeout }.into()),
            Ok(Err(error @ CallError::NotSent(_))) => return Err(Unreachable::new(&error).into()),
            Ok(Err(error @ CallError::Lost)) => return Err(NetworkError::new(&error).into()),
            Ok(Ok(reply)) => reply,
        };
        match unpack(reply) {
            Some(result) => result.map_err(|error| RemoteError::new(self.target, error).into()),
            // Most likely another Raft id answers there: this one is gone.
            None => Err(Unreachable::new(&AnyError::error("the reply does not fit")).into()),
        }
    }
}

// The futures are spelled out because openraft wants them to be `Send`.
impl RaftNetwork<TypeConfig> for Link {
    fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> impl Future<Output = Result<AppendEntriesResponse<NodeId>, RPCError<NodeId, BasicNode, RaftError<NodeId>>>> + Send
    {
        let target = self.target;
        async move {
            self.ask(RPCTypes::AppendEntries, Request::Append { target, request }, &option, |reply| match reply {
                Reply::Append(result) => Some(result),
                _ => None,
            })
            .await
        }
    }

    fn install_snapshot(
        &mut self,
        piece: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> impl Future<
        Output = Result<
            InstallSnapshotResponse<NodeId>,
            RPCError<NodeId, BasicNode, RaftError<NodeId, InstallSnapshotError>>,
        >,
    > + Send {
        let target = self.target;
        async move {
            self.ask(RPCTypes::InstallSnapshot, Request::Snapshot { target, piece }, &option, |reply| match reply {
                Reply::Snapshot(result) => Some(result),
                _ => None,
            })
            .await
        }
    }

    fn vote(
        &mut self,
        request: VoteRequest<NodeId>,
        option: RPCOption,
    ) -> impl Future<Output = Result<VoteResponse<NodeId>, RPCError<NodeId, BasicNode, RaftError<NodeId>>>> + Send {
        let target = self.target;
        async move {
            self.ask(RPCTypes::Vote, Request::Vote { target, request }, &option, |reply| match reply {
                Reply::Vote(result) => Some(result),
                _ => None,
            })
            .await
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}
