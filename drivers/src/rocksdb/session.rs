//! An open database, its producers and its readers.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rocksdb::{DB, Options, ReadOptions, WaitForCompactOptions, WriteBatch, WriteOptions};

use super::OWN_SETTINGS;
use super::keys::{KeyForm, KeySpace};
use crate::process::io_error;
use crate::settings::Settings;
use crate::topic_batch::Runs;
use crate::{Ack, Consumer, DriverError, Producer, Session, Setup, Tier};

pub(super) struct RocksSession {
    db: Arc<DB>,
    topics: Vec<String>,
    producers: u32,
    key_form: KeyForm,
    sync: bool,
    /// 0: one `Put` a record.
    batch_bytes: usize,
    fetch_bytes: usize,
    syncer: Option<WalSyncer>,
}

impl RocksSession {
    pub(super) fn open(setup: &Setup) -> Result<RocksSession, DriverError> {
        let settings = Settings::any(setup);
        let options = options(setup, settings)?;
        let db = Arc::new(DB::open(&options, setup.data_dir.join("db")).map_err(failed)?);
        let has = |word: &str| setup.variant.iter().any(|variant| variant == word);
        let batch_bytes = settings.size("batch_bytes", 256 << 10)?;
        let interval_ms = settings.number("wal_sync_interval_ms", 0)?;
        let syncer = (interval_ms > 0 && setup.tier == Tier::PageCache)
            .then(|| WalSyncer::start(Arc::clone(&db), Duration::from_millis(interval_ms)));
        Ok(RocksSession {
            db,
            topics: setup.topics.clone(),
            producers: setup.producers,
            key_form: if settings.flag("text_keys", false)? { KeyForm::Text } else { KeyForm::Binary },
            sync: setup.tier == Tier::Synced,
            batch_bytes: if has("batch") && !setup.one_in_flight { batch_bytes } else { 0 },
            fetch_bytes: settings.size("fetch_bytes", 1 << 20)?,
            syncer,
        })
    }

    fn key_space(&self, topic: usize, producer: u32) -> KeySpace {
        KeySpace::new(self.key_form, topic, &self.topics[topic], producer)
    }

    /// First sequence of the space that is not taken.
    fn end_of(&self, space: &mut KeySpace) -> Result<u64, DriverError> {
        let mut entries = self.db.raw_iterator();
        entries.seek_for_prev(space.key(999_999_999_999));
        entries.status().map_err(failed)?;
        Ok(entries.key().and_then(|key| space.sequence(key)).map_or(0, |last| last + 1))
    }
}

fn options(setup: &Setup, settings: Settings<'_>) -> Result<Options, DriverError> {
    let wal_dir = setup.data_dir.join("wal");
    std::fs::create_dir_all(&wal_dir).map_err(|source| io_error(&format!("creating {}", wal_dir.display()), source))?;
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_wal_dir(&wal_dir);
    let budget = settings.size("optimize_level_style_compaction", 0)?;
    if budget > 0 {
        options.optimize_level_style_compaction(budget);
    }
    options.set_manual_wal_flush(setup.tier == Tier::Memory);
    options.get_options_from_string(options_text(&setup.settings)).map_err(failed)
}

/// The profile's table in the syntax of RocksDB's options strings: `name=value;…`.
fn options_text(table: &toml::Table) -> String {
    let own = |name: &&String| !OWN_SETTINGS.contains(&name.as_str());
    let text = |value: &toml::Value| match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let names = table.keys().filter(own);
    names.map(|name| format!("{name}={};", text(&table[name]))).collect()
}

impl Session for RocksSession {
    fn create_topics(&self) -> Result<(), DriverError> {
        Ok(())
    }

    fn producer(&self, id: u32) -> Result<Box<dyn Producer + '_>, DriverError> {
        let mut write_options = WriteOptions::default();
        write_options.set_sync(self.sync);
        // Keys of a batch rise within each topic, so the place of the last is near the next's.
        write_options.set_memtable_insert_hint_per_batch(true);
        Ok(Box::new(RocksProducer {
            session: self,
            id,
            write_options,
            spaces: self.topics.iter().map(|_| None).collect(),
            batch: WriteBatch::default(),
            batch_bytes: 0,
            batched: Runs::default(),
            written: Runs::default(),
            acks: Vec::new(),
        }))
    }

    fn consumer(&self, topic: usize, at_end: bool) -> Result<Box<dyn Consumer + '_>, DriverError> {
        let mut positions = Vec::new();
        for producer in 0..self.producers {
            let mut space = self.key_space(topic, producer);
            let next = if at_end { self.end_of(&mut space)? } else { 0 };
            positions.push((space, next));
        }
        Ok(Box::new(RocksConsumer { session: self, positions, turn: 0 }))
    }

    fn settle(&self) -> Result<(), DriverError> {
        let mut options = WaitForCompactOptions::default();
        options.set_flush(true);
        self.db.wait_for_compact(&options).map_err(failed)
    }
}

