//! Our own segment store in process: a chain of segments per topic and nothing else (no metadata,
//! no network).
//!
//! One in flight appends and waits; windowed appends go on while earlier ones are being written,
//! and the segment's watermark acknowledges them.

mod chain;
mod unpark;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use walrus_engine::protocol::Records;
use walrus_engine::store::{Segment, Store, StoreConfig, StoreError};
use walrus_engine::types;

use self::chain::{Chain, Limits};
use self::unpark::wait_watermark;
use crate::settings::Settings;
use crate::{Ack, Consumer, Deployment, DriverError, Producer, Server, Session, Setup, System, Tier, Tools};

/// The segment store.
#[derive(Debug, Default)]
pub struct WalrusEmbedded;

impl System for WalrusEmbedded {
    fn name(&self) -> &'static str {
        "walrus-embedded"
    }

    fn deployment(&self) -> Deployment {
        Deployment::Embedded
    }

    fn version(&self, _tools: &Tools) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    fn check(&self, _tools: &Tools) -> Result<(), DriverError> {
        Ok(())
    }

    fn start(&self, _setup: &Setup) -> Result<Option<Box<dyn Server>>, DriverError> {
        Ok(None)
    }

    fn open(&self, setup: &Setup) -> Result<Box<dyn Session>, DriverError> {
        Ok(Box::new(StoreSession::open(setup)?))
    }
}

/// Settings of the profile; but for `fetch_bytes` they are the broker's own.
const SETTINGS: [&str; 6] =
    ["pool_bytes", "flush_interval_ms", "disable_io_uring", "segment_entries", "segment_bytes", "fetch_bytes"];

struct StoreSession {
    chains: Vec<Chain>,
    fetch_bytes: usize,
    send_and_wait: bool,
    /// Dropped last: it writes what is still buffered.
    _store: Store,
}

impl StoreSession {
    fn open(setup: &Setup) -> Result<StoreSession, DriverError> {
        let settings = Settings::new(setup, &SETTINGS)?;
        let defaults = StoreConfig::new(&setup.data_dir);
        let store = Store::open(StoreConfig {
            pool_bytes: settings.size("pool_bytes", defaults.pool_bytes)?,
            flush_interval_ms: settings.number("flush_interval_ms", defaults.flush_interval_ms)?,
            disable_io_uring: settings.flag("disable_io_uring", false)?,
            ..defaults
        })
        .map_err(failed)?;
        let limits = Limits {
            tier: match setup.tier {
                Tier::Memory => return Err(no_memory_tier()),
                Tier::PageCache => types::Tier::PageCache,
                Tier::Synced => types::Tier::Synced,
            },
            segment_entries: settings.number("segment_entries", 1_000_000)?,
            segment_bytes: settings.number("segment_bytes", 1 << 30)?,
        };
        Ok(StoreSession {
            chains: chain::open(&store, limits, setup.topics.len())?,
            fetch_bytes: settings.size("fetch_bytes", 1 << 20)?,
            send_and_wait: setup.one_in_flight,
            _store: store,
        })
    }
}

impl Session for StoreSession {
    /// Their files, as the broker does it for a new topic.
    fn create_topics(&self) -> Result<(), DriverError> {
        self.chains.iter().for_each(|chain| chain.last().1.make_file_ahead());
        Ok(())
    }

    fn producer(&self, _id: u32) -> Result<Box<dyn Producer + '_>, DriverError> {
        Ok(Box::new(StoreProducer {
            chains: &self.chains,
            writing: self.chains.iter().map(Chain::last).collect(),
            send_and_wait: self.send_and_wait,
            waiting: VecDeque::with_capacity(1024),
            first_ticket: 0,
        }))
    }

    fn consumer(&self, topic: usize, at_end: bool) -> Result<Box<dyn Consumer + '_>, DriverError> {
        let chain = &self.chains[topic];
        let (position, index) = if at_end { chain.end() } else { (0, 0) };
        Ok(Box::new(StoreConsumer { chain, position, index, fetch_bytes: self.fetch_bytes }))
    }
}

/// Records of consecutive tickets at consecutive indices of one segment, not yet acknowledged.
struct Run {
    topic: usize,
    /// Of the segment in the topic's chain.
    position: usize,
    first_index: u64,
    count: u64,
}

struct StoreProducer<'s> {
    chains: &'s [Chain],
    /// The open segment of each topic, as far as this producer knows.
    writing: Vec<(usize, Segment)>,
    send_and_wait: bool,
    /// In the order of their tickets, with none missing.
    waiting: VecDeque<Run>,
    /// Ticket of the first that waits.
    first_ticket: u64,
}

