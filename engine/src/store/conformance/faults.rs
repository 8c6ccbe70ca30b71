//! What the store promises on a disk that fails.

use super::*;
use crate::store::segment::Inner;
use crate::store::{appender, footers};

fn store_on(dir: &Path) -> (Store, Arc<FaultDisk>) {
    let disk = Arc::new(FaultDisk::default());
    let store = Store::open_on(StoreConfig::new(dir), Arc::<FaultDisk>::clone(&disk)).unwrap();
    (store, disk)
}

/// Ends the threads, so that the test does their work, in its own order.
fn without_threads(store: &Store) -> &Shared {
    let threads = lock(&store.running.threads).take().unwrap();
    assert!(threads.stop(&store.running.shared));
    &store.running.shared
}

fn inner(segment: &Segment) -> Arc<Inner> {
    Arc::clone(segment.inner())
}

fn is_finished(segment: &Segment) -> bool {
    let mut finished = Box::pin(segment.finished());
    block_on(|cx| finished.as_mut().poll(cx))
}

#[test]
fn after_a_failed_write_nothing_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (store, disk) = store_on(dir.path());
    let segment = store.create(spec(1, Tier::PageCache));
    append_durably(&segment, 0..5);
    disk.set(Fault::Write { errno: libc::EIO, after_bytes: 100 });
    append(&segment, 5..10);
    assert!(matches!(segment.wait_watermark_blocking(10), Err(StoreError::Poisoned { .. })));
    disk.set(Fault::None);
    assert!(matches!(segment.try_append(&[b"no"], Take::UpToLimit), Err(StoreError::Poisoned { .. })));
    assert_eq!((segment.watermark(), segment.next_index()), (5, 5));
    expect(&segment, 0..5);
    segment.seal(5).unwrap();
}

#[test]
fn a_failed_flush_ends_a_synced_segment() {
    let dir = tempfile::tempdir().unwrap();
    let (store, disk) = store_on(dir.path());
    let (small, large) = (store.create(spec(1, Tier::Synced)), store.create(spec(2, Tier::Synced)));
    append_durably(&small, 0..5);
    append_durably(&large, 0..500);
    disk.set(Fault::Flush { errno: libc::EIO });
    append(&small, 5..6);
    append(&large, 500..1000);
    assert!(small.wait_watermark_blocking(6).is_err());
    assert!(large.wait_watermark_blocking(1000).is_err());
    disk.set(Fault::None);
    assert!(small.try_append(&[b"no"], Take::UpToLimit).is_err(), "a failed flush is never tried again");
    expect(&small, 0..5);
}

#[test]
fn a_full_disk_is_said_so_and_reads_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (store, disk) = store_on(dir.path());
    let segment = store.create(spec(1, Tier::PageCache));
    append_durably(&segment, 0..5);
    disk.set(Fault::Full);
    let other = store.create(spec(2, Tier::PageCache));
    append(&other, 0..1);
    assert!(matches!(other.wait_watermark_blocking(1), Err(StoreError::DiskFull)));
    expect(&segment, 0..5);
    disk.set(Fault::None);
    append_durably(&store.create(spec(3, Tier::PageCache)), 0..5);
}

#[test]
fn a_write_that_ends_after_a_failed_flush_is_not_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _disk) = store_on(dir.path());
    without_threads(&store);
    let segment = store.create(spec(1, Tier::PageCache));
    append_durably(&segment, 0..5);
    append(&segment, 5..10);
    let write = appender::prepare(inner(&segment)).unwrap();
    segment.inner().fail(&io::Error::from_raw_os_error(libc::EIO), "flushing");
    // Whoever seals it now seals it at 5.
    assert_eq!(segment.next_index(), 5);
    let result = write.run();
    appender::complete(write, result);
    assert_eq!((segment.watermark(), segment.committed(), segment.next_index()), (5, 5, 5));
    assert!(!lock(&segment.inner().state).in_flight);
    assert!(block_on(|cx| segment.poll_committed(10, cx)).is_err());
}

#[test]
fn what_the_journal_alone_may_hold_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let (store, disk) = store_on(dir.path());
    let segment = store.create(spec(1, Tier::Synced));
    append_durably(&segment, 0..5);
    disk.set(Fault::Flush { errno: libc::EIO });
    let journal = &store.running.shared.journal;
    journal.fill(0, vec![inner(&segment)]);
    journal.release(0);
    disk.set(Fault::None);
    assert!(journal.is_held());
    let other = store.create(spec(2, Tier::Synced));
    (0..5).for_each(|index| append_durably(&other, index..index + 1));
    let path = store.running.shared.files.path(segment.spec().uid);
    crash(store);
    // The device never got the segment's own pages.
    std::fs::File::options().write(true).open(path).unwrap().set_len(DATA_START + 100).unwrap();
    pretend_reboot(dir.path());
    let store = Store::open(StoreConfig::new(dir.path())).unwrap();
    for topic in [1, 2] {
        let (segment, recovered) = store.recover(spec(topic, Tier::Synced)).unwrap();
        assert_eq!(recovered.count, 5, "topic {topic}");
        expect(&segment, 0..5);
    }
}

#[test]
fn a_start_that_cannot_open_a_segment_leaves_the_journal_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _disk) = store_on(dir.path());
    let segment = store.create(spec(1, Tier::Synced));
    append_durably(&segment, 0..5);
    let path = store.running.shared.files.path(segment.spec().uid);
    crash(store);
    pretend_reboot(dir.path());
    // The device never got the segment's own pages, and at the first start the file cannot be opened.
    std::fs::File::options().write(true).open(&path).unwrap().set_len(DATA_START + 100).unwrap();
    let aside = path.with_extension("aside");
    std::fs::rename(&path, &aside).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(Store::open(StoreConfig::new(dir.path())).is_err());
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    let store = Store::open(StoreConfig::new(dir.path())).unwrap();
    let (segment, recovered) = store.recover(spec(1, Tier::Synced)).unwrap();
    assert_eq!(recovered.count, 5);
    expect(&segment, 0..5);
}

#[test]
fn a_file_whose_flush_failed_gets_no_footer_and_no_clean_end() {
    let dir = tempfile::tempdir().unwrap();
    let (store, disk) = store_on(dir.path());
    let segment = store.create(spec(1, Tier::PageCache));
    append_durably(&segment, 0..5);
    segment.close();
    disk.set(Fault::Flush { errno: libc::EIO });
    segment.seal(5).unwrap();
    assert!(!is_finished(&segment));
    // The kernel tells of a failure once; that a second flush succeeds means nothing.
    disk.set(Fault::None);
    footers::write_all(&store.running.shared, &[inner(&segment)]);
    assert!(!is_finished(&segment));
    store.shutdown();
    drop(store);
    pretend_reboot(dir.path());
    let store = Store::open(StoreConfig::new(dir.path())).unwrap();
    assert!(store.recover(spec(1, Tier::PageCache)).unwrap().1.possible_loss);
}

#[test]
fn an_abandoned_segment_is_never_finished() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _disk) = store_on(dir.path());
    let segment = store.create(spec(1, Tier::PageCache));
    append_durably(&segment, 0..5);
    segment.abandon();
    assert!(!is_finished(&segment));
}
