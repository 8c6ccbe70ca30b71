//! Producers and readers that work on all nodes at once and write everything down.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use walrus_engine::client::{self, Client, ClientConfig, ClientError, Pipeline, PipelineConfig};
use walrus_engine::protocol::ErrorCode;
use walrus_engine::protocol::error_code::Retry;

use super::cluster::Cluster;
use super::eventually;
use super::history::{Answer, Delivery, Fetch, History, Id, Outcome, Sent, decode, encode, now};

/// Records that a producer pushes at once.
const BURST: u64 = 16;
/// Records that may wait for their reply on one connection.
const WINDOW: u64 = 48;
/// Pause between bursts: the histories stay small, and the nodes get their share of the machine.
const PACE: Duration = Duration::from_millis(4);
/// Records of one `APPEND`.
const APPEND_RECORDS: u64 = 5;
/// No reply within this time: the connection is given up. Above what a broker may take to answer.
const REPLY_TIMEOUT: Duration = Duration::from_secs(12);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Every so many reads, a reader looks at an old offset again.
const LOOK_BACK_EVERY: u64 = 4;

/// A load on one topic; ended by [`Load::finish`].
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<History>>,
}

/// What the threads of a load share.
struct Shared {
    topic: String,
    nodes: Vec<(u64, String)>,
    stop: AtomicBool,
    acked: AtomicU64,
    /// First producer number of this load.
    first_producer: u32,
}

/// Producers get numbers that no other load of the process has.
static NEXT_PRODUCER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);

impl Load {
    /// A producer of `PUT`s on each node, one of `APPEND`s, two readers by offset and one with a
    /// cursor. Each goes to the next node when its own does not answer.
    pub fn start(cluster: &Cluster, topic: &str) -> Self {
        Self::start_on(cluster.addresses(), topic)
    }

    /// The same, but only on these nodes.
    pub fn start_on(nodes: Vec<(u64, String)>, topic: &str) -> Self {
        let producers = nodes.len() as u32 + 1;
        let shared = Arc::new(Shared {
            topic: topic.to_owned(),
            nodes,
            stop: AtomicBool::new(false),
            acked: AtomicU64::new(0),
            first_producer: NEXT_PRODUCER.fetch_add(producers, Ordering::Relaxed),
        });
        let mut threads = Vec::new();
        for index in 0..producers - 1 {
            threads.push(spawn(&shared, move |shared| Putting::new(shared, index as usize).run()));
        }
        threads.push(spawn(&shared, |shared| Appending::new(shared).run()));
        for index in 0..2 {
            threads.push(spawn(&shared, move |shared| read_by_offset(shared, index)));
        }
        threads.push(spawn(&shared, read_by_cursor));
        Load { shared, threads }
    }

    /// Records acknowledged so far.
    pub fn acked(&self) -> u64 {
        self.shared.acked.load(Ordering::Relaxed)
    }

    /// Returns once so many more records are acknowledged.
    pub fn wait_acked(&self, more: u64) {
        let wanted = self.acked() + more;
        eventually(&format!("{more} more records are acknowledged"), || (self.acked() >= wanted).then_some(()));
    }

    /// Ends the load, and returns what it saw.
    pub fn finish(self) -> History {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut history = History::default();
        for thread in self.threads {
            history.merge(thread.join().expect("a client of the load ends well"));
        }
        history
    }
}

fn spawn(shared: &Arc<Shared>, work: impl FnOnce(&Shared) -> History + Send + 'static) -> JoinHandle<History> {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || work(&shared))
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn config(&self, node: usize) -> ClientConfig {
        let (_, addr) = &self.nodes[node % self.nodes.len()];
        ClientConfig {
            connect_timeout: CONNECT_TIMEOUT,
            request_timeout: REPLY_TIMEOUT,
            ..ClientConfig::new(addr.clone())
        }
    }

    fn id(&self, node: usize) -> u64 {
        self.nodes[node % self.nodes.len()].0
    }
}

impl History {
    fn error(&mut self, error: &ClientError) {
        let name = match error {
            ClientError::Refusal { code, .. } => code.name().to_owned(),
            ClientError::Refused { .. } | ClientError::Connect { .. } => "(connection refused)".to_owned(),
            ClientError::TimedOut { .. } => "(no reply)".to_owned(),
            ClientError::Closed { .. } | ClientError::Io { .. } => "(connection lost)".to_owned(),
            other => other.to_string(),
        };
        *self.errors.entry(name).or_default() += 1;
    }
}

