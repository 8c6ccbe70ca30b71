//! Replies: `OK`, `OK <payload>`, `EMPTY`, `ERR <Code> <text>`, or bare JSON.

use bytes::BufMut;

use super::error_code::ErrorCode;
use super::frame::{put_frame, put_prefix};
use super::records::{BadRecords, Records};

/// The whole frame of a plain `OK`.
const OK_FRAME: [u8; 6] = *b"\x02\0\0\0OK";

/// A reply, borrowed from its frame's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply<'a> {
    /// Done, with nothing more to say.
    Ok,
    /// Done, and this came back (the rest of the frame, byte for byte).
    Payload(&'a [u8]),
    /// `GET` found no record.
    Empty,
    /// The request failed.
    Err {
        /// Which of the stable codes.
        code: ErrorCode,
        /// A text for people.
        text: &'a str,
    },
    /// JSON (`STATE`, `METRICS`, `TOPICS`).
    Json(&'a [u8]),
}

/// A reply that is none of the known forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The body starts with no known word.
    #[error("the reply is neither OK, EMPTY, ERR nor JSON")]
    Unknown,
    /// The offsets or counts in an `OK` are missing.
    #[error("the reply to {0} lacks its numbers")]
    Numbers(&'static str),
    /// The record list of a `FETCH` is damaged.
    #[error(transparent)]
    Records(#[from] BadRecords),
}

impl<'a> Reply<'a> {
    /// Parses the body of a frame.
    #[inline]
    pub fn parse(body: &'a [u8]) -> Result<Self, ReplyError> {
        match body {
            b"OK" => Ok(Reply::Ok),
            [b'O', b'K', b' ', payload @ ..] => Ok(Reply::Payload(payload)),
            b"EMPTY" => Ok(Reply::Empty),
            [b'E', b'R', b'R', b' ', text @ ..] => Ok(parse_err(text)),
            [b'{' | b'[', ..] => Ok(Reply::Json(body)),
            _ => Err(ReplyError::Unknown),
        }
    }

    /// Writes the reply as one frame.
    pub fn encode(&self, out: &mut impl BufMut) {
        match *self {
            Reply::Ok => put_ok(out),
            Reply::Payload(payload) => put_payload(out, payload),
            Reply::Empty => put_frame(out, b"EMPTY"),
            Reply::Err { code, text } => put_err(out, code, text),
            Reply::Json(json) => put_frame(out, json),
        }
    }
}

/// An unknown code (of a newer broker) is kept whole in the text.
fn parse_err(text: &[u8]) -> Reply<'_> {
    let text = std::str::from_utf8(text).unwrap_or("(the text is not UTF-8)");
    let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
    match name.parse() {
        Ok(code) => Reply::Err { code, text: rest },
        Err(()) => Reply::Err { code: ErrorCode::Internal, text },
    }
}

/// Writes `OK`.
#[inline]
pub fn put_ok(out: &mut impl BufMut) {
    out.put_slice(&OK_FRAME);
}

/// Writes `OK <payload>`.
pub fn put_payload(out: &mut impl BufMut, payload: &[u8]) {
    put_payload_head(out, payload.len());
    out.put_slice(payload);
}

/// Writes what comes before so many bytes of payload in `OK <payload>`.
pub fn put_payload_head(out: &mut impl BufMut, payload_bytes: usize) {
    put_prefix(out, 3 + payload_bytes);
    out.put_slice(b"OK ");
}

/// Writes `EMPTY`.
pub fn put_empty(out: &mut impl BufMut) {
    put_frame(out, b"EMPTY");
}

/// Writes `ERR <Code> <text>`.
pub fn put_err(out: &mut impl BufMut, code: ErrorCode, text: &str) {
    put_prefix(out, 4 + code.name().len() + 1 + text.len());
    out.put_slice(b"ERR ");
    out.put_slice(code.name().as_bytes());
    out.put_slice(b" ");
    out.put_slice(text.as_bytes());
}

/// Writes bare JSON.
pub fn put_json(out: &mut impl BufMut, json: &[u8]) {
    put_frame(out, json);
}

/// Writes the reply to `APPEND`: `OK <first offset> <count>`.
pub fn put_appended(out: &mut impl BufMut, first_offset: u64, count: u64) {
    let (first_offset, count) = (Decimal::new(first_offset), Decimal::new(count));
    put_prefix(out, 4 + first_offset.as_bytes().len() + count.as_bytes().len());
    out.put_slice(b"OK ");
    out.put_slice(first_offset.as_bytes());
    out.put_slice(b" ");
    out.put_slice(count.as_bytes());
}

/// Writes the head of the reply to `FETCH`, `OK <next offset> <count>\n`. The caller writes
/// `records_bytes` bytes of records behind it, as they lie in the store.
pub fn put_fetched_head(out: &mut impl BufMut, next_offset: u64, count: u64, records_bytes: usize) {
    let (next_offset, count) = (Decimal::new(next_offset), Decimal::new(count));
    put_prefix(out, 5 + next_offset.as_bytes().len() + count.as_bytes().len() + records_bytes);
    out.put_slice(b"OK ");
    out.put_slice(next_offset.as_bytes());
    out.put_slice(b" ");
    out.put_slice(count.as_bytes());
    out.put_slice(b"\n");
}

/// What `APPEND` answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record.
    pub first_offset: u64,
    /// How many records were stored.
    pub count: u64,
}

impl Appended {
    /// Parses the payload of the reply to `APPEND`.
    pub fn parse(payload: &[u8]) -> Result<Self, ReplyError> {
        let (first_offset, count) = two_numbers(payload).ok_or(ReplyError::Numbers("APPEND"))?;
        Ok(Appended { first_offset, count })
    }
}

/// What `FETCH` answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetched<'a> {
    /// Offset to ask for next.
    pub next_offset: u64,
    /// The records.
    pub records: Records<'a>,
}

impl<'a> Fetched<'a> {
    /// Offset of the first record, or of the next one to come if there is none.
    pub fn first_offset(&self) -> u64 {
        self.next_offset.saturating_sub(self.records.len())
    }

    /// Parses the payload of the reply to `FETCH`.
    pub fn parse(payload: &'a [u8]) -> Result<Self, ReplyError> {
        const NUMBERS: ReplyError = ReplyError::Numbers("FETCH");
        let head_bytes = payload.iter().position(|&byte| byte == b'\n').ok_or(NUMBERS)?;
        let (next_offset, count) = two_numbers(&payload[..head_bytes]).ok_or(NUMBERS)?;
        let records = Records::parse(&payload[head_bytes + 1..])?;
        if records.len() == count { Ok(Fetched { next_offset, records }) } else { Err(NUMBERS) }
    }
}

fn two_numbers(text: &[u8]) -> Option<(u64, u64)> {
    let (first, second) = std::str::from_utf8(text).ok()?.split_once(' ')?;
    Some((super::command::digits(first)?, super::command::digits(second)?))
}

/// A number as text, without an allocation.
struct Decimal {
    digits: [u8; 20],
    start: usize,
}

impl Decimal {
    fn new(mut number: u64) -> Self {
        let mut decimal = Decimal { digits: [b'0'; 20], start: 20 };
        loop {
            decimal.start -= 1;
            decimal.digits[decimal.start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return decimal;
            }
        }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}
