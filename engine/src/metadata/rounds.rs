//! Rounds in which a quorum confirms the Raft leader: one round serves everyone who asked before it
//! began.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::LogIdOptionExt;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::agent::Agent;
use super::rpc::Refused;

/// Longest wait for a quorum.
const ROUND_TIMEOUT: Duration = Duration::from_millis(500);

type Waiting = oneshot::Sender<Result<u64, Refused>>;

/// The queue for the next round.
#[derive(Default)]
pub(super) struct Rounds {
    waiting: Mutex<Vec<Waiting>>,
    wanted: Notify,
}

impl Rounds {
    /// Returns the read index once a round that begins after this call has found that this node
    /// leads and that an entry of its own term is applied.
    pub(super) async fn confirm(&self) -> Result<u64, Refused> {
        let (sender, confirmed) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        self.wanted.notify_one();
        confirmed.await.unwrap_or(Err(Refused::NotLeader))
    }

    fn take(&self) -> Vec<Waiting> {
        std::mem::take(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Holds the rounds, one after the other, as they are wanted.
pub(super) async fn run(agent: Arc<Agent>) {
    loop {
        agent.rounds.wanted.notified().await;
        let waiting = agent.rounds.take();
        if waiting.is_empty() {
            continue;
        }
        // Before the round: the leadership that it confirms is this one or a later one.
        let term = agent.granter().term();
        let result = if agent.leads() {
            let round = timeout(ROUND_TIMEOUT, agent.raft.ensure_linearizable()).await;
            let index = round.ok().and_then(Result::ok).ok_or(Refused::NotLeader);
            index.map(|index| index.index().unwrap_or(0))
        } else {
            // A question to a quorum would also keep it loyal to a leader that resigns.
            Err(Refused::NotLeader)
        };
        if let (Some(term), Ok(_)) = (term, &result) {
            agent.granter().confirm(term);
        }
        for sender in waiting {
            // Whoever no longer waits does not mind.
            let _ = sender.send(result.clone());
        }
    }
}
