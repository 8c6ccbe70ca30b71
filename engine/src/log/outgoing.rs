//! The stream to one other node: carries the batches of every segment that this node leads and the
//! other one keeps a copy of, in one order, and brings the acknowledgements back.
//!
//! What waits to be sent is bounded; a segment that does not fit any more is a laggard, and is fed
//! from its file when there is room. One task owns the socket in both directions.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::leading::{Leading, Next};
use super::lock;
use super::messages::{APPEND_HEAD_BYTES, Message, Purpose, append_head, next_message};
use crate::broker::Broker;
use crate::exec;
use crate::metadata::state::SegmentAt;
use crate::net::TcpStream;
use crate::store::{Batch, Segment};
use crate::types::SegmentUid;

/// Batches that wait for one node's socket, in bytes. They hold memory of the write buffers, of
/// which all streams together must leave enough for the local writes.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// The share of the write buffers that one stream may hold, at most.
const WAITING_SHARE: usize = 16;
/// Bytes that are handed to the socket's buffers at once, about.
const ROUND_BYTES: usize = 1 << 20;
/// Bytes read for a laggard at once.
const LAGGARD_BYTES: usize = 512 << 10;
/// Pieces of one system call.
const SLICES_MAX: usize = 64;
/// A commit that no batch carries is told after this time.
const COMMIT_DELAY: Duration = Duration::from_millis(2);
/// After so long without a word of the other node it is asked whether it is there ...
const PING_AFTER: Duration = Duration::from_millis(500);
/// ... and after so long the connection is made anew: packets that a partition took may be sent
/// again only after minutes.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Pauses between attempts to connect, doubling.
const RECONNECT_MIN: Duration = Duration::from_millis(20);
const RECONNECT_MAX: Duration = Duration::from_millis(500);
/// Bytes of acknowledgements read at once.
const READ_BYTES: usize = 64 << 10;

/// The segments that this node leads and others keep copies of.
#[derive(Default)]
pub struct Led {
    by_uid: Mutex<HashMap<SegmentUid, (Segment, Arc<Leading>)>>,
}

impl Led {
    /// Adds one that was just opened.
    pub fn insert(&self, segment: &Segment, leading: &Arc<Leading>) {
        lock(&self.by_uid).insert(leading.at.uid, (segment.clone(), Arc::clone(leading)));
    }

    /// One of them.
    pub fn get(&self, uid: SegmentUid) -> Option<(Segment, Arc<Leading>)> {
        lock(&self.by_uid).get(&uid).cloned()
    }

    /// It is closed, and nobody needs to be fed any more.
    pub fn remove(&self, uid: SegmentUid) {
        lock(&self.by_uid).remove(&uid);
    }

    /// All of them.
    pub fn all(&self) -> Vec<(Segment, Arc<Leading>)> {
        lock(&self.by_uid).values().cloned().collect()
    }
}

/// The sending side of the stream to one node, as everyone on this node sees it.
#[derive(Debug)]
pub struct Outgoing {
    node_id: u64,
    waiting_bytes_max: usize,
    queue: Mutex<Queue>,
    /// Since when there is no connection.
    away_since: Mutex<Option<Instant>>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    connected: bool,
    items: VecDeque<Item>,
    /// Bytes of the batches in `items`.
    bytes: usize,
    laggards: VecDeque<SegmentUid>,
    commits: HashSet<SegmentAt>,
}

#[derive(Debug)]
enum Item {
    Message(Vec<u8>),
    Batch { segment: Segment, at: SegmentAt, batch: Arc<Batch> },
}

impl Outgoing {
    /// A stream that nobody has connected yet, on a node with so much memory for write buffers.
    pub fn new(node_id: u64, pool_bytes: usize) -> Self {
        let waiting_bytes_max = WAITING_BYTES_MAX.min(pool_bytes / WAITING_SHARE);
        Outgoing {
            node_id,
            waiting_bytes_max,
            queue: Mutex::default(),
            away_since: Mutex::new(Some(Instant::now())),
            wake: Notify::new(),
        }
    }

    /// The node at the other end.
    pub fn node_id(&self) -> u64 {
        self.node_id
    }

    /// How long the node could not be reached.
    pub fn away_for(&self) -> Option<Duration> {
        lock(&self.away_since).map(|since| since.elapsed())
    }

    /// Sends a message. False, and nothing is sent, while there is no connection.
    pub fn push_message(&self, message: &Message) -> bool {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        let mut queue = lock(&self.queue);
        if queue.connected {
            queue.items.push_back(Item::Message(bytes));
        }
        let connected = queue.connected;
        drop(queue);
        self.wake();
        connected
    }

