//! What the nodes say to each other on data connections. Between nodes of one version only.
//!
//! The first byte of a connection says what it is for. On a replication stream and for calls,
//! everything after it comes in frames:
//!
//! ```text
//! frame      │ u32 length of the rest │ u8 kind │ ...
//! Open       JSON: a segment that this leader writes; answered by Position unless `from` fits
//! Append     │ topic id │ number │ epoch │ committed │ whole batches as they lie ...
//! Commit     │ topic id │ number │ epoch │ committed │
//! Whole      │ topic id │ number │ epoch │ length │ token │   clears a doubt
//! Stored     │ topic id │ number │ epoch │ stored │           cumulative
//! Position   │ topic id │ number │ epoch │ next │ token │     send from `next` on; token ≠ 0: in doubt
//! Refused    │ topic id │ number │ epoch │ promised │
//! Ping       nothing: is the stream alive? The same comes back.
//! Call       │ u32 JSON bytes │ JSON │ whole batches ...      a request, or the reply to one
//! ```
//! Numbers are little-endian, eight bytes each.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::quorum::Answer;
use crate::metadata::state::{Replica, SegmentAt};
use crate::store::{Certainty, SegmentSpec, Standing};
use crate::types::{SegmentUid, Tier};

/// Bytes of the length in front of a frame.
pub const PREFIX_BYTES: usize = 4;
/// Bytes of an `Append` before its batches, length and kind included.
pub const APPEND_HEAD_BYTES: usize = PREFIX_BYTES + 1 + 4 * 8;
/// Longest frame that is taken.
const FRAME_BYTES_MAX: usize = 256 << 20;

/// What a data connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// The leader's batches to a replica, and the acknowledgements back.
    Replicate = b'R',
    /// Requests of recoveries and repairs.
    Call = b'C',
    /// Requests of clients that another node passes on.
    Forward = b'F',
}

impl Purpose {
    /// Of the first byte.
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Purpose::Replicate, Purpose::Call, Purpose::Forward].into_iter().find(|purpose| *purpose as u8 == byte)
    }
}

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the other node sent what is no message")]
pub struct BadMessage;

/// A segment as its leader announces it to a replica, whose metadata may not show it yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The segment.
    pub spec: Spec,
    /// Its set.
    pub replicas: Vec<Replica>,
    /// Index of the first record that will be sent; `None`: tell me where you are.
    pub from: Option<u64>,
}

/// A [`SegmentSpec`] as it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    uid: SegmentUid,
    epoch: u64,
    tier: Tier,
    segment_entries: u64,
    segment_bytes: u64,
}

impl From<SegmentSpec> for Spec {
    fn from(spec: SegmentSpec) -> Self {
        let SegmentSpec { uid, epoch, tier, segment_entries, segment_bytes } = spec;
        Spec { uid, epoch, tier, segment_entries, segment_bytes }
    }
}

impl From<Spec> for SegmentSpec {
    fn from(spec: Spec) -> Self {
        let Spec { uid, epoch, tier, segment_entries, segment_bytes } = spec;
        SegmentSpec { uid, epoch, tier, segment_entries, segment_bytes }
    }
}

