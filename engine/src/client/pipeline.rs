//! Many requests in flight: frames are coalesced into large writes, replies are counted.
//!
//! ```text
//!  push_put ─▶ │ frame │ frame │ … ├─ flush, or full ─▶ socket ─▶ broker
//!                                                                  │ replies, in order
//!  Outcome::Ok(137), Outcome::Err, Outcome::Ok(2) ◀─ recv_replies ◀┘
//! ```
//!
//! When to flush is the caller's decision: linger is a matter of the workload. How much may be
//! in flight is the caller's, too.

use std::io::IoSlice;
use std::time::{Duration, Instant};

use super::check_name;
use super::connection::{ClientConfig, Connection};
use super::error::ClientError;
use super::read_buffer::ReadBuffer;
use super::record_batch::RecordBatch;
use super::socket::Interest;
use crate::protocol::command::{put_append_head, put_put};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::frame::{Frames, PREFIX_BYTES};
use crate::protocol::reply::Reply;

/// A batch of this size is worth a write of its own; smaller ones are collected.
const DIRECT_BYTES_MIN: usize = 16 << 10;
/// Largest reply to a request of a pipeline.
const MAX_REPLY_BYTES: usize = 64 << 10;

/// How a [`Pipeline`] buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PipelineConfig {
    /// Requests are collected up to this many bytes, then written. One larger request is written
    /// alone. Default 256 KiB.
    pub max_write_bytes: usize,
    /// Room for replies that one read may take. Default 64 KiB: ten thousand `OK`s.
    pub read_bytes: usize,
}

impl Default for PipelineConfig {
    fn default() -> Self {
        PipelineConfig { max_write_bytes: 256 << 10, read_bytes: 64 << 10 }
    }
}

/// What became of requests, in the order in which they were pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// So many requests in a row succeeded.
    Ok(u64),
    /// One request was refused.
    Err {
        /// The stable code.
        code: ErrorCode,
        /// The broker's text for people.
        text: &'a str,
    },
}

/// Sends without waiting, in one thread.
#[derive(Debug)]
pub struct Pipeline {
    sender: Sender,
    receiver: Receiver,
}

impl Pipeline {
    /// Connects.
    pub fn connect(client: &ClientConfig, config: PipelineConfig) -> Result<Self, ClientError> {
        let connection = Connection::open(client)?;
        let receiver =
            Receiver { connection: connection.try_clone()?, input: ReadBuffer::new(config.read_bytes), received: 0 };
        let sender = Sender {
            connection,
            timeout: client.request_timeout,
            max_write_bytes: config.max_write_bytes,
            out: Vec::with_capacity(config.max_write_bytes),
            pushed: 0,
        };
        Ok(Pipeline { sender, receiver })
    }

    /// The two halves, for two threads. The receiver must then be drained while the sender sends:
    /// a broker stops reading from a client that never reads.
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    /// Adds a `PUT`. Writes what was collected first if it would grow too large.
    #[inline]
    pub fn push_put(&mut self, topic: &str, payload: &[u8]) -> Result<(), ClientError> {
        self.make_room(topic, payload.len())?;
        self.sender.encode_put(topic, payload)
    }

    /// Adds an `APPEND` of these records. A large batch is written at once, from where it lies,
    /// behind what was collected before.
    pub fn push_append(&mut self, topic: &str, batch: &RecordBatch) -> Result<(), ClientError> {
        self.sender.append(topic, batch, Some(&mut self.receiver.input))
    }

    /// Writes everything that was collected. Replies that arrive meanwhile are kept.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        self.sender.write_out(&[], Some(&mut self.receiver.input))
    }

    /// See [`Receiver::recv_replies`].
    pub fn recv_replies(&mut self, wait: Duration, on_outcome: impl FnMut(Outcome<'_>)) -> Result<u64, ClientError> {
        self.receiver.recv_replies(wait, on_outcome)
    }

    /// Bytes that were pushed and not written yet.
    pub fn unsent_bytes(&self) -> usize {
        self.sender.unsent_bytes()
    }

    /// Requests that were pushed and not answered yet.
    pub fn in_flight(&self) -> u64 {
        self.sender.pushed - self.receiver.received
    }

    #[inline]
    fn make_room(&mut self, topic: &str, payload_bytes: usize) -> Result<(), ClientError> {
        if self.sender.has_room(topic, payload_bytes) { Ok(()) } else { self.flush() }
    }
}

/// The half of a [`Pipeline`] that sends.
#[derive(Debug)]
pub struct Sender {
    connection: Connection,
    timeout: Duration,
    max_write_bytes: usize,
    out: Vec<u8>,
    pushed: u64,
}

impl Sender {
    /// Adds a `PUT`. Writes what was collected first if it would grow too large.
    #[inline]
    pub fn push_put(&mut self, topic: &str, payload: &[u8]) -> Result<(), ClientError> {
        if !self.has_room(topic, payload.len()) {
            self.flush()?;
        }
        self.encode_put(topic, payload)
    }

