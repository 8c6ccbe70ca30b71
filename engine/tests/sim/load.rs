//! Producers and readers that work on all nodes at once and write everything down.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::sleep;
use walrus_engine::protocol::error_code::Retry;
use walrus_engine::protocol::records::put_record;
use walrus_engine::protocol::reply::{Appended, Fetched};
use walrus_engine::protocol::{ErrorCode, Records, Reply, Request, TopicSettings};
use walrus_engine::sim::{self, random, trace};
use walrus_engine::types::Tier;

use crate::checker::Log;
use crate::client::Client;
use crate::history::{Answer, Delivery, Fetch, History, Id, Nanos, Outcome, Read, Sent, decode, encode};

/// The one topic.
pub const TOPIC: &str = "t";
/// Records of one `APPEND`.
const APPEND_RECORDS: u64 = 3;
const PRODUCERS: u32 = 3;
const READERS: u64 = 2;

/// What the clients and the driver share.
#[derive(Default)]
pub struct Shared {
    pub history: RefCell<History>,
    pub logs: RefCell<Vec<Log>>,
    /// Clients still at work.
    pub working: Cell<usize>,
    /// No new requests.
    pub stop: Cell<bool>,
    /// Everything is well again: read the whole topic on every node.
    pub read_all: Cell<bool>,
    pub nodes: Cell<u64>,
}

fn now() -> Nanos {
    sim::elapsed().as_nanos() as Nanos
}

async fn pause(from_ms: u64, to_ms: u64) {
    sleep(Duration::from_millis(from_ms + random::next() % (to_ms - from_ms))).await;
}

impl Shared {
    fn any_node(&self) -> u64 {
        1 + random::next() % self.nodes.get()
    }

    fn error(&self, code: &str) {
        *self.history.borrow_mut().errors.entry(code.to_owned()).or_default() += 1;
    }
}

/// Registers the topic, works until it is told to stop, and reads everything at the end.
pub async fn run(shared: Rc<Shared>, tier: Tier, segment_entries: u64) {
    let settings = TopicSettings {
        replicas: Some(3),
        tier: Some(tier),
        segment_entries: Some(segment_entries),
        ..TopicSettings::default()
    };
    while !register(shared.any_node(), settings).await.unwrap_or(false) {
        pause(20, 50).await;
    }
    trace::note("clients", format!("topic {TOPIC}: {tier:?}, {segment_entries} records a segment"));
    for producer in 1..=PRODUCERS {
        work(&shared, Producer { shared: Rc::clone(&shared), number: producer, sequence: 0, connection: 0 }.run());
    }
    work(&shared, append(Rc::clone(&shared), PRODUCERS + 1));
    for reader in 0..READERS {
        work(&shared, read_by_offset(Rc::clone(&shared), reader));
    }
    work(&shared, read_by_cursor(Rc::clone(&shared)));
    while !shared.read_all.get() {
        pause(20, 30).await;
    }
    for node in 1..=shared.nodes.get() {
        let records = read_all(node).await;
        trace::note("clients", format!("node {node} has {} records", records.len()));
        shared.logs.borrow_mut().push(Log { node, records });
    }
}

fn work(shared: &Rc<Shared>, task: impl Future<Output = ()> + 'static) {
    shared.working.set(shared.working.get() + 1);
    let shared = Rc::clone(shared);
    tokio::task::spawn_local(async move {
        task.await;
        shared.working.set(shared.working.get() - 1);
    });
}

async fn register(node: u64, settings: TopicSettings) -> io::Result<bool> {
    let mut client = Client::connect(node).await?;
    let body = client.call(&Request::Register { topic: TOPIC, settings }).await?;
    Ok(matches!(Reply::parse(&body), Ok(Reply::Ok)))
}

/// The outcome that an `ERR` code promises.
fn outcome_of(code: ErrorCode) -> Outcome {
    match code.retry() {
        Retry::MayRepeat => Outcome::Unknown,
        Retry::Safe | Retry::Useless => Outcome::Refused,
    }
}

/// A producer of `PUT`s, some at a time.
struct Producer {
    shared: Rc<Shared>,
    number: u32,
    sequence: u64,
    connection: u32,
}

