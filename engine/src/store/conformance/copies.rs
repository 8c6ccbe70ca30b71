//! What the store promises about copies of one segment on several nodes. Each scenario has a
//! leader's store and a replica's, in directories of their own.

use super::*;
use crate::store::copies::{Certainty, RawError, Standing};

/// Takes note of nothing: these tests look at the segments themselves.
#[derive(Debug)]
struct Nobody;

impl Observer for Nobody {
    fn submitted(&self, _segment: &Segment, _batch: &Arc<Batch>) {}
    fn progressed(&self, _segment: &Segment) {}
}

fn replica_config(config: &StoreConfig) -> StoreConfig {
    StoreConfig { data_dir: config.data_dir.with_file_name("replica"), ..config.clone() }
}

fn open_copy(store: &Store, spec: SegmentSpec) -> Segment {
    let segment = store.open_copy(spec, Arc::new(Nobody)).unwrap().0;
    store.know_copies(&[(segment.clone(), false)]).unwrap();
    segment
}

/// Sends what the replica lacks, one raw read at a time.
fn copy_over(from: &Segment, to: &Segment, epoch: u64) {
    while to.next_index() < from.watermark() {
        let raw = from.read_raw(to.next_index(), 20_000).unwrap();
        to.append_raw(epoch, &raw.bytes).unwrap();
        to.start_writing();
    }
    to.wait_watermark_blocking(from.watermark()).unwrap();
}

fn file_bytes(store: &Store, segment: &Segment) -> Vec<u8> {
    let bytes = std::fs::read(store.running.shared.files.path(segment.spec().uid)).unwrap();
    bytes[DATA_START as usize..segment.size_bytes() as usize].to_vec()
}

fn fence(store: &Store, segment: &Segment, epoch: u64) -> Result<Standing, RawError> {
    store.fence(&[(segment.clone(), epoch)]).unwrap().remove(0)
}

pub(super) fn a_copy_is_the_same_bytes(config: StoreConfig) {
    let (here, there) = (Store::open(config.clone()).unwrap(), Store::open(replica_config(&config)).unwrap());
    for (topic, tier) in [(1, Tier::PageCache), (2, Tier::Synced)] {
        let leader = here.create_observed(spec(topic, tier), Arc::new(Nobody));
        for (start, end) in [(0, 3), (3, 700), (700, 701), (701, 2000), (2000, 2500)] {
            append_durably(&leader, start..end);
        }
        // One by one, so that batches are filled up.
        for index in 2500..4000 {
            append(&leader, index..index + 1);
        }
        leader.wait_watermark_blocking(4000).unwrap();
        let replica = open_copy(&there, spec(topic, tier));
        copy_over(&leader, &replica, 3);
        assert_eq!(file_bytes(&here, &leader), file_bytes(&there, &replica));
        assert!(replica.read(0, 1, 1).unwrap().is_empty(), "nothing is read that is not committed");
        replica.commit(701);
        assert_eq!(read_all(&replica, 0).unwrap().len(), 701);
        replica.end_at(4000);
        expect(&replica, 0..4000);
    }
}

pub(super) fn only_the_next_index_of_this_segment_is_taken(config: StoreConfig) {
    let (here, there) = (Store::open(config.clone()).unwrap(), Store::open(replica_config(&config)).unwrap());
    let leader = here.create_observed(spec(1, Tier::PageCache), Arc::new(Nobody));
    append_durably(&leader, 0..10);
    append_durably(&leader, 10..20);
    let (first, second) = (leader.read_raw(0, 1).unwrap(), leader.read_raw(10, 1).unwrap());
    assert_eq!((first.end_index, second.base_index, second.end_index), (10, 10, 20));
    let replica = open_copy(&there, spec(1, Tier::PageCache));
    assert!(matches!(replica.append_raw(3, &second.bytes), Err(RawError::Gap { next: 0 })));
    replica.append_raw(3, &first.bytes).unwrap();
    replica.append_raw(3, &first.bytes).unwrap();
    assert_eq!(replica.next_index(), 10, "what is there already is passed over");
    let mut damaged = second.bytes.to_vec();
    damaged[100] ^= 1;
    assert!(matches!(replica.append_raw(3, &damaged), Err(RawError::Bad(_))));
    let other = open_copy(&there, spec(2, Tier::PageCache));
    assert!(matches!(other.append_raw(3, &first.bytes), Err(RawError::Bad(_))), "of another segment");
    assert!(
        matches!(replica.append_raw(2, &second.bytes), Err(RawError::Bad(_))),
        "the batch is newer than its sender"
    );
    assert!(replica.try_append(&[b"mine"], Take::UpToLimit).is_err(), "a copy has no writer of its own");
}

