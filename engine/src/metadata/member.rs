//! Becoming and staying a member: joining, registering, and what the Raft leader does so that the
//! voters are the registered nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::{BasicNode, ChangeMembers, ServerState};
use tokio::time::{Instant, sleep, timeout};

use super::MetadataError;
use super::agent::Agent;
use super::raft_types::{NodeId, node_of, raft_id};
use super::rpc::{Joined, Reply, Request};
use super::state::{Command, NodeInfo, Outcome};
use crate::peer::Peers;
use crate::peer::control;
use crate::peer::hello::Purpose;
use crate::random::random_u64;

/// Between two tries to join, register, or change the members.
const RETRY: Duration = Duration::from_millis(100);
/// How often the members are compared even if nothing seems to have changed.
const RECONCILE: Duration = Duration::from_secs(1);
/// A learner that lags by no more entries may vote.
const LAG_MAX: u64 = 100;
/// Longest wait for a change of the members.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the log's size is looked at.
const COMPACT: Duration = Duration::from_secs(1);

/// Asks the nodes at `addresses` in turn to let this one in, until one does.
pub(super) async fn join(
    peers: &Peers,
    addresses: &[String],
    node_id: u64,
    info: &NodeInfo,
) -> Result<Joined, MetadataError> {
    let mut said = String::new();
    loop {
        for address in addresses {
            let problem = match ask_to_join(peers, address, node_id, info).await {
                Ok(joined) => return Ok(joined),
                Err(problem) => format!("{address}: {problem}"),
            };
            if problem != said {
                tracing::info!(%problem, "not joined yet");
                said = problem;
            }
        }
        sleep(RETRY).await;
    }
}

async fn ask_to_join(peers: &Peers, address: &str, node_id: u64, info: &NodeInfo) -> Result<Joined, String> {
    let (stream, _) = peers.connect_to(address, 0, Purpose::Join).await.map_err(|error| error.to_string())?;
    let request = Request::Join { node_id, info: info.clone() };
    let asked = timeout(CHANGE_TIMEOUT, control::ask_once(stream, &request.encode())).await;
    let body = asked.map_err(|_| "no reply")?.map_err(|error| error.to_string())?;
    match Reply::decode(&body)? {
        Reply::Join(Ok(joined)) => Ok(joined),
        Reply::Join(Err(refused)) => Err(refused.to_string()),
        _ => Err("the reply does not fit".into()),
    }
}

/// Tells the nodes at `addresses` where this one listens, and learns who they are, until it has a
/// lease: all addresses may have changed since the last run.
pub(super) async fn introduce(agent: Arc<Agent>, addresses: Vec<String>) {
    while !agent.lease.is_valid() {
        for address in &addresses {
            if let Ok((_, answer)) = agent.peers.connect_to(address, 0, Purpose::Control).await
                && answer.node_id != agent.node_id
            {
                agent.peers.learn(answer.node_id, address);
            }
        }
        sleep(RETRY).await;
    }
}

/// Registers this run, and again whenever the metadata say otherwise.
pub(super) async fn register(agent: Arc<Agent>) {
    let mut applied = agent.view.index();
    loop {
        applied.borrow_and_update();
        let registered = agent.view.read(|state| state.nodes.get(&agent.node_id) == Some(&agent.info));
        if registered {
            if applied.changed().await.is_err() {
                return;
            }
            continue;
        }
        let command = Command::RegisterNode { node_id: agent.node_id, info: agent.info.clone() };
        match agent.propose(command).await {
            Ok(Outcome::Registered(_)) => {}
            Ok(_) if agent.view.read(|state| !state.nodes.contains_key(&agent.node_id)) => {
                tracing::info!(node_id = agent.node_id, "this node has left the cluster and can be stopped");
                sleep(RECONCILE).await;
            }
            Ok(_) => {
                tracing::error!(
                    node_id = agent.node_id,
                    "another data directory has taken the place of this one in the cluster; \
                     empty this directory and start again with --join, or choose another --node-id"
                );
                sleep(RECONCILE).await;
            }
            Err(_) => sleep(RETRY).await,
        }
    }
}