/// One message of a replication stream. `Append` borrows nothing: its batches share the read buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// See the drawing above.
    Open(Open),
    /// Batches, and how far the segment is committed.
    Append {
        /// Segment and the leader's epoch.
        at: SegmentAt,
        /// The leader's committed tail.
        committed: u64,
        /// Whole batches.
        batches: Bytes,
    },
    /// How far the segment is committed.
    Commit {
        /// Segment and the leader's epoch.
        at: SegmentAt,
        /// The leader's committed tail.
        committed: u64,
    },
    /// Everything that was ever assigned has been sent; whoever has it is not in doubt.
    Whole {
        /// Segment and the leader's epoch.
        at: SegmentAt,
        /// Everything that was assigned.
        length: u64,
        /// As in the `Position` that told of the doubt.
        token: u64,
    },
    /// Stored in the segment's tier, from the first record on.
    Stored {
        /// Segment and the leader's epoch.
        at: SegmentAt,
        /// First index that is not stored.
        stored: u64,
    },
    /// Where the replica is.
    Position {
        /// Segment and the leader's epoch.
        at: SegmentAt,
        /// The index that is to be sent next; everything before it is stored.
        next: u64,
        /// Not 0: the copy is in doubt, in this run of the replica.
        token: u64,
    },
    /// Is the stream alive? The same comes back.
    Ping,
    /// The replica takes nothing of this epoch (any more).
    Refused {
        /// Segment and the leader's epoch.
        at: SegmentAt,
        /// What it has promised, 0 if it refuses for another reason.
        promised: u64,
    },
}

const OPEN: u8 = 1;
const APPEND: u8 = 2;
const COMMIT: u8 = 3;
const WHOLE: u8 = 4;
const STORED: u8 = 5;
const POSITION: u8 = 6;
const REFUSED: u8 = 7;
const CALL: u8 = 8;
const PING: u8 = 9;

impl Message {
    /// Writes the message as one frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Message::Open(open) => {
                // Plain data with string keys: it always has a JSON form.
                let json = serde_json::to_vec(open).unwrap_or_default();
                out.put_u32_le(1 + json.len() as u32);
                out.put_u8(OPEN);
                out.put_slice(&json);
            }
            Message::Append { at, committed, batches } => {
                out.put_slice(&append_head(*at, *committed, batches.len()));
                out.put_slice(batches);
            }
            Message::Ping => {
                out.put_u32_le(1);
                out.put_u8(PING);
            }
            Message::Commit { at, committed } => put_numbers(out, COMMIT, *at, &[*committed]),
            Message::Whole { at, length, token } => put_numbers(out, WHOLE, *at, &[*length, *token]),
            Message::Stored { at, stored } => put_numbers(out, STORED, *at, &[*stored]),
            Message::Position { at, next, token } => put_numbers(out, POSITION, *at, &[*next, *token]),
            Message::Refused { at, promised } => put_numbers(out, REFUSED, *at, &[*promised]),
        }
    }

    fn decode(kind: u8, mut body: Bytes) -> Result<Self, BadMessage> {
        if kind == OPEN {
            return serde_json::from_slice(&body).map(Message::Open).map_err(|_| BadMessage);
        }
        if kind == PING {
            return Ok(Message::Ping);
        }
        let at = take_at(&mut body).ok_or(BadMessage)?;
        let first = number(&mut body)?;
        Ok(match kind {
            APPEND => Message::Append { at, committed: first, batches: body },
            COMMIT => Message::Commit { at, committed: first },
            WHOLE => Message::Whole { at, length: first, token: number(&mut body)? },
            STORED => Message::Stored { at, stored: first },
            POSITION => Message::Position { at, next: first, token: number(&mut body)? },
            REFUSED => Message::Refused { at, promised: first },
            _ => return Err(BadMessage),
        })
    }
}

/// Head of an `Append` with `batches_bytes` of batches behind it.
pub fn append_head(at: SegmentAt, committed: u64, batches_bytes: usize) -> [u8; APPEND_HEAD_BYTES] {
    let mut head = [0; APPEND_HEAD_BYTES];
    let mut out = &mut head[..];
    out.put_u32_le((APPEND_HEAD_BYTES - PREFIX_BYTES + batches_bytes) as u32);
    out.put_u8(APPEND);
    put_at(&mut out, at);
    out.put_u64_le(committed);
    head
}

/// Writes what a message is about: segment and epoch.
pub(super) fn put_at(out: &mut impl BufMut, at: SegmentAt) {
    out.put_u64_le(at.uid.topic_id);
    out.put_u64_le(at.uid.number);
    out.put_u64_le(at.epoch);
}