/// The outcome that an `ERR` code promises.
fn outcome_of(code: ErrorCode) -> Outcome {
    match code.retry() {
        Retry::MayRepeat => Outcome::Unknown,
        Retry::Safe | Retry::Useless => Outcome::Refused,
    }
}

/// A producer that sends `PUT`s without waiting for each reply.
struct Putting<'a> {
    shared: &'a Shared,
    producer: u32,
    node: usize,
    connection: u32,
    sequence: u64,
    history: History,
    /// Indices into `history.sent` of what is not answered yet, in order.
    in_flight: VecDeque<usize>,
}

impl<'a> Putting<'a> {
    fn new(shared: &'a Shared, node: usize) -> Self {
        let producer = shared.first_producer + node as u32;
        let history = History::default();
        Putting { shared, producer, node, connection: 0, sequence: 0, history, in_flight: VecDeque::new() }
    }

    fn run(mut self) -> History {
        while !self.shared.stopped() {
            if let Err(error) = self.use_connection() {
                self.history.error(&error);
                self.node += 1;
            }
            self.give_up();
            std::thread::sleep(PACE);
        }
        self.history
    }

    /// Until the connection fails, the node refuses, or the load ends.
    fn use_connection(&mut self) -> Result<(), ClientError> {
        let mut pipeline = Pipeline::connect(&self.shared.config(self.node), PipelineConfig::default())?;
        self.connection += 1;
        while !self.shared.stopped() {
            for _ in 0..BURST {
                self.push(&mut pipeline)?;
            }
            pipeline.flush()?;
            let most = WINDOW - BURST;
            if self.receive_until(&mut pipeline, most)? {
                // Another node may do better; what is still in flight is answered first.
                self.receive_until(&mut pipeline, 0)?;
                self.node += 1;
                return Ok(());
            }
            std::thread::sleep(PACE);
        }
        self.receive_until(&mut pipeline, 0).map(drop)
    }

    fn push(&mut self, pipeline: &mut Pipeline) -> Result<(), ClientError> {
        let id = Id { producer: self.producer, sequence: self.sequence };
        self.sequence += 1;
        let (connection, asked_at) = (self.connection, now());
        self.in_flight.push_back(self.history.sent.len());
        let outcome = Outcome::Unknown;
        self.history.sent.push(Sent { id, connection, asked_at, answered_at: asked_at, outcome });
        pipeline.push_put(&self.shared.topic, &encode(id))
    }

    /// Receives until at most `most` requests are in flight. Says whether one was refused.
    fn receive_until(&mut self, pipeline: &mut Pipeline, most: u64) -> Result<bool, ClientError> {
        let mut refused = false;
        while self.in_flight.len() as u64 > most {
            let Putting { history, in_flight, shared, .. } = self;
            let mut settle = |count: u64, outcome: Outcome| {
                for index in in_flight.drain(..count as usize) {
                    let sent = &mut history.sent[index];
                    (sent.answered_at, sent.outcome) = (now(), outcome);
                }
            };
            let mut errors = Vec::new();
            let answered = pipeline.recv_replies(REPLY_TIMEOUT, |reply| match reply {
                client::Outcome::Ok(count) => {
                    settle(count, Outcome::Acked(None));
                    shared.acked.fetch_add(count, Ordering::Relaxed);
                }
                client::Outcome::Err { code, text } => {
                    settle(1, outcome_of(code));
                    errors.push(ClientError::Refusal { code, text: text.to_owned() });
                }
            })?;
            refused |= !errors.is_empty();
            errors.iter().for_each(|error| self.history.error(error));
            if answered == 0 {
                let addr = self.shared.config(self.node).addr;
                return Err(ClientError::TimedOut { addr, after: REPLY_TIMEOUT });
            }
        }
        Ok(refused)
    }

    /// Whatever was not answered on a connection that is gone stays unknown.
    fn give_up(&mut self) {
        for index in self.in_flight.drain(..) {
            self.history.sent[index].answered_at = now();
        }
    }
}

/// A producer that sends one `APPEND` after the other.
struct Appending<'a> {
    shared: &'a Shared,
    producer: u32,
    history: History,
}

impl<'a> Appending<'a> {
    fn new(shared: &'a Shared) -> Self {
        let producer = shared.first_producer + shared.nodes.len() as u32;
        Appending { shared, producer, history: History::default() }
    }

