//! The original Walrus: crate `walrus-rust` 0.2, in process.
//!
//! Variants: `append` (`append_for_topic`) or `batch` (`batch_append_for_topic`, at most 2,000
//! records a call, which always ends with an `fsync`), over the `fd` or the `mmap` backend.
//! The crate takes its directory, its backend and its schedule of flushes from process-wide
//! settings, so one process opens one session.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus};

use crate::process::io_error;
use crate::settings::Settings;
use crate::topic_batch::{Runs, TopicBatch};
use crate::{Ack, Consumer, Deployment, DriverError, Producer, Server, Session, Setup, System, Tier, Tools};

/// The crate refuses larger batches.
const BATCH_RECORDS_MAX: usize = 2000;
/// Subdirectory that the crate makes below its data directory.
const NAMESPACE: &str = "bench";

/// The crate `walrus-rust`.
#[derive(Debug, Default)]
pub struct Upstream;

impl System for Upstream {
    fn name(&self) -> &'static str {
        "upstream"
    }

    fn deployment(&self) -> Deployment {
        Deployment::Embedded
    }

    fn version(&self, _tools: &Tools) -> String {
        "walrus-rust 0.2.0".to_owned()
    }

    fn check(&self, _tools: &Tools) -> Result<(), DriverError> {
        Ok(())
    }

    fn start(&self, _setup: &Setup) -> Result<Option<Box<dyn Server>>, DriverError> {
        Ok(None)
    }

    fn open(&self, setup: &Setup) -> Result<Box<dyn Session>, DriverError> {
        Ok(Box::new(UpstreamSession::open(setup)?))
    }
}

struct UpstreamSession {
    wal: Walrus,
    topics: Vec<String>,
    /// A batch that meets another of its topic is refused, so they queue here.
    turns: Vec<Mutex<()>>,
    batch_records: usize,
    batch_bytes: usize,
}

impl UpstreamSession {
    fn open(setup: &Setup) -> Result<UpstreamSession, DriverError> {
        let settings = Settings::new(setup, &["backend", "batch_records", "batch_bytes", "fsync_interval_ms"])?;
        let words: HashSet<&str> = setup.variant.iter().map(String::as_str).collect();
        let default_backend = if words.contains("mmap") { "mmap" } else { "fd" };
        match settings.word("backend", default_backend, &["fd", "mmap"])? {
            "mmap" => walrus_rust::disable_fd_backend(),
            _ => walrus_rust::enable_fd_backend(),
        }
        let schedule = match (setup.tier, settings.number("fsync_interval_ms", 0)?) {
            (Tier::Memory, _) => return Err(no_memory_tier()),
            (Tier::Synced, _) => FsyncSchedule::SyncEach,
            (Tier::PageCache, 0) => FsyncSchedule::NoFsync,
            (Tier::PageCache, interval_ms) => FsyncSchedule::Milliseconds(interval_ms),
        };
        let is_batch = words.contains("batch") && !setup.one_in_flight;
        let batch_records = settings.size("batch_records", BATCH_RECORDS_MAX)?.min(BATCH_RECORDS_MAX);
        Ok(UpstreamSession {
            wal: open_wal(&setup.data_dir, schedule)?,
            topics: setup.topics.clone(),
            turns: setup.topics.iter().map(|_| Mutex::new(())).collect(),
            batch_records: if is_batch { batch_records } else { 1 },
            batch_bytes: settings.size("batch_bytes", usize::MAX >> 1)?,
        })
    }
}

fn open_wal(data_dir: &Path, schedule: FsyncSchedule) -> Result<Walrus, DriverError> {
    // Positions of an earlier reader: ours start at the beginning.
    let positions = data_dir.join(NAMESPACE).join("read_offset_idx_index.db");
    if positions.exists() {
        std::fs::remove_file(&positions)
            .map_err(|source| io_error(&format!("removing {}", positions.display()), source))?;
    }
    // SAFETY: a worker opens its session before it starts threads, and only Rust code, which goes
    // through the same lock, reads the environment here.
    unsafe {
        std::env::set_var("WALRUS_DATA_DIR", data_dir);
        std::env::set_var("WALRUS_QUIET", "1");
    }
    let consistency = ReadConsistency::AtLeastOnce { persist_every: u32::MAX };
    Walrus::with_consistency_and_schedule_for_key(NAMESPACE, consistency, schedule)
        .map_err(|source| io_error("opening walrus-rust", source))
}

fn no_memory_tier() -> DriverError {
    DriverError::Unavailable {
        cause: "walrus-rust has no memory tier: every append reaches the kernel".into(),
        remedy: "run it in the page-cache or the synced tier".into(),
    }
}

impl Session for UpstreamSession {
    fn create_topics(&self) -> Result<(), DriverError> {
        Ok(())
    }

