//! openraft's own suite on our log and state machine, and what it does not cover: restarts.

use openraft::RaftLogReader;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{CommittedLeaderId, Vote};
use tempfile::TempDir;

use super::*;
use crate::metadata::raft_log::RaftLog;
use crate::metadata::state::Command;

struct Builder;

impl StoreBuilder<TypeConfig, RaftLog, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, RaftLog, StateMachine), StorageError<NodeId>> {
        let dir = tempfile::tempdir().expect("temp dir");
        let log = RaftLog::open(&dir.path().join("log")).expect("creates");
        let machine = StateMachine::open(&dir.path().join("snapshot")).expect("creates");
        Ok((dir, log, machine))
    }
}

#[test]
fn openraft_is_content_with_the_log_and_the_state_machine() {
    Suite::test_all(Builder).expect("every check passes");
}

fn entry(term: u64, index: u64, text: &str) -> Entry {
    let command = Command::DeleteTopic { name: text.into(), id: 1 };
    let batch = Batch { commands: vec![command], ..Batch::default() };
    Entry { log_id: LogId::new(CommittedLeaderId::new(term, 1), index), payload: EntryPayload::Normal(batch) }
}

async fn ids(log: &mut RaftLog) -> Vec<(u64, u64)> {
    let entries = log.try_get_log_entries(..).await.expect("reads");
    entries.iter().map(|entry| (entry.log_id.leader_id.term, entry.log_id.index)).collect()
}

#[tokio::test]
async fn vote_entries_truncation_and_purge_survive_a_restart() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("log");
    let mut log = RaftLog::open(&path).expect("creates");
    assert!(log.is_pristine());
    log.blocking_append((0..10).map(|index| entry(1, index, "old"))).await.expect("appends");
    log.truncate(entry(1, 6, "").log_id).await.expect("truncates");
    log.blocking_append([entry(2, 6, "new")]).await.expect("appends");
    log.purge(entry(1, 2, "").log_id).await.expect("purges");
    log.save_committed(Some(entry(1, 5, "").log_id)).await.expect("saves");
    // What nobody waits for goes with the next write.
    log.save_vote(&Vote::new(2, 3)).await.expect("saves");
    log.shutdown();
    let mut log = RaftLog::open(&path).expect("opens");
    assert_eq!(ids(&mut log).await, [(1, 3), (1, 4), (1, 5), (2, 6)]);
    assert_eq!(log.read_vote().await.expect("reads"), Some(Vote::new(2, 3)));
    assert_eq!(log.read_committed().await.expect("reads"), Some(entry(1, 5, "").log_id));
    assert_eq!(log.get_log_state().await.expect("reads").last_purged_log_id, Some(entry(1, 2, "").log_id));
    assert!(!log.is_pristine());
    log.shutdown();
}

#[tokio::test]
async fn a_log_that_is_purged_as_it_grows_stays_in_its_file() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("log");
    let mut log = RaftLog::open(&path).expect("creates");
    let size = fs::metadata(&path).expect("is there").len();
    let text = "x".repeat(200_000);
    for index in 0..200 {
        log.blocking_append([entry(1, index, &text)]).await.expect("appends");
        if log.wants_snapshot() {
            let upto = log.purge_upto(index).expect("there is something to purge");
            log.purge(entry(1, upto, "").log_id).await.expect("purges");
        }
    }
    assert!(!log.is_full());
    log.shutdown();
    assert_eq!(fs::metadata(&path).expect("is there").len(), size);
    let mut log = RaftLog::open(&path).expect("opens");
    assert_eq!(ids(&mut log).await.last(), Some(&(1, 199)));
    log.shutdown();
}

/// The snapshot that it belongs to may not be there: its writing may have failed, which ends Raft.
#[tokio::test]
async fn a_purge_that_nobody_waits_for_does_not_outlive_the_process() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("log");
    let mut log = RaftLog::open(&path).expect("creates");
    log.blocking_append((0..10).map(|index| entry(1, index, "x"))).await.expect("appends");
    log.purge(entry(1, 5, "").log_id).await.expect("purges");
    log.shutdown();
    drop(log);
    let mut log = RaftLog::open(&path).expect("opens");
    assert_eq!(ids(&mut log).await.first(), Some(&(1, 0)));
    log.shutdown();
}

