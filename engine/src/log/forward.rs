//! Passing requests on to the node that does the work.
//!
//! A forwarded request is carried out where it arrives or not at all: a node that does not lead (any
//! more) answers `Moved`, and only the node that the client talks to sends it again, elsewhere. So
//! nothing is stored twice, and records of one connection keep their order: the node that the
//! client talks to sends nothing newer for a topic before everything older is settled.
//!
//! Settled may mean given up, and then a write may arrive whenever it likes. It names the segment,
//! with its epoch, that its sender acts on, and is stored there or nowhere: once anything newer lies
//! in a later segment, it comes too late. Within one segment the *generation* says so, see
//! [`super::given_up`].
//!
//! ```text
//! frame      │ u32 length of the rest │ u8 kind │ u64 metadata index │ ...
//! Write      │ u64 generation │ groups: │ u16 name bytes │ name │ u64 topic id │ u64 segment │ u64 epoch │
//!            │ u8 all or none │ u32 records bytes │ records │
//! Request    │ u32 room for records, in bytes │ the body of a client's request │
//! reply      │ u32 length of the rest │ u8 kind │ ...
//! Write      groups: │ u64 first offset │ u32 stored │ u8 rest │ (u8 code │ u32 text bytes │ text) │
//! Request    │ u8 answered │ the body of the reply │, │ u8 moved │, or │ u8 larger │ u64 bytes │
//! ```
//! The metadata index is the one that the sender acts on: whoever is behind it catches up first. A
//! connection carries one request at a time; idle ones are kept.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::given_up::{Generations, Sender, Senders};
use super::lock;
use super::messages::{PREFIX_BYTES, Purpose, put_at, take_at};
use super::reader::{Limits, Read, ReadError};
use super::rollover;
use super::topic::Topic;
use super::writer::{Accepted, Blocked, try_append_in};
use crate::broker::{Answer, Asker, Broker, Origin};
use crate::error::Refusal;
use crate::metadata::state::{Replica, SegmentAt};
use crate::net::TcpStream;
use crate::protocol::reply::Fetched;
use crate::protocol::{ErrorCode, Records, Reply, Request, reply};
use crate::store::Take;

const WRITE: u8 = 1;
const REQUEST: u8 = 2;
/// What became of the records that were not stored.
const REST_NONE: u8 = 0;
const REST_MOVED: u8 = 1;
const REST_REFUSED: u8 = 2;
/// What became of a request.
const ANSWERED: u8 = 0;
const MOVED: u8 = 1;
const LARGER: u8 = 2;
/// Idle connections kept for each node.
const IDLE_MAX: usize = 64;
/// Longest frame that is taken.
const FRAME_BYTES_MAX: usize = 256 << 20;
/// How long a node may take to catch up with the metadata that a sender acts on.
const CATCH_UP_TIME: Duration = Duration::from_secs(2);
/// Longest wait for the reply to a write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(8);
/// Longest wait for the reply to another request, beyond what the request itself asks for.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(8);

/// Connections that wait for the next request, by node, and what became of writes that were given up.
#[derive(Default)]
pub struct Forwards {
    idle: Mutex<HashMap<u64, Vec<TcpStream>>>,
    generations: Generations,
    /// Nodes that pass writes on to this one.
    pub senders: Senders,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardError {
    /// The request did not leave this node.
    NotSent,
    /// It may have been carried out.
    Unknown,
}

/// What became of a request that was sent.
#[derive(Debug)]
pub enum Forwarded {
    /// The body of the reply.
    Answered(Bytes),
    /// The node does not lead.
    Moved,
    /// The records have so many bytes, more than there is room for. Nothing was moved.
    Larger(usize),
}

/// What became of one topic's records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Offset of the first of them.
    pub first_offset: u64,
    /// How many were stored, from the front.
    pub stored: u32,
    /// What became of the others.
    pub rest: Rest,
}

/// See [`Written`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rest {
    /// There are none.
    Nothing,
    /// Not taken: somebody else leads, or will.
    Moved,
    /// Refused.
    Refused(Refusal),
}

