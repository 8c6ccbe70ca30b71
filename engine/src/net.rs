//! The network, as every part of a node uses it: tokio's sockets, or the simulation's.
//!
//! A socket belongs to the runtime that opened it. One that moves to another runtime is detached
//! there and attached here.

#[cfg(feature = "sim")]
pub use crate::sim::net::{
    DetachedListener, DetachedStream, OwnedReadHalf, TcpListener, TcpStream, attach, attach_listener, bind_detached,
    detach,
};

#[cfg(not(feature = "sim"))]
pub use real::{DetachedListener, DetachedStream, attach, attach_listener, bind_detached, detach};
#[cfg(not(feature = "sim"))]
pub use tokio::net::tcp::OwnedReadHalf;
#[cfg(not(feature = "sim"))]
pub use tokio::net::{TcpListener, TcpStream};

#[cfg(not(feature = "sim"))]
mod real {
    use std::io;

    use tokio::net::{TcpListener, TcpStream};

    /// A listener without a runtime.
    pub type DetachedListener = std::net::TcpListener;
    /// A stream without a runtime.
    pub type DetachedStream = std::net::TcpStream;

    /// Listens at `host:port`, before it is known on which runtime.
    pub async fn bind_detached(address: &str) -> io::Result<DetachedListener> {
        DetachedListener::bind(address)
    }

    /// Takes a listener over to the current runtime.
    pub fn attach_listener(listener: DetachedListener) -> io::Result<TcpListener> {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    }

    /// Takes a stream from its runtime.
    pub fn detach(stream: TcpStream) -> io::Result<DetachedStream> {
        stream.into_std()
    }

    /// Takes a stream over to the current runtime.
    pub fn attach(stream: DetachedStream) -> io::Result<TcpStream> {
        TcpStream::from_std(stream)
    }
}