    /// See [`Pipeline::push_append`].
    pub fn push_append(&mut self, topic: &str, batch: &RecordBatch) -> Result<(), ClientError> {
        self.append(topic, batch, None)
    }

    /// Writes everything that was collected.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        self.write_out(&[], None)
    }

    /// Bytes that were pushed and not written yet.
    pub fn unsent_bytes(&self) -> usize {
        self.out.len()
    }

    /// Requests that were pushed so far.
    pub fn pushed(&self) -> u64 {
        self.pushed
    }

    #[inline]
    fn has_room(&self, topic: &str, payload_bytes: usize) -> bool {
        let frame_bytes = PREFIX_BYTES + b"APPEND ".len() + topic.len() + 1 + payload_bytes;
        self.out.is_empty() || self.out.len() + frame_bytes <= self.max_write_bytes
    }

    #[inline]
    fn encode_put(&mut self, topic: &str, payload: &[u8]) -> Result<(), ClientError> {
        check_name("topic", topic)?;
        put_put(&mut self.out, topic, payload);
        self.pushed += 1;
        Ok(())
    }

    fn append(
        &mut self,
        topic: &str,
        batch: &RecordBatch,
        mut replies: Option<&mut ReadBuffer>,
    ) -> Result<(), ClientError> {
        check_name("topic", topic)?;
        let is_large = batch.bytes() >= DIRECT_BYTES_MIN;
        if !is_large && !self.has_room(topic, batch.bytes()) {
            self.write_out(&[], replies.as_deref_mut())?;
        }
        put_append_head(&mut self.out, topic, batch.bytes());
        self.pushed += 1;
        if is_large {
            return self.write_out(batch.encoded(), replies);
        }
        self.out.extend_from_slice(batch.encoded());
        Ok(())
    }

    /// Writes what was collected, and `more` behind it.
    fn write_out(&mut self, more: &[u8], replies: Option<&mut ReadBuffer>) -> Result<(), ClientError> {
        let pieces = &mut [IoSlice::new(&self.out), IoSlice::new(more)];
        self.connection.write_all(pieces, replies, self.timeout)?;
        self.out.clear();
        Ok(())
    }
}

/// The half of a [`Pipeline`] that receives.
#[derive(Debug)]
pub struct Receiver {
    connection: Connection,
    input: ReadBuffer,
    received: u64,
}

impl Receiver {
    /// Hands on the replies that are there, in order, runs of `OK` as one. If there are none it
    /// waits up to `wait` for the first. Returns how many came (0: none in time).
    pub fn recv_replies(
        &mut self,
        wait: Duration,
        mut on_outcome: impl FnMut(Outcome<'_>),
    ) -> Result<u64, ClientError> {
        // Replies may be here already: a flush that had to wait has read them.
        let mut replies = self.drain(&mut on_outcome)?;
        match self.connection.try_read(&mut self.input) {
            Ok(true) => replies += self.drain(&mut on_outcome)?,
            Err(error) if replies == 0 => return Err(error),
            // What was heard before an end counts; the next call says that it has ended.
            Ok(false) | Err(_) => {}
        }
        if replies > 0 || wait.is_zero() {
            return Ok(replies);
        }
        let deadline = Instant::now() + wait;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.connection.wait(Interest::Read, left)? {
                return Ok(0);
            }
            if self.connection.try_read(&mut self.input)? {
                replies = self.drain(&mut on_outcome)?;
                if replies > 0 {
                    return Ok(replies);
                }
            }
        }
    }

    /// Replies that were received so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Hands on the complete replies of the buffer.
    fn drain(&mut self, on_outcome: &mut impl FnMut(Outcome<'_>)) -> Result<u64, ClientError> {
        let mut replies = 0;
        let mut run = 0;
        let mut frames = Frames::new(self.input.filled(), MAX_REPLY_BYTES);
        for body in frames.by_ref() {
            let body = body.map_err(|error| self.connection.not_walrus(error.to_string()))?;
            replies += 1;
            if body.starts_with(b"OK") {
                run += 1;
                continue;
            }
            if run > 0 {
                on_outcome(Outcome::Ok(std::mem::take(&mut run)));
            }
            match Reply::parse(body) {
                Ok(Reply::Err { code, text }) => on_outcome(Outcome::Err { code, text }),
                Ok(_) => {
                    return Err(self.connection.not_walrus("unexpected reply to a write".into()));
                }
                Err(error) => return Err(self.connection.not_walrus(error.to_string())),
            }
        }
        if run > 0 {
            on_outcome(Outcome::Ok(run));
        }
        let consumed = frames.consumed();
        self.input.expect(frames.missing());
        self.input.consume(consumed);
        self.received += replies;
        Ok(replies)
    }
}
