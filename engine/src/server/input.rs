//! What was read from a connection and not handled yet.
//!
//! ```text
//! buffer   │ handled │ frame │ frame │ part of a fr│ free ........... │
//!                    ^start                        ^end
//! ```
//! A connection holds a buffer only while there is data: between requests it costs nothing, and
//! in the midst of a frame only as much as has come of it.

use std::io;
use std::sync::Arc;

use super::buffers::{Buffer, Buffers};
use crate::net::TcpStream;

/// Up to so many bytes of an unfinished frame are set aside, and the read buffer given back.
const ASIDE_BYTES_MAX: usize = 16 << 10;
/// Free space in which a read is worth its system call.
const ROOM_BYTES_MIN: usize = 16 << 10;

/// How a read went.
#[derive(Debug, PartialEq, Eq)]
pub enum Filled {
    /// There is something new.
    Data {
        /// How many bytes.
        bytes: usize,
    },
    /// Nothing there at the moment.
    WouldBlock,
    /// The budget for buffers is used up.
    NoMemory,
    /// The client has finished sending.
    End,
}

/// The input side of a connection.
#[derive(Default)]
pub struct Input {
    buffer: Option<Buffer>,
    start: usize,
    end: usize,
    /// An unfinished frame, or a few that come after a request that waits, while there is no buffer.
    aside: Vec<u8>,
}

impl Input {
    /// What is not handled yet.
    pub fn bytes(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&self.aside, |buffer| &buffer[self.start..self.end])
    }

    /// Marks bytes at the front as handled.
    pub fn consume(&mut self, bytes: usize) {
        if self.buffer.is_none() {
            self.aside.drain(..bytes);
            return;
        }
        self.start += bytes;
        assert!(self.start <= self.end, "only what was read can be handled");
    }

    /// Reads once. `missing` is how many bytes the unfinished frame still lacks.
    pub fn fill(&mut self, stream: &TcpStream, buffers: &Arc<Buffers>, missing: usize) -> io::Result<Filled> {
        if !self.make_room(buffers, missing) {
            return Ok(Filled::NoMemory);
        }
        let Some(buffer) = &mut self.buffer else { return Ok(Filled::NoMemory) };
        match stream.try_read(&mut buffer[self.end..]) {
            Ok(0) => Ok(Filled::End),
            Ok(bytes) => {
                self.end += bytes;
                Ok(Filled::Data { bytes })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Filled::WouldBlock),
            Err(error) => Err(error),
        }
    }

    /// Gives the buffer back if there is nothing in it, or little enough to set aside.
    pub fn park(&mut self) {
        let rest = self.end - self.start;
        if let Some(buffer) = &self.buffer
            && rest <= ASIDE_BYTES_MAX
        {
            self.aside = buffer[self.start..self.end].to_vec();
            self.buffer = None;
            self.start = 0;
            self.end = 0;
        }
    }

    /// Makes a buffer with room behind what it holds. A large frame's buffer grows as the frame
    /// comes, so that an announced length alone reserves nothing.
    fn make_room(&mut self, buffers: &Arc<Buffers>, missing: usize) -> bool {
        if self.buffer.is_none() {
            return self.move_to_buffer_of(buffers, 2 * self.aside.len());
        }
        let (length, rest) = (self.buffer.as_ref().map_or(0, |buffer| buffer.len()), self.end - self.start);
        let wanted = missing.clamp(1, ROOM_BYTES_MIN);
        if rest + wanted > length {
            return self.move_to_buffer_of(buffers, (2 * length).min(rest + missing).max(rest + wanted));
        }
        // To the front: a frame at most, and only when the buffer's end is near.
        if self.start > 0 && (rest == 0 || length - self.end < wanted.max(length / 2)) {
            if let Some(buffer) = &mut self.buffer {
                buffer.copy_within(self.start..self.end, 0);
            }
            self.start = 0;
            self.end = rest;
        }
        true
    }

    fn move_to_buffer_of(&mut self, buffers: &Arc<Buffers>, bytes: usize) -> bool {
        let Some(mut buffer) = buffers.try_take(bytes) else { return false };
        let rest = self.bytes();
        let length = rest.len();
        buffer[..length].copy_from_slice(rest);
        self.buffer = Some(buffer);
        self.aside = Vec::new();
        self.start = 0;
        self.end = length;
        true
    }
}
