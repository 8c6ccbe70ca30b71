//! One TCP connection: connecting with messages that help, frames in, bytes out.

use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::error::ClientError;
use super::read_buffer::ReadBuffer;
use super::socket::{Interest, wait_until_ready};
use crate::net::unpace_loopback;
use crate::protocol::frame::Frames;

/// Largest reply that a client takes. Memory grows only as bytes arrive.
const MAX_REPLY_BYTES: usize = 1 << 30;

/// How a client connects and how long it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// `host:port` of any node. Default `127.0.0.1:9091`.
    pub addr: String,
    /// Longest wait for the connection. Default 5 s.
    pub connect_timeout: Duration,
    /// Longest wait for a reply, or for the broker to take bytes. Default 30 s.
    pub request_timeout: Duration,
}

impl Default for ClientConfig {
    fn default() -> Self {
        ClientConfig::new("127.0.0.1:9091")
    }
}

impl ClientConfig {
    /// The defaults, with this address.
    pub fn new(addr: impl Into<String>) -> Self {
        ClientConfig {
            addr: addr.into(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
        }
    }
}

/// The socket, non-blocking, with waiting of our own: so a sender can read while it cannot write.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) addr: String,
}

impl Connection {
    pub(super) fn open(config: &ClientConfig) -> Result<Self, ClientError> {
        let stream = connect(config)?;
        let ready = stream.set_nodelay(true).and_then(|()| stream.set_nonblocking(true));
        ready.map_err(|source| ClientError::Connect { addr: config.addr.clone(), source })?;
        Ok(Connection { stream, addr: config.addr.clone() })
    }

    /// A second handle to the same socket.
    pub(super) fn try_clone(&self) -> Result<Self, ClientError> {
        let stream = self.stream.try_clone().map_err(|source| self.io(source))?;
        Ok(Connection { stream, addr: self.addr.clone() })
    }

    /// Writes what the socket takes now; 0 means that it is full.
    pub(super) fn try_write(&mut self, pieces: &[IoSlice<'_>]) -> Result<usize, ClientError> {
        loop {
            match self.stream.write_vectored(pieces) {
                Ok(written) => return Ok(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.io(error)),
            }
        }
    }

    /// Reads what is there into `buffer`; `false` means that nothing was.
    pub(super) fn try_read(&mut self, buffer: &mut ReadBuffer) -> Result<bool, ClientError> {
        loop {
            match self.stream.read(buffer.space()) {
                Ok(0) => {
                    return Err(ClientError::Closed { addr: self.addr.clone() });
                }
                Ok(read_bytes) => {
                    buffer.advance(read_bytes);
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.io(error)),
            }
        }
    }

    /// Waits until the socket can do one of what is asked for; `false` when the time is over.
    pub(super) fn wait(&self, interest: Interest, timeout: Duration) -> Result<bool, ClientError> {
        wait_until_ready(&self.stream, interest, timeout).map_err(|source| self.io(source))
    }

    /// Writes everything. What the broker sends meanwhile goes into `replies`, so that neither
    /// side waits for the other for ever. A broker that hangs up may have said why: then this is no
    /// error but `false`, and the end of the stream follows what it said.
    pub(super) fn write_all(
        &mut self,
        pieces: &mut [IoSlice<'_>],
        mut replies: Option<&mut ReadBuffer>,
        timeout: Duration,
    ) -> Result<bool, ClientError> {
        let written = self.try_write_all(pieces, replies.as_deref_mut(), timeout);
        if let (Err(ClientError::Closed { .. }), Some(replies)) = (&written, replies) {
            while self.try_read(replies).is_ok_and(|more| more) {}
            if !replies.filled().is_empty() {
                return Ok(false);
            }
        }
        written.map(|()| true)
    }

    fn try_write_all(
        &mut self,
        mut pieces: &mut [IoSlice<'_>],
        mut replies: Option<&mut ReadBuffer>,
        timeout: Duration,
    ) -> Result<(), ClientError> {
        let deadline = Instant::now() + timeout;
        // Empty pieces go, so that an empty list means that everything is written.
        IoSlice::advance_slices(&mut pieces, 0);
        while !pieces.is_empty() {
            let written = self.try_write(pieces)?;
            IoSlice::advance_slices(&mut pieces, written);
            if written > 0 {
                continue;
            }
            let interest = if replies.is_some() { Interest::Either } else { Interest::Write };
            if !self.wait(interest, deadline.saturating_duration_since(Instant::now()))? {
                return Err(self.timed_out(timeout));
            }
            if let Some(replies) = replies.as_deref_mut() {
                self.try_read(replies)?;
            }
        }
        Ok(())
    }

    /// Reads until `buffer` starts with a whole frame, and returns the length of its body.
    pub(super) fn read_frame(&mut self, buffer: &mut ReadBuffer, timeout: Duration) -> Result<usize, ClientError> {
        let deadline = Instant::now() + timeout;
        loop {
            let mut frames = Frames::new(buffer.filled(), MAX_REPLY_BYTES);
            match frames.next() {
                Some(Ok(body)) => return Ok(body.len()),
                Some(Err(error)) => return Err(self.not_walrus(error.to_string())),
                None => buffer.expect(frames.missing()),
            }
            if self.try_read(buffer)? {
                continue;
            }
            if !self.wait(Interest::Read, deadline.saturating_duration_since(Instant::now()))? {
                return Err(self.timed_out(timeout));
            }
        }
    }

    /// Did the broker close this idle connection, or send what nobody asked for?
    pub(super) fn is_stale(&self) -> bool {
        let nothing_there = |error: io::Error| error.kind() == io::ErrorKind::WouldBlock;
        !self.stream.peek(&mut [0]).is_err_and(nothing_there)
    }

    pub(super) fn timed_out(&self, after: Duration) -> ClientError {
        ClientError::TimedOut { addr: self.addr.clone(), after }
    }

    pub(super) fn not_walrus(&self, reason: String) -> ClientError {
        ClientError::NotWalrus { addr: self.addr.clone(), reason }
    }

    fn io(&self, source: io::Error) -> ClientError {
        let addr = self.addr.clone();
        match source.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
                ClientError::Closed { addr }
            }
            _ => ClientError::Io { addr, source },
        }
    }
}

/// Tries each address of the host in turn.
fn connect(config: &ClientConfig) -> Result<TcpStream, ClientError> {
    let addr = || config.addr.clone();
    let resolve = |source| ClientError::Resolve { addr: addr(), source };
    let candidates: Vec<SocketAddr> = config.addr.to_socket_addrs().map_err(resolve)?.collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for candidate in candidates {
        match connect_to(candidate, config.connect_timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(match last.kind() {
        io::ErrorKind::ConnectionRefused => ClientError::Refused { addr: addr() },
        io::ErrorKind::NotFound => ClientError::Resolve { addr: addr(), source: last },
        _ => ClientError::Connect { addr: addr(), source: last },
    })
}

fn connect_to(address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    unpace_loopback(&socket, address.ip());
    socket.connect_timeout(&address.into(), timeout)?;
    Ok(socket.into())
}
