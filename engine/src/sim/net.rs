//! Sockets of turmoil's network with the methods of tokio's that a node uses.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
pub use turmoil::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::trace;

/// A listener without a runtime: in the simulation it is one like any other.
pub type DetachedListener = TcpListener;
/// A stream without a runtime.
pub type DetachedStream = TcpStream;

/// Bytes taken from the network, or given to it, at once.
const PIECE_BYTES: usize = 64 << 10;

/// Listens at `host:port`.
pub async fn bind_detached(address: &str) -> io::Result<DetachedListener> {
    TcpListener::bind(address).await
}

/// Listens at `host:port`.
pub async fn bind(address: &str) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Connects to `host:port`.
pub async fn connect(address: &str) -> io::Result<TcpStream> {
    TcpStream::connect(address).await
}

/// Takes a listener over to the current runtime.
pub fn attach_listener(listener: DetachedListener) -> io::Result<TcpListener> {
    Ok(listener)
}

/// Takes a stream from its runtime.
pub fn detach(stream: TcpStream) -> io::Result<DetachedStream> {
    Ok(stream)
}

/// Takes a stream over to the current runtime.
pub fn attach(stream: DetachedStream) -> io::Result<TcpStream> {
    Ok(stream)
}

/// As tokio's.
pub struct TcpListener(turmoil::net::TcpListener);

impl TcpListener {
    /// Listens at `host:port`.
    pub async fn bind(address: impl turmoil::ToSocketAddrs) -> io::Result<Self> {
        turmoil::net::TcpListener::bind(address).await.map(TcpListener)
    }

    /// The next connection.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, from) = self.0.accept().await?;
        Ok((TcpStream::new(stream), from))
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// As tokio's, with readiness: what has come is taken from the network when somebody asks whether
/// there is something to read.
#[derive(Debug)]
pub struct TcpStream {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    stream: turmoil::net::TcpStream,
    input: BytesMut,
    /// No more will come.
    ended: Option<io::ErrorKind>,
    ends: [u64; 2],
}

impl TcpStream {
    fn new(stream: turmoil::net::TcpStream) -> Self {
        let number = |addr: io::Result<SocketAddr>| addr.map_or(0, number_of);
        let ends = [number(stream.local_addr()), number(stream.peer_addr())];
        TcpStream { inner: Mutex::new(Inner { stream, input: BytesMut::new(), ended: None, ends }) }
    }

    /// Connects to `host:port`.
    pub async fn connect(address: &str) -> io::Result<Self> {
        turmoil::net::TcpStream::connect(address).await.map(Self::new)
    }

    /// Nothing is ever held back here.
    pub fn set_nodelay(&self, _nodelay: bool) -> io::Result<()> {
        Ok(())
    }

    /// Both directions by themselves.
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        let inner = self.inner.into_inner().unwrap_or_else(PoisonError::into_inner);
        assert!(inner.input.is_empty(), "a stream that was asked for readiness is not split");
        inner.stream.into_split()
    }

    /// Ready once there is something to read, or the end.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().poll_fill(cx).map(Ok)
    }

    /// Ready once there is room to write.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = self.lock();
        let writable = pin!(inner.stream.writable());
        writable.poll(cx)
    }

    /// Returns once there is something to read, or the end.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_read_ready(cx)).await
    }

    /// Returns once there is room to write.
    pub async fn writable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_write_ready(cx)).await
    }

    /// Reads what is there.
    pub fn try_read(&self, mut buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer.len();
        self.try_read_limited(&mut buffer, room)
    }

    /// Reads what is there.
    pub fn try_read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        self.try_read_limited(buffer, PIECE_BYTES)
    }

    fn try_read_limited(&self, buffer: &mut impl BufMut, room: usize) -> io::Result<usize> {
        let mut inner = self.lock();
        // Nobody waits for it at the moment, else the caller would not be here.
        if inner.poll_fill(&mut Context::from_waker(Waker::noop())).is_pending() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        inner.take(buffer, room)
    }

    /// Writes what there is room for.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let inner = self.lock();
        let written = inner.stream.try_write(&bytes[..bytes.len().min(PIECE_BYTES)])?;
        inner.trace("send", &bytes[..written]);
        Ok(written)
    }

    /// Writes what there is room for, as one message.
    pub fn try_write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).take(PIECE_BYTES).collect();
        self.try_write(&all)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get_mut(&mut self) -> &mut Inner {
        self.inner.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Ready if there is something to read, or the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut piece = [0; 4096];
        while self.ended.is_none() {
            let mut buffer = ReadBuf::new(&mut piece);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Pending if self.input.is_empty() => return Poll::Pending,
                Poll::Pending => return Poll::Ready(()),
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => self.ended = Some(io::ErrorKind::UnexpectedEof),
                Poll::Ready(Ok(())) => self.input.extend_from_slice(buffer.filled()),
                Poll::Ready(Err(error)) => self.ended = Some(error.kind()),
            }
        }
        Poll::Ready(())
    }

    /// Hands out what was filled in.
    fn take(&mut self, buffer: &mut impl BufMut, room: usize) -> io::Result<usize> {
        let bytes = room.min(self.input.len());
        if bytes == 0 && room > 0 {
            return match self.ended {
                Some(io::ErrorKind::UnexpectedEof) | None => Ok(0),
                Some(kind) => Err(kind.into()),
            };
        }
        self.trace("receive", &self.input[..bytes]);
        buffer.put_slice(&self.input[..bytes]);
        self.input.advance(bytes);
        Ok(bytes)
    }

    fn trace(&self, what: &str, bytes: &[u8]) {
        trace::event(what, &self.ends, bytes);
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inner = self.get_mut().get_mut();
        if !inner.input.is_empty() || inner.ended.is_some() {
            let room = buffer.remaining();
            return Poll::Ready(inner.take(buffer, room).map(drop));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut inner.stream).poll_read(cx, buffer))?;
        inner.trace("receive", &buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let inner = self.get_mut().get_mut();
        let written = ready!(Pin::new(&mut inner.stream).poll_write(cx, bytes))?;
        inner.trace("send", &bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().get_mut().stream).poll_shutdown(cx)
    }
}

/// The host's part of an address and the port, in one number.
fn number_of(addr: SocketAddr) -> u64 {
    let host = match addr {
        SocketAddr::V4(addr) => u64::from(addr.ip().octets()[3]),
        SocketAddr::V6(addr) => u64::from(addr.ip().octets()[15]),
    };
    host << 16 | u64::from(addr.port())
}
