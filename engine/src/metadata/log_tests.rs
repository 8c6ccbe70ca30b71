use super::*;
use crate::metadata::state::NodeInfo;

fn register(node_id: u64) -> Command {
    let text = format!("node {node_id} {}", "x".repeat(100));
    Command::RegisterNode {
        node_id,
        info: NodeInfo {
            generation: 0,
            disk_id: text.clone(),
            run_id: 1,
            peer_address: text.clone(),
            client_address: text,
        },
    }
}

/// Appends commands `from..to`, one group each, applying them as the metadata thread does.
fn append(log: &mut MetadataLog, state: &mut State, from: u64, to: u64) {
    for index in from..to {
        let command = register(index);
        log.append(index, &[&command]).expect("there is space");
        state.apply(&command);
    }
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("opens");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("reads");
    file.write_all_at(&[byte[0] ^ 0xff], at).expect("writes");
}

#[test]
fn what_was_appended_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (mut log, mut state) = MetadataLog::open(dir.path()).expect("creates");
    append(&mut log, &mut state, 1, 6);
    drop(log);
    let (_, found) = MetadataLog::open(dir.path()).expect("opens");
    assert_eq!(found, state);
}

#[test]
fn a_torn_last_group_is_cut_and_written_over() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (mut log, mut state) = MetadataLog::open(dir.path()).expect("creates");
    append(&mut log, &mut state, 1, 4);
    let (end, kept) = (log.end, state.clone());
    append(&mut log, &mut state, 4, 5);
    flip(&dir.path().join("log"), log.end - 1);
    drop(log);
    let (mut log, mut found) = MetadataLog::open(dir.path()).expect("opens");
    assert_eq!((log.end, &found), (end, &kept));
    append(&mut log, &mut found, 4, 6);
    drop(log);
    assert_eq!(MetadataLog::open(dir.path()).expect("opens").1, found);
}

#[test]
fn damage_before_a_whole_group_is_refused_not_cut() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (mut log, mut state) = MetadataLog::open(dir.path()).expect("creates");
    append(&mut log, &mut state, 1, 4);
    drop(log);
    flip(&dir.path().join("log"), DATA_START + GROUP_HEADER as u64 + 3);
    let error = MetadataLog::open(dir.path()).err().expect("is refused");
    assert!(matches!(error, MetadataError::Corrupt { .. }), "{error}");
}

#[test]
fn after_a_snapshot_the_file_begins_anew_and_old_groups_are_ignored() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (mut log, mut state) = MetadataLog::open(dir.path()).expect("creates");
    append(&mut log, &mut state, 1, 50);
    log.compact(&state).expect("has space");
    assert_eq!(log.end, DATA_START);
    // Crash before anything new: only old groups are there.
    drop(log);
    let (mut log, found) = MetadataLog::open(dir.path()).expect("opens");
    assert_eq!((&found, log.end), (&state, DATA_START));
    // New groups end in the midst of old ones.
    append(&mut log, &mut state, 50, 53);
    drop(log);
    let (log, found) = MetadataLog::open(dir.path()).expect("opens");
    assert_eq!(found, state);
    assert!(log.end > DATA_START);
}

#[test]
fn another_format_version_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("temp dir");
    drop(MetadataLog::open(dir.path()).expect("creates"));
    flip(&dir.path().join("log"), 8);
    let error = MetadataLog::open(dir.path()).err().expect("is refused");
    assert!(matches!(error, MetadataError::Version { wanted: VERSION, .. }), "{error}");
}

#[test]
fn a_full_file_refuses_and_goes_on_after_a_snapshot() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (mut log, mut state) = MetadataLog::open(dir.path()).expect("creates");
    log.end = CAPACITY - 100;
    let command = register(1);
    assert!(matches!(log.append(1, &[&command]), Err(MetadataError::Full)));
    assert!(log.wants_compaction());
    log.compact(&state).expect("has space");
    append(&mut log, &mut state, 1, 2);
}
