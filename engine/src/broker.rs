//! The broker of one node: what its parts share, and what each request does.
//!
//! `PUT` and `APPEND` are not here: they are the hot path of [`crate::server`].

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::watch;

use crate::config::Config;
use crate::error::Refusal;
use crate::log::cursor::{self, Committer, SHARED_GROUP};
use crate::log::reader::{self, Read};
use crate::log::topic::Topic;
use crate::log::topics::{self, Topics};
use crate::metadata::Metadata;
use crate::peer::Peers;
use crate::protocol::{Request, SeekTo, command::DEFAULT_FETCH_BYTES};
use crate::server::buffers::Buffers;
use crate::status;
use crate::store::Store;
use crate::types::SegmentUid;

/// What the tasks of a node share.
pub struct Broker {
    /// Settings.
    pub config: Config,
    /// Records.
    pub store: Store,
    /// Topics, chains, cursors.
    pub metadata: Metadata,
    /// Connections to other nodes.
    pub peers: Peers,
    /// Topics by name.
    pub topics: Topics,
    /// Commits reader positions.
    pub committer: Committer,
    /// Memory for connections.
    pub buffers: Arc<Buffers>,
    /// Counters for `METRICS`.
    pub counters: status::Counters,
    stop: watch::Sender<bool>,
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
}

impl Broker {
    /// Puts the parts together. Nothing runs yet.
    pub fn new(config: Config, store: Store, metadata: Metadata) -> Self {
        let buffers = Arc::new(Buffers::new(config.read_buffer_bytes, config.connection_bytes));
        Broker {
            config,
            store,
            peers: metadata.peers(),
            metadata,
            topics: Topics::default(),
            committer: Committer::default(),
            buffers,
            counters: status::Counters::default(),
            stop: watch::Sender::new(false),
        }
    }

    /// Tells every task to finish.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Ready once the broker is to stop.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stop = self.stop.subscribe();
        async move {
            // An error means that the broker is gone, which is a stop as well.
            let _ = stop.wait_for(|stop| *stop).await;
        }
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

    /// The topic of this name, or the refusal that says that there is none.
    pub fn topic(&self, name: &str) -> Result<Arc<Topic>, Refusal> {
        self.topics.get(name).ok_or_else(|| Refusal::unknown_topic(name))
    }

    /// Carries out any request but `PUT`, `APPEND` and `PING`, which the connection does itself.
    pub async fn execute(self: &Arc<Self>, request: Request<'_>) -> Result<Answer, Refusal> {
        match request {
            Request::Register { topic, settings } => topics::register(self, topic, settings).await.map(|()| Answer::Ok),
            Request::Delete { topic } => topics::delete(self, topic).await.map(|()| Answer::Ok),
            Request::Get { topic, group } => self.get(topic, group.unwrap_or(SHARED_GROUP)).await,
            Request::Seek { topic, group, to } => self.seek(topic, group, to).await,
            Request::Fetch { topic, offset, max_records, max_bytes, wait_ms } => {
                let max_bytes = max_bytes.unwrap_or(DEFAULT_FETCH_BYTES);
                self.fetch(topic, offset, max_records, max_bytes, wait_ms.unwrap_or(0)).await
            }
            Request::State { topic } => status::topic_state(self, topic).map(Answer::Json),
            Request::Metrics => Ok(Answer::Json(status::metrics(self))),
            Request::Topics => Ok(Answer::Json(status::topics(self))),
            Request::Put { .. } | Request::Append { .. } | Request::Ping => Ok(Answer::Ok),
        }
    }

    /// A `GET` that needs no wait and no I/O: the record was read ahead.
    pub fn try_get(&self, topic: &str, group: Option<&str>) -> Option<Bytes> {
        let topic = self.topics.get(topic)?;
        cursor::try_next(&self.committer, &topic, group.unwrap_or(SHARED_GROUP))
    }

    async fn get(self: &Arc<Self>, topic: &str, group: &str) -> Result<Answer, Refusal> {
        let topic = self.topic(topic)?;
        let record = cursor::next(self, &topic, group).await?;
        Ok(record.map_or(Answer::Empty, Answer::Payload))
    }

    async fn seek(&self, topic: &str, group: &str, to: SeekTo) -> Result<Answer, Refusal> {
        let topic = self.topic(topic)?;
        let offset = match to {
            SeekTo::First => topic.chain().first_offset(),
            SeekTo::Last => topic.tail(),
            SeekTo::Offset(offset) => offset,
        };
        cursor::seek(self, &topic, group, offset).await?;
        Ok(Answer::Ok)
    }

    async fn fetch(
        &self,
        topic: &str,
        offset: u64,
        max_records: u64,
        max_bytes: u64,
        wait_ms: u64,
    ) -> Result<Answer, Refusal> {
        let topic = self.topic(topic)?;
        // A reply is a frame, and no larger than one may be (a single record always fits).
        let max_bytes = (max_bytes as usize).min(self.config.max_frame_bytes / 2);
        let wait = Duration::from_millis(wait_ms.min(self.config.fetch_wait_ms_max));
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let read = reader::read(&topic, offset, max_records, max_bytes).await?;
            if read.count > 0 || max_records == 0 || tokio::time::Instant::now() >= deadline {
                return Ok(Answer::Fetched(read));
            }
            tokio::select! {
                () = reader::wait_past(&topic, offset) => {}
                () = tokio::time::sleep_until(deadline) => {}
                () = self.stopping() => return Err(Refusal::stopping()),
            }
            if matches!(topic.chain().writing, crate::log::topic::Writing::Deleted) {
                return Err(Refusal::unknown_topic(&topic.name));
            }
        }
    }
}

/// Milliseconds since 1970 by this machine's clock.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