pub(super) fn a_fence_holds_across_restarts(config: StoreConfig) {
    let replica_config = replica_config(&config);
    let here = Store::open(config).unwrap();
    let leader = here.create_observed(spec(1, Tier::PageCache), Arc::new(Nobody));
    append_durably(&leader, 0..30);
    let there = Store::open(replica_config.clone()).unwrap();
    let replica = open_copy(&there, spec(1, Tier::PageCache));
    copy_over(&leader, &replica, 3);
    let standing = fence(&there, &replica, 5).unwrap();
    assert_eq!((standing.length, standing.certainty), (30, Certainty::Exact));
    append_durably(&leader, 30..40);
    let late = leader.read_raw(30, 1).unwrap();
    assert!(matches!(replica.append_raw(3, &late.bytes), Err(RawError::Promised { promised: 5 })));
    assert!(matches!(fence(&there, &replica, 4), Err(RawError::Promised { promised: 5 })));
    crash(there);
    let there = Store::open(replica_config).unwrap();
    let replica = open_copy(&there, spec(1, Tier::PageCache));
    assert!(matches!(replica.append_raw(3, &late.bytes), Err(RawError::Promised { promised: 5 })));
    replica.append_raw(5, &late.bytes).unwrap();
    assert_eq!(fence(&there, &replica, 6).unwrap().length, 40, "what was taken before it is stored before it is told");
}

/// A node that has just started may know nothing yet of the seal, and what was promised is forgotten.
pub(super) fn a_sealed_copy_stays_closed_across_restarts(config: StoreConfig) {
    let replica_config = replica_config(&config);
    let here = Store::open(config).unwrap();
    let leader = here.create_observed(spec(1, Tier::PageCache), Arc::new(Nobody));
    append_durably(&leader, 0..30);
    let there = Store::open(replica_config.clone()).unwrap();
    let replica = open_copy(&there, spec(1, Tier::PageCache));
    copy_over(&leader, &replica, 3);
    replica.end_at(30);
    let mut finished = Box::pin(replica.finished());
    block_on(|cx| finished.as_mut().poll(cx));
    drop(finished);
    append_durably(&leader, 30..40);
    let late = leader.read_raw(30, 1).unwrap();
    crash(there);
    let there = Store::open(replica_config).unwrap();
    let replica = open_copy(&there, spec(1, Tier::PageCache));
    assert!(matches!(replica.append_raw(3, &late.bytes), Err(RawError::Sealed { count: 30 })));
    expect(&replica, 0..30);
}

pub(super) fn a_fenced_leader_takes_nothing_more(config: StoreConfig) {
    let store = Store::open(config).unwrap();
    let leader = store.create_observed(spec(1, Tier::Synced), Arc::new(Nobody));
    append(&leader, 0..100);
    let standing = fence(&store, &leader, 4).unwrap();
    assert_eq!((standing.length, standing.certainty), (100, Certainty::Exact));
    assert!(matches!(leader.try_append(&[b"late"], Take::UpToLimit), Err(StoreError::Closed)));
}

