//! An io_uring that fails while the store runs. It is broken for the whole process, so this test has one
//! of its own.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use walrus_engine::store::{Segment, SegmentSpec, Store, StoreConfig, StoreError, Take};
use walrus_engine::types::{SegmentUid, Tier};

/// Too large for the shared journal, so that the ring writes it.
const RECORD: &[u8] = &[7; 100_000];

#[test]
fn a_broken_ring_ends_what_it_holds_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(StoreConfig::new(dir.path())).expect("a store");
    if store.backend() != "io_uring" {
        return println!("skipped: no io_uring here");
    }
    let [before, during, after] = [1, 2, 3].map(|number| store.create(spec(number)));
    append(&before).expect("the ring works");
    // In the midst of its loop the thread would notice before it is given anything.
    while !waits_in_kernel("walrus-uring") {
        thread::yield_now();
    }
    break_rings();
    // The ring has it, or had it: nobody knows, so it must not count.
    assert!(matches!(append(&during), Err(StoreError::Poisoned { .. })));
    append(&after).expect("writing goes on");
    append(&before).expect("also where the ring has written");
    for (segment, count) in [(before, 2), (after, 1)] {
        let read = segment.read(0, u64::MAX, usize::MAX).expect("it is there");
        assert_eq!(read.iter().map(|batch| batch.count).sum::<u64>(), count);
    }
    store.shutdown();
}

fn spec(number: u64) -> SegmentSpec {
    SegmentSpec {
        uid: SegmentUid { topic_id: 1, number },
        epoch: 1,
        tier: Tier::Synced,
        segment_entries: 10,
        segment_bytes: 1 << 30,
    }
}

/// Appends a record, and waits until it is durable.
fn append(segment: &Segment) -> Result<(), StoreError> {
    let appended = segment.try_append(&[RECORD], Take::AllOrNone)?;
    let (done, ended) = channel();
    let segment = segment.clone();
    thread::spawn(move || done.send(segment.wait_watermark_blocking(appended.first_index + 1)));
    ended.recv_timeout(Duration::from_secs(20)).expect("a write ends, well or not")
}

/// Does a thread of this name sleep?
fn waits_in_kernel(name: &str) -> bool {
    let tasks = std::fs::read_dir("/proc/self/task").expect("/proc");
    tasks.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok()).any(|stat| {
        // "pid (name) state ..."
        stat.contains(&format!("({name}) S"))
    })
}

/// Puts something else in the place of every ring of this process.
fn break_rings() {
    let null = File::open("/dev/null").expect("/dev/null");
    let fds = std::fs::read_dir("/proc/self/fd").expect("/proc");
    let rings: Vec<RawFd> = fds
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let ring = std::fs::read_link(&path).ok()?.to_str()?.contains("io_uring");
            ring.then(|| path.file_name()?.to_str()?.parse().ok())?
        })
        .collect();
    assert!(!rings.is_empty(), "the store has one");
    for ring in rings {
        // SAFETY: both are open; who uses the ring gets errors from the kernel, which is what is tested.
        assert_eq!(unsafe { libc::dup2(null.as_raw_fd(), ring) }, ring);
    }
}
