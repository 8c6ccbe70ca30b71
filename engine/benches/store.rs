//! What a record costs in the store: append (with its checksum and its way into the page cache),
//! read, the scan of a segment that was not closed, and the checksum alone. `cargo bench -p walrus-engine --bench store`

use std::hint::black_box;
use std::path::Path;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tempfile::TempDir;
use walrus_engine::protocol::records::put_record;
use walrus_engine::store::{Segment, SegmentSpec, Store, StoreConfig, Take};
use walrus_engine::types::{SegmentUid, Tier};

const RECORDS: u64 = 10_000;

fn spec(number: u64, tier: Tier) -> SegmentSpec {
    SegmentSpec {
        uid: SegmentUid { topic_id: 1, number },
        epoch: number,
        tier,
        segment_entries: 1_000_000,
        segment_bytes: 1 << 30,
    }
}

fn payloads() -> Vec<Vec<u8>> {
    (0..RECORDS as usize).map(|n| vec![n as u8; 500 + n % 525]).collect()
}

fn open(dir: &Path) -> Store {
    Store::open(StoreConfig::new(dir)).expect("a temporary directory takes a store")
}

/// Appends everything in groups of 300 records and waits until it is durable in its tier.
fn append(segment: &Segment, records: &[&[u8]]) {
    for group in records.chunks(300) {
        segment.append_blocking(group, Take::UpToLimit).expect("there is room for every record");
    }
    segment.wait_watermark_blocking(records.len() as u64).expect("the disk takes the records");
}

/// As [`append`], the groups being lists as they come over the wire.
fn append_lists(segment: &Segment, lists: &[(Vec<u8>, u64)]) {
    for (list, count) in lists {
        segment.try_append_list(list, *count).expect("there is room for every record");
    }
    segment.wait_watermark_blocking(RECORDS).expect("the disk takes the records");
}

fn lists_of(records: &[&[u8]], count: usize) -> Vec<(Vec<u8>, u64)> {
    let list_of = |group: &[&[u8]]| {
        let mut list = Vec::new();
        group.iter().for_each(|record| put_record(&mut list, record));
        (list, group.len() as u64)
    };
    records.chunks(count).map(list_of).collect()
}

fn appends(criterion: &mut Criterion) {
    let payloads = payloads();
    let records: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
    let dir = TempDir::new().expect("a temporary directory");
    let store = open(dir.path());
    let mut number = 0;
    // Outside of the measured time.
    let mut fresh = |tier| {
        let last = SegmentUid { topic_id: 1, number };
        store.remove(last).expect("the last segment's file goes");
        number += 1;
        store.create(spec(number, tier))
    };
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(RECORDS)).sample_size(20);
    for (name, tier) in [("page-cache", Tier::PageCache), ("synced", Tier::Synced)] {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || fresh(tier),
                |segment| {
                    append(&segment, &records);
                    segment
                },
                BatchSize::PerIteration,
            );
        });
    }
    for (name, count) in [("page-cache, lists", 300), ("page-cache, lists of 23 KB", 30)] {
        let lists = lists_of(&records, count);
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || fresh(Tier::PageCache),
                |segment| {
                    append_lists(&segment, &lists);
                    segment
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn reads(criterion: &mut Criterion) {
    let payloads = payloads();
    let records: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
    let dir = TempDir::new().expect("a temporary directory");
    let store = open(dir.path());
    let segment = store.create(spec(1, Tier::PageCache));
    append(&segment, &records);
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Elements(RECORDS)).sample_size(20);
    group.bench_function("from the page cache, checksums compared", |bencher| {
        bencher.iter(|| {
            let mut next = 0;
            while next < RECORDS {
                let batches = segment.read(next, u64::MAX, 1 << 20).expect("what was written is read");
                next = batches.last().map_or(RECORDS, |last| last.base_index + last.count);
                black_box(&batches);
            }
        });
    });
    group.bench_function("recovery scan of an open segment", |bencher| {
        bencher.iter_batched(
            || drop(segment.clone()),
            |()| store.recover(spec(1, Tier::PageCache)).expect("the segment is whole"),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// CRC32C as batches are checked with: by the processor's own instructions, where it has them.
fn checksums(criterion: &mut Criterion) {
    let bytes = vec![7; 1 << 20];
    let mut group = criterion.benchmark_group("checksum");
    for (name, length) in [("a record of 762 bytes", 762), ("a batch of 1 MiB", 1 << 20)] {
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(name, |bencher| bencher.iter(|| crc_fast::crc32_iscsi(black_box(&bytes[..length]))));
    }
    group.finish();
}

criterion_group!(benches, appends, reads, checksums);
criterion_main!(benches);