struct RocksProducer<'s> {
    session: &'s RocksSession,
    id: u32,
    write_options: WriteOptions,
    /// Key space and next sequence of each topic that was written to.
    spaces: Vec<Option<(KeySpace, u64)>>,
    batch: WriteBatch,
    batch_bytes: usize,
    batched: Runs,
    written: Runs,
    acks: Vec<Ack>,
}

impl RocksProducer<'_> {
    fn write_batch(&mut self) -> Result<(), DriverError> {
        if self.batch_bytes == 0 {
            return Ok(());
        }
        let fresh = WriteBatch::with_capacity_bytes(self.session.batch_bytes + (64 << 10));
        let batch = std::mem::replace(&mut self.batch, fresh);
        self.batch_bytes = 0;
        self.session.db.write_opt(batch, &self.write_options).map_err(failed)?;
        self.batched.settle(true, &mut self.acks);
        Ok(())
    }
}

impl Producer for RocksProducer<'_> {
    fn send(&mut self, topic: usize, ticket: u64, record: &[u8]) -> Result<(), DriverError> {
        let session = self.session;
        let (space, next) = match &mut self.spaces[topic] {
            Some(space) => space,
            empty => {
                let mut space = session.key_space(topic, self.id);
                let next = session.end_of(&mut space)?;
                empty.insert((space, next))
            }
        };
        let key = space.key(*next);
        *next += 1;
        if session.batch_bytes == 0 {
            session.db.put_opt(key, record, &self.write_options).map_err(failed)?;
            self.written.push(ticket);
            return Ok(());
        }
        self.batch.put(key, record);
        self.batched.push(ticket);
        self.batch_bytes += key.len() + record.len();
        if self.batch_bytes >= session.batch_bytes { self.write_batch() } else { Ok(()) }
    }

    fn poll(&mut self, wait: Duration, acks: &mut Vec<Ack>) -> Result<(), DriverError> {
        self.written.settle(true, &mut self.acks);
        if self.acks.is_empty() && !wait.is_zero() {
            self.write_batch()?;
        }
        acks.append(&mut self.acks);
        Ok(())
    }

    fn has_acks(&self) -> bool {
        !self.written.is_empty() || !self.acks.is_empty()
    }

    fn flush(&mut self) -> Result<(), DriverError> {
        self.write_batch()
    }
}

struct RocksConsumer<'s> {
    session: &'s RocksSession,
    /// Each producer's key space and the next sequence to read.
    positions: Vec<(KeySpace, u64)>,
    /// Whose records were read last.
    turn: usize,
}

impl RocksConsumer<'_> {
    /// Reads on in one producer's records.
    fn read(&mut self, sink: &mut dyn FnMut(&[u8])) -> Result<usize, DriverError> {
        let (space, next) = &mut self.positions[self.turn];
        let mut options = ReadOptions::default();
        options.set_auto_readahead_size(true);
        let mut entries = self.session.db.raw_iterator_opt(options);
        entries.seek(space.key(*next));
        let (mut count, mut bytes) = (0, 0);
        while let Some((key, record)) = entries.item() {
            let Some(sequence) = space.sequence(key) else {
                break;
            };
            sink(record);
            *next = sequence + 1;
            count += 1;
            bytes += record.len();
            if bytes >= self.session.fetch_bytes {
                return Ok(count);
            }
            entries.next();
        }
        entries.status().map_err(failed)?;
        Ok(count)
    }
}

impl Consumer for RocksConsumer<'_> {
    fn fetch(&mut self, wait: Duration, sink: &mut dyn FnMut(&[u8])) -> Result<usize, DriverError> {
        let deadline = Instant::now() + wait;
        loop {
            for _ in 0..self.positions.len() {
                let count = self.read(sink)?;
                if count > 0 {
                    return Ok(count);
                }
                self.turn = (self.turn + 1) % self.positions.len();
            }
            if Instant::now() >= deadline {
                return Ok(0);
            }
            // A database cannot be waited on.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Flushes the write-ahead log at intervals, as the original's benchmark does.
struct WalSyncer {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl WalSyncer {
    fn start(db: Arc<DB>, interval: Duration) -> WalSyncer {
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                if let Err(error) = db.flush_wal(true) {
                    // The tier promises nothing about this flush; writers see their own errors.
                    eprintln!("rocksdb: flushing the write-ahead log: {error}");
                }
            }
        });
        WalSyncer { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for RocksSession {
    fn drop(&mut self) {
        if let Some(mut syncer) = self.syncer.take() {
            syncer.stop.take();
            if let Some(thread) = syncer.thread.take() {
                // A panic there has already shown its message.
                let _ = thread.join();
            }
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "fits `map_err`")]
fn failed(error: rocksdb::Error) -> DriverError {
    DriverError::System(format!("rocksdb: {error}"))
}