/// Adds the records of one topic to a write. They are stored in the segment `at`, or not at all.
pub fn put_group(out: &mut Vec<u8>, topic: &str, at: SegmentAt, take: Take, records: &[&[u8]]) {
    out.put_u16_le(topic.len() as u16);
    out.put_slice(topic.as_bytes());
    put_at(out, at);
    out.put_u8(u8::from(take == Take::AllOrNone));
    let bytes: usize = records.iter().map(|record| PREFIX_BYTES + record.len()).sum();
    out.put_u32_le(bytes as u32);
    for record in records {
        out.put_u32_le(record.len() as u32);
        out.put_slice(record);
    }
}

/// Has a node store the groups; one outcome for each.
pub async fn write(broker: &Arc<Broker>, node_id: u64, groups: &[u8]) -> Result<Vec<Written>, ForwardError> {
    let stream = connect(broker, node_id).await?;
    // Given up if this ends in any other way than with a reply, also if the caller waits no longer.
    let awaited = broker.forwards.generations.begin(node_id);
    let frame = frame(broker, WRITE, &[&awaited.generation.to_le_bytes(), groups]);
    let body = exchange(broker, node_id, stream, &frame, WRITE_TIMEOUT).await?;
    awaited.answered();
    decode_written(body).ok_or(ForwardError::Unknown)
}

/// Has a node carry out a request, if no more than `room_bytes` of records come back.
pub async fn request(
    broker: &Arc<Broker>,
    node_id: u64,
    request: &Request<'_>,
    room_bytes: usize,
    wait: Duration,
) -> Result<Forwarded, ForwardError> {
    let mut encoded = Vec::new();
    request.encode(&mut encoded);
    let stream = connect(broker, node_id).await?;
    let room = u32::try_from(room_bytes).unwrap_or(u32::MAX).to_le_bytes();
    let frame = frame(broker, REQUEST, &[&room, &encoded[PREFIX_BYTES..]]);
    let mut body = exchange(broker, node_id, stream, &frame, REQUEST_TIMEOUT + wait).await?;
    let outcome = match body.try_get_u8() {
        Ok(ANSWERED) => Some(Forwarded::Answered(body)),
        Ok(MOVED) => Some(Forwarded::Moved),
        Ok(LARGER) => body.try_get_u64_le().ok().map(|bytes| Forwarded::Larger(bytes as usize)),
        _ => None,
    };
    outcome.ok_or(ForwardError::Unknown)
}

/// Reads records of a sealed segment from any other node that has them; `None` if none answers.
pub async fn read_sealed(
    broker: &Arc<Broker>,
    topic: &Topic,
    number: u64,
    limits: Limits,
) -> Result<Option<Read>, ReadError> {
    let replicas: Vec<Replica> = broker.metadata.view(|state| {
        let segments = state.topic_by_id(topic.id).map(|(_, info)| info.segments.as_slice()).unwrap_or_default();
        let segment = segments.iter().find(|segment| segment.number == number);
        segment.map(|segment| segment.replicas.clone()).unwrap_or_default()
    });
    let Limits { offset, max_records, max_bytes, room_bytes } = limits;
    let fetch =
        Request::Fetch { topic: &topic.name, offset, max_records, max_bytes: Some(max_bytes as u64), wait_ms: None };
    for replica in replicas.iter().filter(|replica| replica.node_id != broker.config.node_id) {
        match request(broker, replica.node_id, &fetch, room_bytes, Duration::ZERO).await {
            Ok(Forwarded::Answered(body)) => {
                if let Some(read) = fetched(&body) {
                    return Ok(Some(read));
                }
            }
            Ok(Forwarded::Larger(bytes)) => return Err(ReadError::Larger(bytes)),
            Ok(Forwarded::Moved) | Err(_) => {}
        }
    }
    Ok(None)
}

fn fetched(body: &Bytes) -> Option<Read> {
    let Ok(Reply::Payload(payload)) = Reply::parse(body) else { return None };
    let fetched = Fetched::parse(payload).ok()?;
    let count = fetched.records.len();
    (count > 0).then(|| Read {
        next_offset: fetched.next_offset,
        count,
        chunks: vec![body.slice_ref(fetched.records.as_bytes())],
    })
}

