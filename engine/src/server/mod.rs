//! The client port: accepts connections and serves each with one task.
//!
//! ```text
//! socket ─▶ input (frames in place) ─▶ writes (PUTs of a read, grouped by topic) ─▶ log::writer
//!    ▲                              └▶ other verbs, once all earlier writes are settled
//!    └──── output (replies, coalesced) ◀── log::acks (FIFO, answered as watermarks pass)
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;

mod appends;
pub mod buffers;
mod connection;
mod input;
mod output;
pub(crate) mod reply_memory;
mod scattered;
mod writes;

use self::connection::Connection;
use crate::broker::Broker;
use crate::net::{TcpListener, TcpStream};
use crate::protocol::{ErrorCode, reply};

/// How long connections may take to send what they owe when the broker stops.
const DRAIN_TIME: Duration = Duration::from_secs(5);
/// Pause after a failed `accept` (out of descriptors): the next one would fail as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the broker stops; then lets every connection settle and send what it owes.
pub async fn run(listener: TcpListener, broker: Arc<Broker>) {
    let mut connections = JoinSet::new();
    let stopping = broker.stopping();
    tokio::pin!(stopping);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => admit(&mut connections, stream, &broker),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            // Finished tasks are taken out as they finish, so that the set stays as small as it is.
            Some(_) = connections.join_next() => {}
            () = &mut stopping => break,
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIME, drained).await.is_err() {
        tracing::warn!("some clients did not take their last replies in time");
    }
}

fn admit(connections: &mut JoinSet<()>, stream: TcpStream, broker: &Arc<Broker>) {
    if connections.len() >= broker.config.max_connections {
        broker.counters.connections_refused.fetch_add(1, Ordering::Relaxed);
        let mut frame = Vec::new();
        reply::put_err(&mut frame, ErrorCode::Overloaded, "too many connections");
        // Best effort: the new socket's buffer is empty, so this fits unless the client is gone.
        let _ = stream.try_write(&frame);
        return;
    }
    let broker = Arc::clone(broker);
    connections.spawn(async move {
        broker.counters.connections.fetch_add(1, Ordering::Relaxed);
        // How it ended is the client's business; errors of note were logged where they arose.
        let _ = Connection::new(stream, Arc::clone(&broker)).run().await;
        broker.counters.connections.fetch_sub(1, Ordering::Relaxed);
    });
}
