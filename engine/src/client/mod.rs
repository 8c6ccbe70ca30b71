//! The client: what the command line, the benchmark drivers and the tests talk to a broker with.
//!
//! * [`Client`] asks and waits, one method a verb.
//! * [`Pipeline`] sends without waiting and counts the replies, for throughput; its halves
//!   ([`Sender`], [`Receiver`]) may live in two threads.
//! * [`Reader`] walks over a topic by offset, asking for the next batch before it hands on one.
//!
//! All of them block the calling thread, and none needs an async runtime.

mod connection;
mod error;
mod pipeline;
mod read_buffer;
mod reader;
mod record_batch;
mod socket;
#[cfg(test)]
mod tests;

use std::io::IoSlice;
use std::time::{Duration, Instant};

pub use connection::ClientConfig;
pub use error::ClientError;
pub use pipeline::{Outcome, Pipeline, PipelineConfig, Receiver, Sender};
pub use reader::{Reader, ReaderConfig};
pub use record_batch::RecordBatch;

use crate::protocol::frame::{PREFIX_BYTES, put_frame};
use crate::protocol::records::{Records, put_record};
use crate::protocol::reply::{Appended, Fetched};
use crate::protocol::{Reply, Request, SeekTo, TopicSettings, valid_name};
use connection::Connection;
use read_buffer::ReadBuffer;

/// An unused connection is checked before it is used again after this long.
const IDLE_BEFORE_CHECK: Duration = Duration::from_secs(1);

/// Asks a broker and waits for each answer.
///
/// After an error of the connection the next call connects anew; nothing is ever sent twice.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    connection: Option<Connection>,
    used_at: Instant,
    out: Vec<u8>,
    input: ReadBuffer,
    /// Bytes of the last reply; dropped at the next call, because callers borrow from it.
    answered_bytes: usize,
}

impl Client {
    /// Connects with the default timeouts.
    pub fn connect(addr: &str) -> Result<Self, ClientError> {
        Client::with_config(ClientConfig::new(addr))
    }

    /// Connects.
    pub fn with_config(config: ClientConfig) -> Result<Self, ClientError> {
        let connection = Some(Connection::open(&config)?);
        Ok(Client {
            config,
            connection,
            used_at: Instant::now(),
            out: Vec::new(),
            input: ReadBuffer::new(64 << 10),
            answered_bytes: 0,
        })
    }

    /// The broker's address, as it was given.
    pub fn addr(&self) -> &str {
        &self.config.addr
    }

    /// Creates a topic. The same again is fine.
    pub fn register(&mut self, topic: &str, settings: TopicSettings) -> Result<(), ClientError> {
        self.expect_ok(&Request::Register { topic, settings })
    }

    /// Appends one record.
    pub fn put(&mut self, topic: &str, payload: &[u8]) -> Result<(), ClientError> {
        self.expect_ok(&Request::Put { topic, payload })
    }

    /// Reads the next record of a cursor (`None`: the shared one), and moves it. `None` at the end.
    pub fn get(&mut self, topic: &str, group: Option<&str>) -> Result<Option<&[u8]>, ClientError> {
        let addr = self.config.addr.clone();
        match self.call(&Request::Get { topic, group })? {
            Reply::Payload(payload) => Ok(Some(payload)),
            Reply::Ok => Ok(Some(&[])),
            Reply::Empty => Ok(None),
            _ => Err(unexpected(&addr, "GET")),
        }
    }

    /// A topic's segments, leaders and settings, as JSON.
    pub fn state(&mut self, topic: &str) -> Result<&str, ClientError> {
        self.expect_json(&Request::State { topic })
    }

    /// The node's metrics, as JSON.
    pub fn metrics(&mut self) -> Result<&str, ClientError> {
        self.expect_json(&Request::Metrics)
    }

    /// The topics, as JSON.
    pub fn topics(&mut self) -> Result<&str, ClientError> {
        self.expect_json(&Request::Topics)
    }