    fn producer(&self, _id: u32) -> Result<Box<dyn Producer + '_>, DriverError> {
        Ok(Box::new(UpstreamProducer {
            session: self,
            batches: self.topics.iter().map(|_| TopicBatch::default()).collect(),
            waiting: Vec::new(),
            appended: Runs::default(),
            acks: Vec::new(),
        }))
    }

    fn consumer(&self, topic: usize, at_end: bool) -> Result<Box<dyn Consumer + '_>, DriverError> {
        let mut consumer = UpstreamConsumer { wal: &self.wal, topic: &self.topics[topic], way: Way::Unknown };
        if at_end {
            while consumer.read(&mut |_| ())? > 0 {}
        }
        Ok(Box::new(consumer))
    }
}

struct UpstreamProducer<'s> {
    session: &'s UpstreamSession,
    batches: Vec<TopicBatch>,
    /// Topics whose batch holds something.
    waiting: Vec<usize>,
    /// Single appends that have returned.
    appended: Runs,
    acks: Vec<Ack>,
}

impl UpstreamProducer<'_> {
    fn write_batch(&mut self, topic: usize) -> Result<(), DriverError> {
        let batch = &mut self.batches[topic];
        if batch.is_empty() {
            return Ok(());
        }
        let records: Vec<&[u8]> = batch.records().collect();
        let turn = self.session.turns[topic].lock().unwrap_or_else(PoisonError::into_inner);
        self.session
            .wal
            .batch_append_for_topic(&self.session.topics[topic], &records)
            .map_err(|source| io_error("batch_append_for_topic", source))?;
        drop(turn);
        batch.settle(true, &mut self.acks);
        Ok(())
    }
}

impl Producer for UpstreamProducer<'_> {
    fn send(&mut self, topic: usize, ticket: u64, record: &[u8]) -> Result<(), DriverError> {
        if self.session.batch_records == 1 {
            self.session
                .wal
                .append_for_topic(&self.session.topics[topic], record)
                .map_err(|source| io_error("append_for_topic", source))?;
            self.appended.push(ticket);
            return Ok(());
        }
        if self.batches[topic].is_empty() {
            self.waiting.push(topic);
        }
        self.batches[topic].push(ticket, record);
        let batch = &self.batches[topic];
        if batch.len() < self.session.batch_records && batch.bytes() < self.session.batch_bytes {
            return Ok(());
        }
        self.waiting.retain(|&waiting| waiting != topic);
        self.write_batch(topic)
    }

    fn poll(&mut self, wait: Duration, acks: &mut Vec<Ack>) -> Result<(), DriverError> {
        self.appended.settle(true, &mut self.acks);
        if self.acks.is_empty() && !wait.is_zero() {
            self.flush()?;
        }
        acks.append(&mut self.acks);
        Ok(())
    }

    fn has_acks(&self) -> bool {
        !self.appended.is_empty() || !self.acks.is_empty()
    }

    fn flush(&mut self) -> Result<(), DriverError> {
        for topic in std::mem::take(&mut self.waiting) {
            self.write_batch(topic)?;
        }
        Ok(())
    }
}

/// How to read a topic.
enum Way {
    /// Its records were not seen yet.
    Unknown,
    /// `batch_read_for_topic` with this budget.
    Batches { max_bytes: usize },
    /// `read_next`.
    Single,
}

/// `batch_read_for_topic` returns at most 2,000 records, and skips what its byte budget has cut off
/// the last full block of a topic. So the budget must hold 2,000 records; where that would be too
/// much memory, `read_next` reads them one by one.
const BATCHES_RECORD_BYTES_MAX: usize = 32 << 10;
/// The crate's header in front of each record.
const HEADER_BYTES: usize = 64;

struct UpstreamConsumer<'s> {
    wal: &'s Walrus,
    topic: &'s str,
    way: Way,
}

impl UpstreamConsumer<'_> {
    fn read(&mut self, sink: &mut dyn FnMut(&[u8])) -> Result<usize, DriverError> {
        if let Way::Batches { max_bytes } = self.way {
            let entries = self
                .wal
                .batch_read_for_topic(self.topic, max_bytes, true)
                .map_err(|source| io_error("batch_read_for_topic", source))?;
            for entry in &entries {
                sink(&entry.data);
            }
            return Ok(entries.len());
        }
        let next = self.wal.read_next(self.topic, true).map_err(|source| io_error("read_next", source))?;
        let Some(entry) = next else { return Ok(0) };
        if matches!(self.way, Way::Unknown) {
            self.way = Self::way_for(entry.data.len());
        }
        sink(&entry.data);
        Ok(1)
    }

    /// Sizes within a topic differ by a factor of about two at most; three leaves some room.
    fn way_for(record_bytes: usize) -> Way {
        if record_bytes > BATCHES_RECORD_BYTES_MAX {
            return Way::Single;
        }
        Way::Batches { max_bytes: BATCH_RECORDS_MAX * 3 * (record_bytes + HEADER_BYTES) }
    }
}

impl Consumer for UpstreamConsumer<'_> {
    fn fetch(&mut self, wait: Duration, sink: &mut dyn FnMut(&[u8])) -> Result<usize, DriverError> {
        let deadline = Instant::now() + wait;
        loop {
            let count = self.read(sink)?;
            if count > 0 || Instant::now() >= deadline {
                return Ok(count);
            }
            // The crate cannot be waited on.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