impl Producer {
    async fn run(mut self) {
        while !self.shared.stop.get() {
            self.connection += 1;
            if let Ok(client) = Client::connect(self.shared.any_node()).await
                && self.use_connection(client).await.is_err()
            {
                self.shared.error("(connection lost)");
            }
            pause(5, 30).await;
        }
    }

    async fn use_connection(&mut self, mut client: Client) -> io::Result<()> {
        while !self.shared.stop.get() {
            let burst = 1 + random::next() % 6;
            let first = self.shared.history.borrow().sent.len();
            let mut frames = Vec::new();
            let asked_at = now();
            for _ in 0..burst {
                let id = Id { producer: self.number, sequence: self.sequence };
                self.sequence += 1;
                Request::Put { topic: TOPIC, payload: &encode(id) }.encode(&mut frames);
                let sent = Sent {
                    id,
                    connection: self.connection,
                    asked_at,
                    answered_at: asked_at,
                    outcome: Outcome::Unknown,
                };
                self.shared.history.borrow_mut().sent.push(sent);
            }
            let well = self.send_and_settle(&mut client, &frames, first..first + burst as usize).await?;
            if !well || random::next().is_multiple_of(16) {
                return Ok(());
            }
            pause(5, 60).await;
        }
        Ok(())
    }

    /// False: something was refused, and another node may do better.
    async fn send_and_settle(
        &self,
        client: &mut Client,
        frames: &[u8],
        sent: std::ops::Range<usize>,
    ) -> io::Result<bool> {
        let mut well = true;
        let exchanged = async {
            client.send(frames).await?;
            for index in sent.clone() {
                let body = client.reply().await?;
                let outcome = match Reply::parse(&body) {
                    Ok(Reply::Ok) => Outcome::Acked(None),
                    Ok(Reply::Err { code, .. }) => {
                        self.shared.error(code.name());
                        well = false;
                        outcome_of(code)
                    }
                    _ => return Err(io::ErrorKind::InvalidData.into()),
                };
                let sent = &mut self.shared.history.borrow_mut().sent[index];
                (sent.answered_at, sent.outcome) = (now(), outcome);
                trace::event("reply", &[u64::from(self.number), sent.id.sequence, client.node], &body);
            }
            Ok(())
        };
        exchanged.await.map(|()| well)
    }
}

/// A producer that sends one `APPEND` after the other.
async fn append(shared: Rc<Shared>, producer: u32) {
    let (mut sequence, mut connection) = (0, 0);
    while !shared.stop.get() {
        connection += 1;
        if let Ok(mut client) = Client::connect(shared.any_node()).await {
            while !shared.stop.get() && append_once(&shared, &mut client, Id { producer, sequence }, connection).await {
                sequence += APPEND_RECORDS;
                pause(10, 80).await;
            }
            sequence += APPEND_RECORDS;
        }
        pause(10, 50).await;
    }
}

/// Sends one batch. `false`: go to another node.
async fn append_once(shared: &Shared, client: &mut Client, first: Id, connection: u32) -> bool {
    let ids = (first.sequence..first.sequence + APPEND_RECORDS).map(|sequence| Id { sequence, ..first });
    let mut list = Vec::new();
    ids.clone().for_each(|id| put_record(&mut list, &encode(id)));
    let records = Records::parse(&list).expect("these are records");
    let asked_at = now();
    let index = shared.history.borrow().sent.len();
    for id in ids {
        let sent = Sent { id, connection, asked_at, answered_at: asked_at, outcome: Outcome::Unknown };
        shared.history.borrow_mut().sent.push(sent);
    }
    let body = client.call(&Request::Append { topic: TOPIC, records }).await;
    let settle = |outcome: &dyn Fn(u64) -> Outcome| {
        let mut history = shared.history.borrow_mut();
        for (offset, sent) in (0..APPEND_RECORDS).zip(&mut history.sent[index..]) {
            (sent.answered_at, sent.outcome) = (now(), outcome(offset));
        }
    };
    match body.as_deref().map(Reply::parse) {
        Ok(Ok(Reply::Payload(payload))) => {
            let appended = Appended::parse(payload).expect("the reply to an APPEND has its numbers");
            settle(&|offset| Outcome::Acked(Some(appended.first_offset + offset)));
            true
        }
        Ok(Ok(Reply::Err { code, .. })) => {
            settle(&|_| outcome_of(code));
            shared.error(code.name());
            false
        }
        _ => {
            settle(&|_| Outcome::Unknown);
            shared.error("(connection lost)");
            false
        }
    }
}

