//! Lists of records, which may go to the file from where they lie.

use super::*;

fn list(indices: std::ops::Range<u64>) -> (Vec<u8>, u64) {
    let count = indices.end - indices.start;
    let mut bytes = Vec::new();
    for record in indices.map(record) {
        bytes.extend_from_slice(&(record.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&record);
    }
    (bytes, count)
}

fn append_list(segment: &Segment, indices: std::ops::Range<u64>) -> Appended {
    let (bytes, count) = list(indices);
    segment.try_append_list(&bytes, count).unwrap()
}

pub fn lists_and_records_follow_one_another(config: StoreConfig) {
    let store = Store::open(config.clone()).unwrap();
    for (topic, tier) in [(1, Tier::PageCache), (2, Tier::Synced)] {
        let segment = store.create(spec(topic, tier));
        // Nothing before it, then behind a record that is pending, a small one, and two in a row.
        assert_eq!(append_list(&segment, 0..400), Appended { first_index: 0, count: 400, full: false });
        append(&segment, 400..401);
        assert_eq!(append_list(&segment, 401..800).first_index, 401);
        assert_eq!(append_list(&segment, 800..802).first_index, 800);
        segment.wait_watermark_blocking(802).unwrap();
        append_list(&segment, 802..1200);
        append_list(&segment, 1200..1600);
        segment.wait_watermark_blocking(1600).unwrap();
        expect(&segment, 0..1600);
        expect(&segment, 1234..1600);
    }
    crash(store);
    let store = Store::open(config).unwrap();
    for (topic, tier) in [(1, Tier::PageCache), (2, Tier::Synced)] {
        let (segment, recovered) = store.recover(spec(topic, tier)).unwrap();
        assert_eq!((recovered.count, recovered.damaged.len()), (1600, 0));
        expect(&segment, 0..1600);
    }
}

pub fn a_large_list_is_in_the_kernel_when_the_append_returns(config: StoreConfig) {
    let pressed = config.hand_over_always;
    let store = Store::open(config.clone()).unwrap();
    let segment = store.create(spec(1, Tier::PageCache));
    append_list(&segment, 0..200);
    assert!(pressed || segment.watermark() == 200, "nobody has to wait for it");
    segment.wait_watermark_blocking(200).unwrap();
    let synced = store.create(spec(2, Tier::Synced));
    append_list(&synced, 0..200);
    synced.wait_watermark_blocking(200).unwrap();
    crash(store);
    let store = Store::open(config).unwrap();
    expect(&store.recover(spec(1, Tier::PageCache)).unwrap().0, 0..200);
    expect(&store.recover(spec(2, Tier::Synced)).unwrap().0, 0..200);
}

pub fn lists_of_many_writers_are_dense_and_in_their_order(config: StoreConfig) {
    let store = Store::open(config).unwrap();
    let segment = store.create(spec(1, Tier::PageCache));
    // Each list is one writer's: 40 KiB that say whose it is, and which.
    let (writers, lists) = (4_u8, 60_u8);
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let segment = &segment;
            scope.spawn(move || {
                for number in 0..lists {
                    let mut bytes = (40_u32 << 10).to_le_bytes().to_vec();
                    bytes.resize(4 + (40 << 10), writer);
                    bytes[4] = number;
                    let appended = segment.try_append_list(&bytes, 1).unwrap();
                    // Some wait for each of theirs, some run ahead.
                    if writer % 2 == 0 {
                        segment.wait_watermark_blocking(appended.first_index + 1).unwrap();
                    }
                }
            });
        }
    });
    let all = u64::from(writers) * u64::from(lists);
    segment.wait_watermark_blocking(all).unwrap();
    let records = read_all(&segment, 0).unwrap();
    assert_eq!(records.len() as u64, all);
    let mut next = vec![0; writers.into()];
    for record in records {
        let writer = record[1];
        assert!(record[1..].iter().all(|&byte| byte == writer), "records are whole");
        assert_eq!(record[0], next[usize::from(writer)], "writer {writer}");
        next[usize::from(writer)] += 1;
    }
}

/// Adds up the records that others are told of.
#[derive(Debug, Default)]
struct Told(std::sync::atomic::AtomicU64);

impl Observer for Told {
    fn submitted(&self, _segment: &Segment, batch: &Arc<Batch>) {
        self.0.fetch_add(u64::from(batch.count), std::sync::atomic::Ordering::SeqCst);
    }
    fn progressed(&self, _segment: &Segment) {}
}

pub fn other_nodes_are_told_of_lists_too(config: StoreConfig) {
    let store = Store::open(config).unwrap();
    let told = Arc::new(Told::default());
    let segment = store.create_observed(spec(1, Tier::PageCache), Arc::<Told>::clone(&told));
    append_list(&segment, 0..400);
    segment.wait_watermark_blocking(400).unwrap();
    assert_eq!(told.0.load(std::sync::atomic::Ordering::SeqCst), 400);
    assert_eq!(segment.readable_end(), 0, "they have not confirmed it");
}

pub fn lists_fill_a_segment_and_end_it(config: StoreConfig) {
    let store = Store::open(config).unwrap();
    let segment = store.create(SegmentSpec { segment_bytes: 300_000, ..spec(1, Tier::PageCache) });
    assert!(!append_list(&segment, 0..200).full);
    assert!(append_list(&segment, 200..800).full);
    let (bytes, count) = list(0..200);
    assert!(matches!(segment.try_append_list(&bytes, count), Err(StoreError::Closed)));
    segment.wait_watermark_blocking(800).unwrap();
    segment.seal(800).unwrap();
    expect(&segment, 0..800);
    // Whether it would have been buffered makes no difference.
    let segment = store.create(spec(2, Tier::PageCache));
    let bytes = vec![0; 64 << 20];
    assert!(matches!(segment.try_append_list(&bytes, 16 << 20), Err(StoreError::TooLarge { .. })));
    append_list(&segment, 0..200);
    segment.wait_watermark_blocking(200).unwrap();
    expect(&segment, 0..200);
}

pub fn a_list_that_cannot_be_written_ends_the_segment(config: StoreConfig) {
    let disk = Arc::new(FaultDisk::default());
    let store = Store::open_on(config.clone(), Arc::clone(&disk) as Arc<dyn Disk>).unwrap();
    let segment = store.create(spec(1, Tier::PageCache));
    append_list(&segment, 0..200);
    segment.wait_watermark_blocking(200).unwrap();
    disk.set(Fault::Write { errno: libc::ENOSPC, after_bytes: 50_000 });
    append_list(&segment, 200..500);
    assert!(matches!(segment.wait_watermark_blocking(500), Err(StoreError::DiskFull)));
    assert!(matches!(segment.try_append(&[b"late"], Take::UpToLimit), Err(StoreError::DiskFull)));
    disk.set(Fault::None);
    assert_eq!((segment.watermark(), segment.next_index()), (200, 200));
    expect(&segment, 0..200);
    crash(store);
    let store = Store::open(config).unwrap();
    let (segment, recovered) = store.recover(spec(1, Tier::PageCache)).unwrap();
    assert_eq!(recovered.count, 200, "half a list is none");
    expect(&segment, 0..200);
}