/// As the Raft leader: makes the voters what the registered nodes are.
pub(super) async fn reconcile(agent: Arc<Agent>) {
    let mut metrics = agent.raft.metrics();
    loop {
        if agent.leads()
            && let Some(change) = next_change(&agent)
        {
            tracing::info!(?change, "the members of the metadata group change");
            let changed = timeout(CHANGE_TIMEOUT, agent.raft.change_membership(change, false)).await;
            if !matches!(changed, Ok(Ok(_))) {
                sleep(RETRY).await;
            }
            continue;
        }
        let changed = async {
            // What moves often (entries, heartbeats) need not be looked at more often than this.
            let looked = Instant::now();
            let closed = metrics.changed().await.is_err();
            tokio::time::sleep_until(looked + RETRY).await;
            closed
        };
        if timeout(RECONCILE, changed).await == Ok(true) {
            return;
        }
    }
}

type Change = ChangeMembers<NodeId, BasicNode>;

/// The next step from the members that there are to those that there should be.
fn next_change(agent: &Agent) -> Option<Change> {
    let wanted: BTreeMap<NodeId, BasicNode> = agent.view.read(|state| {
        let node = |(node_id, info): (&u64, &NodeInfo)| {
            (raft_id(info.generation, *node_id), BasicNode::new(info.peer_address.clone()))
        };
        state.nodes.iter().map(node).collect()
    });
    let metrics = agent.raft.metrics();
    let metrics = metrics.borrow();
    let membership = metrics.membership_config.membership();
    let caught_up = |id: &NodeId| {
        let replicated = metrics.replication.as_ref().and_then(|all| all.get(id).copied().flatten());
        replicated.is_some_and(|log_id| log_id.index + LAG_MAX >= metrics.last_log_index.unwrap_or(0))
    };
    let members: BTreeSet<NodeId> = membership.nodes().map(|(id, _)| *id).collect();
    let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
    let is_joint = membership.get_joint_config().len() > 1;
    plan(&wanted, &members, &voters, is_joint, caught_up)
}

fn plan(
    wanted: &BTreeMap<NodeId, BasicNode>,
    members: &BTreeSet<NodeId>,
    voters: &BTreeSet<NodeId>,
    is_joint: bool,
    caught_up: impl Fn(&NodeId) -> bool,
) -> Option<Change> {
    let new: BTreeMap<NodeId, BasicNode> =
        wanted.iter().filter(|(id, _)| !members.contains(id)).map(|(id, node)| (*id, node.clone())).collect();
    if !new.is_empty() {
        return Some(ChangeMembers::AddNodes(new));
    }
    let ready: BTreeSet<NodeId> = wanted.keys().filter(|id| voters.contains(id) || caught_up(id)).copied().collect();
    // The old id of a node that came back empty votes until the new one can.
    let replaced = |old: &NodeId| {
        let successor = wanted.keys().find(|id| node_of(**id) == node_of(*old));
        successor.is_none_or(|id| ready.contains(id))
    };
    let kept = voters.iter().filter(|id| !wanted.contains_key(id) && !replaced(id));
    let target: BTreeSet<NodeId> = ready.iter().chain(kept).copied().collect();
    // A leader that was lost between the two steps of a change leaves both quorums needed.
    if (target != *voters || is_joint) && !target.is_empty() {
        return Some(ChangeMembers::ReplaceAllVoters(target));
    }
    let gone: BTreeSet<NodeId> =
        members.iter().filter(|id| !wanted.contains_key(id) && !voters.contains(id)).copied().collect();
    (!gone.is_empty()).then_some(ChangeMembers::RemoveNodes(gone))
}