/// What [`put_at`] wrote.
pub(super) fn take_at(body: &mut impl Buf) -> Option<SegmentAt> {
    let mut number = || body.try_get_u64_le().ok();
    let uid = SegmentUid { topic_id: number()?, number: number()? };
    Some(SegmentAt { uid, epoch: number()? })
}

fn put_numbers(out: &mut Vec<u8>, kind: u8, at: SegmentAt, numbers: &[u64]) {
    out.put_u32_le(1 + 8 * (3 + numbers.len() as u32));
    out.put_u8(kind);
    put_at(out, at);
    numbers.iter().for_each(|number| out.put_u64_le(*number));
}

fn number(body: &mut Bytes) -> Result<u64, BadMessage> {
    body.try_get_u64_le().map_err(|_| BadMessage)
}

/// Cuts the next frame off the front of what was read. `None`: it is not complete yet.
fn next_frame(input: &mut BytesMut) -> Result<Option<(u8, Bytes)>, BadMessage> {
    let Some(prefix) = input.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let length = u32::from_le_bytes(*prefix) as usize;
    if length == 0 || length > FRAME_BYTES_MAX {
        return Err(BadMessage);
    }
    if input.len() < PREFIX_BYTES + length {
        // Room for all of it at once, so that a large frame is not moved again and again.
        input.reserve(PREFIX_BYTES + length - input.len());
        return Ok(None);
    }
    input.advance(PREFIX_BYTES);
    let mut body = input.split_to(length).freeze();
    let kind = body.get_u8();
    Ok(Some((kind, body)))
}

/// The next message of a replication stream.
pub fn next_message(input: &mut BytesMut) -> Result<Option<Message>, BadMessage> {
    match next_frame(input)? {
        Some((kind, body)) => Message::decode(kind, body).map(Some),
        None => Ok(None),
    }
}

/// What a recovery or a repair asks of another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// Are you there?
    Ping,
    /// Promise to refuse older epochs, and tell the lengths.
    Fence {
        /// Segments, each with the recovery's epoch and the disk that the set names.
        segments: Vec<(Spec, String)>,
    },
    /// Whole batches from an index on.
    Read {
        /// The segment.
        spec: Spec,
        /// Index of the first record that is wanted.
        from: u64,
        /// About so many bytes.
        max_bytes: usize,
    },
    /// Store the batches that follow; the epoch of the spec is the recovery's.
    Copy {
        /// The segment.
        spec: Spec,
    },
}

/// What came of a [`Call`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallReply {
    /// Yes.
    Pong,
    /// One answer for each segment; `Err` names a newer epoch that was promised, or 0.
    Fenced(Vec<Result<FenceReply, u64>>),
    /// The batches follow; the numbers are their first index and the one after the last.
    Batches {
        /// Index of the first record.
        base_index: u64,
        /// Index after the last.
        end_index: u64,
    },
    /// Stored up to here, in the segment's tier.
    Stored {
        /// First index that is not stored.
        stored: u64,
        /// Bytes of the file.
        bytes: u64,
        /// Disk on which it is.
        disk_id: String,
    },
    /// It could not be done.
    Failed {
        /// Why.
        reason: String,
    },
}

/// An [`Answer`] as it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FenceReply {
    /// It never acknowledged more than this.
    Exact {
        /// Records.
        length: u64,
        /// Bytes of the file.
        bytes: u64,
    },
    /// It has this much and may have had more.
    AtLeast {
        /// Records.
        length: u64,
        /// Bytes of the file.
        bytes: u64,
    },
    /// Another disk than the one that was meant.
    Unknown,
}

impl From<Answer> for FenceReply {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Holds(Standing { length, bytes, certainty: Certainty::Exact }) => {
                FenceReply::Exact { length, bytes }
            }
            Answer::Holds(Standing { length, bytes, certainty: Certainty::AtLeast }) => {
                FenceReply::AtLeast { length, bytes }
            }
            Answer::Unknown => FenceReply::Unknown,
        }
    }
}

