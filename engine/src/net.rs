//! The network, as every part of a node uses it: tokio's sockets, or the simulation's.
//!
//! A socket belongs to the runtime that opened it. One that moves to another runtime is detached
//! there and attached here.
//!
//! Connections over loopback addresses are not paced: see [`unpace_loopback`].

use std::net::IpAddr;
use std::os::fd::AsFd;

#[cfg(feature = "sim")]
pub use crate::sim::net::{
    DetachedListener, DetachedStream, OwnedReadHalf, TcpListener, TcpStream, attach, attach_listener, bind,
    bind_detached, connect, detach,
};

#[cfg(not(feature = "sim"))]
pub use real::{DetachedListener, DetachedStream, attach, attach_listener, bind, bind_detached, connect, detach};
#[cfg(not(feature = "sim"))]
pub use tokio::net::tcp::OwnedReadHalf;
#[cfg(not(feature = "sim"))]
pub use tokio::net::{TcpListener, TcpStream};

/// Congestion control for connections that congest nothing: in every kernel, open to every user, and without
/// pacing.
#[cfg(target_os = "linux")]
const UNPACED: &str = "reno";

/// Keeps pacing from beginning on a socket if `address` (of the other end, or that a listener is
/// bound to) is a loopback one. Call it before the socket is connected: pacing once begun does not
/// end with another algorithm. What a listener accepts inherits it.
///
/// Some systems have BBR as their default (Cardwell et al., "BBR: Congestion-Based Congestion Control", ACM
/// Queue 14(5), 2016), which spreads what it sends by timers. Over loopback there is no link to share and
/// the timers only cost: a quarter of the writes a second in long runs. If the system refuses, all works
/// as before.
pub fn unpace_loopback(socket: &impl AsFd, address: IpAddr) {
    #[cfg(not(target_os = "linux"))]
    let _ = (socket, address);
    #[cfg(target_os = "linux")]
    if address.to_canonical().is_loopback() {
        let _ = socket2::SockRef::from(socket).set_tcp_congestion(UNPACED.as_bytes());
    }
}

#[cfg(not(feature = "sim"))]
mod real {
    use std::io;
    use std::net::SocketAddr;

    use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

    use super::unpace_loopback;

    /// A listener without a runtime.
    pub type DetachedListener = std::net::TcpListener;
    /// A stream without a runtime.
    pub type DetachedStream = std::net::TcpStream;

    /// Connects to `host:port`, trying each address of the host in turn.
    pub async fn connect(address: &str) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for candidate in lookup_host(address).await? {
            match connect_to(candidate).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        unpace_loopback(&socket, address.ip());
        socket.connect(address).await
    }

    /// Listens at `host:port`.
    pub async fn bind(address: &str) -> io::Result<TcpListener> {
        let listener = TcpListener::bind(address).await?;
        unpace_loopback(&listener, listener.local_addr()?.ip());
        Ok(listener)
    }

    /// Listens at `host:port`, before it is known on which runtime.
    pub async fn bind_detached(address: &str) -> io::Result<DetachedListener> {
        let listener = DetachedListener::bind(address)?;
        unpace_loopback(&listener, listener.local_addr()?.ip());
        Ok(listener)
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

#[cfg(all(test, target_os = "linux", not(feature = "sim")))]
mod tests {
    use socket2::SockRef;

    use super::*;

    #[tokio::test]
    async fn both_ends_of_a_connection_within_the_machine_are_not_paced() {
        let listener = bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let (connected, accepted) = tokio::join!(connect(&address), listener.accept());
        let control = |stream: &TcpStream| SockRef::from(stream).tcp_congestion().expect("it has one");
        let named = |control: Vec<u8>| String::from_utf8_lossy(&control).trim_end_matches('\0').to_owned();
        assert_eq!(named(control(&connected.expect("connects"))), UNPACED);
        assert_eq!(named(control(&accepted.expect("accepts").0)), UNPACED);
    }

    #[test]
    fn connections_to_other_machines_keep_what_the_system_has_chosen() {
        let socket = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        let (untouched, elsewhere) = (socket(), socket());
        unpace_loopback(&elsewhere, [192, 0, 2, 1].into());
        assert_eq!(elsewhere.tcp_congestion().expect("one"), untouched.tcp_congestion().expect("one"));
    }
}
