//! Requests: parsed from, and borrowed from, the body of one frame.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use bytes::BufMut;

use super::frame::{put_frame, put_prefix};
use super::name::{as_name, split_name};
use super::records::{BadRecords, Records};
use super::settings::{SettingError, TopicSettings, clip};
use super::verb::Verb;

/// One request. Names were checked, numbers parsed, record lists walked through; whether the
/// topic exists is for others to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// Creates a topic.
    Register {
        /// Its name.
        topic: &'a str,
        /// What was asked for.
        settings: TopicSettings,
    },
    /// Appends one record.
    Put {
        /// To which topic.
        topic: &'a str,
        /// The rest of the frame, byte for byte.
        payload: &'a [u8],
    },
    /// Reads the next record of a cursor.
    Get {
        /// From which topic.
        topic: &'a str,
        /// Whose cursor; `None` is the shared one.
        group: Option<&'a str>,
    },
    /// Describes a topic.
    State {
        /// Which.
        topic: &'a str,
    },
    /// Describes the node.
    Metrics,
    /// Appends many records as one batch, all or none.
    Append {
        /// To which topic.
        topic: &'a str,
        /// At least one record.
        records: Records<'a>,
    },
    /// Reads by offset.
    Fetch {
        /// From which topic.
        topic: &'a str,
        /// First record that is wanted.
        offset: u64,
        /// At most so many records.
        max_records: u64,
        /// At most about so many bytes (one record is always allowed).
        max_bytes: Option<u64>,
        /// How long to wait for data at the tail; `None` is not at all.
        wait_ms: Option<u64>,
    },
    /// Moves a cursor.
    Seek {
        /// Of which topic.
        topic: &'a str,
        /// Whose cursor.
        group: &'a str,
        /// Where to.
        to: SeekTo,
    },
    /// Lists the topics.
    Topics,
    /// Removes a topic and its data.
    Delete {
        /// Which.
        topic: &'a str,
    },
    /// Lets a node go for good: it gets no new segments, and is no member any more once others hold
    /// copies of what it holds.
    Leave {
        /// Which node.
        node_id: u64,
    },
    /// Is anybody there?
    Ping,
}

/// Where a `SEEK` goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeekTo {
    /// To the first retained record.
    First,
    /// Behind the last record: the next one to come is read.
    Last,
    /// To this offset.
    Offset(u64),
}

/// A request that cannot be understood: `ERR BadRequest` with this text. The connection stays
/// usable, for the frame itself was sound.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No such verb.
    #[error("{}", unknown_verb(.0))]
    UnknownVerb(String),
    /// Arguments are missing, or there are too many.
    #[error("usage: {}", .0.usage())]
    Usage(Verb),
    /// Not a name that a topic or group can have.
    #[error("a {what} name is 1 to 249 of the characters A-Z a-z 0-9 . _ -")]
    BadName {
        /// `topic` or `group`.
        what: &'static str,
    },
    /// An argument that should be a number.
    #[error("{what} must be a whole number; usage: {}", .verb.usage())]
    BadNumber {
        /// Which argument.
        what: &'static str,
        /// Of which verb.
        verb: Verb,
    },
    /// A setting of `REGISTER`.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The record list of `APPEND`.
    #[error("APPEND: {0}")]
    Records(#[from] BadRecords),
    /// `APPEND` without any record.
    #[error("APPEND: the list holds no record")]
    NoRecords,
}

impl<'a> Request<'a> {
    /// Parses the body of a frame.
    ///
    /// `PUT` comes first and costs a few nanoseconds: brokers do this millions of times a second.
    #[inline]
    pub fn parse(body: &'a [u8]) -> Result<Self, RequestError> {
        match body {
            [b'P', b'U', b'T', b' ', rest @ ..] => parse_put(rest),
            [b'A', b'P', b'P', b'E', b'N', b'D', b' ', rest @ ..] => parse_append(rest),
            _ => parse_text(body),
        }
    }

    /// Its verb.
    pub fn verb(&self) -> Verb {
        match self {
            Request::Register { .. } => Verb::Register,
            Request::Put { .. } => Verb::Put,
            Request::Get { .. } => Verb::Get,
            Request::State { .. } => Verb::State,
            Request::Metrics => Verb::Metrics,
            Request::Append { .. } => Verb::Append,
            Request::Fetch { .. } => Verb::Fetch,
            Request::Seek { .. } => Verb::Seek,
            Request::Topics => Verb::Topics,
            Request::Delete { .. } => Verb::Delete,
            Request::Leave { .. } => Verb::Leave,
            Request::Ping => Verb::Ping,
        }
    }