impl From<FenceReply> for Answer {
    fn from(reply: FenceReply) -> Self {
        match reply {
            FenceReply::Exact { length, bytes } => {
                Answer::Holds(Standing { length, bytes, certainty: Certainty::Exact })
            }
            FenceReply::AtLeast { length, bytes } => {
                Answer::Holds(Standing { length, bytes, certainty: Certainty::AtLeast })
            }
            FenceReply::Unknown => Answer::Unknown,
        }
    }
}

/// Writes a call, or the reply to one, with the batches behind it.
pub fn encode_call(call: &impl Serialize, batches: &[u8]) -> Vec<u8> {
    // Plain data with string keys: it always has a JSON form.
    let json = serde_json::to_vec(call).unwrap_or_default();
    let mut out = Vec::with_capacity(PREFIX_BYTES + 5 + json.len() + batches.len());
    out.put_u32_le((5 + json.len() + batches.len()) as u32);
    out.put_u8(CALL);
    out.put_u32_le(json.len() as u32);
    out.put_slice(&json);
    out.put_slice(batches);
    out
}

/// The next call or reply, and the batches behind it. `None`: it is not complete yet.
pub fn next_call<T: for<'a> Deserialize<'a>>(input: &mut BytesMut) -> Result<Option<(T, Bytes)>, BadMessage> {
    let Some((kind, mut body)) = next_frame(input)? else { return Ok(None) };
    let json_bytes = body.try_get_u32_le().map_err(|_| BadMessage)? as usize;
    if kind != CALL || json_bytes > body.len() {
        return Err(BadMessage);
    }
    let json = body.split_to(json_bytes);
    serde_json::from_slice(&json).map(|call| Some((call, body))).map_err(|_| BadMessage)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(topic_id: u64, number: u64, epoch: u64) -> SegmentAt {
        SegmentAt { uid: SegmentUid { topic_id, number }, epoch }
    }

    proptest! {
        #[test]
        fn messages_survive_the_wire_however_they_are_cut(
            a: u64, b: u64, c: u64, d: u64, e: u64, batches in proptest::collection::vec(any::<u8>(), 0..50), step in 1usize..40,
        ) {
            let at = at(a, b, c);
            let spec = Spec { uid: at.uid, epoch: c, tier: Tier::Synced, segment_entries: d, segment_bytes: e };
            let replicas = vec![Replica { node_id: d, disk_id: "disk".into() }];
            let messages = [
                Message::Open(Open { spec, replicas, from: Some(e) }),
                Message::Append { at, committed: d, batches: batches.into() },
                Message::Ping,
                Message::Commit { at, committed: d },
                Message::Whole { at, length: d, token: e },
                Message::Stored { at, stored: d },
                Message::Position { at, next: d, token: e },
                Message::Refused { at, promised: d },
            ];
            let mut bytes = Vec::new();
            messages.iter().for_each(|message| message.encode(&mut bytes));
            let (mut input, mut found) = (BytesMut::new(), Vec::new());
            for piece in bytes.chunks(step) {
                input.extend_from_slice(piece);
                while let Some(message) = next_message(&mut input).expect("whole messages") {
                    found.push(message);
                }
            }
            prop_assert_eq!(&found[..], &messages[..]);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = next_message(&mut BytesMut::from(&bytes[..]));
            let _ = next_call::<Call>(&mut BytesMut::from(&bytes[..]));
        }
    }

    #[test]
    fn calls_carry_their_batches() {
        let call = CallReply::Batches { base_index: 3, end_index: 9 };
        let mut input = BytesMut::from(&encode_call(&call, b"batches")[..]);
        let (found, batches) = next_call::<CallReply>(&mut input).expect("sound").expect("whole");
        assert_eq!((found, &batches[..]), (call, &b"batches"[..]));
    }
}