pub(super) fn a_rebooted_copy_is_in_doubt_until_it_is_whole_again(config: StoreConfig) {
    let replica_config = replica_config(&config);
    let here = Store::open(config).unwrap();
    let certainty = |store: &Store, topic, tier, epoch| {
        let copy = open_copy(store, spec(topic, tier));
        fence(store, &copy, epoch).unwrap().certainty
    };
    let there = Store::open(replica_config.clone()).unwrap();
    for (topic, tier) in [(1, Tier::PageCache), (2, Tier::Synced), (3, Tier::PageCache)] {
        let leader = here.create_observed(spec(topic, tier), Arc::new(Nobody));
        append_durably(&leader, 0..10);
        copy_over(&leader, &open_copy(&there, spec(topic, tier)), 3);
    }
    crash(there);
    // The file of topic 3 had not reached the device at all.
    pretend_reboot(&replica_config.data_dir);
    let there = Store::open(replica_config.clone()).unwrap();
    there.remove(spec(3, Tier::PageCache).uid).unwrap();
    assert_eq!(certainty(&there, 1, Tier::PageCache, 4), Certainty::AtLeast);
    assert_eq!(certainty(&there, 2, Tier::Synced, 4), Certainty::Exact, "what a synced copy acknowledged is there");
    assert_eq!(certainty(&there, 3, Tier::PageCache, 4), Certainty::AtLeast, "it must not swear that it had none");
    assert_eq!(certainty(&there, 9, Tier::PageCache, 4), Certainty::Exact, "it never had one of these");
    let copy = open_copy(&there, spec(1, Tier::PageCache));
    there.clear_doubt(&copy, 3).unwrap();
    assert_eq!(
        certainty(&there, 1, Tier::PageCache, 5),
        Certainty::AtLeast,
        "the leader of epoch 3 has no say any more"
    );
    there.clear_doubt(&open_copy(&there, spec(1, Tier::PageCache)), 5).unwrap();
    assert_eq!(certainty(&there, 1, Tier::PageCache, 6), Certainty::Exact);
    there.shutdown();
    drop(there);
    pretend_reboot(&replica_config.data_dir);
    let there = Store::open(replica_config).unwrap();
    assert_eq!(certainty(&there, 1, Tier::PageCache, 7), Certainty::Exact, "a clean stop leaves no doubt");
}

pub(super) fn a_seal_cuts_what_lies_past_it_and_settles_who_waits(config: StoreConfig) {
    let store = Store::open(config.clone()).unwrap();
    let segment = store.create_observed(spec(1, Tier::PageCache), Arc::new(Nobody));
    append_durably(&segment, 0..10);
    append_durably(&segment, 10..20);
    let waiting = |index| block_on(|cx| segment.poll_committed(index, cx));
    segment.end_at(10);
    assert!(waiting(10).is_ok(), "below the end it is stored on a quorum, whoever found that out");
    assert!(matches!(waiting(20), Err(StoreError::Cut { .. })));
    expect(&segment, 0..10);
    store.shutdown();
    drop(store);
    let store = Store::open(config).unwrap();
    expect(&store.sealed(spec(1, Tier::PageCache), 10), 0..10);
    let raw = store.sealed(spec(1, Tier::PageCache), 10).read_raw(0, 1 << 20).unwrap();
    assert_eq!((raw.base_index, raw.end_index), (0, 10));
}

pub(super) fn a_short_copy_serves_what_it_has_and_is_finished_when_it_is_whole(config: StoreConfig) {
    let (here, there) = (Store::open(config.clone()).unwrap(), Store::open(replica_config(&config)).unwrap());
    let leader = here.create_observed(spec(1, Tier::PageCache), Arc::new(Nobody));
    append_durably(&leader, 0..10);
    append_durably(&leader, 10..20);
    append_durably(&leader, 20..30);
    let replica = open_copy(&there, spec(1, Tier::PageCache));
    replica.append_raw(3, &leader.read_raw(0, 1).unwrap().bytes).unwrap();
    replica.start_writing();
    replica.wait_watermark_blocking(10).unwrap();
    replica.end_at(20);
    expect(&replica, 0..10);
    assert!(replica.read(10, 1, 1).unwrap().is_empty());
    let past = leader.read_raw(20, 1).unwrap();
    replica.append_raw(3, &leader.read_raw(10, 1).unwrap().bytes).unwrap();
    assert!(matches!(replica.append_raw(3, &past.bytes), Err(RawError::Sealed { count: 20 })));
    replica.start_writing();
    replica.wait_watermark_blocking(20).unwrap();
    expect(&replica, 0..20);
}

pub(super) fn a_new_handle_is_bound_by_what_was_promised_before(config: StoreConfig) {
    let store = Store::open(config).unwrap();
    // A recovery at epoch 9 asks before this node has heard that it leads the segment at epoch 3.
    let copy = open_copy(&store, spec(1, Tier::PageCache));
    fence(&store, &copy, 9).unwrap();
    let late = store.create_observed(spec(1, Tier::PageCache), Arc::new(Nobody));
    assert!(matches!(late.try_append(&[b"no"], Take::UpToLimit), Err(StoreError::Closed)));
    let next = SegmentSpec { epoch: 9, ..spec(1, Tier::PageCache) };
    store.create(next).try_append(&[b"yes"], Take::UpToLimit).unwrap();
}
