//! Requests and replies between nodes, many at a time on one connection.
//!
//! ```text
//! frame   ┌────────┬─────┬──────────────────────┐
//!         │ length │ id  │ body                 │   little-endian; the length counts id and body,
//!         │ u32    │ u64 │ `length` − 8 bytes   │   the reply bears the id of its request
//!         └────────┴─────┴──────────────────────┘
//! ```

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::hello::{Hello, Purpose};
use super::{PeerError, Peers};
use crate::net::{OwnedReadHalf, TcpStream};

/// Longest frame.
const FRAME_BYTES_MAX: usize = 64 << 20;
/// Bytes of a frame before its body.
const FRAME_HEADER: usize = 12;
/// Requests of one connection that are worked on at a time.
const REQUESTS_MAX: usize = 1024;
/// A connection on which replies are owed and nothing comes for so long is given up.
const SILENCE_MAX: Duration = Duration::from_millis(1500);

/// Why there is no reply.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum CallError {
    /// The request was never sent.
    #[error("{0}")]
    NotSent(PeerError),
    /// It may have been carried out.
    #[error("the connection was lost before the reply came")]
    Lost,
}

struct Call {
    body: Vec<u8>,
    reply: oneshot::Sender<Result<Vec<u8>, CallError>>,
}

/// The connection to one node, opened when it is needed and again after it was lost.
#[derive(Clone)]
pub(crate) struct Control {
    calls: mpsc::UnboundedSender<Call>,
    /// How many connections have ended.
    ended: watch::Receiver<u64>,
}

impl Control {
    /// Runs on the current runtime for as long as somebody holds it.
    pub(crate) fn spawn(peers: Peers, node_id: u64) -> Self {
        let (calls, queue) = mpsc::unbounded_channel();
        let (ends, ended) = watch::channel(0);
        tokio::spawn(run(peers, node_id, queue, ends));
        Control { calls, ended }
    }

    /// Completes once a connection that was open, or is opened later, has ended.
    pub(crate) async fn lost(&self) {
        let mut ended = self.ended.clone();
        ended.mark_unchanged();
        // An error means that nobody runs the connection any more, and none will end.
        if ended.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// One request and its reply. Give it up by dropping the future.
    pub(crate) async fn call(&self, body: Vec<u8>) -> Result<Vec<u8>, CallError> {
        let (reply, answer) = oneshot::channel();
        // The task ends only with its runtime; the request then goes nowhere.
        let _ = self.calls.send(Call { body, reply });
        answer.await.unwrap_or(Err(CallError::Lost))
    }
}

async fn run(peers: Peers, node_id: u64, mut calls: mpsc::UnboundedReceiver<Call>, ends: watch::Sender<u64>) {
    while let Some(call) = calls.recv().await {
        match peers.connect(node_id, Purpose::Control).await {
            Ok(connected) => {
                converse(connected.stream, call, &mut calls).await;
                ends.send_modify(|ended| *ended += 1);
            }
            Err(error) => {
                let queued = std::iter::from_fn(|| calls.try_recv().ok());
                for call in std::iter::once(call).chain(queued) {
                    // Whoever no longer waits does not mind.
                    let _ = call.reply.send(Err(CallError::NotSent(error.clone())));
                }
            }
        }
    }
}

/// One request and its reply on a connection that is used for nothing else.
pub(crate) async fn ask_once(mut stream: TcpStream, body: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(&frame(0, body)).await?;
    read_frame(&mut stream).await.map(|(_, body)| body)
}

/// Sends calls and hands out replies until the connection is lost.
async fn converse(stream: TcpStream, first: Call, calls: &mut mpsc::UnboundedReceiver<Call>) {
    let (read, mut write) = stream.into_split();
    let mut replies = read_frames(read);
    let mut owed: HashMap<u64, oneshot::Sender<Result<Vec<u8>, CallError>>> = HashMap::new();
    let mut heard = Instant::now();
    let mut next = Some(first);
    for id in 0.. {
        let call = loop {
            if let Some(call) = next.take() {
                break Some(call);
            }
            tokio::select! {
                call = calls.recv() => break call,
                reply = replies.recv() => {
                    let Some((id, body)) = reply else { break None };
                    heard = Instant::now();
                    if let Some(waiting) = owed.remove(&id) {
                        let _ = waiting.send(Ok(body));
                    }
                }
                // What nobody waits for any more is owed all the same: Raft gives its requests up much
                // sooner, and would wait for ever behind a connection that brings nothing.
                () = tokio::time::sleep_until(heard + SILENCE_MAX), if !owed.is_empty() => break None,
            }
        };
        let Some(call) = call else { break };
        if owed.is_empty() {
            heard = Instant::now();
        }
        let sent = tokio::time::timeout(SILENCE_MAX, write.write_all(&frame(id, &call.body))).await;
        owed.insert(id, call.reply);
        if !matches!(sent, Ok(Ok(()))) {
            break;
        }
    }
    for (_, waiting) in owed {
        let _ = waiting.send(Err(CallError::Lost));
    }
}

/// Frames as they come, from a task of their own, because reading one must not be broken off.
fn read_frames(read: OwnedReadHalf) -> mpsc::Receiver<(u64, Vec<u8>)> {
    let (sender, frames) = mpsc::channel(REQUESTS_MAX);
    tokio::spawn(async move {
        let mut read = BufReader::with_capacity(16 << 10, read);
        loop {
            tokio::select! {
                frame = read_frame(&mut read) => {
                    let Ok(frame) = frame else { return };
                    if sender.send(frame).await.is_err() {
                        return;
                    }
                }
                () = sender.closed() => return,
            }
        }
    });
    frames
}

fn frame(id: u64, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_HEADER + body.len());
    frame.extend_from_slice(&((body.len() + 8) as u32).to_le_bytes());
    frame.extend_from_slice(&id.to_le_bytes());
    frame.extend_from_slice(body);
    frame
}

