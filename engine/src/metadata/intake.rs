//! What a follower takes of the entries that it is sent.
//!
//! The leader refuses commands while its own log is full, but it does not know how far a follower
//! has got with its snapshots: one with a slow disk would let its log outgrow the file. So a follower
//! takes what it has room for, says so, and the leader goes on from there.

use std::time::Duration;

use openraft::error::RaftError;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use tokio::time::sleep;

use super::raft_log::RaftLog;
use super::raft_types::{NodeId, Raft, TypeConfig};

/// Before a follower says that it took nothing: the leader sends the rest again at once, and
/// waits for a reply no longer than the interval of its heartbeats.
const PAUSE: Duration = Duration::from_millis(20);

/// Hands a leader's request to Raft, without the entries that there is no room for now.
pub(super) async fn append(
    raft: &Raft,
    log: &RaftLog,
    mut request: AppendEntriesRequest<TypeConfig>,
) -> Result<AppendEntriesResponse<NodeId>, RaftError<NodeId>> {
    let room = log.room_for(&request.entries);
    if room == request.entries.len() {
        return raft.append_entries(request).await;
    }
    // Room comes with a snapshot and the purge after it.
    log.look_again();
    request.entries.truncate(room);
    let taken = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
    let response = raft.append_entries(request).await?;
    if room == 0 {
        sleep(PAUSE).await;
    }
    Ok(match response {
        AppendEntriesResponse::Success => AppendEntriesResponse::PartialSuccess(taken),
        refused => refused,
    })
}
