//! The replica's side of a replication stream: batches of another node's segments come in, are
//! checked and stored as they lie, and acknowledged with one message a segment a read.
//!
//! Nothing is acknowledged that is not stored in the segment's tier, and nothing before it is on
//! record that this node has a copy. What a newer epoch was promised for, and what the metadata
//! show ended before it, is refused.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;

use super::copies::{Copy, Outbox};
use super::messages::{Message, Open, next_message};
use super::reconciler;
use crate::broker::Broker;
use crate::exec;
use crate::metadata::state::{Phase, Replica, SegmentAt, State};
use crate::net::TcpStream;
use crate::store::{RawError, Segment, SegmentSpec, StoreError};
use crate::types::SegmentUid;

/// Bytes read at once.
const READ_BYTES: usize = 512 << 10;

/// A leader's node that says nothing for so long is gone; it makes itself heard when it is idle.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// One stream of one leader.
struct Incoming<'a> {
    broker: &'a Arc<Broker>,
    following: HashMap<SegmentUid, Following>,
    outbox: Arc<Outbox>,
    /// Segments that took something in this read.
    touched: Vec<SegmentUid>,
    /// Replies that are not sent yet.
    out: Vec<u8>,
    /// At so many segments those that have ended are forgotten.
    forget_at: usize,
}

/// Least number of segments at which it is worth to look for those that have ended.
const FORGET_AT_MIN: usize = 256;

/// A segment that this stream feeds.
struct Following {
    copy: Copy,
    at: SegmentAt,
    /// The leader was told where to go on, and has not done so yet.
    told_position: bool,
    /// Already in `touched`.
    touched: bool,
    record: Record,
}

/// Is it on record that this node has a copy?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Record {
    Made,
    /// `fresh`: the leader opened the segment just now.
    Missing {
        fresh: bool,
    },
}