    /// Writes the request as one frame. Names are taken as they are; the other side checks them.
    pub fn encode(&self, out: &mut impl BufMut) {
        match *self {
            Request::Put { topic, payload } => put_put(out, topic, payload),
            Request::Append { topic, records } => {
                put_append_head(out, topic, records.as_bytes().len());
                out.put_slice(records.as_bytes());
            }
            _ => put_frame(out, self.to_string().as_bytes()),
        }
    }
}

impl fmt::Display for Request<'_> {
    /// The text of the request; payloads and records are left out, for they are never logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verb().name())?;
        match *self {
            Request::Register { topic, settings } => write!(f, " {topic}{settings}"),
            Request::Get { topic, group: Some(group) } => write!(f, " {topic} {group}"),
            Request::Put { topic, .. }
            | Request::Append { topic, .. }
            | Request::Get { topic, group: None }
            | Request::State { topic }
            | Request::Delete { topic } => write!(f, " {topic}"),
            Request::Fetch { topic, offset, max_records, max_bytes, wait_ms } => {
                write!(f, " {topic} {offset} {max_records}")?;
                match (max_bytes, wait_ms) {
                    (None, None) => Ok(()),
                    (Some(max_bytes), None) => write!(f, " {max_bytes}"),
                    (max_bytes, Some(wait_ms)) => {
                        write!(f, " {} {wait_ms}", max_bytes.unwrap_or(DEFAULT_FETCH_BYTES))
                    }
                }
            }
            Request::Leave { node_id } => write!(f, " {node_id}"),
            Request::Seek { topic, group, to } => write!(f, " {topic} {group} {to}"),
            Request::Metrics | Request::Topics | Request::Ping => Ok(()),
        }
    }
}

/// What `FETCH` returns at most, about, when the request does not say: 1 MiB.
pub const DEFAULT_FETCH_BYTES: u64 = 1 << 20;

impl fmt::Display for SeekTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SeekTo::First => f.write_str("first"),
            SeekTo::Last => f.write_str("last"),
            SeekTo::Offset(offset) => write!(f, "{offset}"),
        }
    }
}

/// Writes the frame of a `PUT`.
#[inline]
pub fn put_put(out: &mut impl BufMut, topic: &str, payload: &[u8]) {
    put_prefix(out, put_put_bytes(topic, payload.len()));
    out.put_slice(b"PUT ");
    out.put_slice(topic.as_bytes());
    out.put_u8(b' ');
    out.put_slice(payload);
}

/// The payload of a frame that is a `PUT` to exactly this topic, found by one comparison: a
/// broker that remembers the topic of the frame before needs neither to check the name again nor
/// to look it up.
#[inline]
pub fn put_payload<'a>(body: &'a [u8], topic: &str) -> Option<&'a [u8]> {
    body.strip_prefix(b"PUT ")?.strip_prefix(topic.as_bytes())?.strip_prefix(b" ")
}

/// Length of the body of a `PUT`.
#[inline]
pub fn put_put_bytes(topic: &str, payload_bytes: usize) -> usize {
    b"PUT ".len() + topic.len() + 1 + payload_bytes
}

/// Writes prefix and first line of an `APPEND`; the caller writes `records_bytes` of records.
#[inline]
pub fn put_append_head(out: &mut impl BufMut, topic: &str, records_bytes: usize) {
    put_prefix(out, b"APPEND ".len() + topic.len() + 1 + records_bytes);
    out.put_slice(b"APPEND ");
    out.put_slice(topic.as_bytes());
    out.put_u8(b'\n');
}

/// Cuts `<topic><separator><rest>`; the separator may not stand in a name, so the end of the
/// name is where it must be.
#[inline]
fn split_topic(bytes: &[u8], separator: u8, verb: Verb) -> Result<(&str, &[u8]), RequestError> {
    match split_name(bytes) {
        Some((topic, [first, rest @ ..])) if *first == separator => Ok((topic, rest)),
        Some((_, [])) => Err(RequestError::Usage(verb)),
        None if bytes.is_empty() => Err(RequestError::Usage(verb)),
        _ => Err(RequestError::BadName { what: "topic" }),
    }
}

#[inline]
fn parse_put(rest: &[u8]) -> Result<Request<'_>, RequestError> {
    let (topic, payload) = split_topic(rest, b' ', Verb::Put)?;
    Ok(Request::Put { topic, payload })
}

fn parse_append(rest: &[u8]) -> Result<Request<'_>, RequestError> {
    let (topic, list) = split_topic(rest, b'\n', Verb::Append)?;
    let records = Records::parse(list)?;
    if records.is_empty() {
        return Err(RequestError::NoRecords);
    }
    Ok(Request::Append { topic, records })
}

