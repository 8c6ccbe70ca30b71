//! Requests between nodes that are not part of a stream: fences, reads and copies of recoveries
//! and repairs. A connection carries one request at a time; idle ones are kept.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::messages::{Call, CallReply, FenceReply, Purpose, Spec, encode_call, next_call};
use super::quorum::Answer;
use super::{lock, reconciler};
use crate::broker::Broker;
use crate::exec;
use crate::metadata::state::{Phase, State};
use crate::net::TcpStream;
use crate::store::{RawError, Segment, SegmentSpec, StoreError};
use crate::types::SegmentUid;

/// Longest wait for a reply.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// Idle connections kept for each node.
const IDLE_MAX: usize = 4;
/// Most bytes of batches in one reply.
const READ_BYTES_MAX: usize = 4 << 20;

/// Connections that wait for the next request, by node.
#[derive(Default)]
pub struct Calls {
    idle: Mutex<HashMap<u64, Vec<TcpStream>>>,
}

/// Asks a node, this one included, and waits for the reply.
pub async fn call(broker: &Arc<Broker>, node_id: u64, call: Call, batches: &Bytes) -> io::Result<(CallReply, Bytes)> {
    if node_id == broker.config.node_id {
        return Ok(answer(broker, call, batches).await);
    }
    let asked = tokio::time::timeout(CALL_TIMEOUT, ask(broker, node_id, &call, batches)).await;
    asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn ask(broker: &Arc<Broker>, node_id: u64, call: &Call, batches: &[u8]) -> io::Result<(CallReply, Bytes)> {
    let request = encode_call(call, batches);
    let kept = lock(&broker.calls.idle).get_mut(&node_id).and_then(Vec::pop);
    if let Some(stream) = kept
        && let Ok(reply) = exchange(broker, node_id, stream, &request).await
    {
        return Ok(reply);
    }
    // Every call may be repeated: the kept connection may have been dead for long.
    let connection = broker.peers.connect_data(node_id).await.map_err(io::Error::other)?;
    let mut stream = connection.stream;
    stream.set_nodelay(true)?;
    stream.write_u8(Purpose::Call as u8).await?;
    exchange(broker, node_id, stream, &request).await
}

async fn exchange(
    broker: &Arc<Broker>,
    node_id: u64,
    mut stream: TcpStream,
    request: &[u8],
) -> io::Result<(CallReply, Bytes)> {
    stream.write_all(request).await?;
    let mut input = BytesMut::new();
    let reply = loop {
        if let Some(reply) = next_call(&mut input).map_err(io::Error::other)? {
            break reply;
        }
        if stream.read_buf(&mut input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let mut idle = lock(&broker.calls.idle);
    let kept = idle.entry(node_id).or_default();
    if kept.len() < IDLE_MAX {
        kept.push(stream);
    }
    Ok(reply)
}

/// Serves the requests of one connection.
pub async fn serve(broker: &Arc<Broker>, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BytesMut::new();
    loop {
        while let Some((call, batches)) = next_call(&mut input).map_err(io::Error::other)? {
            let (reply, batches) = answer(broker, call, &batches).await;
            stream.write_all(&encode_call(&reply, &batches)).await?;
        }
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
    }
}

async fn answer(broker: &Arc<Broker>, call: Call, batches: &Bytes) -> (CallReply, Bytes) {
    let (broker, batches) = (Arc::clone(broker), batches.clone());
    let answered = exec::spawn_blocking(move || match call {
        Call::Ping => Ok((CallReply::Pong, Bytes::new())),
        Call::Fence { segments } => {
            fence(&broker, &segments).map(|answers| (CallReply::Fenced(answers), Bytes::new())).map_err(RawError::from)
        }
        Call::Read { spec, from, max_bytes } => read(&broker, spec, from, max_bytes).map_err(RawError::from),
        Call::Copy { spec } => copy(&broker, spec, &batches).map(|reply| (reply, Bytes::new())),
    });
    let failed = |reason: String| (CallReply::Failed { reason }, Bytes::new());
    match answered.await {
        Ok(Ok(reply)) => reply,
        Ok(Err(error)) => failed(error.to_string()),
        Err(_) => failed("the call was given up".into()),
    }
}

/// Fences the copies here. Blocks: the promises are on the device when this returns.
fn fence(broker: &Broker, segments: &[(Spec, String)]) -> Result<Vec<Result<FenceReply, u64>>, StoreError> {
    let disk_id = broker.disk_id();
    let mut answers: Vec<Result<FenceReply, u64>> = Vec::with_capacity(segments.len());
    let mut to_fence: Vec<(Segment, u64)> = Vec::new();
    for (spec, disk) in segments {
        let spec = SegmentSpec::from(*spec);
        if *disk != disk_id {
            answers.push(Ok(FenceReply::Unknown));
        } else if broker.metadata.view(|state| is_closed(state, spec.uid)) {
            // Whoever asks is behind the times.
            answers.push(Err(0));
        } else {
            match reconciler::open_copy(broker, spec) {
                Ok(copy) => {
                    to_fence.push((copy.segment, spec.epoch));
                    // Filled in below.
                    answers.push(Err(u64::MAX));
                }
                // A disk that cannot be read says nothing about what it once held.
                Err(error) => {
                    tracing::error!(segment = %spec.uid, %error, "this node's copy cannot be read");
                    answers.push(Ok(FenceReply::Unknown));
                }
            }
        }
    }
    let mut fenced = broker.store.fence(&to_fence)?.into_iter();
    for answer in answers.iter_mut().filter(|answer| **answer == Err(u64::MAX)) {
        *answer = match fenced.next() {
            Some(Ok(standing)) => Ok(Answer::Holds(standing).into()),
            Some(Err(RawError::Promised { promised })) => Err(promised),
            _ => Err(0),
        };
    }
    Ok(answers)
}

/// Do the metadata show the segment sealed, or gone?
fn is_closed(state: &State, uid: SegmentUid) -> bool {
    match state.topic_by_id(uid.topic_id) {
        None => uid.topic_id <= state.commands,
        Some((_, topic)) => uid.number < topic.last().number,
    }
}

/// The copy of a segment, sealed or not.
fn find(broker: &Broker, spec: SegmentSpec) -> Result<Segment, StoreError> {
    let sealed = broker.metadata.view(|state| {
        let (name, topic) = state.topic_by_id(spec.uid.topic_id)?;
        let segment = topic.segments.iter().find(|segment| segment.number == spec.uid.number)?;
        matches!(segment.phase, Phase::Sealed { .. }).then(|| name.to_owned())
    });
    if let Some(segment) = sealed.and_then(|name| broker.topics.get(&name)?.segment(spec.uid.number)) {
        return Ok(segment);
    }
    reconciler::open_copy(broker, spec).map(|copy| copy.segment)
}

fn read(broker: &Broker, spec: Spec, from: u64, max_bytes: usize) -> Result<(CallReply, Bytes), StoreError> {
    let raw = find(broker, spec.into())?.read_raw(from, max_bytes.min(READ_BYTES_MAX))?;
    Ok((CallReply::Batches { base_index: raw.base_index, end_index: raw.end_index }, raw.bytes))
}

/// Stores batches of a recovery, whose epoch is promised first; returns how far this copy reaches
/// in the segment's tier.
fn copy(broker: &Broker, spec: Spec, batches: &Bytes) -> Result<CallReply, RawError> {
    let spec = SegmentSpec::from(spec);
    let segment = reconciler::open_copy(broker, spec)?.segment;
    if segment.promised() < spec.epoch {
        broker.store.fence(&[(segment.clone(), spec.epoch)])?.pop().transpose()?;
    }
    loop {
        match segment.append_raw(spec.epoch, batches) {
            Err(RawError::Store(StoreError::PoolEmpty)) => std::thread::sleep(Duration::from_millis(1)),
            // The sender learns where to go on.
            Ok(()) | Err(RawError::Gap { .. }) => break,
            Err(error) => return Err(error),
        }
    }
    segment.start_writing();
    segment.wait_watermark_blocking(segment.next_index())?;
    let stored = segment.watermark();
    Ok(CallReply::Stored { stored, bytes: segment.size_bytes(), disk_id: broker.disk_id() })
}