/// A request as it is sent.
fn frame(broker: &Broker, kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body_bytes = 9 + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut frame = Vec::with_capacity(PREFIX_BYTES + body_bytes);
    frame.put_u32_le(body_bytes as u32);
    frame.put_u8(kind);
    // Not the one that all topics are in step with: some are further.
    frame.put_u64_le(*broker.metadata.applied().borrow());
    parts.iter().for_each(|part| frame.put_slice(part));
    frame
}

/// Sends a request and waits for the reply.
async fn exchange(
    broker: &Broker,
    node_id: u64,
    mut stream: TcpStream,
    frame: &[u8],
    timeout: Duration,
) -> Result<Bytes, ForwardError> {
    let answered = tokio::time::timeout(timeout, async {
        stream.write_all(frame).await?;
        read_frame(&mut stream, &mut BytesMut::new()).await
    });
    let Ok(Ok(Some((_, reply)))) = answered.await else { return Err(ForwardError::Unknown) };
    let mut idle = lock(&broker.forwards.idle);
    let kept = idle.entry(node_id).or_default();
    if kept.len() < IDLE_MAX {
        kept.push(stream);
    }
    Ok(reply)
}

async fn connect(broker: &Broker, node_id: u64) -> Result<TcpStream, ForwardError> {
    try_connect(broker, node_id).await.map_err(|error| {
        tracing::debug!(node = node_id, %error, "a request cannot be passed on");
        ForwardError::NotSent
    })
}

async fn try_connect(broker: &Broker, node_id: u64) -> io::Result<TcpStream> {
    loop {
        let kept = lock(&broker.forwards.idle).get_mut(&node_id).and_then(Vec::pop);
        let Some(stream) = kept else { break };
        // Closed meanwhile, or something came that nobody asked for: not to be used again.
        let quiet = stream.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        if quiet {
            return Ok(stream);
        }
    }
    let connecting = tokio::time::timeout(CATCH_UP_TIME, broker.peers.connect_data(node_id));
    let connection = connecting.await?.map_err(io::Error::other)?;
    let mut stream = connection.stream;
    stream.set_nodelay(true)?;
    stream.write_u8(Purpose::Forward as u8).await?;
    Ok(stream)
}

/// The next frame; `None` at the end of the stream.
async fn read_frame(stream: &mut TcpStream, input: &mut BytesMut) -> io::Result<Option<(u8, Bytes)>> {
    loop {
        if let Some(prefix) = input.first_chunk::<PREFIX_BYTES>() {
            let length = u32::from_le_bytes(*prefix) as usize;
            if length == 0 || length > FRAME_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if input.len() >= PREFIX_BYTES + length {
                input.advance(PREFIX_BYTES);
                let mut body = input.split_to(length).freeze();
                return Ok(Some((body.get_u8(), body)));
            }
            input.reserve(PREFIX_BYTES + length - input.len());
        } else {
            input.reserve(64 << 10);
        }
        if stream.read_buf(input).await? == 0 {
            return Ok(None);
        }
    }
}

/// Serves the requests that another node passes on.
pub async fn serve(broker: &Arc<Broker>, sender: &Sender, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BytesMut::new();
    while let Some((kind, mut body)) = read_frame(&mut stream, &mut input).await? {
        let index = body.try_get_u64_le().map_err(io::Error::other)?;
        // Behind for too long, it simply acts on what it knows; the epochs are what counts.
        let _ = tokio::time::timeout(CATCH_UP_TIME, broker.in_step_with(index)).await;
        let mut out = vec![0; PREFIX_BYTES];
        out.put_u8(kind);
        match kind {
            WRITE => store(broker, sender, &body, &mut out).await.ok_or(io::ErrorKind::InvalidData)?,
            _ => execute(broker, &mut body, &mut out).await.ok_or(io::ErrorKind::InvalidData)?,
        }
        let length = (out.len() - PREFIX_BYTES) as u32;
        out[..PREFIX_BYTES].copy_from_slice(&length.to_le_bytes());
        stream.write_all(&out).await?;
    }
    Ok(())
}

