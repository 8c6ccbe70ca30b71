//! Standing for election at once when the process of the Raft leader is gone.
//!
//! ```text
//!   leader killed   connection ends    port refuses      election timeouts would end
//!        ├────────────────┤──── loyalty ─────┤ stands                │
//!        0 ms           < 1               320 (next voter: 370)   450 … 600
//! ```
//! A follower that hears nothing cannot know why, and waits for its election timeout. A process that
//! was killed is different: its system ends its connections and then refuses new ones. Voters still
//! refuse everyone until they have heard nothing for the longest election timeout, so that is waited
//! out first. Nothing rests on this but speed: an election is safe at any time, and the new leader
//! waits for the leases of the old one as always.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::agent::Agent;
use super::raft_types::{NodeId, node_of};

/// More than voters wait, for clocks and ticks.
const MARGIN: Duration = Duration::from_millis(20);
/// Between the voters, so that they do not all stand at the same time.
const APART: Duration = Duration::from_millis(50);

/// Watches the connection to whoever leads.
pub(super) async fn stand(agent: Arc<Agent>) {
    let mut metrics = agent.raft.server_metrics();
    loop {
        let leader = metrics.borrow_and_update().current_leader.filter(|leader| *leader != agent.raft_id);
        let lost = async {
            match leader {
                Some(leader) => agent.nodes.control(node_of(leader)).lost().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() { return } else { continue },
            () = lost => {}
        }
        let Some((leader, turn)) = leader.and_then(|leader| Some((leader, turn(&agent, leader)?))) else { continue };
        sleep(agent.loyalty + MARGIN + APART * turn).await;
        let is_still_leader = agent.raft.server_metrics().borrow().current_leader == Some(leader);
        if is_still_leader && agent.peers.is_gone(node_of(leader)).await {
            tracing::info!(
                leader = node_of(leader),
                "the Raft leader's process is gone: this node stands for election"
            );
            // It fails only if Raft has stopped.
            let _ = agent.raft.trigger().elect().await;
        }
    }
}

/// This node's place among the voters that are left; `None`: it does not vote.
fn turn(agent: &Agent, leader: NodeId) -> Option<u32> {
    let metrics = agent.raft.server_metrics();
    let metrics = metrics.borrow();
    let mut voters: Vec<NodeId> = metrics.membership_config.voter_ids().filter(|id| *id != leader).collect();
    voters.sort_unstable();
    voters.iter().position(|id| *id == agent.raft_id).map(|place| place as u32)
}
