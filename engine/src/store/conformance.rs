//! One suite for every backend: what the store promises, told as scenarios.
//!
//! Crashes of the process are played by leaking the store's shutdown (the threads are stopped,
//! nothing is flushed or noted) and opening the directory again; crashes of the machine by an
//! altered boot id on top.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "scenarios are told one after another, each with its own store"
)]

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::fault::{Fault, FaultDisk};
use super::format::DATA_START;
use super::waiters::block_on;
use super::*;

fn spec(topic_id: u64, tier: Tier) -> SegmentSpec {
    SegmentSpec {
        uid: SegmentUid { topic_id, number: 1 },
        epoch: 3,
        tier,
        segment_entries: 1_000_000,
        segment_bytes: 1 << 30,
    }
}

fn record(index: u64) -> Vec<u8> {
    let mut bytes = format!("record {index} ").into_bytes();
    bytes.resize(20 + (index as usize * 37) % 900, index as u8);
    bytes
}

fn append(segment: &Segment, indices: std::ops::Range<u64>) -> Appended {
    let records: Vec<Vec<u8>> = indices.map(record).collect();
    let slices: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
    segment.append_blocking(&slices, Take::UpToLimit).unwrap()
}

fn append_durably(segment: &Segment, indices: std::ops::Range<u64>) {
    let end = indices.end;
    append(segment, indices);
    segment.wait_watermark_blocking(end).unwrap();
}

fn read_all(segment: &Segment, from: u64) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut next = from;
    let mut out = Vec::new();
    loop {
        let batches = segment.read(next, u64::MAX, 100_000)?;
        if batches.is_empty() {
            return Ok(out);
        }
        for batch in batches {
            assert_eq!(batch.base_index, next, "batches are contiguous");
            let before = out.len();
            out.extend(records_of(&batch));
            assert_eq!((out.len() - before) as u64, batch.count);
            next += batch.count;
        }
    }
}

fn records_of(batch: &ReadBatch) -> Vec<Vec<u8>> {
    let mut rest = &batch.records[..];
    let mut out = Vec::new();
    while let Some((prefix, after)) = rest.split_first_chunk::<4>() {
        let (record, tail) = after.split_at(u32::from_le_bytes(*prefix) as usize);
        out.push(record.to_vec());
        rest = tail;
    }
    out
}

fn expect(segment: &Segment, indices: std::ops::Range<u64>) {
    let found = read_all(segment, indices.start).unwrap();
    assert_eq!(found.len() as u64, indices.end - indices.start);
    for (found, index) in found.iter().zip(indices) {
        assert_eq!(found, &record(index), "record {index}");
    }
}

/// Ends the store as a kill would: the lock is released, nothing else happens.
fn crash(store: Store) {
    let threads = lock(&store.running.threads).take();
    store.running.shared.queue.stop();
    store.running.shared.journal.stop();
    if let Some(threads) = threads {
        // Their work so far is in the kernel; what they would do later never happens.
        drop(threads);
    }
    drop(store);
}