    /// Sends a batch. False, and nothing is sent, without a connection or room.
    pub fn push_batch(&self, segment: &Segment, at: SegmentAt, batch: &Arc<Batch>) -> bool {
        let mut queue = lock(&self.queue);
        let full = queue.bytes > 0 && queue.bytes + batch.total_bytes() > self.waiting_bytes_max;
        if !queue.connected || full {
            return false;
        }
        queue.bytes += batch.total_bytes();
        queue.items.push_back(Item::Batch { segment: segment.clone(), at, batch: Arc::clone(batch) });
        drop(queue);
        self.wake();
        true
    }

    /// A segment wants to be fed from its file.
    pub fn push_laggard(&self, uid: SegmentUid) {
        lock(&self.queue).laggards.push_back(uid);
        self.wake();
    }

    /// A commit is to be told soon, unless a batch carries it.
    pub fn push_commit(&self, at: SegmentAt) {
        let mut queue = lock(&self.queue);
        let first = queue.commits.is_empty();
        queue.commits.insert(at);
        drop(queue);
        if first {
            self.wake();
        }
    }

    /// Has the task look at the queue again.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Connects, again and again, and serves the stream, until the broker stops.
    pub async fn run(self: Arc<Self>, broker: Arc<Broker>) {
        let stopping = broker.stopping();
        tokio::pin!(stopping);
        let mut pause = RECONNECT_MIN;
        loop {
            let served = async {
                match broker.peers.connect_data(self.node_id).await {
                    Ok(connection) => {
                        let error = self.serve(&broker, connection.stream).await.err();
                        tracing::debug!(node = self.node_id, ?error, "the stream to a replica ended");
                        RECONNECT_MIN
                    }
                    Err(error) => {
                        tracing::debug!(node = self.node_id, %error, "a replica cannot be reached");
                        (2 * pause).min(RECONNECT_MAX)
                    }
                }
            };
            tokio::select! {
                next = served => pause = next,
                () = &mut stopping => return,
            }
            self.disconnect();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = &mut stopping => return,
            }
        }
    }

    fn disconnect(&self) {
        *lock(&self.queue) = Queue::default();
        lock(&self.away_since).get_or_insert_with(Instant::now);
    }

    async fn serve(&self, broker: &Broker, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.write_u8(Purpose::Replicate as u8).await?;
        lock(&self.queue).connected = true;
        *lock(&self.away_since) = None;
        for (segment, leading) in broker.led.all() {
            leading.reconnected(&segment, self.node_id);
        }
        let mut out = Pieces::default();
        let mut input = BytesMut::with_capacity(READ_BYTES);
        let mut heard_at = Instant::now();
        let mut pinged = false;
        let mut commits_due = None;
        loop {
            if lock(&self.queue).commits.is_empty() {
                commits_due = None;
            } else if *commits_due.get_or_insert_with(|| Instant::now() + COMMIT_DELAY) <= Instant::now() {
                // Also on a stream that never falls silent.
                self.tell_commits(broker, &mut out);
                commits_due = None;
            }
            self.collect(&mut out);
            self.feed_laggards(broker, &mut out).await;
            let sent_all = out.send(&stream)?;
            while self.read(broker, &stream, &mut input)? {
                heard_at = Instant::now();
                pinged = false;
            }
            if heard_at.elapsed() >= SILENCE_MAX {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if sent_all && self.has_work() {
                continue;
            }
            tokio::select! {
                ready = stream.readable() => ready?,
                ready = stream.writable(), if !sent_all => ready?,
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(commits_due.unwrap_or(heard_at)), if commits_due.is_some() => {}
                () = tokio::time::sleep_until(heard_at + if pinged { SILENCE_MAX } else { PING_AFTER }) => {
                    if !std::mem::replace(&mut pinged, true) {
                        self.push_message(&Message::Ping);
                    }
                }
            }
        }
    }

    fn has_work(&self) -> bool {
        !lock(&self.queue).items.is_empty()
    }

    /// Takes what is to be sent next.
    fn collect(&self, out: &mut Pieces) {
        let mut queue = lock(&self.queue);
        while out.bytes < ROUND_BYTES {
            match queue.items.pop_front() {
                Some(Item::Message(bytes)) => out.push(Piece::Bytes(bytes.into())),
                Some(Item::Batch { segment, at, batch }) => {
                    queue.bytes -= batch.total_bytes();
                    out.push(Piece::Head(append_head(at, segment.committed(), batch.total_bytes())));
                    out.push(Piece::Batch(batch));
                }
                None => break,
            }
        }
    }

    /// Gives each laggard a turn, as long as there is room.
    async fn feed_laggards(&self, broker: &Broker, out: &mut Pieces) {
        let turns = lock(&self.queue).laggards.len();
        for _ in 0..turns {
            if out.bytes >= ROUND_BYTES {
                // There is something to send, so this is called again.
                return;
            }
            self.feed_laggard(broker, out).await;
        }
    }

    /// Reads some of a laggard's file for it.
    async fn feed_laggard(&self, broker: &Broker, out: &mut Pieces) {
        let Some(uid) = lock(&self.queue).laggards.pop_front() else { return };
        let Some((segment, leading)) = broker.led.get(uid) else { return };
        let Next::From(from) = leading.next_for(self.node_id) else { return };
        let reader = segment.clone();
        let read = exec::spawn_blocking(move || reader.read_raw(from, LAGGARD_BYTES)).await;
        let raw = match read {
            Ok(Ok(raw)) => raw,
            Ok(Err(error)) => return tracing::error!(segment = %uid, %error, "a replica cannot be fed"),
            Err(_) => return,
        };
        let mut again = true;
        if raw.bytes.is_empty() {
            // The next batch is being written; its completion wakes this task.
            lock(&self.queue).laggards.push_back(uid);
            return;
        } else if raw.base_index <= from {
            out.push(Piece::Head(append_head(leading.at, segment.committed(), raw.bytes.len())));
            out.push(Piece::Bytes(raw.bytes));
            again = leading.fed(self.node_id, from, raw.end_index);
        }
        if again {
            self.push_laggard(uid);
        }
    }

    /// Tells the commits that no batch has carried meanwhile.
    fn tell_commits(&self, broker: &Broker, out: &mut Pieces) {
        let commits = std::mem::take(&mut lock(&self.queue).commits);
        let mut bytes = Vec::new();
        for at in commits {
            if let Some((segment, leading)) = broker.led.get(at.uid)
                && leading.take_commit_due(self.node_id)
            {
                Message::Commit { at, committed: segment.committed() }.encode(&mut bytes);
            }
        }
        out.push(Piece::Bytes(bytes.into()));
    }

    /// Reads acknowledgements; false if there are none now.
    fn read(&self, broker: &Broker, stream: &TcpStream, input: &mut BytesMut) -> io::Result<bool> {
        input.reserve(READ_BYTES);
        match stream.try_read_buf(input) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        while let Some(message) = next_message(input).map_err(io::Error::other)? {
            self.handle(broker, &message);
        }
        Ok(true)
    }

    fn handle(&self, broker: &Broker, message: &Message) {
        let (Message::Stored { at, .. } | Message::Position { at, .. } | Message::Refused { at, .. }) = *message else {
            return;
        };
        let Some((segment, leading)) = broker.led.get(at.uid).filter(|(_, leading)| leading.at == at) else { return };
        match *message {
            Message::Stored { stored, .. } => {
                if let Some((length, token)) = leading.stored(&segment, self.node_id, stored) {
                    self.push_message(&Message::Whole { at, length, token });
                }
            }
            Message::Position { next, token, .. } => leading.position(self.node_id, next, token),
            Message::Refused { promised, .. } => {
                tracing::info!(segment = %at.uid, node = self.node_id, promised, "a replica refuses this leader's records");
                leading.refused(self.node_id);
            }
            _ => {}
        }
    }
}

