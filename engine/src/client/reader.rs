//! Reading a topic from an offset on, one request ahead of the caller.

use std::io::IoSlice;
use std::time::Duration;

use super::connection::{ClientConfig, Connection};
use super::error::ClientError;
use super::read_buffer::ReadBuffer;
use super::{check_names, unexpected};
use crate::protocol::frame::PREFIX_BYTES;
use crate::protocol::reply::Fetched;
use crate::protocol::{Reply, Request};

/// What a [`Reader`] asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReaderConfig {
    /// First offset to read.
    pub offset: u64,
    /// Records that one batch holds at most. Default: no limit but the bytes.
    pub max_records: u64,
    /// Bytes that one batch holds at most, about. Default 1 MiB.
    pub max_bytes: u64,
    /// How long the broker waits for data at the tail. Default 500 ms.
    pub wait: Duration,
}

impl Default for ReaderConfig {
    fn default() -> Self {
        ReaderConfig { offset: 0, max_records: u64::MAX, max_bytes: 1 << 20, wait: Duration::from_millis(500) }
    }
}

/// Walks over a topic by offset. The request for the next batch is on its way before a batch is
/// handed on, so that broker and caller work at the same time.
#[derive(Debug)]
pub struct Reader {
    client: ClientConfig,
    config: ReaderConfig,
    topic: String,
    connection: Connection,
    out: Vec<u8>,
    input: ReadBuffer,
    /// Bytes of the reply that the caller has borrowed.
    handed_bytes: usize,
    /// A request is on its way.
    asked: bool,
}

impl Reader {
    /// Connects; the first request is sent by the first [`Reader::next_batch`].
    pub fn open(client: ClientConfig, topic: &str, config: ReaderConfig) -> Result<Self, ClientError> {
        let connection = Connection::open(&client)?;
        let input = ReadBuffer::new(2 * config.max_bytes as usize);
        Ok(Reader {
            client,
            config,
            topic: topic.into(),
            connection,
            out: Vec::new(),
            input,
            handed_bytes: 0,
            asked: false,
        })
    }

    /// Offset of the first record that the next batch will hold.
    pub fn next_offset(&self) -> u64 {
        self.config.offset
    }

    /// The next records; none when there were none at the tail within [`ReaderConfig::wait`].
    pub fn next_batch(&mut self) -> Result<Fetched<'_>, ClientError> {
        self.input.consume(std::mem::take(&mut self.handed_bytes));
        if !self.asked {
            let Reader { client, config, topic, connection, out, .. } = self;
            ask(connection, client, out, topic, config)?;
        }
        let timeout = self.client.request_timeout + self.config.wait;
        let body_bytes = self.connection.read_frame(&mut self.input, timeout)?;
        self.asked = false;
        self.handed_bytes = PREFIX_BYTES + body_bytes;
        let Reader { client, config, topic, connection, out, input, .. } = self;
        let fetched = parse(&input.filled()[PREFIX_BYTES..PREFIX_BYTES + body_bytes], &client.addr)?;
        config.offset = fetched.next_offset;
        ask(connection, client, out, topic, config)?;
        self.asked = true;
        Ok(fetched)
    }
}

fn parse<'b>(body: &'b [u8], addr: &str) -> Result<Fetched<'b>, ClientError> {
    match Reply::parse(body) {
        Ok(Reply::Payload(payload)) => Fetched::parse(payload).map_err(|error| ClientError::not_walrus(addr, error)),
        Ok(Reply::Err { code, text }) => Err(ClientError::Refusal { code, text: text.into() }),
        Ok(_) => Err(unexpected(addr, "FETCH")),
        Err(error) => Err(ClientError::not_walrus(addr, error)),
    }
}

/// Sends the request for the batch at `config.offset`.
fn ask(
    connection: &mut Connection,
    client: &ClientConfig,
    out: &mut Vec<u8>,
    topic: &str,
    config: &ReaderConfig,
) -> Result<(), ClientError> {
    let wait_ms = u64::try_from(config.wait.as_millis()).unwrap_or(u64::MAX);
    let request = Request::Fetch {
        topic,
        offset: config.offset,
        max_records: config.max_records,
        max_bytes: Some(config.max_bytes),
        wait_ms: (wait_ms > 0).then_some(wait_ms),
    };
    check_names(&request)?;
    out.clear();
    request.encode(out);
    connection.write_all(&mut [IoSlice::new(out)], None, client.request_timeout).map(|_| ())
}
