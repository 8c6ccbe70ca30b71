use super::*;

/// What replay finds: the bodies in order.
fn open(dir: &Path) -> Result<(LogFile, Vec<String>), MetadataError> {
    let mut found = Vec::new();
    let log = LogFile::open(&dir.join("log"), |_, body| {
        found.push(String::from_utf8_lossy(body).into_owned());
        Ok(())
    })?;
    Ok((log, found))
}

fn entry(text: &str) -> Operations {
    let mut operations = Operations::default();
    operations.push(Kind::Entry, text.as_bytes());
    operations
}

/// Writes as the log's thread does: everything so far as a checkpoint when a half is full.
fn write(log: &mut LogFile, all: &mut Vec<String>, text: &str) {
    all.push(text.to_owned());
    if !log.append(&entry(text)).expect("writes") {
        let mut whole = Operations::default();
        all.iter().for_each(|text| whole.push(Kind::Entry, text.as_bytes()));
        log.checkpoint(&whole).expect("writes");
    }
}

fn flip(dir: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(dir.join("log")).expect("opens");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("reads");
    file.write_all_at(&[byte[0] ^ 0xff], at).expect("writes");
}

/// A log with the records "0", "1", …; the first is the checkpoint.
fn written(dir: &Path, records: usize) -> (LogFile, Vec<String>) {
    let (mut log, mut all) = open(dir).expect("creates");
    (0..records).for_each(|n| write(&mut log, &mut all, &n.to_string()));
    (log, all)
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (log, all) = written(dir.path(), 5);
    drop(log);
    assert_eq!(open(dir.path()).expect("opens").1, all);
}

#[test]
fn a_torn_last_record_is_cut_and_written_over() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (log, mut all) = written(dir.path(), 5);
    flip(dir.path(), log.half_start() + log.position - 64 + RECORD_HEADER as u64);
    drop(log);
    let (mut log, found) = open(dir.path()).expect("opens");
    assert_eq!(found, all[..4]);
    all.pop();
    write(&mut log, &mut all, "again");
    drop(log);
    assert_eq!(open(dir.path()).expect("opens").1, all);
}

#[test]
fn damage_before_a_whole_record_is_refused_not_cut() {
    for record in 0..4 {
        let dir = tempfile::tempdir().expect("temp dir");
        let (log, _) = written(dir.path(), 5);
        flip(dir.path(), log.half_start() + 64 * record + RECORD_HEADER as u64);
        drop(log);
        let error = open(dir.path()).expect_err("is refused");
        assert!(matches!(error, MetadataError::Corrupt { .. }), "{error}");
    }
}

#[test]
fn the_halves_take_turns_and_old_records_are_ignored() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (mut log, _) = written(dir.path(), 1);
    for round in 2..6 {
        // The log was purged, so the checkpoint is small.
        let mut all = vec![format!("checkpoint {round}")];
        log.checkpoint(&entry(&all[0])).expect("writes");
        (0..round).for_each(|n| write(&mut log, &mut all, &format!("{round}.{n}")));
        assert_eq!(log.checkpoint, round);
        drop(log);
        let (opened, found) = open(dir.path()).expect("opens");
        assert_eq!(found, all);
        log = opened;
    }
}

#[test]
fn a_torn_checkpoint_leaves_the_half_before_it() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (mut log, all) = written(dir.path(), 3);
    log.checkpoint(&entry("torn")).expect("writes");
    flip(dir.path(), log.half_start() + RECORD_HEADER as u64);
    drop(log);
    assert_eq!(open(dir.path()).expect("opens").1, all);
}

#[test]
fn a_log_that_outgrows_its_file_gets_a_larger_one() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (mut log, mut all) = written(dir.path(), 1);
    let text = "x".repeat(300_000);
    (0..16).for_each(|n| write(&mut log, &mut all, &format!("{n} {text}")));
    assert!(log.half_bytes > HALF_BYTES);
    drop(log);
    let (mut log, found) = open(dir.path()).expect("opens");
    assert!(found == all, "all {} entries are there, {} found", all.len(), found.len());
    write(&mut log, &mut all, "more");
    drop(log);
    assert_eq!(open(dir.path()).expect("opens").1.len(), all.len());
}

#[test]
fn another_version_is_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    drop(open(dir.path()).expect("creates"));
    flip(dir.path(), 8);
    let error = open(dir.path()).expect_err("is refused");
    assert!(matches!(error, MetadataError::Version { wanted: VERSION, .. }), "{error}");
}
