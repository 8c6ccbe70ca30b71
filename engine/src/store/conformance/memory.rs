//! The pool that all segments share.

use super::super::disk::PIECES_MAX;
use super::super::pool::CHUNK_BYTES;
use super::*;

pub fn many_topics_share_a_small_pool(config: StoreConfig) {
    let store = Store::open(StoreConfig { pool_bytes: 512 * 1024, ..config }).unwrap();
    let segments: Vec<Segment> = (0..100).map(|topic| store.create(spec(topic, Tier::PageCache))).collect();
    std::thread::scope(|scope| {
        for half in segments.chunks(50) {
            scope.spawn(move || {
                for round in 0..20 {
                    for segment in half {
                        append(segment, round * 10..(round + 1) * 10);
                    }
                }
            });
        }
    });
    for segment in &segments {
        segment.wait_watermark_blocking(200).unwrap();
        expect(segment, 0..200);
    }
}

/// Nobody waits for any of them, so nothing is written before the last one has its place.
pub fn thousands_of_topics_have_records_pending_at_once(config: StoreConfig) {
    const TOPICS: u64 = 4000;
    let store = Store::open(config).unwrap();
    let segments: Vec<Segment> = (1..=TOPICS).map(|topic| store.create(spec(topic, Tier::PageCache))).collect();
    let record = record(7);
    for segment in &segments {
        segment.try_append(&[&record], Take::AllOrNone).expect("the default pool has room for all of them");
    }
    for segment in &segments {
        segment.wait_watermark_blocking(1).unwrap();
        assert_eq!(read_all(segment, 0).unwrap(), [&record[..]]);
    }
}

pub fn a_batch_of_more_pieces_than_the_kernel_takes_is_written(config: StoreConfig) {
    let store = Store::open(config).unwrap();
    let record = vec![b'x'; (PIECES_MAX + 10) * CHUNK_BYTES];
    for (topic, tier) in [(1, Tier::PageCache), (2, Tier::Synced)] {
        let segment = store.create(spec(topic, tier));
        append(&segment, 0..1);
        segment.append_blocking(&[&record], Take::AllOrNone).unwrap();
        append_durably(&segment, 2..3);
        let found = read_all(&segment, 0).unwrap();
        assert_eq!(found.len(), 3);
        assert!(found[1] == record, "the same bytes");
    }
}