async fn read_frame(read: &mut (impl AsyncRead + Unpin)) -> io::Result<(u64, Vec<u8>)> {
    let length = read.read_u32_le().await? as usize;
    if !(8..=FRAME_BYTES_MAX).contains(&length) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let id = read.read_u64_le().await?;
    let mut body = vec![0; length - 8];
    read.read_exact(&mut body).await?;
    Ok((id, body))
}

/// A request that another node sent.
pub(crate) struct Incoming {
    /// Who sent it.
    pub(crate) from: Arc<Hello>,
    /// The request.
    pub(crate) body: Vec<u8>,
    /// Where the reply goes.
    pub(crate) reply: oneshot::Sender<Vec<u8>>,
}

/// Serves a connection that was accepted: hands its requests over and sends the replies.
pub(crate) async fn serve(stream: TcpStream, from: Hello, requests: mpsc::Sender<Incoming>) {
    let (read, mut write) = stream.into_split();
    let mut frames = read_frames(read);
    let (replies, mut outgoing) = mpsc::channel::<Vec<u8>>(REQUESTS_MAX);
    let writer = tokio::spawn(async move {
        while let Some(frame) = outgoing.recv().await {
            if write.write_all(&frame).await.is_err() {
                return;
            }
        }
    });
    let (from, slots) = (Arc::new(from), Arc::new(Semaphore::new(REQUESTS_MAX)));
    while let Some((id, body)) = frames.recv().await {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
        let (reply, answer) = oneshot::channel();
        if requests.send(Incoming { from: Arc::clone(&from), body, reply }).await.is_err() {
            break;
        }
        let replies = replies.clone();
        tokio::spawn(async move {
            if let Ok(body) = answer.await {
                // A connection that is gone takes no reply.
                let _ = replies.send(frame(id, &body)).await;
            }
            drop(slot);
        });
    }
    writer.abort();
}

#[cfg(all(test, not(feature = "sim")))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_brings_nothing_is_given_up_although_its_callers_gave_up_sooner() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connects");
        let (_silent, _) = listener.accept().await.expect("accepts");
        let (calls, mut queue) = mpsc::unbounded_channel();
        let given_up = || Call { body: vec![1], reply: oneshot::channel().0 };
        let callers = async {
            loop {
                let _ = calls.send(given_up());
                tokio::time::sleep(SILENCE_MAX / 30).await;
            }
        };
        tokio::select! {
            () = converse(stream, given_up(), &mut queue) => {}
            () = callers => {}
            () = tokio::time::sleep(2 * SILENCE_MAX) => panic!("it was kept"),
        }
    }
}