    /// Appends records as one batch: all or none.
    pub fn append<'r>(
        &mut self,
        topic: &str,
        records: impl IntoIterator<Item = &'r [u8]>,
    ) -> Result<Appended, ClientError> {
        let mut list = Vec::new();
        records.into_iter().for_each(|record| put_record(&mut list, record));
        let records = Records::parse(&list).map_err(|error| ClientError::BadRequest(error.to_string()))?;
        let addr = self.config.addr.clone();
        match self.call(&Request::Append { topic, records })? {
            Reply::Payload(payload) => Appended::parse(payload).map_err(|error| ClientError::not_walrus(&addr, error)),
            _ => Err(unexpected(&addr, "APPEND")),
        }
    }

    /// Reads by offset: at most `max_records`, at most about `max_bytes`. At the tail it waits
    /// up to `wait` for data.
    pub fn fetch(
        &mut self,
        topic: &str,
        offset: u64,
        max_records: u64,
        max_bytes: u64,
        wait: Duration,
    ) -> Result<Fetched<'_>, ClientError> {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let request = Request::Fetch {
            topic,
            offset,
            max_records,
            max_bytes: Some(max_bytes),
            wait_ms: (wait_ms > 0).then_some(wait_ms),
        };
        let addr = self.config.addr.clone();
        match self.call(&request)? {
            Reply::Payload(payload) => Fetched::parse(payload).map_err(|error| ClientError::not_walrus(&addr, error)),
            _ => Err(unexpected(&addr, "FETCH")),
        }
    }

    /// Moves a cursor.
    pub fn seek(&mut self, topic: &str, group: &str, to: SeekTo) -> Result<(), ClientError> {
        self.expect_ok(&Request::Seek { topic, group, to })
    }

    /// Removes a topic and its data.
    pub fn delete(&mut self, topic: &str) -> Result<(), ClientError> {
        self.expect_ok(&Request::Delete { topic })
    }

    /// Lets a node go for good, once others hold copies of what it holds.
    pub fn leave(&mut self, node_id: u64) -> Result<(), ClientError> {
        self.expect_ok(&Request::Leave { node_id })
    }

    /// Is the broker there?
    pub fn ping(&mut self) -> Result<(), ClientError> {
        self.expect_ok(&Request::Ping)
    }

    /// Sends one request and waits for its reply. `ERR` comes back as [`ClientError::Refusal`].
    pub fn call(&mut self, request: &Request<'_>) -> Result<Reply<'_>, ClientError> {
        check_names(request)?;
        self.out.clear();
        request.encode(&mut self.out);
        let timeout = self.config.request_timeout + server_wait(request);
        let addr = self.config.addr.clone();
        let body = self.exchange(timeout)?;
        match Reply::parse(body).map_err(|error| ClientError::not_walrus(&addr, error))? {
            Reply::Err { code, text } => Err(ClientError::Refusal { code, text: text.into() }),
            reply => Ok(reply),
        }
    }

    /// Sends any body as one frame and returns the body of the reply, whatever it is.
    pub fn call_raw(&mut self, body: &[u8]) -> Result<&[u8], ClientError> {
        self.out.clear();
        put_frame(&mut self.out, body);
        self.exchange(self.config.request_timeout)
    }

    /// Sends `self.out` and waits for one frame. A connection that failed is dropped: what comes
    /// on it later would answer the wrong request.
    fn exchange(&mut self, timeout: Duration) -> Result<&[u8], ClientError> {
        let mut connection = self.checked_connection()?;
        let whole = connection.write_all(&mut [IoSlice::new(&self.out)], Some(&mut self.input), timeout)?;
        let body_bytes = connection.read_frame(&mut self.input, timeout)?;
        self.connection = whole.then_some(connection);
        self.used_at = Instant::now();
        self.answered_bytes = PREFIX_BYTES + body_bytes;
        Ok(&self.input.filled()[PREFIX_BYTES..self.answered_bytes])
    }

    /// Takes the connection out, or makes a new one if it is gone.
    fn checked_connection(&mut self) -> Result<Connection, ClientError> {
        let idle = self.used_at.elapsed() > IDLE_BEFORE_CHECK;
        if let Some(connection) = self.connection.take()
            && !(idle && connection.is_stale())
        {
            self.input.consume(std::mem::take(&mut self.answered_bytes));
            return Ok(connection);
        }
        self.input.consume(self.input.filled().len());
        self.answered_bytes = 0;
        Connection::open(&self.config)
    }

    fn expect_ok(&mut self, request: &Request<'_>) -> Result<(), ClientError> {
        let addr = self.config.addr.clone();
        match self.call(request)? {
            Reply::Ok => Ok(()),
            _ => Err(unexpected(&addr, request.verb().name())),
        }
    }

    fn expect_json(&mut self, request: &Request<'_>) -> Result<&str, ClientError> {
        let addr = self.config.addr.clone();
        let verb = request.verb().name();
        match self.call(request)? {
            Reply::Json(json) => std::str::from_utf8(json).map_err(|_| unexpected(&addr, verb)),
            _ => Err(unexpected(&addr, verb)),
        }
    }
}

/// Names with spaces would change the meaning of the request, so they never leave the client.
fn check_names(request: &Request<'_>) -> Result<(), ClientError> {
    let (topic, group) = match *request {
        Request::Get { topic, group } => (topic, group),
        Request::Seek { topic, group, .. } => (topic, Some(group)),
        Request::Register { topic, .. }
        | Request::Put { topic, .. }
        | Request::State { topic }
        | Request::Append { topic, .. }
        | Request::Fetch { topic, .. }
        | Request::Delete { topic } => (topic, None),
        Request::Metrics | Request::Topics | Request::Leave { .. } | Request::Ping => return Ok(()),
    };
    check_name("topic", topic)?;
    group.map_or(Ok(()), |group| check_name("group", group))
}

fn check_name(what: &str, name: &str) -> Result<(), ClientError> {
    if valid_name(name.as_bytes()) {
        return Ok(());
    }
    Err(ClientError::BadRequest(format!(
        "`{}` is no {what} name; one is 1 to 249 of the characters A-Z a-z 0-9 . _ -",
        name.escape_debug()
    )))
}

/// How long the broker was asked to wait before it answers.
fn server_wait(request: &Request<'_>) -> Duration {
    match request {
        Request::Fetch { wait_ms: Some(wait_ms), .. } => Duration::from_millis(*wait_ms),
        _ => Duration::ZERO,
    }
}

fn unexpected(addr: &str, verb: &str) -> ClientError {
    ClientError::NotWalrus { addr: addr.into(), reason: format!("unexpected reply to {verb}") }
}