/// Carries out a request. `None`: the bytes are none.
async fn execute(broker: &Arc<Broker>, body: &mut Bytes, out: &mut Vec<u8>) -> Option<()> {
    let asker = Asker { origin: Origin::Node, room_bytes: body.try_get_u32_le().ok()? as usize };
    let answer = match Request::parse(body) {
        Ok(request) => broker.execute(request, asker).await,
        Err(error) => Err(Refusal::new(ErrorCode::BadRequest, error.to_string())),
    };
    match answer {
        Ok(Answer::Moved) => out.put_u8(MOVED),
        Ok(Answer::Larger(bytes)) => {
            out.put_u8(LARGER);
            out.put_u64_le(bytes as u64);
        }
        answer => {
            out.put_u8(ANSWERED);
            let mut frame = Vec::new();
            answer_frame(answer, &mut frame);
            out.put_slice(frame.get(PREFIX_BYTES..).unwrap_or_default());
        }
    }
    Some(())
}

/// The answer as a whole frame.
fn answer_frame(answer: Result<Answer, Refusal>, out: &mut Vec<u8>) {
    match answer {
        Ok(Answer::Moved | Answer::Larger(_)) => {}
        Ok(Answer::Ok) => reply::put_ok(out),
        Ok(Answer::Empty) => reply::put_empty(out),
        Ok(Answer::Payload(record)) => reply::put_payload(out, &record),
        Ok(Answer::Json(json)) => reply::put_json(out, &json),
        Ok(Answer::Raw(body)) => reply::put_json(out, &body),
        Ok(Answer::Fetched(read)) => {
            reply::put_fetched_head(out, read.next_offset, read.count, read.bytes());
            read.chunks.iter().for_each(|chunk| out.put_slice(chunk));
        }
        Err(refusal) => reply::put_err(out, refusal.code, &refusal.text),
    }
}

/// One group of a write, on its way.
struct Group {
    accepted: Vec<(Arc<Topic>, Accepted)>,
    rest: Rest,
}

/// Stores the groups, waits until they are committed, and writes the outcomes. `None`: the bytes
/// are no groups.
async fn store(broker: &Arc<Broker>, sender: &Sender, mut body: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let generation = body.try_get_u64_le().ok()?;
    let mut groups = Vec::new();
    while !body.is_empty() {
        let name_bytes = body.try_get_u16_le().ok()? as usize;
        let (name, rest) = body.split_at_checked(name_bytes)?;
        body = rest;
        let at = take_at(&mut body)?;
        let take = if body.try_get_u8().ok()? == 1 { Take::AllOrNone } else { Take::UpToLimit };
        let records_bytes = body.try_get_u32_le().ok()? as usize;
        let (records, rest) = body.split_at_checked(records_bytes)?;
        body = rest;
        let records: Vec<&[u8]> = Records::parse(records).ok()?.iter().collect();
        let name = std::str::from_utf8(name).ok()?;
        let try_append = |topic: &Arc<Topic>, records: &[&[u8]]| {
            // Held meanwhile: nothing newer of the sender comes in between.
            let _current = sender.enter(generation).ok_or(Blocked::OtherSegment)?;
            try_append_in(broker, topic, at, records, take)
        };
        groups.push(append(broker, name, &records, try_append).await);
    }
    // All are on their way before the first one is waited for.
    groups.iter().flat_map(|group| &group.accepted).for_each(|(_, accepted)| accepted.segment.start_writing());
    for group in groups {
        put_written(&settle(broker, group).await, out);
    }
    Some(())
}