/// What is being sent, in order.
#[derive(Default)]
struct Pieces {
    queue: VecDeque<Piece>,
    /// Bytes of the first piece that are sent.
    sent: usize,
    /// Bytes that are not sent.
    bytes: usize,
}

enum Piece {
    Head([u8; APPEND_HEAD_BYTES]),
    Bytes(Bytes),
    Batch(Arc<Batch>),
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Piece::Head(head) => head.len(),
            Piece::Bytes(bytes) => bytes.len(),
            Piece::Batch(batch) => batch.total_bytes(),
        }
    }
}

impl Pieces {
    fn push(&mut self, piece: Piece) {
        if piece.len() > 0 {
            self.bytes += piece.len();
            self.queue.push_back(piece);
        }
    }

    /// Sends as much as the socket takes; true if nothing is left.
    fn send(&mut self, stream: &TcpStream) -> io::Result<bool> {
        while !self.queue.is_empty() {
            let written = match stream.try_write_vectored(&self.slices()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            };
            self.advance(written);
        }
        Ok(true)
    }

    fn slices(&self) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(SLICES_MAX);
        let mut skip = self.sent;
        for piece in &self.queue {
            let mut add = |bytes: &'_ [u8]| {
                let skipped = skip.min(bytes.len());
                skip -= skipped;
                skipped
            };
            match piece {
                Piece::Head(head) => {
                    let skipped = add(head);
                    slices.push(IoSlice::new(&head[skipped..]));
                }
                Piece::Bytes(bytes) => {
                    let skipped = add(bytes);
                    slices.push(IoSlice::new(&bytes[skipped..]));
                }
                Piece::Batch(batch) => {
                    for bytes in batch.pieces() {
                        let skipped = add(bytes);
                        slices.push(IoSlice::new(&bytes[skipped..]));
                    }
                }
            }
            if slices.len() >= SLICES_MAX {
                break;
            }
        }
        slices
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(first) = self.queue.front() {
            let left = first.len() - self.sent;
            if written < left {
                self.sent += written;
                return;
            }
            written -= left;
            self.sent = 0;
            self.queue.pop_front();
        }
    }
}
