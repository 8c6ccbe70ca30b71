//! The broker of one node: what its parts share, and what each request does.
//!
//! `PUT` and `APPEND` are not here: they are the hot path of [`crate::server`].

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::config::Config;
use crate::error::Refusal;
use crate::log::calls::Calls;
use crate::log::copies::Copies;
use crate::log::cursor::{self, Committer, CursorError, SHARED_GROUP};
use crate::log::forward::{self, ForwardError, Forwarded, Forwards};
use crate::log::outgoing::{Led, Outgoing};
use crate::log::reader::{self, Limits, Read, ReadError};
use crate::log::repair::Damage;
use crate::log::rollover;
use crate::log::topic::{Route, Topic};
use crate::log::topics::{self, Topics};
use crate::metadata::Metadata;
use crate::metadata::lease::Lease;
use crate::metadata::state::{Command, Outcome, SegmentAt};
use crate::peer::Peers;
use crate::protocol::{ErrorCode, Request, command::DEFAULT_FETCH_BYTES};
use crate::server::buffers::Buffers;
use crate::status;
use crate::store::Store;
use crate::types::SegmentUid;

/// Pause before a request is tried again while no change of the metadata says when.
pub const TRY_AGAIN: Duration = Duration::from_millis(20);

/// What the tasks of a node share.
pub struct Broker {
    /// Settings.
    pub config: Config,
    /// Records.
    pub store: Store,
    /// Topics, chains, cursors.
    pub metadata: Metadata,
    /// May this node acknowledge now?
    pub lease: Lease,
    /// Connections to other nodes.
    pub peers: Peers,
    /// Topics by name.
    pub topics: Topics,
    /// This node's copies of segments that are not sealed.
    pub copies: Copies,
    /// Segments that this node leads and others keep copies of.
    pub led: Led,
    /// Streams to the nodes that keep copies, by node.
    pub streams: Mutex<HashMap<u64, Arc<Outgoing>>>,
    /// Connections for recoveries and repairs.
    pub calls: Calls,
    /// Damage that readers came upon.
    pub damage: Damage,
    /// Connections for requests that are passed on.
    pub forwards: Forwards,
    /// Metadata index with which the topics are in step.
    pub reconciled: watch::Sender<u64>,
    /// Commits reader positions.
    pub committer: Committer,
    /// Memory for requests.
    pub buffers: Arc<Buffers>,
    /// Memory for replies: as much again, so that clients that do not take theirs leave the others alone.
    pub replies: Arc<Buffers>,
    /// Memory for records that cursors have read ahead: a quarter of that.
    pub read_ahead: Arc<Buffers>,
    /// Counters for `METRICS`.
    pub counters: status::Counters,
    /// The topics are in step with the metadata for the first time.
    pub settled: AtomicBool,
    stop: watch::Sender<Stop>,
}

/// How far the broker has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    Running,
    /// What this node leads is handed over.
    Leading,
    /// No new requests of clients.
    Clients,
    /// Nothing any more.
    All,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A client: what this node does not do itself is passed on.
    Client,
    /// Another node, for its client: what this node does not do itself is handed back.
    Node,
}

/// Who asks, and how much it can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// Who.
    pub origin: Origin,
    /// Bytes of records that there is memory for where the reply is wanted.
    pub room_bytes: usize,
}

/// The reply to a request other than `PUT` and `APPEND`.
#[derive(Debug)]
pub enum Answer {
    /// `OK`.
    Ok,
    /// `OK <payload>`.
    Payload(Bytes),
    /// `EMPTY`.
    Empty,
    /// Bare JSON.
    Json(Vec<u8>),
    /// Records by offset.
    Fetched(Read),
    /// The body of the reply, as another node wrote it.
    Raw(Bytes),
    /// For another node: somebody else leads, or will.
    Moved,
    /// The records have so many bytes, more than the asker has room for. Nothing was moved.
    Larger(usize),
}