#[tokio::test]
async fn a_follower_takes_what_it_has_room_for_and_never_outgrows_its_file() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("log");
    let mut log = RaftLog::open(&path).expect("creates");
    let size = fs::metadata(&path).expect("is there").len();
    let text = "x".repeat(100_000);
    let sent: Vec<Entry> = (0..60).map(|index| entry(1, index, &text)).collect();
    // A leader that is far ahead sends all it has, and a snapshot never comes.
    let mut taken = 0;
    while let more @ 1.. = log.room_for(&sent[taken..]) {
        log.blocking_append(sent[taken..taken + more].to_vec()).await.expect("appends");
        taken += more;
    }
    assert!(log.is_full() && (15..20).contains(&taken), "{taken} are taken");
    // What it holds is taken again, because the first answer may have been lost.
    assert_eq!(log.room_for(&sent[..=taken]), taken);
    // The entry with which a new leader begins fits: without it what is held is never committed.
    let blank = Entry { log_id: LogId::new(CommittedLeaderId::new(2, 1), taken as u64), payload: EntryPayload::Blank };
    assert_eq!(log.room_for(&[blank]), 1);
    // A snapshot makes room.
    let upto = log.purge_upto(taken as u64 - 1).expect("there is something to purge");
    log.purge(entry(1, upto, "").log_id).await.expect("purges");
    assert!(log.room_for(&sent[taken..]) >= 15);
    log.blocking_append(sent[taken..taken + 15].to_vec()).await.expect("appends");
    log.shutdown();
    assert_eq!(fs::metadata(&path).expect("is there").len(), size);
}

#[tokio::test]
async fn a_message_to_a_follower_has_a_limit_and_one_entry_at_least() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut log = RaftLog::open(&dir.path().join("log")).expect("creates");
    let small = (0..10).map(|index| entry(1, index, "small"));
    let large = (10..20).map(|index| entry(1, index, &"x".repeat(100_000)));
    let huge = (20..22).map(|index| entry(1, index, &"x".repeat(300_000)));
    log.blocking_append(small.chain(large).chain(huge)).await.expect("appends");
    let mut messages = Vec::new();
    let mut next = 0;
    while next < 22 {
        let entries = log.limited_get_log_entries(next, 22).await.expect("reads");
        assert_eq!(entries[0].log_id.index, next);
        next += entries.len() as u64;
        messages.push(entries.len());
    }
    assert_eq!(messages, [13, 3, 3, 2, 1]);
    assert_eq!(log.limited_get_log_entries(3, 5).await.expect("reads").len(), 2);
    log.shutdown();
}

#[tokio::test]
async fn a_snapshot_is_there_after_a_restart_and_its_damage_is_found() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("snapshot");
    let mut machine = StateMachine::open(&path).expect("creates");
    machine.apply([entry(1, 1, "a")]).await.expect("applies");
    let older = machine.build_snapshot().await.expect("builds");
    machine.apply([entry(1, 2, "b")]).await.expect("applies");
    machine.build_snapshot().await.expect("builds");
    // One that took longer to write comes too late.
    machine.keep(&older.meta, older.snapshot.get_ref()).expect("is passed over");
    let reopened = StateMachine::open(&path).expect("opens");
    assert_eq!(*reopened.view().index().borrow(), 2);
    assert_eq!(reopened.view().read(|state| state.commands), 2);
    let mut bytes = fs::read(&path).expect("reads");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, bytes).expect("writes");
    assert!(matches!(StateMachine::open(&path), Err(MetadataError::Corrupt { .. })));
}

#[tokio::test]
async fn a_batch_that_is_bound_to_another_term_changes_nothing() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut machine = StateMachine::open(&dir.path().join("snapshot")).expect("creates");
    let mut bound = entry(3, 1, "a");
    if let EntryPayload::Normal(batch) = &mut bound.payload {
        batch.term = Some(2);
    }
    machine.apply([bound]).await.expect("applies");
    assert_eq!(machine.view().read(|state| state.commands), 0);
}