/// Follows the tail with `FETCH`, now on this node, now on that, and looks back now and then.
async fn read_by_offset(shared: Rc<Shared>, mut round: u64) {
    let mut next = 0;
    while !shared.stop.get() {
        let Ok(mut client) = Client::connect(shared.any_node()).await else {
            pause(5, 30).await;
            continue;
        };
        for _ in 0..8 {
            round += 1;
            let look_back = round.is_multiple_of(4);
            let from = if look_back { next * (round * 7 % 10) / 10 } else { next };
            let Ok(fetch) = fetch_once(&mut client, from, 100, 20).await else {
                shared.error("(fetch failed)");
                break;
            };
            if let (Answer::Records { first, records }, false) = (&fetch.answer, look_back) {
                next = next.max(first + records.len() as u64);
            }
            shared.history.borrow_mut().fetches.push(fetch);
            pause(5, 40).await;
            if shared.stop.get() {
                return;
            }
        }
    }
}

async fn fetch_once(client: &mut Client, from: u64, max_records: u64, wait_ms: u64) -> io::Result<Fetch> {
    let asked_at = now();
    let wait_ms = (wait_ms > 0).then_some(wait_ms);
    let request = Request::Fetch { topic: TOPIC, offset: from, max_records, max_bytes: Some(64 << 10), wait_ms };
    let body = client.call(&request).await?;
    let answer = match Reply::parse(&body) {
        Ok(Reply::Payload(payload)) => {
            let fetched = Fetched::parse(payload).map_err(io::Error::other)?;
            Answer::Records { first: fetched.first_offset(), records: fetched.records.iter().map(decode).collect() }
        }
        Ok(Reply::Err { code: ErrorCode::OffsetOutOfRange, .. }) => Answer::OutOfRange,
        _ => return Err(io::ErrorKind::Other.into()),
    };
    trace::event("fetched", &[client.node, from], &body);
    Ok(Fetch { node: client.node, asked_at, answered_at: now(), from, answer })
}

/// The only consumer of a group of its own, with `GET`.
async fn read_by_cursor(shared: Rc<Shared>) {
    const GROUP: &str = "g";
    while !shared.stop.get() {
        let Ok(mut client) = Client::connect(shared.any_node()).await else {
            pause(5, 30).await;
            continue;
        };
        while !shared.stop.get() {
            let body = client.call(&Request::Get { topic: TOPIC, group: Some(GROUP) }).await;
            let (delivery, well) = match body.as_deref().map(Reply::parse) {
                Ok(Ok(Reply::Payload(record))) => (Some(Delivery::Record(decode(record))), true),
                Ok(Ok(Reply::Empty)) => (Some(Delivery::Nothing), true),
                Ok(Ok(Reply::Err { code, .. })) if code.retry() == Retry::Safe => (None, false),
                _ => (Some(Delivery::Unknown), false),
            };
            shared.history.borrow_mut().deliveries.entry(GROUP.to_owned()).or_default().extend(delivery);
            if !well {
                break;
            }
            pause(1, 20).await;
        }
        pause(5, 30).await;
    }
}

/// The whole topic, as one node shows it; tries until it comes to the end.
async fn read_all(node: u64) -> Vec<Read> {
    let mut all = Vec::new();
    loop {
        let Ok(mut client) = Client::connect(node).await else {
            pause(20, 50).await;
            continue;
        };
        while let Ok(fetch) = fetch_once(&mut client, all.len() as u64, 10_000, 0).await {
            match fetch.answer {
                Answer::Records { records, .. } if !records.is_empty() => all.extend(records),
                Answer::Records { .. } => return all,
                Answer::OutOfRange => break,
            }
        }
        pause(20, 50).await;
    }
}