/// What is to be done when a request cannot be carried out here.
enum Elsewhere {
    Answered(Answer),
    TryAgain,
}

impl Broker {
    /// Puts the parts together. Nothing runs yet.
    pub fn new(config: Config, store: Store, metadata: Metadata) -> Self {
        let budget = |bytes| Arc::new(Buffers::new(config.read_buffer_bytes, bytes));
        let (buffers, replies) = (budget(config.connection_bytes), budget(config.connection_bytes));
        let read_ahead = budget(config.connection_bytes / 4);
        Broker {
            config,
            store,
            peers: metadata.peers(),
            lease: metadata.lease(),
            metadata,
            topics: Topics::default(),
            copies: Copies::default(),
            led: Led::default(),
            streams: Mutex::default(),
            calls: Calls::default(),
            damage: Damage::default(),
            forwards: Forwards::default(),
            reconciled: watch::Sender::new(0),
            committer: Committer::default(),
            buffers,
            replies,
            read_ahead,
            counters: status::Counters::default(),
            settled: AtomicBool::new(false),
            stop: watch::Sender::new(Stop::Running),
        }
    }

    /// From now on this node hands on whatever it is given to lead.
    pub fn stop_leading(&self) {
        self.stop.send_replace(Stop::Leading);
    }

    /// Does this node hand on what it is given to lead?
    pub fn is_leaving(&self) -> bool {
        *self.stop.borrow() >= Stop::Leading
    }

    /// Are no more requests to be taken?
    pub fn is_stopping(&self) -> bool {
        *self.stop.borrow() >= Stop::Clients
    }

    /// Tells everyone who serves clients to finish.
    pub fn stop(&self) {
        self.stop.send_replace(Stop::Clients);
    }

    /// Tells everyone else to finish.
    pub fn stop_all(&self) {
        self.stop.send_replace(Stop::All);
    }

