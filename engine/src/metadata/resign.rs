//! A Raft leader that is about to stop has another node elected first, so that leases and proposals
//! wait no longer than they must.
//!
//! Followers refuse to vote while they have heard from a leader within the longest election timeout.
//! So it falls silent, waits that out, and then has the best follower stand for election. A lease
//! lasts three times as long.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::agent::Agent;
use super::raft_types::{NodeId, node_of};
use super::rpc::{self, Request};

/// Longest wait for the successor to be elected.
const ELECTION_TIMEOUT: Duration = Duration::from_millis(300);
/// More than followers wait, for clocks and ticks.
const MARGIN: Duration = Duration::from_millis(20);

impl Agent {
    /// Gives the leadership away, if this node has it.
    pub(super) async fn resign(&self) {
        if !self.leads() {
            return;
        }
        let successors = self.successors();
        if successors.is_empty() {
            return;
        }
        // From here on it decides and grants nothing: what is asked of it waits for the successor.
        self.resigned.store(true, Ordering::Release);
        self.raft.runtime_config().heartbeat(false);
        sleep(self.loyalty + MARGIN).await;
        let mut metrics = self.raft.server_metrics();
        for successor in successors {
            let control = self.nodes.control(node_of(successor));
            let elected = async {
                // What counts is that somebody leads, not what was replied.
                let _ = rpc::call(&control, Request::Elect { target: successor }).await;
                let other = |leader: Option<NodeId>| leader.is_some_and(|leader| leader != self.raft_id);
                let _ = metrics.wait_for(|metrics| other(metrics.current_leader)).await;
            };
            if timeout(ELECTION_TIMEOUT, elected).await.is_ok() {
                return;
            }
        }
    }

    /// Other voters, those that have the most of the log first.
    fn successors(&self) -> Vec<NodeId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let live = self.granter().live(self.clock.now());
        let replicated = |id: &NodeId| {
            let held = metrics.replication.as_ref().and_then(|all| all.get(id).copied().flatten());
            held.map_or(0, |log_id| log_id.index)
        };
        let mut voters: Vec<NodeId> = metrics
            .membership_config
            .voter_ids()
            .filter(|id| *id != self.raft_id && live.contains_key(&node_of(*id)))
            .collect();
        voters.sort_by_key(|id| std::cmp::Reverse(replicated(id)));
        voters
    }
}
