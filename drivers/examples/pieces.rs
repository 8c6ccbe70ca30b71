//! The floor below any store that gathers records by topic: what the page cache costs by the size of the writes.
//! Threads copy records of 768 bytes in turn into a buffer for each of their files, and write a buffer that is full.
//! `pieces [files=1000] [piece=43008] [mib=2400] [threads=2] [dir=/tmp/pieces-data] [aligned] [copy]`: `aligned` writes
//! pieces that begin and end at multiples of `piece`, `copy` writes nothing. `dir` must not be there yet. Nothing is verified: see
//! `harness` for that.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::Instant;

const RECORD_BYTES: usize = 768;
/// Records to copy from: few enough for the processor's nearest cache to keep a good part.
const POOL_RECORDS: usize = 150;

struct Plan {
    dir: PathBuf,
    files: usize,
    piece_bytes: usize,
    total_bytes: usize,
    threads: usize,
    aligned: bool,
    copy_only: bool,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let pairs: HashMap<&str, &str> = args.iter().filter_map(|arg| arg.split_once('=')).collect();
    let number = |key: &str, default: usize| pairs.get(key).map_or(default, |value| value.parse().unwrap());
    let plan = Plan {
        dir: pairs.get("dir").unwrap_or(&"/tmp/pieces-data").into(),
        files: number("files", 1000),
        piece_bytes: number("piece", 43_008),
        total_bytes: number("mib", 2400) << 20,
        threads: number("threads", 2),
        aligned: args.iter().any(|arg| arg == "aligned"),
        copy_only: args.iter().any(|arg| arg == "copy"),
    };
    assert!(plan.files >= plan.threads && plan.threads > 0, "each thread needs a file");
    assert!(plan.piece_bytes >= RECORD_BYTES, "a piece holds at least a record of {RECORD_BYTES} bytes");
    // It is removed at the end, so it must be ours.
    std::fs::create_dir(&plan.dir).expect("`dir` is made and removed: it must not be there yet");
    warm_page_cache(&plan.dir, plan.total_bytes as u64);
    let start = Barrier::new(plan.threads + 1);
    let seconds = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.threads)
            .map(|id| {
                let (plan, start) = (&plan, &start);
                scope.spawn(move || lane(plan, id, start))
            })
            .collect();
        start.wait();
        let began = Instant::now();
        // What the files and buffers cost to drop is outside the clock.
        let ends: Vec<Instant> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        ends.into_iter().max().map_or(0.0, |end| (end - began).as_secs_f64())
    });
    let records = plan.total_bytes / RECORD_BYTES;
    println!(
        "{} files, {} bytes a write: {:.2} M records/s, {:.0} ns of a thread a record",
        plan.files,
        plan.piece_bytes,
        records as f64 / seconds / 1e6,
        seconds * 1e9 * plan.threads as f64 / records as f64,
    );
    std::fs::remove_dir_all(&plan.dir).unwrap();
}

/// One file and what is gathered for it.
struct Gathered<'b> {
    file: File,
    buffer: &'b mut [u8],
    used: usize,
    written: u64,
}

/// Fills and writes this thread's files in turn; when it was done.
fn lane(plan: &Plan, id: usize, start: &Barrier) -> Instant {
    let pool = vec![1; POOL_RECORDS * RECORD_BYTES];
    let mine = plan.files / plan.threads;
    // In one piece: each buffer in a mapping of its own would cost more page table.
    let mut buffers = vec![1; mine * plan.piece_bytes];
    let mut files: Vec<Gathered<'_>> = buffers
        .chunks_exact_mut(plan.piece_bytes)
        .enumerate()
        .map(|(at, buffer)| Gathered {
            file: File::create(plan.dir.join(format!("{id}-{at}"))).unwrap(),
            buffer,
            // Phases apart, as producers are: else all files would be due in one round.
            used: plan.piece_bytes / RECORD_BYTES * at / mine * RECORD_BYTES,
            written: 0,
        })
        .collect();
    let records = plan.total_bytes / RECORD_BYTES / plan.threads;
    start.wait();
    for n in 0..records {
        let from = n % POOL_RECORDS * RECORD_BYTES;
        put(plan, &mut files[n % mine], &pool[from..from + RECORD_BYTES]);
    }
    Instant::now()
}

fn put(plan: &Plan, to: &mut Gathered<'_>, record: &[u8]) {
    to.buffer[to.used..to.used + RECORD_BYTES].copy_from_slice(record);
    to.used += RECORD_BYTES;
    if to.used + RECORD_BYTES <= plan.piece_bytes {
        return;
    }
    // A record would straddle two aligned pieces; what stands in its place costs the same.
    let length = if plan.aligned { plan.piece_bytes } else { to.used };
    if !plan.copy_only {
        to.file.write_all_at(&to.buffer[..length], to.written).unwrap();
    }
    to.written += length as u64;
    to.used = 0;
}

/// Has the host of a virtual machine back the pages that will be written.
fn warm_page_cache(dir: &Path, bytes: u64) {
    let path = dir.join("warm-up");
    File::create(&path).unwrap().set_len(bytes + (1 << 30)).unwrap();
    let (mut file, mut chunk) = (File::open(&path).unwrap(), vec![0; 1 << 20]);
    while file.read(&mut chunk).unwrap() > 0 {}
    std::fs::remove_file(&path).unwrap();
}