/// Everything but `PUT` and `APPEND`: short, rare, and text.
fn parse_text(body: &[u8]) -> Result<Request<'_>, RequestError> {
    let word_bytes = body.iter().position(|&byte| byte == b' ').unwrap_or(body.len());
    let word = std::str::from_utf8(&body[..word_bytes]).unwrap_or("");
    let verb = Verb::from_name(word).ok_or_else(|| RequestError::UnknownVerb(word.into()))?;
    let mut args = Args { verb, rest: body.get(word_bytes + 1..) };
    let request = match verb {
        Verb::Register => Request::Register { topic: args.name("topic")?, settings: args.settings()? },
        Verb::Get => Request::Get { topic: args.name("topic")?, group: args.optional_name("group")? },
        Verb::State => Request::State { topic: args.name("topic")? },
        Verb::Delete => Request::Delete { topic: args.name("topic")? },
        Verb::Fetch => Request::Fetch {
            topic: args.name("topic")?,
            offset: args.number("the offset")?,
            max_records: args.number("max records")?,
            max_bytes: args.optional_number("max bytes")?,
            wait_ms: args.optional_number("wait ms")?,
        },
        Verb::Seek => Request::Seek { topic: args.name("topic")?, group: args.name("group")?, to: args.seek_to()? },
        Verb::Leave => Request::Leave { node_id: args.number("the node id")? },
        Verb::Metrics => Request::Metrics,
        Verb::Topics => Request::Topics,
        Verb::Ping => Request::Ping,
        // Both need a space behind them, and then never come here.
        Verb::Put | Verb::Append => return Err(RequestError::Usage(verb)),
    };
    args.end()?;
    Ok(request)
}

/// The arguments that are still to be read.
struct Args<'a> {
    verb: Verb,
    rest: Option<&'a [u8]>,
}

impl<'a> Args<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let word_bytes = rest.iter().position(|&byte| byte == b' ').unwrap_or(rest.len());
        self.rest = rest.get(word_bytes + 1..);
        Some(&rest[..word_bytes])
    }

    fn required(&mut self) -> Result<&'a [u8], RequestError> {
        self.next().ok_or(RequestError::Usage(self.verb))
    }

    fn name(&mut self, what: &'static str) -> Result<&'a str, RequestError> {
        as_name(self.required()?).ok_or(RequestError::BadName { what })
    }

    fn optional_name(&mut self, what: &'static str) -> Result<Option<&'a str>, RequestError> {
        if self.rest.is_none() { Ok(None) } else { self.name(what).map(Some) }
    }

    fn number(&mut self, what: &'static str) -> Result<u64, RequestError> {
        let bad = RequestError::BadNumber { what, verb: self.verb };
        let word = std::str::from_utf8(self.required()?).map_err(|_| bad.clone())?;
        digits(word).ok_or(bad)
    }

    fn optional_number(&mut self, what: &'static str) -> Result<Option<u64>, RequestError> {
        if self.rest.is_none() { Ok(None) } else { self.number(what).map(Some) }
    }

    fn seek_to(&mut self) -> Result<SeekTo, RequestError> {
        match self.required()? {
            b"first" => Ok(SeekTo::First),
            b"last" => Ok(SeekTo::Last),
            word => std::str::from_utf8(word)
                .ok()
                .and_then(digits)
                .map(SeekTo::Offset)
                .ok_or(RequestError::BadNumber { what: "the offset", verb: self.verb }),
        }
    }

    fn settings(&mut self) -> Result<TopicSettings, RequestError> {
        let mut settings = TopicSettings::default();
        while let Some(word) = self.next() {
            settings.set(&String::from_utf8_lossy(word))?;
        }
        Ok(settings)
    }

    fn end(&self) -> Result<(), RequestError> {
        if self.rest.is_none() { Ok(()) } else { Err(RequestError::Usage(self.verb)) }
    }
}

/// A number of nothing but digits (`u64::from_str` would take a sign).
pub(super) fn digits<T: FromStr>(word: &str) -> Option<T> {
    if word.bytes().all(|byte| byte.is_ascii_digit()) { word.parse().ok() } else { None }
}

/// Names the likely cause when a person typed the request.
fn unknown_verb(word: &str) -> String {
    let upper = word.to_ascii_uppercase();
    if Verb::from_name(&upper).is_some() {
        return format!("verbs are upper case: {upper}");
    }
    let mut text = format!("there is no verb `{}`; there are", clip(word));
    for verb in Verb::ALL {
        // Writing to a `String` cannot fail.
        let _ = write!(text, " {}", verb.name());
    }
    text
}
