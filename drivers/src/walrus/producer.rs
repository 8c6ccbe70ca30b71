//! Many requests in flight on one connection.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use walrus_engine::client::{ClientConfig, ClientError, Outcome, Pipeline, PipelineConfig, RecordBatch};

use super::client::failed;
use crate::topic_batch::Runs;
use crate::{Ack, DriverError, Producer};

/// How records become requests.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// A `PUT` each, sent at once.
    OneInFlight,
    /// A `PUT` each, collected.
    Put,
    /// An `APPEND` for as many records of a topic.
    Append {
        /// A list this large is sent.
        batch_bytes: usize,
        /// Payload that may be in flight.
        window_bytes: u64,
    },
}

/// Room in a list for the record that makes it large enough to be sent.
const RECORD_ROOM_BYTES: usize = 4 << 10;

/// Records of one topic on their way into an `APPEND`, and the tickets that belong to them.
#[derive(Debug, Default)]
struct Collected {
    records: RecordBatch,
    tickets: Runs,
}

/// Memory of lists that were sent and of requests that were answered, to be used again: the last first,
/// which may still be in the processor's cache.
#[derive(Debug, Default)]
struct Spare {
    lists: Vec<RecordBatch>,
    tickets: Vec<Runs>,
}

pub(super) struct PipelineProducer<'s> {
    pipeline: Pipeline,
    topics: &'s [String],
    form: Form,
    linger: Duration,
    /// When the oldest record came that was not written to the socket yet.
    collecting_since: Option<Instant>,
    in_flight: InFlight,
    /// What each topic has collected; the memory of those that have nothing is among the spare.
    batches: Vec<Collected>,
    spare: Spare,
    /// Topics whose batch holds something.
    waiting: Vec<usize>,
}

impl<'s> PipelineProducer<'s> {
    pub(super) fn connect(
        client: &ClientConfig,
        config: PipelineConfig,
        topics: &'s [String],
        form: Form,
        linger: Duration,
    ) -> Result<Self, ClientError> {
        let in_flight = match form {
            Form::OneInFlight | Form::Put => InFlight::Puts { next_ticket: 0 },
            Form::Append { .. } => InFlight::Appends(VecDeque::new()),
        };
        Ok(PipelineProducer {
            pipeline: Pipeline::connect(client, config)?,
            topics,
            form,
            linger,
            collecting_since: None,
            in_flight,
            batches: topics.iter().map(|_| Collected::default()).collect(),
            spare: Spare { lists: lists(form), tickets: Vec::new() },
            waiting: Vec::new(),
        })
    }

    fn collect(&mut self, topic: usize, ticket: u64, record: &[u8], batch_bytes: usize) -> Result<(), ClientError> {
        let batch = &mut self.batches[topic];
        if batch.records.is_empty() {
            self.waiting.push(topic);
            batch.records =
                self.spare.lists.pop().unwrap_or_else(|| RecordBatch::with_capacity(batch_bytes + RECORD_ROOM_BYTES));
            batch.tickets = self.spare.tickets.pop().unwrap_or_default();
        }
        batch.records.push(record);
        batch.tickets.push(ticket);
        if batch.records.bytes() >= batch_bytes {
            self.waiting.retain(|&waiting| waiting != topic);
            self.push_batch(topic)?;
        }
        Ok(())
    }

    fn push_batch(&mut self, topic: usize) -> Result<(), ClientError> {
        let Collected { mut records, tickets } = std::mem::take(&mut self.batches[topic]);
        self.pipeline.push_append(&self.topics[topic], &records)?;
        records.clear();
        self.spare.lists.push(records);
        if let InFlight::Appends(requests) = &mut self.in_flight {
            requests.push_back(tickets);
        }
        Ok(())
    }

    fn write_out(&mut self) -> Result<(), ClientError> {
        for topic in std::mem::take(&mut self.waiting) {
            self.push_batch(topic)?;
        }
        self.collecting_since = None;
        self.pipeline.flush()
    }

    /// What is left of the linger, or `None` when nothing is being collected.
    fn linger_left(&self) -> Option<Duration> {
        let collecting = self.pipeline.unsent_bytes() > 0 || !self.waiting.is_empty();
        let since = self.collecting_since.filter(|_| collecting)?;
        Some(self.linger.saturating_sub(since.elapsed()))
    }

    fn receive(&mut self, wait: Duration, acks: &mut Vec<Ack>) -> Result<u64, ClientError> {
        let (in_flight, spare) = (&mut self.in_flight, &mut self.spare.tickets);
        self.pipeline.recv_replies(wait, |outcome| match outcome {
            Outcome::Ok(requests) => in_flight.settle(requests, true, acks, spare),
            Outcome::Err { .. } => in_flight.settle(1, false, acks, spare),
        })
    }
}

/// As many lists as the window can fill, made before anything is measured.
fn lists(form: Form) -> Vec<RecordBatch> {
    let Form::Append { batch_bytes, window_bytes } = form else { return Vec::new() };
    let count = window_bytes.div_ceil(batch_bytes as u64);
    (0..count).map(|_| RecordBatch::with_capacity(batch_bytes + RECORD_ROOM_BYTES)).collect()
}

impl Producer for PipelineProducer<'_> {
    fn send(&mut self, topic: usize, ticket: u64, record: &[u8]) -> Result<(), DriverError> {
        let unsent_bytes = self.pipeline.unsent_bytes();
        match self.form {
            Form::OneInFlight => {
                self.pipeline.push_put(&self.topics[topic], record).map_err(failed)?;
                return self.pipeline.flush().map_err(failed);
            }
            Form::Put => self.pipeline.push_put(&self.topics[topic], record).map_err(failed)?,
            Form::Append { batch_bytes, .. } => self.collect(topic, ticket, record, batch_bytes).map_err(failed)?,
        }
        // Fewer bytes than before: a full write went out, and this record starts the next one.
        if self.collecting_since.is_none() || self.pipeline.unsent_bytes() < unsent_bytes {
            self.collecting_since = Some(Instant::now());
        }
        Ok(())
    }

    fn poll(&mut self, wait: Duration, acks: &mut Vec<Ack>) -> Result<(), DriverError> {
        let deadline = Instant::now() + wait;
        loop {
            let linger_left = self.linger_left();
            if linger_left == Some(Duration::ZERO) {
                self.write_out().map_err(failed)?;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = linger_left.filter(|linger| !linger.is_zero()).map_or(left, |linger| linger.min(left));
            let replies = self.receive(wait, acks).map_err(failed)?;
            if replies > 0 || wait == left {
                return Ok(());
            }
        }
    }

    fn flush(&mut self) -> Result<(), DriverError> {
        self.write_out().map_err(failed)
    }
}

/// Tickets of requests that were not answered yet, in the order of the requests.
enum InFlight {
    /// One ticket a request, and tickets rise by one.
    Puts {
        next_ticket: u64,
    },
    Appends(VecDeque<Runs>),
}

impl InFlight {
    /// The oldest `requests` were answered. Memory that this sets free goes to `spare`.
    fn settle(&mut self, requests: u64, ok: bool, acks: &mut Vec<Ack>, spare: &mut Vec<Runs>) {
        match self {
            InFlight::Puts { next_ticket } => {
                acks.push(Ack { first_ticket: *next_ticket, count: requests, ok });
                *next_ticket += requests;
            }
            InFlight::Appends(queue) => {
                for _ in 0..requests {
                    if let Some(mut tickets) = queue.pop_front() {
                        tickets.settle(ok, acks);
                        spare.push(tickets);
                    }
                }
            }
        }
    }
}