    fn run(mut self) -> History {
        let (mut node, mut sequence, mut connection) = (0, 0, 0);
        let mut client = None;
        while !self.shared.stopped() {
            let mut open = match client.take() {
                Some(client) => client,
                None => match Client::with_config(self.shared.config(node)) {
                    Ok(fresh) => fresh,
                    Err(error) => {
                        self.history.error(&error);
                        node += 1;
                        std::thread::sleep(PACE);
                        continue;
                    }
                },
            };
            if self.append(&mut open, sequence, connection) {
                client = Some(open);
            } else {
                (node, connection) = (node + 1, connection + 1);
            }
            sequence += APPEND_RECORDS;
            std::thread::sleep(PACE);
        }
        self.history
    }

    /// Sends one batch. `false`: go to another node.
    fn append(&mut self, client: &mut Client, first: u64, connection: u32) -> bool {
        let ids = (first..first + APPEND_RECORDS).map(|sequence| Id { producer: self.producer, sequence });
        let records: Vec<Vec<u8>> = ids.clone().map(encode).collect();
        let asked_at = now();
        let answer = client.append(&self.shared.topic, records.iter().map(Vec::as_slice));
        let answered_at = now();
        let outcome = |index: u64| match &answer {
            Ok(appended) => Outcome::Acked(Some(appended.first_offset + index)),
            Err(error) => error.code().map_or(Outcome::Unknown, outcome_of),
        };
        for (index, id) in (0..).zip(ids) {
            self.history.sent.push(Sent { id, connection, asked_at, answered_at, outcome: outcome(index) });
        }
        match &answer {
            Ok(_) => {
                self.shared.acked.fetch_add(APPEND_RECORDS, Ordering::Relaxed);
                true
            }
            Err(error) => {
                self.history.error(error);
                false
            }
        }
    }
}

/// Follows the tail with `FETCH`, each time on the next node, and looks back now and then.
fn read_by_offset(shared: &Shared, index: usize) -> History {
    let mut history = History::default();
    let mut clients: Vec<Option<Client>> = shared.nodes.iter().map(|_| None).collect();
    let (mut next, mut round) = (0, index);
    while !shared.stopped() {
        round += 1;
        let node = round % clients.len();
        let look_back = (round as u64).is_multiple_of(LOOK_BACK_EVERY);
        let from = if look_back { next * (round as u64 * 7 % 10) / 10 } else { next };
        match fetch_once(shared, &mut clients[node], node, from) {
            Ok(fetch) => {
                if let (Answer::Records { first, records }, false) = (&fetch.answer, look_back) {
                    next = next.max(first + records.len() as u64);
                }
                history.fetches.push(fetch);
            }
            Err(error) => {
                clients[node] = None;
                history.error(&error);
                std::thread::sleep(PACE);
            }
        }
    }
    history
}

fn fetch_once(shared: &Shared, client: &mut Option<Client>, node: usize, from: u64) -> Result<Fetch, ClientError> {
    let client = match client {
        Some(client) => client,
        None => client.insert(Client::with_config(shared.config(node))?),
    };
    let asked_at = now();
    let answer = match client.fetch(&shared.topic, from, 500, 64 << 10, Duration::from_millis(20)) {
        Ok(fetched) => {
            let records = fetched.records.iter().map(decode).collect();
            Answer::Records { first: fetched.first_offset(), records }
        }
        Err(error) if error.code() == Some(ErrorCode::OffsetOutOfRange) => Answer::OutOfRange,
        Err(error) => return Err(error),
    };
    Ok(Fetch { node: shared.id(node), asked_at, answered_at: now(), from, answer })
}

/// The only consumer of a group of its own, with `GET`.
fn read_by_cursor(shared: &Shared) -> History {
    let mut history = History::default();
    let mut deliveries = Vec::new();
    let group = format!("group-{}", shared.first_producer);
    let (mut node, mut client) = (0, None);
    while !shared.stopped() {
        let connected = match client.take() {
            Some(client) => Ok(client),
            None => Client::with_config(shared.config(node)),
        };
        let answer = connected.map(|mut open| {
            let delivery = open.get(&shared.topic, Some(&group)).map(|record| match record {
                Some(record) => Delivery::Record(decode(record)),
                None => Delivery::Nothing,
            });
            (open, delivery)
        });
        match answer {
            Ok((open, Ok(delivery))) => {
                client = Some(open);
                deliveries.push(delivery);
                if delivery == Delivery::Nothing {
                    std::thread::sleep(PACE);
                }
            }
            Ok((_, Err(error))) => {
                if !error.code().is_some_and(|code| code.retry() == Retry::Safe) {
                    deliveries.push(Delivery::Unknown);
                }
                history.error(&error);
                node += 1;
            }
            Err(error) => {
                history.error(&error);
                node += 1;
                std::thread::sleep(PACE);
            }
        }
    }
    history.deliveries.insert(group, deliveries);
    history
}