/// Appends as much as this node takes now; it never waits for another leader.
async fn append(
    broker: &Broker,
    name: &str,
    records: &[&[u8]],
    try_append: impl Fn(&Arc<Topic>, &[&[u8]]) -> Result<Accepted, Blocked>,
) -> Group {
    let mut group = Group { accepted: Vec::new(), rest: Rest::Nothing };
    let mut left = records;
    while !left.is_empty() {
        let Some(topic) = broker.topics.get(name) else {
            group.rest = Rest::Refused(Refusal::unknown_topic(name));
            break;
        };
        match try_append(&topic, left) {
            Ok(accepted) => {
                left = &left[accepted.count as usize..];
                group.accepted.push((topic, accepted));
            }
            Err(Blocked::Pool) => broker.store.pool_available().await,
            Err(Blocked::Refused(refusal)) => {
                group.rest = Rest::Refused(refusal);
                break;
            }
            Err(_) => {
                group.rest = Rest::Moved;
                break;
            }
        }
    }
    broker.counters.add_records((records.len() - left.len()) as u64);
    group
}

async fn settle(broker: &Arc<Broker>, group: Group) -> Written {
    let first_offset = group.accepted.first().map_or(0, |(_, accepted)| accepted.base_offset + accepted.first_index);
    let mut written = Written { first_offset, stored: 0, rest: group.rest };
    let mut accepted = group.accepted.into_iter();
    while let Some((topic, Accepted { segment, first_index, count, .. })) = accepted.next() {
        let Err(error) = segment.wait_committed(first_index + count).await else {
            written.stored += count as u32;
            continue;
        };
        written.stored += segment.acknowledged_end().saturating_sub(first_index).min(count) as u32;
        // Of records in a later segment the failure says nothing.
        let refusal = if accepted.len() == 0 { error.clone().into() } else { unknown_outcome() };
        written.rest = Rest::Refused(refusal);
        if error.ends_segment() {
            rollover::start(broker, &topic, &segment, Some(&error));
        }
        break;
    }
    written
}

fn put_written(written: &Written, out: &mut Vec<u8>) {
    out.put_u64_le(written.first_offset);
    out.put_u32_le(written.stored);
    match &written.rest {
        Rest::Nothing => out.put_u8(REST_NONE),
        Rest::Moved => out.put_u8(REST_MOVED),
        Rest::Refused(refusal) => {
            out.put_u8(REST_REFUSED);
            out.put_u8(refusal.code.name().len() as u8);
            out.put_slice(refusal.code.name().as_bytes());
            out.put_u32_le(refusal.text.len() as u32);
            out.put_slice(refusal.text.as_bytes());
        }
    }
}

fn decode_written(mut body: Bytes) -> Option<Vec<Written>> {
    let mut all = Vec::new();
    while !body.is_empty() {
        let first_offset = body.try_get_u64_le().ok()?;
        let stored = body.try_get_u32_le().ok()?;
        let rest = match body.try_get_u8().ok()? {
            REST_NONE => Rest::Nothing,
            REST_MOVED => Rest::Moved,
            _ => Rest::Refused(decode_refusal(&mut body)?),
        };
        all.push(Written { first_offset, stored, rest });
    }
    Some(all)
}

fn decode_refusal(body: &mut Bytes) -> Option<Refusal> {
    let code_bytes = body.try_get_u8().ok()? as usize;
    if code_bytes > body.len() {
        return None;
    }
    let code = body.split_to(code_bytes);
    let code = std::str::from_utf8(&code).ok()?.parse().unwrap_or(ErrorCode::Internal);
    let text_bytes = body.try_get_u32_le().ok()? as usize;
    if text_bytes > body.len() {
        return None;
    }
    let text = body.split_to(text_bytes);
    Some(Refusal::new(code, String::from_utf8_lossy(&text).into_owned()))
}

/// The refusal for records of which nobody knows whether they are stored.
pub fn unknown_outcome() -> Refusal {
    Refusal::new(ErrorCode::Timeout, "the topic's leader was lost before it answered; the records may have been stored")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_survive_the_wire() {
        let all = vec![
            Written { first_offset: 7, stored: 3, rest: Rest::Nothing },
            Written { first_offset: 0, stored: 0, rest: Rest::Moved },
            Written { first_offset: 9, stored: 1, rest: Rest::Refused(Refusal::new(ErrorCode::DiskFull, "full")) },
        ];
        let mut bytes = Vec::new();
        all.iter().for_each(|written| put_written(written, &mut bytes));
        assert_eq!(decode_written(bytes.into()), Some(all));
    }
}