    /// Ready once no more requests are to be taken.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        self.reached(Stop::Clients)
    }

    /// Ready once the broker is to stop altogether.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        self.reached(Stop::All)
    }

    fn reached(&self, stage: Stop) -> impl Future<Output = ()> + Send + use<> {
        let mut stop = self.stop.subscribe();
        async move {
            // An error means that the broker is gone, which is a stop as well.
            let _ = stop.wait_for(|stop| *stop >= stage).await;
        }
    }

    /// Waits until the topics are in step with everything that is applied now.
    pub async fn in_step(&self) {
        let index = *self.metadata.applied().borrow();
        self.in_step_with(index).await;
    }

    /// Waits until the topics are in step with the metadata at an index.
    pub async fn in_step_with(&self, index: u64) {
        // An error cannot be: the sender lives as long as this.
        let _ = self.reconciled.subscribe().wait_for(|reconciled| *reconciled >= index).await;
    }

    /// Disk id of the data directory, in hexadecimal.
    pub fn disk_id(&self) -> String {
        format!("{:032x}", self.store.disk_id())
    }

    /// Removes segments that metadata no longer name. What cannot be removed now is removed at
    /// the next start.
    pub fn remove_files(&self, segments: &[SegmentUid]) {
        for uid in segments {
            if let Err(error) = self.store.remove(*uid) {
                tracing::warn!(segment = %uid, %error, "a segment's file could not be removed");
            }
        }
    }

    /// The topic of this name, or the refusal that says that there is none. Before it says so, this
    /// node catches up with what was committed elsewhere.
    pub async fn topic(&self, name: &str) -> Result<Arc<Topic>, Refusal> {
        if let Some(topic) = self.topics.get(name) {
            return Ok(topic);
        }
        self.metadata.catch_up().await?;
        self.in_step().await;
        self.topics.get(name).ok_or_else(|| Refusal::unknown_topic(name))
    }

    /// `LEAVE`: what the node holds is handed to others, and then it is no member any more.
    async fn let_go(&self, node_id: u64) -> Result<(), Refusal> {
        self.metadata.catch_up().await?;
        let generation = self.metadata.view(|state| {
            let stays = state.members() > usize::from(!state.leaving.contains(&node_id));
            state.nodes.get(&node_id).map(|node| node.generation).filter(|_| stays)
        });
        let Some(generation) = generation else {
            let text = format!("there is no node {node_id}, or it is the last one");
            return Err(Refusal::new(ErrorCode::BadRequest, text));
        };
        match self.metadata.propose(Command::LeaveNode { node_id, generation }).await? {
            Outcome::Stale => Err(Refusal::new(ErrorCode::NotReady, "the node has just come back as another one")),
            _ => Ok(()),
        }
    }

    /// Carries out any request but `PUT`, `APPEND` and `PING`, which the connection does itself.
    pub async fn execute(self: &Arc<Self>, request: Request<'_>, asker: Asker) -> Result<Answer, Refusal> {
        match request {
            Request::Register { topic, settings } => topics::register(self, topic, settings).await.map(|()| Answer::Ok),
            Request::Delete { topic } => {
                self.topic(topic).await?;
                topics::delete(self, topic).await.map(|()| Answer::Ok)
            }
            Request::Get { topic, .. } | Request::Seek { topic, .. } => self.with_leader(&request, topic, asker).await,
            Request::Fetch { topic, offset, max_records, max_bytes, wait_ms } => {
                let max_bytes = max_bytes.unwrap_or(DEFAULT_FETCH_BYTES);
                // A reply is a frame, and no larger than one may be (a single record always fits).
                let max_bytes = (max_bytes as usize).min(self.config.max_frame_bytes / 2);
                let max_bytes = if asker.origin == Origin::Node { max_bytes.min(asker.room_bytes) } else { max_bytes };
                let topic = self.topic(topic).await?;
                let limits = Limits { offset, max_records, max_bytes, room_bytes: asker.room_bytes };
                let Some(wait_ms) = wait_ms else { return self.fetch(&request, &topic, limits, 0, asker).await };
                tokio::select! {
                    biased;
                    answer = self.fetch(&request, &topic, limits, wait_ms, asker) => answer,
                    () = self.stopping() => Err(Refusal::stopping()),
                }
            }
            Request::State { topic } => self.state(&request, topic, asker.origin).await,
            Request::Metrics => Ok(Answer::Json(status::metrics(self))),
            Request::Topics => Ok(Answer::Json(status::topics(self))),
            Request::Leave { node_id } => self.let_go(node_id).await.map(|()| Answer::Ok),
            Request::Put { .. } | Request::Append { .. } | Request::Ping => Ok(Answer::Ok),
        }
    }

    /// A `GET` that needs no wait and no I/O: the record was read ahead.
    pub fn try_get(&self, topic: &str, group: Option<&str>) -> Option<Bytes> {
        let topic = self.topics.get(topic)?;
        cursor::try_next(self, &topic, group.unwrap_or(SHARED_GROUP))
    }

    /// Moves a cursor that this node owns.
    async fn move_cursor(
        self: &Arc<Self>,
        request: &Request<'_>,
        topic: &Arc<Topic>,
        room_bytes: usize,
    ) -> Result<Answer, CursorError> {
        match *request {
            Request::Seek { group, to, .. } => cursor::seek(self, topic, group, to).await.map(|()| Answer::Ok),
            Request::Get { group, .. } => {
                let record = cursor::next(self, topic, group.unwrap_or(SHARED_GROUP), room_bytes).await?;
                Ok(record.map_or(Answer::Empty, Answer::Payload))
            }
            _ => Ok(Answer::Ok),
        }
    }

    /// Has whoever leads the topic move a cursor, here or there; waits, bounded, while nobody does.
    async fn with_leader(self: &Arc<Self>, request: &Request<'_>, name: &str, asker: Asker) -> Result<Answer, Refusal> {
        let deadline = tokio::time::Instant::now() + Duration::from_millis(self.config.write_wait_ms);
        loop {
            let topic = self.topic(name).await?;
            let (route, number) = topic.route_and_last();
            match (route, asker.origin) {
                (Route::Here, _) => match self.move_cursor(request, &topic, asker.room_bytes).await {
                    Ok(answer) => return Ok(answer),
                    Err(CursorError::Larger(bytes)) => return Ok(Answer::Larger(bytes)),
                    Err(CursorError::Refused(refusal)) => return Err(refusal),
                    Err(CursorError::NotHere) => {}
                },
                (Route::Deleted, _) => return Err(Refusal::unknown_topic(name)),
                (Route::Wait, _) => {}
                (Route::Node(node_id), Origin::Client) => {
                    match self.pass_on(request, node_id, asker.room_bytes, Duration::ZERO).await? {
                        Elsewhere::Answered(answer) => return Ok(answer),
                        Elsewhere::TryAgain => {}
                    }
                }
                (Route::Node(_), Origin::Node) => return Ok(Answer::Moved),
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(rollover::no_leader());
            }
            let changed = topic.wait_for(|chain| {
                let last = chain.last();
                let moved = last.number != number.uid.number || last.epoch != number.epoch || chain.route() != route;
                moved.then_some(())
            });
            // A lease that runs again changes nothing in the metadata.
            let _ = tokio::time::timeout(TRY_AGAIN, changed).await;
        }
    }

    async fn pass_on(
        self: &Arc<Self>,
        request: &Request<'_>,
        node_id: u64,
        room_bytes: usize,
        wait: Duration,
    ) -> Result<Elsewhere, Refusal> {
        match forward::request(self, node_id, request, room_bytes, wait).await {
            Ok(Forwarded::Answered(body)) => Ok(Elsewhere::Answered(Answer::Raw(body))),
            Ok(Forwarded::Larger(bytes)) => Ok(Elsewhere::Answered(Answer::Larger(bytes))),
            Ok(Forwarded::Moved) | Err(ForwardError::NotSent) => Ok(Elsewhere::TryAgain),
            Err(ForwardError::Unknown) => {
                Err(Refusal::new(ErrorCode::Timeout, "the node that leads the topic did not answer"))
            }
        }
    }

    async fn fetch(
        self: &Arc<Self>,
        request: &Request<'_>,
        topic: &Arc<Topic>,
        limits: Limits,
        wait_ms: u64,
        asker: Asker,
    ) -> Result<Answer, Refusal> {
        let Limits { offset, max_records, max_bytes, room_bytes } = limits;
        let wait = Duration::from_millis(wait_ms.min(self.config.fetch_wait_ms_max));
        let deadline = tokio::time::Instant::now() + wait;
        let patience = deadline + Duration::from_millis(self.config.write_wait_ms);
        loop {
            let looked_at = topic.route_and_last();
            let read = reader::read(topic, offset, max_records, max_bytes).await;
            let at_tail = match &read {
                Ok(read) => read.count == 0 && max_records > 0,
                Err(error) => matches!(error, ReadError::PastTail(_)),
            };
            if at_tail && !self.knows_tail(topic) {
                // Another node may have gone on meanwhile.
                if tokio::time::Instant::now() >= patience {
                    return Err(rollover::no_leader());
                }
                self.wait_for_tail(topic, looked_at).await;
                continue;
            }
            match read {
                Ok(read) => {
                    if read.count > 0 || max_records == 0 || tokio::time::Instant::now() >= deadline {
                        return Ok(fetched(read, asker));
                    }
                    self.wait_for_data(topic, offset, deadline).await?;
                }
                Err(ReadError::PastTail(refusal) | ReadError::Refused(refusal)) => return Err(refusal),
                Err(ReadError::Larger(bytes)) => return Ok(Answer::Larger(bytes)),
                Err(ReadError::Elsewhere { .. }) if asker.origin == Origin::Node => return Ok(Answer::Moved),
                Err(ReadError::Elsewhere { number, sealed: true, refusal }) => {
                    return match reader::read_elsewhere(self, topic, number, limits, refusal).await {
                        Ok(read) => Ok(Answer::Fetched(read)),
                        Err(ReadError::Larger(bytes)) => Ok(Answer::Larger(bytes)),
                        Err(error) => Err(error.into()),
                    };
                }
                Err(ReadError::Elsewhere { sealed: false, .. }) => {
                    let route = topic.chain().route();
                    if let Route::Node(node_id) = route
                        && let Elsewhere::Answered(answer) = self.pass_on(request, node_id, room_bytes, wait).await?
                    {
                        return Ok(answer);
                    }
                    if tokio::time::Instant::now() >= patience {
                        return Err(rollover::no_leader());
                    }
                    let changed = topic.wait_for(|chain| (chain.route() != route).then_some(()));
                    let _ = tokio::time::timeout(TRY_AGAIN, changed).await;
                }
            }
        }
    }

    /// Is there nothing past the tail that this node has just looked at? Only the leader may say so, and
    /// only if its lease runs *after* the look. A lease that runs again after a pause is younger than the
    /// metadata that it came with, so these show whether the segment is still this run's own.
    fn knows_tail(&self, topic: &Topic) -> bool {
        let (at, run) = (topic.last_at(), self.metadata.run_id());
        self.lease.is_valid()
            && self.metadata.view(|state| {
                state.topic_by_id(at.uid.topic_id).is_some_and(|(_, info)| {
                    let last = info.last();
                    (last.number, last.epoch, last.leader_run) == (at.uid.number, at.epoch, run)
                })
            })
    }

    /// Waits until this node may know more than when it looked at the chain: the chain has come in step
    /// with the metadata, or the lease runs again.
    async fn wait_for_tail(&self, topic: &Topic, looked_at: (Route, SegmentAt)) {
        let in_step = topic.changed_since(looked_at);
        let leased = async {
            if self.lease.is_valid() {
                std::future::pending::<()>().await;
            }
            self.metadata.ready().await;
        };
        let either = async {
            tokio::select! {
                () = in_step => {}
                () = leased => {}
            }
        };
        // Should both have been there before the wait began, nothing more would come.
        let _ = tokio::time::timeout(TRY_AGAIN, either).await;
    }

    async fn wait_for_data(
        &self,
        topic: &Arc<Topic>,
        offset: u64,
        deadline: tokio::time::Instant,
    ) -> Result<(), Refusal> {
        tokio::select! {
            () = reader::wait_past(topic, offset) => {}
            () = tokio::time::sleep_until(deadline) => {}
        }
        match topic.chain().route() {
            Route::Deleted => Err(Refusal::unknown_topic(&topic.name)),
            _ => Ok(()),
        }
    }

    /// The leader knows most; without one, what this node knows must do.
    async fn state(self: &Arc<Self>, request: &Request<'_>, name: &str, origin: Origin) -> Result<Answer, Refusal> {
        let topic = self.topic(name).await?;
        let route = topic.chain().route();
        if let (Route::Node(node_id), Origin::Client) = (route, origin)
            && let Ok(Elsewhere::Answered(answer)) = self.pass_on(request, node_id, 0, Duration::ZERO).await
        {
            return Ok(answer);
        }
        status::topic_state(self, &topic).map(Answer::Json)
    }
}

/// Records that were read here. A client's connection looks for memory for them by itself, since nothing
/// has moved; another node has to be asked first.
fn fetched(read: Read, asker: Asker) -> Answer {
    let bytes = read.bytes();
    if asker.origin == Origin::Node && bytes > asker.room_bytes { Answer::Larger(bytes) } else { Answer::Fetched(read) }
}
