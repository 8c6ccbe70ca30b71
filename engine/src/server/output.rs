//! Replies that are not sent yet. Many small ones become one write.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::time::Instant;

use super::buffers::{Buffers, Reservation};
use crate::net::TcpStream;

/// From so many unsent bytes on, nothing more is read from the connection.
const FULL_BYTES: usize = 256 << 10;
/// The same for a client that does not take its replies; so much is reserved for it.
const BLOCKED_BYTES: usize = 64 << 10;
/// The same if there was nothing left to reserve.
const UNCOUNTED_BYTES: usize = 16 << 10;
/// Who has taken so much at a time does read, if slowly.
const TAKEN_BYTES_MIN: usize = 64 << 10;
/// A larger buffer is given back once it is empty.
const KEPT_BYTES_MAX: usize = 64 << 10;
/// Pieces handed to one write.
const SLICES_MAX: usize = 64;

/// The output side of a connection.
#[derive(Default)]
pub struct Output {
    /// Small replies; everything before `start` is sent.
    pub small: Vec<u8>,
    start: usize,
    /// Records that go out after `small`, as they lie in the store.
    records: Vec<Bytes>,
    /// Pieces of `records` before this one are sent.
    next_record: usize,
    /// What a large reply counts for, or small ones that the client does not take.
    memory: Option<Reservation>,
    /// Since when the client has taken less than [`TAKEN_BYTES_MIN`].
    blocked_since: Option<Instant>,
    /// What it has taken since then.
    taken_bytes: usize,
    /// Bytes sent since the last [`Output::take_sent`].
    sent_bytes: u64,
}

impl Output {
    /// Nothing is left to send.
    pub fn is_empty(&self) -> bool {
        self.start == self.small.len() && self.next_record == self.records.len()
    }

    /// So much is left that no more requests should be taken.
    pub fn is_full(&self) -> bool {
        let full_bytes = match (self.blocked_since, &self.memory) {
            (None, _) => FULL_BYTES,
            (Some(_), Some(_)) => BLOCKED_BYTES,
            (Some(_), None) => UNCOUNTED_BYTES,
        };
        self.unsent_bytes() >= full_bytes || !self.records.is_empty()
    }

    /// Of the small replies.
    fn unsent_bytes(&self) -> usize {
        self.small.len() - self.start
    }

    /// Since when the client has taken next to nothing, although there is something to take.
    pub fn blocked_since(&self) -> Option<Instant> {
        self.blocked_since
    }

    /// Bytes sent since this was asked last.
    pub fn take_sent(&mut self) -> u64 {
        std::mem::take(&mut self.sent_bytes)
    }

    /// Until everything is sent, it counts as `memory`.
    pub fn hold(&mut self, memory: Option<Reservation>) {
        if memory.is_some() {
            self.memory = memory;
        }
    }

    /// Sends these pieces after everything before. Small replies must wait until they are out.
    pub fn push_records(&mut self, records: Vec<Bytes>) {
        assert!(self.records.is_empty(), "one list of records at a time");
        self.records = records.into_iter().filter(|piece| !piece.is_empty()).collect();
        self.next_record = 0;
    }

    /// Sends as much as the client takes. Ready when nothing is left; what is left counts in `budget`.
    pub fn poll_send(
        &mut self,
        stream: &TcpStream,
        cx: &mut Context<'_>,
        budget: &Arc<Buffers>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            match self.try_send(stream) {
                Ok(bytes) => {
                    self.sent_bytes += bytes as u64;
                    self.taken_bytes += bytes;
                    if self.taken_bytes >= TAKEN_BYTES_MIN {
                        self.blocked_since = None;
                    }
                    self.advance(bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.blocked_since.is_none() {
                        self.blocked_since = Some(Instant::now());
                        self.taken_bytes = 0;
                    }
                    if self.memory.is_none() && (self.unsent_bytes() >= UNCOUNTED_BYTES || !self.records.is_empty()) {
                        self.memory = budget.try_reserve(BLOCKED_BYTES);
                    }
                    ready!(stream.poll_write_ready(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.reset();
        Poll::Ready(Ok(()))
    }

    /// Gives memory back while the connection is idle.
    pub fn park(&mut self) {
        if self.is_empty() {
            self.small = Vec::new();
            self.start = 0;
        }
    }

    fn try_send(&self, stream: &TcpStream) -> io::Result<usize> {
        if self.records.is_empty() {
            return stream.try_write(&self.small[self.start..]);
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        slices[0] = IoSlice::new(&self.small[self.start..]);
        let mut used = 1;
        for (slice, piece) in slices[1..].iter_mut().zip(&self.records[self.next_record..]) {
            *slice = IoSlice::new(piece);
            used += 1;
        }
        stream.try_write_vectored(&slices[..used])
    }

    fn advance(&mut self, mut bytes: usize) {
        let step = bytes.min(self.small.len() - self.start);
        self.start += step;
        bytes -= step;
        while bytes > 0 {
            let piece = &mut self.records[self.next_record];
            let step = bytes.min(piece.len());
            bytes::Buf::advance(piece, step);
            bytes -= step;
            if piece.is_empty() {
                self.next_record += 1;
            }
        }
    }

    fn reset(&mut self) {
        self.blocked_since = None;
        self.memory = None;
        self.start = 0;
        self.small.clear();
        if self.small.capacity() > KEPT_BYTES_MAX {
            self.small = Vec::new();
        }
        self.records.clear();
        self.next_record = 0;
    }
}