/// Two nodes that are left can tie in elections for ever, because each draws one timeout for its
/// whole life: without a leader for too long, this one tries at a time that is drawn anew.
pub(super) async fn watch_elections(agent: Arc<Agent>, patience: Duration) {
    let mut metrics = agent.raft.server_metrics();
    let leaderless = |agent: &Agent| {
        let metrics = agent.raft.server_metrics();
        let metrics = metrics.borrow();
        metrics.current_leader.is_none()
            && matches!(metrics.state, ServerState::Follower | ServerState::Candidate)
            && metrics.membership_config.voter_ids().any(|id| id == agent.raft_id)
    };
    loop {
        if !leaderless(&agent) {
            if metrics.changed().await.is_err() {
                return;
            }
            continue;
        }
        let found = metrics.wait_for(|metrics| metrics.current_leader.is_some());
        let found = timeout(patience, found).await.map(|found| found.map(drop));
        if matches!(found, Ok(Err(_))) {
            // Raft has stopped, and nothing will ever change.
            return;
        }
        if found.is_err() {
            let pause = random_u64().unwrap_or(0) % 300;
            sleep(Duration::from_millis(pause)).await;
            if leaderless(&agent) {
                // It fails only if Raft has stopped.
                let _ = agent.raft.trigger().elect().await;
            }
        }
    }
}

/// Snapshots and purges, by the size of the log.
pub(super) async fn compact(agent: Arc<Agent>) {
    loop {
        // Whichever comes first.
        let _ = timeout(COMPACT, agent.log.grown()).await;
        let index = agent.view.snapshot_index();
        if let Some(upto) = agent.log.purge_upto(index) {
            // It fails only if Raft has stopped.
            let _ = agent.raft.trigger().purge_log(upto).await;
        }
        if agent.log.wants_snapshot() && *agent.view.index().borrow() > index {
            let _ = agent.raft.trigger().snapshot().await;
            // The purge follows once the snapshot is durable.
            let _ = timeout(COMPACT, agent.view.wait_snapshot(index)).await;
            agent.log.look_again();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(ids: &[NodeId]) -> BTreeMap<NodeId, BasicNode> {
        ids.iter().map(|id| (*id, BasicNode::new("a"))).collect()
    }

    fn set(ids: &[NodeId]) -> BTreeSet<NodeId> {
        ids.iter().copied().collect()
    }

    #[test]
    fn a_registered_node_becomes_a_learner_and_votes_once_it_has_caught_up() {
        let wanted = nodes(&[1, 2]);
        assert_eq!(plan(&wanted, &set(&[1]), &set(&[1]), false, |_| false), Some(ChangeMembers::AddNodes(nodes(&[2]))));
        assert_eq!(plan(&wanted, &set(&[1, 2]), &set(&[1]), false, |_| false), None);
        let promoted = plan(&wanted, &set(&[1, 2]), &set(&[1]), false, |_| true);
        assert_eq!(promoted, Some(ChangeMembers::ReplaceAllVoters(set(&[1, 2]))));
        assert_eq!(plan(&wanted, &set(&[1, 2]), &set(&[1, 2]), false, |_| true), None);
    }

    #[test]
    fn the_old_id_of_an_empty_node_leaves_in_the_step_in_which_the_new_one_votes() {
        let new = raft_id(1, 3);
        let (wanted, members, voters) = (nodes(&[1, 2, new]), set(&[1, 2, 3, new]), set(&[1, 2, 3]));
        assert_eq!(plan(&wanted, &members, &voters, false, |_| false), None);
        let swapped = plan(&wanted, &members, &voters, false, |_| true);
        assert_eq!(swapped, Some(ChangeMembers::ReplaceAllVoters(set(&[1, 2, new]))));
    }

    #[test]
    fn a_change_that_stopped_half_way_is_ended() {
        let (wanted, all) = (nodes(&[1, 2, 3]), set(&[1, 2, 3]));
        assert_eq!(plan(&wanted, &all, &all, true, |_| true), Some(ChangeMembers::ReplaceAllVoters(all.clone())));
        assert_eq!(plan(&wanted, &all, &all, false, |_| true), None);
    }

    #[test]
    fn a_node_that_left_neither_votes_nor_learns() {
        let wanted = nodes(&[1, 2]);
        let left = plan(&wanted, &set(&[1, 2, 3]), &set(&[1, 2, 3]), false, |_| true);
        assert_eq!(left, Some(ChangeMembers::ReplaceAllVoters(set(&[1, 2]))));
        let forgotten = plan(&wanted, &set(&[1, 2, 3]), &set(&[1, 2]), false, |_| true);
        assert_eq!(forgotten, Some(ChangeMembers::RemoveNodes(set(&[3]))));
    }
}