impl StoreProducer<'_> {
    fn remember(&mut self, topic: usize, index: u64) {
        let position = self.writing[topic].0;
        match self.waiting.back_mut() {
            Some(run) if (run.topic, run.position, run.first_index + run.count) == (topic, position, index) => {
                run.count += 1;
            }
            _ => self.waiting.push_back(Run { topic, position, first_index: index, count: 1 }),
        }
    }

    fn segment(&self, run: &Run) -> Cow<'_, Segment> {
        match &self.writing[run.topic] {
            (position, segment) if *position == run.position => Cow::Borrowed(segment),
            _ => Cow::Owned(self.chains[run.topic].segment(run.position)),
        }
    }

    /// Acknowledges, from the oldest on, what has passed its watermark.
    fn collect(&mut self, acks: &mut Vec<Ack>) {
        let mut count = 0;
        while let Some(run) = self.waiting.front() {
            let durable = self.segment(run).watermark().saturating_sub(run.first_index).min(run.count);
            count += durable;
            if durable < run.count {
                self.waiting[0].first_index += durable;
                self.waiting[0].count -= durable;
                break;
            }
            self.waiting.pop_front();
        }
        if count > 0 {
            acks.push(Ack { first_ticket: self.first_ticket, count, ok: true });
            self.first_ticket += count;
        }
    }
}

impl Producer for StoreProducer<'_> {
    fn send(&mut self, topic: usize, _ticket: u64, record: &[u8]) -> Result<(), DriverError> {
        let (position, segment) = &mut self.writing[topic];
        let appended = loop {
            match segment.append_blocking(&[record], walrus_engine::store::Take::UpToLimit) {
                Ok(appended) if appended.count == 1 => break appended,
                Ok(_) | Err(StoreError::Closed) => {
                    (*position, *segment) = self.chains[topic].roll_over(*position)?;
                }
                Err(error) => return Err(failed(error)),
            }
        };
        if self.send_and_wait {
            segment.wait_watermark_blocking(appended.first_index + 1).map_err(failed)?;
        }
        self.remember(topic, appended.first_index);
        Ok(())
    }

    fn poll(&mut self, wait: Duration, acks: &mut Vec<Ack>) -> Result<(), DriverError> {
        let before = acks.len();
        self.collect(acks);
        if acks.len() > before || wait.is_zero() {
            return Ok(());
        }
        if let Some(run) = self.waiting.front() {
            wait_watermark(&self.segment(run), run.first_index + 1, wait).map_err(failed)?;
            self.collect(acks);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DriverError> {
        Ok(())
    }
}

struct StoreConsumer<'s> {
    chain: &'s Chain,
    /// Segment in the chain, from 0, and index in it.
    position: usize,
    index: u64,
    fetch_bytes: usize,
}

impl StoreConsumer<'_> {
    /// Reads on; 0 at the end of what is durable.
    fn read(&mut self, sink: &mut dyn FnMut(&[u8])) -> Result<usize, DriverError> {
        loop {
            let segment = self.chain.segment(self.position);
            let batches = segment.read(self.index, u64::MAX, self.fetch_bytes).map_err(failed)?;
            let mut count = 0;
            for batch in &batches {
                let records = Records::parse(&batch.records)
                    .map_err(|error| DriverError::System(format!("segment {}: {error}", segment.spec().uid)))?;
                let known = self.index.saturating_sub(batch.base_index) as usize;
                records.iter().skip(known).for_each(&mut *sink);
                count += batch.count as usize - known;
                self.index = batch.base_index + batch.count;
            }
            if count > 0 || !self.chain.has_after(self.position) || self.index < segment.next_index() {
                return Ok(count);
            }
            (self.position, self.index) = (self.position + 1, 0);
        }
    }
}

impl Consumer for StoreConsumer<'_> {
    fn fetch(&mut self, wait: Duration, sink: &mut dyn FnMut(&[u8])) -> Result<usize, DriverError> {
        /// A rollover moves the tail to another segment, which the wait does not see.
        const LOOK_AGAIN: Duration = Duration::from_millis(10);
        let deadline = Instant::now() + wait;
        loop {
            let count = self.read(sink)?;
            let left = deadline.saturating_duration_since(Instant::now());
            if count > 0 || left.is_zero() {
                return Ok(count);
            }
            let segment = self.chain.segment(self.position);
            wait_watermark(&segment, self.index + 1, left.min(LOOK_AGAIN)).map_err(failed)?;
        }
    }
}

fn no_memory_tier() -> DriverError {
    DriverError::Unavailable {
        cause: "Walrus never acknowledges from process memory".into(),
        remedy: "run it in the page-cache or the synced tier".into(),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "fits `map_err`")]
fn failed(error: StoreError) -> DriverError {
    DriverError::System(format!("store: {error}"))
}