/// Serves a stream until the leader's node goes away.
pub async fn serve(broker: &Arc<Broker>, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut incoming = Incoming {
        broker,
        following: HashMap::new(),
        outbox: Arc::default(),
        touched: Vec::new(),
        out: Vec::new(),
        forget_at: FORGET_AT_MIN,
    };
    let outbox = Arc::clone(&incoming.outbox);
    let mut input = BytesMut::with_capacity(READ_BYTES);
    loop {
        tokio::select! {
            ready = stream.readable() => {
                ready?;
                input.reserve(READ_BYTES);
                match stream.try_read_buf(&mut input) {
                    Ok(0) => return Ok(()),
                    Ok(_) => incoming.handle_all(&mut input).await?,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            () = outbox.wake.notified() => {}
            () = tokio::time::sleep(SILENCE_MAX) => return Err(io::ErrorKind::TimedOut.into()),
        }
        incoming.acknowledge();
        if !incoming.out.is_empty() {
            stream.write_all(&incoming.out).await?;
            incoming.out.clear();
        }
    }
}

impl Incoming<'_> {
    async fn handle_all(&mut self, input: &mut BytesMut) -> io::Result<()> {
        while let Some(message) = next_message(input).map_err(io::Error::other)? {
            match message {
                Message::Open(open) => self.open(open).await,
                Message::Append { at, committed, batches } => self.append(at, committed, &batches).await?,
                Message::Commit { at, committed } => self.commit(at, committed),
                Message::Whole { at, length, token } => self.whole(at, length, token).await,
                Message::Ping => Message::Ping.encode(&mut self.out),
                Message::Stored { .. } | Message::Position { .. } | Message::Refused { .. } => {}
            }
        }
        self.write_touched();
        Ok(())
    }

    /// Written once a read, so that many small batches are one write.
    fn write_touched(&mut self) {
        for uid in self.touched.drain(..) {
            if let Some(following) = self.following.get_mut(&uid) {
                following.touched = false;
                following.copy.segment.start_writing();
            }
        }
    }

    async fn open(&mut self, open: Open) {
        let spec = SegmentSpec::from(open.spec);
        let at = SegmentAt { uid: spec.uid, epoch: spec.epoch };
        let me = Replica { node_id: self.broker.config.node_id, disk_id: self.broker.disk_id() };
        if !open.replicas.contains(&me) || self.broker.metadata.view(|state| is_over(state, at.uid)) {
            self.refuse(at, 0);
            return;
        }
        let broker = Arc::clone(self.broker);
        let opened = exec::spawn_blocking(move || reconciler::open_copy(&broker, spec)).await;
        let copy = match opened {
            Ok(Ok(copy)) => copy,
            Ok(Err(error)) => {
                tracing::error!(segment = %at.uid, %error, "this node's copy cannot be opened");
                return self.refuse(at, 0);
            }
            Err(_) => return self.refuse(at, 0),
        };
        let promised = copy.segment.promised();
        if promised > at.epoch {
            return self.refuse(at, promised);
        }
        copy.reports.connect(at, &self.outbox);
        let next = copy.segment.next_index();
        if open.from != Some(next) {
            self.tell_position(at, &copy.segment);
        }
        if self.following.len() >= self.forget_at {
            self.following.retain(|_, following| following.copy.segment.sealed_count().is_none());
            self.forget_at = (2 * self.following.len()).max(FORGET_AT_MIN);
        }
        let record = Record::Missing { fresh: open.from == Some(0) && next == 0 };
        self.following.insert(at.uid, Following { copy, at, told_position: false, touched: false, record });
    }

    async fn append(&mut self, at: SegmentAt, committed: u64, batches: &Bytes) -> io::Result<()> {
        if !self.following.get(&at.uid).is_some_and(|following| following.at == at) {
            return Ok(());
        }
        self.put_on_record(at.uid).await?;
        loop {
            let Some(following) = self.following.get_mut(&at.uid) else { return Ok(()) };
            let segment = &following.copy.segment;
            match segment.append_raw(at.epoch, batches) {
                Ok(()) => {
                    segment.commit(committed);
                    following.told_position = false;
                    if !std::mem::replace(&mut following.touched, true) {
                        self.touched.push(at.uid);
                    }
                    return Ok(());
                }
                Err(RawError::Store(StoreError::PoolEmpty)) => {
                    // What was taken gives its memory back once it is written.
                    self.write_touched();
                    self.broker.store.pool_available().await;
                }
                Err(RawError::Gap { .. }) => {
                    if !std::mem::replace(&mut following.told_position, true) {
                        let segment = segment.clone();
                        self.tell_position(at, &segment);
                    }
                    return Ok(());
                }
                Err(RawError::Promised { promised }) => {
                    self.drop_segment(at, promised);
                    return Ok(());
                }
                Err(error @ RawError::Bad(_)) => return Err(io::Error::other(error)),
                Err(error) => {
                    tracing::warn!(segment = %at.uid, %error, "a replica's records are not taken");
                    self.drop_segment(at, 0);
                    return Ok(());
                }
            }
        }
    }

    /// Before anything of a segment is acknowledged. All that came new with this stream share a flush.
    async fn put_on_record(&mut self, uid: SegmentUid) -> io::Result<()> {
        if self.following.get(&uid).is_none_or(|following| following.record == Record::Made) {
            return Ok(());
        }
        let new: Vec<(Segment, bool)> = self
            .following
            .values_mut()
            .filter_map(|following| match std::mem::replace(&mut following.record, Record::Made) {
                Record::Made => None,
                Record::Missing { fresh } => Some((following.copy.segment.clone(), fresh)),
            })
            .collect();
        let store = self.broker.store.clone();
        let recorded = exec::spawn_blocking(move || store.know_copies(&new)).await;
        let ahead = recorded.map_err(io::Error::other)?.map_err(io::Error::other)?;
        reconciler::know_ahead(self.broker, ahead);
        Ok(())
    }

    fn commit(&self, at: SegmentAt, committed: u64) {
        if let Some(following) = self.following.get(&at.uid).filter(|following| following.at == at) {
            following.copy.segment.commit(committed);
        }
    }

    /// The leader says that everything it ever assigned was sent, and it was this run that said so.
    async fn whole(&self, at: SegmentAt, length: u64, token: u64) {
        let Some(following) = self.following.get(&at.uid).filter(|following| following.at == at) else { return };
        let segment = following.copy.segment.clone();
        if token != self.broker.metadata.run_id() || segment.watermark() < length {
            return;
        }
        let store = self.broker.store.clone();
        let cleared = exec::spawn_blocking(move || store.clear_doubt(&segment, at.epoch)).await;
        if let Ok(Err(error)) = cleared {
            tracing::warn!(segment = %at.uid, %error, "a copy stays in doubt");
        }
    }

    fn tell_position(&mut self, at: SegmentAt, segment: &Segment) {
        let token = if self.broker.store.is_in_doubt(segment) { self.broker.metadata.run_id() } else { 0 };
        Message::Position { at, next: segment.next_index(), token }.encode(&mut self.out);
        Message::Stored { at, stored: segment.watermark() }.encode(&mut self.out);
    }

    fn drop_segment(&mut self, at: SegmentAt, promised: u64) {
        self.following.remove(&at.uid);
        self.refuse(at, promised);
    }

    fn refuse(&mut self, at: SegmentAt, promised: u64) {
        Message::Refused { at, promised }.encode(&mut self.out);
    }

    fn acknowledge(&mut self) {
        for (at, stored) in self.outbox.take() {
            Message::Stored { at, stored }.encode(&mut self.out);
        }
    }
}

/// Do the metadata show that nothing may be added to the segment any more? Batches below the end of
/// a sealed one are still welcome at whoever lacks them, which the store checks.
fn is_over(state: &State, uid: SegmentUid) -> bool {
    let Some((_, topic)) = state.topic_by_id(uid.topic_id) else {
        // Ids rise: a larger one than was ever applied here is yet to come.
        return uid.topic_id <= state.commands;
    };
    if uid.number > topic.last().number {
        return false;
    }
    topic
        .segments
        .iter()
        .find(|segment| segment.number == uid.number)
        .is_none_or(|segment| matches!(segment.phase, Phase::Sealed { .. }))
}
