//! Waiting for a socket with sub-millisecond timeouts, which `std` has no call for.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interest {
    /// Bytes to read (or the end of the stream).
    Read,
    /// Room to write.
    Write,
    /// Whichever comes first.
    Either,
}

/// Waits until `stream` is ready, has failed or was closed (`true`), or the time is over
/// (`false`). A signal may end the wait early, as "ready": callers try, and wait again.
pub(super) fn wait_until_ready(stream: &TcpStream, interest: Interest, timeout: Duration) -> io::Result<bool> {
    let events = match interest {
        Interest::Read => libc::POLLIN,
        Interest::Write => libc::POLLOUT,
        Interest::Either => libc::POLLIN | libc::POLLOUT,
    };
    let mut descriptor = libc::pollfd { fd: stream.as_raw_fd(), events, revents: 0 };
    match poll(&mut descriptor, timeout) {
        ready if ready >= 0 => Ok(ready > 0),
        _ => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            error => Err(error),
        },
    }
}

#[cfg(target_os = "linux")]
fn poll(descriptor: &mut libc::pollfd, timeout: Duration) -> libc::c_int {
    let timeout = libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(timeout.subsec_nanos().cast_signed()),
    };
    // SAFETY: one valid `pollfd` that outlives the call, a valid timespec, and no signal mask.
    unsafe { libc::ppoll(descriptor, 1, &raw const timeout, std::ptr::null()) }
}

#[cfg(not(target_os = "linux"))]
fn poll(descriptor: &mut libc::pollfd, timeout: Duration) -> libc::c_int {
    let timeout_ms = timeout.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as libc::c_int;
    // SAFETY: one valid `pollfd` that outlives the call.
    unsafe { libc::poll(descriptor, 1, timeout_ms) }
}
