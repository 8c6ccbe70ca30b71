//! When segments get their files, and where in them batches end.

use super::super::format::{BatchHeader, DATA_START, FOOTER_BYTES, Footer};
use super::*;

pub fn a_file_made_ahead_takes_appends_that_come_meanwhile(config: StoreConfig) {
    let store = Store::open(config.clone()).unwrap();
    let exists = |topic_id| store.running.shared.files.path(spec(topic_id, Tier::PageCache).uid).exists();
    for topic_id in 0..50 {
        let segment = store.create(spec(topic_id, Tier::PageCache));
        assert!(!exists(topic_id));
        std::thread::scope(|scope| {
            scope.spawn(|| segment.make_file_ahead());
            append_durably(&segment, 0..20);
        });
        append_durably(&segment, 20..40);
        segment.make_file_ahead();
        expect(&segment, 0..40);
    }
    let empty = store.create(spec(100, Tier::PageCache));
    empty.make_file_ahead();
    assert!(exists(100));
    let synced = store.create(spec(101, Tier::Synced));
    synced.make_file_ahead();
    assert!(!exists(101), "its creation would have to be flushed");
    let closed = store.create(spec(102, Tier::PageCache));
    closed.abandon();
    closed.make_file_ahead();
    assert!(!exists(102), "it may have been removed already");
    crash(store);
    let store = Store::open(config).unwrap();
    let (_, recovered) = store.recover(spec(100, Tier::PageCache)).unwrap();
    assert_eq!(recovered.count, 0);
    let (recovered, found) = store.recover(spec(7, Tier::PageCache)).unwrap();
    assert_eq!(found.count, 40);
    expect(&recovered, 0..40);
}

pub fn large_batches_end_at_multiples_in_the_file_and_no_reader_sees_it(config: StoreConfig) {
    const RECORDS: u64 = 4_000;
    let store = Store::open(config.clone()).unwrap();
    let tail = {
        let segment = store.create(spec(1, Tier::PageCache));
        for index in 0..RECORDS {
            append(&segment, index..index + 1);
        }
        segment.wait_watermark_blocking(RECORDS).unwrap();
        expect(&segment, 0..RECORDS);
        segment.size_bytes()
    };
    let file = std::fs::read(store.running.shared.files.path(spec(1, Tier::PageCache).uid)).unwrap();
    let (mut position, mut ends, mut filled) = (DATA_START, Vec::new(), Vec::new());
    while position < tail {
        let header = BatchHeader::decode(&file[position as usize..]).unwrap();
        position += header.total_bytes();
        ends.push(position);
        filled.extend((header.filler > 0).then(|| header.base_index + u64::from(header.count)));
    }
    // A writer may come at any time and take a batch away before it is filled up.
    assert!(config.hand_over_always || ends.iter().any(|end| end % (256 * 1024) == 0), "{ends:?}");
    crash(store);
    let store = Store::open(config).unwrap();
    let (segment, found) = store.recover(spec(1, Tier::PageCache)).unwrap();
    assert_eq!((found.count, found.damaged.len()), (RECORDS, 0));
    for end in filled {
        expect(&segment, end - 2..RECORDS);
    }
}

pub fn segments_that_end_together_all_get_footers_before_the_store_stops(config: StoreConfig) {
    let store = Store::open(config.clone()).unwrap();
    let segments: Vec<Segment> = (1..=40).map(|topic_id| store.create(spec(topic_id, Tier::PageCache))).collect();
    let known: Vec<(Segment, bool)> = segments.iter().map(|segment| (segment.clone(), true)).collect();
    store.know_copies(&known).unwrap();
    for segment in &segments {
        append_durably(segment, 0..20);
    }
    // The last one stays open.
    for segment in &segments[..39] {
        segment.end_at(20);
    }
    store.shutdown();
    drop(store);
    let store = Store::open(config).unwrap();
    let promised = |topic_id| store.running.shared.fences.get(spec(topic_id, Tier::PageCache).uid).is_some();
    for topic_id in 1..=39 {
        let bytes = std::fs::read(store.running.shared.files.path(spec(topic_id, Tier::PageCache).uid)).unwrap();
        let footer = Footer::decode(&bytes[bytes.len() - FOOTER_BYTES..]).unwrap();
        assert_eq!((footer.uid.topic_id, footer.count), (topic_id, 20));
        assert!(!promised(topic_id), "nothing that was promised for it matters any more");
    }
    assert!(promised(40), "it may still be fenced");
}

pub fn a_file_that_cannot_be_made_ahead_is_made_by_the_first_write(config: StoreConfig) {
    let disk = Arc::new(FaultDisk::default());
    let store = Store::open_on(config, Arc::clone(&disk) as Arc<dyn Disk>).unwrap();
    let segment = store.create(spec(1, Tier::PageCache));
    disk.set(Fault::Write { errno: libc::ENOSPC, after_bytes: 10 });
    segment.make_file_ahead();
    disk.set(Fault::None);
    append_durably(&segment, 0..20);
    expect(&segment, 0..20);
}