fn pretend_reboot(dir: &Path) {
    let path = dir.join("store.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    std::fs::write(&path, text.replace(boot.trim(), "another-boot")).unwrap();
}

fn segment_file(store: &Store, uid: SegmentUid) -> std::fs::File {
    std::fs::File::options().read(true).write(true).open(store.running.shared.files.path(uid)).unwrap()
}

/// Runs each scenario on each backend.
macro_rules! on_every_backend {
    ($($name:ident),* $(,)?) => {
        mod io_uring_backend {
            $(#[test] fn $name() { super::with_backend(false, false, super::$name); })*
        }
        // As while the kernel holds writers back: the ring writes everything.
        mod io_uring_backend_under_pressure {
            $(#[test] fn $name() { super::with_backend(false, true, super::$name); })*
        }
        mod blocking_backend {
            $(#[test] fn $name() { super::with_backend(true, false, super::$name); })*
        }
    };
}

mod copies;
mod faults;
mod files;
mod lists;
mod memory;
use copies::*;
use files::*;
use lists::*;
use memory::*;

on_every_backend!(
    appended_records_are_read_back,
    synced_small_and_large_batches_are_read_back,
    an_append_is_atomic_or_takes_what_fits,
    lists_and_records_follow_one_another,
    a_large_list_is_in_the_kernel_when_the_append_returns,
    lists_of_many_writers_are_dense_and_in_their_order,
    other_nodes_are_told_of_lists_too,
    lists_fill_a_segment_and_end_it,
    a_list_that_cannot_be_written_ends_the_segment,
    a_file_made_ahead_takes_appends_that_come_meanwhile,
    a_file_that_cannot_be_made_ahead_is_made_by_the_first_write,
    large_batches_end_at_multiples_in_the_file_and_no_reader_sees_it,
    segments_that_end_together_all_get_footers_before_the_store_stops,
    limits_close_the_segment,
    a_clean_restart_loses_nothing,
    a_crash_of_the_process_loses_nothing_acknowledged,
    a_torn_tail_is_cut,
    damage_below_the_mark_is_reported_and_what_follows_stays,
    a_flipped_bit_is_corrupt_and_never_skipped,
    a_machine_restart_is_reported,
    the_journal_restores_what_the_segment_file_lost,
    a_sealed_segment_reads_with_and_without_its_footer,
    removed_segments_are_gone,
    a_second_process_and_another_version_are_refused,
    many_topics_share_a_small_pool,
    thousands_of_topics_have_records_pending_at_once,
    a_batch_of_more_pieces_than_the_kernel_takes_is_written,
    reads_start_anywhere_and_keep_their_limits,
    a_copy_is_the_same_bytes,
    only_the_next_index_of_this_segment_is_taken,
    a_fence_holds_across_restarts,
    a_sealed_copy_stays_closed_across_restarts,
    a_fenced_leader_takes_nothing_more,
    a_rebooted_copy_is_in_doubt_until_it_is_whole_again,
    a_seal_cuts_what_lies_past_it_and_settles_who_waits,
    a_short_copy_serves_what_it_has_and_is_finished_when_it_is_whole,
    a_new_handle_is_bound_by_what_was_promised_before,
    everything_pending_is_written_before_the_store_stops,
);

fn with_backend(disable_io_uring: bool, hand_over_always: bool, scenario: fn(StoreConfig)) {
    let dir = tempfile::tempdir().unwrap();
    scenario(StoreConfig { disable_io_uring, hand_over_always, ..StoreConfig::new(dir.path().join("data")) });
}

fn appended_records_are_read_back(config: StoreConfig) {
    let store = Store::open(config.clone()).unwrap();
    if !config.disable_io_uring && cfg!(target_os = "linux") {
        assert_eq!(store.backend(), "io_uring");
    }
    let segment = store.create(spec(1, Tier::PageCache));
    let mut next = 0;
    for size in [1, 2, 500, 3000, 1, 70] {
        let appended = append(&segment, next..next + size);
        assert_eq!((appended.first_index, appended.count), (next, size));
        next += size;
    }
    assert_eq!(segment.next_index(), next);
    segment.wait_watermark_blocking(next).unwrap();
    expect(&segment, 0..next);
}

fn synced_small_and_large_batches_are_read_back(config: StoreConfig) {
    let store = Store::open(config).unwrap();
    let segments: Vec<Segment> = (1..=5).map(|topic| store.create(spec(topic, Tier::Synced))).collect();
    std::thread::scope(|scope| {
        for segment in &segments {
            scope.spawn(|| {
                for index in 0..50 {
                    append_durably(segment, index..index + 1);
                }
                append_durably(segment, 50..1000);
                append_durably(segment, 1000..1001);
            });
        }
    });
    for segment in &segments {
        expect(segment, 0..1001);
    }
}

fn an_append_is_atomic_or_takes_what_fits(config: StoreConfig) {
    let store = Store::open(config).unwrap();
    let limited = SegmentSpec { segment_entries: 10, ..spec(1, Tier::PageCache) };
    let records: Vec<&[u8]> = vec![b"x"; 8];
    let segment = store.create(limited);
    assert!(!segment.append_blocking(&records, Take::UpToLimit).unwrap().full);
    let second = segment.append_blocking(&records, Take::UpToLimit).unwrap();
    assert_eq!((second.first_index, second.count, second.full), (8, 2, true));
    let segment = store.create(SegmentSpec { uid: SegmentUid { topic_id: 2, number: 1 }, ..limited });
    segment.append_blocking(&records, Take::AllOrNone).unwrap();
    let second = segment.append_blocking(&records, Take::AllOrNone).unwrap();
    assert_eq!((second.first_index, second.count, second.full), (8, 8, true));
    segment.wait_watermark_blocking(16).unwrap();
}

fn limits_close_the_segment(config: StoreConfig) {
    let store = Store::open(config).unwrap();
    let segment = store.create(SegmentSpec { segment_bytes: 100_000, ..spec(1, Tier::PageCache) });
    let mut next = 0;
    while !append(&segment, next..next + 1).full {
        next += 1;
        assert!(next < 1000, "100 kB are full before 1,000 records");
    }
    assert!(matches!(segment.try_append(&[b"late"], Take::UpToLimit), Err(StoreError::Closed)));
    segment.wait_watermark_blocking(next + 1).unwrap();
    assert!(segment.size_bytes() >= 100_000);
}

fn a_clean_restart_loses_nothing(config: StoreConfig) {
    let disk_id;
    {
        let store = Store::open(config.clone()).unwrap();
        disk_id = store.disk_id();
        append(&store.create(spec(1, Tier::PageCache)), 0..500);
        store.shutdown();
    }
    pretend_reboot(&config.data_dir);
    let store = Store::open(config).unwrap();
    assert_eq!(store.disk_id(), disk_id);
    let (segment, recovered) = store.recover(spec(1, Tier::PageCache)).unwrap();
    assert_eq!((recovered.count, recovered.epoch, recovered.possible_loss), (500, 3, false));
    expect(&segment, 0..500);
    assert!(matches!(segment.try_append(&[b"no"], Take::UpToLimit), Err(StoreError::Closed)));
}

fn a_crash_of_the_process_loses_nothing_acknowledged(config: StoreConfig) {
    let store = Store::open(config.clone()).unwrap();
    for (topic, tier) in [(1, Tier::PageCache), (2, Tier::Synced)] {
        let segment = store.create(spec(topic, tier));
        append_durably(&segment, 0..300);
        append_durably(&segment, 300..301);
    }
    crash(store);
    let store = Store::open(config).unwrap();
    for (topic, tier) in [(1, Tier::PageCache), (2, Tier::Synced)] {
        let (segment, recovered) = store.recover(spec(topic, tier)).unwrap();
        assert_eq!((recovered.count, recovered.possible_loss), (301, false));
        assert!(recovered.damaged.is_empty());
        expect(&segment, 0..301);
    }
}

fn a_torn_tail_is_cut(config: StoreConfig) {
    let store = Store::open(config.clone()).unwrap();
    let segment = store.create(spec(1, Tier::PageCache));
    append_durably(&segment, 0..10);
    let whole = segment.size_bytes();
    append_durably(&segment, 10..20);
    let end = segment.size_bytes();
    crash(store);
    let store = Store::open(config.clone()).unwrap();
    // As if the second batch had been torn in the midst of its write.
    segment_file(&store, spec(1, Tier::PageCache).uid).set_len(end - 5).unwrap();
    let (segment, recovered) = store.recover(spec(1, Tier::PageCache)).unwrap();
    assert_eq!((recovered.count, recovered.damaged.len()), (10, 0));
    assert_eq!(segment.size_bytes(), whole);
    expect(&segment, 0..10);
}

fn damage_below_the_mark_is_reported_and_what_follows_stays(config: StoreConfig) {
    let store = Store::open(config.clone()).unwrap();
    let segment = store.create(spec(1, Tier::PageCache));
    append_durably(&segment, 0..10);
    let second = segment.size_bytes();
    append_durably(&segment, 10..20);
    append_durably(&segment, 20..30);
    store.shutdown();
    drop(store);
    let store = Store::open(config).unwrap();
    segment_file(&store, segment.spec().uid).write_all_at(&[0xff; 80], second).unwrap();
    let (segment, recovered) = store.recover(spec(1, Tier::PageCache)).unwrap();
    assert_eq!(recovered.count, 30);
    assert_eq!(recovered.damaged.first(), Some(&(10..20)));
    assert_eq!(recovered.damaged.len(), 1);
    assert!(matches!(segment.read(12, 1, 1), Err(StoreError::Corrupt { first_index: 12, end_index: 20, .. })));
    expect(&segment, 20..30);
    let before = segment.read(0, 100, 1 << 20).unwrap();
    assert_eq!(before.iter().map(|batch| batch.count).sum::<u64>(), 10, "what lies before is served");
}

fn a_flipped_bit_is_corrupt_and_never_skipped(config: StoreConfig) {
    let store = Store::open(config).unwrap();
    let segment = store.create(spec(1, Tier::PageCache));
    append_durably(&segment, 0..10);
    let file = segment_file(&store, segment.spec().uid);
    let mut byte = [0];
    file.read_exact_at(&mut byte, DATA_START + 90).unwrap();
    file.write_all_at(&[byte[0] ^ 1], DATA_START + 90).unwrap();
    assert!(matches!(segment.read(0, 10, 1 << 20), Err(StoreError::Corrupt { first_index: 0, end_index: 10, .. })));
}

fn a_machine_restart_is_reported(config: StoreConfig) {
    let store = Store::open(config.clone()).unwrap();
    for (topic, tier) in [(1, Tier::PageCache), (2, Tier::Synced)] {
        append_durably(&store.create(spec(topic, tier)), 0..5);
    }
    crash(store);
    pretend_reboot(&config.data_dir);
    let store = Store::open(config).unwrap();
    assert!(store.recover(spec(1, Tier::PageCache)).unwrap().1.possible_loss);
    let (_, synced) = store.recover(spec(2, Tier::Synced)).unwrap();
    assert_eq!((synced.count, synced.possible_loss), (5, false));
}

fn the_journal_restores_what_the_segment_file_lost(config: StoreConfig) {
    let store = Store::open(config.clone()).unwrap();
    let segment = store.create(spec(1, Tier::Synced));
    for index in 0..20 {
        append_durably(&segment, index..index + 1);
    }
    let path = store.running.shared.files.path(segment.spec().uid);
    crash(store);
    // The machine went down before the segment's own pages reached the device.
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_len(DATA_START + 100).unwrap();
    pretend_reboot(&config.data_dir);
    let store = Store::open(config.clone()).unwrap();
    let (segment, recovered) = store.recover(spec(1, Tier::Synced)).unwrap();
    assert_eq!((recovered.count, recovered.possible_loss), (20, false));
    expect(&segment, 0..20);
}

fn a_sealed_segment_reads_with_and_without_its_footer(config: StoreConfig) {
    let store = Store::open(config.clone()).unwrap();
    let segment = store.create(spec(1, Tier::PageCache));
    append_durably(&segment, 0..400);
    append_durably(&segment, 400..500);
    segment.close();
    segment.seal(500).unwrap();
    segment.seal(500).unwrap();
    store.shutdown();
    drop(store);
    for footer in [true, false] {
        let store = Store::open(config.clone()).unwrap();
        if !footer {
            let file = segment_file(&store, segment.spec().uid);
            file.set_len(file.metadata().unwrap().len() - 1).unwrap();
        }
        let sealed = store.sealed(spec(1, Tier::PageCache), 500);
        expect(&sealed, 0..500);
        expect(&sealed, 450..500);
        assert!(sealed.read(500, 1, 1).unwrap().is_empty());
        assert!(matches!(sealed.try_append(&[b"no"], Take::UpToLimit), Err(StoreError::Closed)));
    }
}

fn removed_segments_are_gone(config: StoreConfig) {
    let store = Store::open(config).unwrap();
    let segments: Vec<Segment> = (1..=3).map(|topic| store.create(spec(topic, Tier::PageCache))).collect();
    for segment in &segments {
        append_durably(segment, 0..3);
    }
    assert_eq!(store.list().unwrap().len(), 3);
    store.remove(segments[1].spec().uid).unwrap();
    store.remove(segments[1].spec().uid).unwrap();
    let left: Vec<u64> = store.list().unwrap().iter().map(|uid| uid.topic_id).collect();
    assert_eq!(left, [1, 3]);
    assert!(segments[1].read(0, 1, 1).is_err());
}

fn a_second_process_and_another_version_are_refused(config: StoreConfig) {
    let store = Store::open(config.clone()).unwrap();
    match Store::open(config.clone()) {
        Err(StoreError::InUse { pid, .. }) => assert_eq!(pid, std::process::id()),
        other => panic!("expected InUse, got {other:?}"),
    }
    drop(store);
    let path = config.data_dir.join("store.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"format_version\": 2", "\"format_version\": 1")).unwrap();
    assert!(matches!(Store::open(config), Err(StoreError::Version { found: 1, wanted: 2, .. })));
}

fn reads_start_anywhere_and_keep_their_limits(config: StoreConfig) {
    let store = Store::open(config).unwrap();
    let segment = store.create(spec(1, Tier::PageCache));
    for start in (0..3000).step_by(100) {
        append_durably(&segment, start..start + 100);
    }
    for from in [0, 1, 99, 100, 101, 1555, 2999] {
        let one = segment.read(from, 1, 1).unwrap();
        assert_eq!(one.len(), 1);
        assert_eq!(records_of(&one[0]), [record(from)], "one record however small the limit");
        let some = segment.read(from, 150, 1 << 20).unwrap();
        assert_eq!(some.iter().map(|batch| batch.count).sum::<u64>(), 150.min(3000 - from));
        let bytes: usize = segment.read(from, u64::MAX, 20_000).unwrap().iter().map(|batch| batch.records.len()).sum();
        assert!(bytes <= 20_000, "{bytes}");
        expect(&segment, from..3000);
    }
    assert!(segment.read(3000, 1, 1).unwrap().is_empty());
}

fn everything_pending_is_written_before_the_store_stops(config: StoreConfig) {
    for round in 0..20 {
        let store = Store::open(config.clone()).unwrap();
        let of_round =
            |topic| SegmentSpec { uid: SegmentUid { topic_id: topic, number: round + 1 }, ..spec(1, Tier::Synced) };
        // Small batches: while one is in the journal, the next one is pending.
        for segment in (1..=4).map(|topic| store.create(of_round(topic))) {
            for index in 0..10 + round {
                append(&segment, index..index + 1);
            }
        }
        store.shutdown();
        drop(store);
        let store = Store::open(config.clone()).unwrap();
        for topic in 1..=4 {
            assert_eq!(store.recover(of_round(topic)).unwrap().1.count, 10 + round);
        }
    }
}
