//! What clients asked and what they were told: the only evidence that the checker looks at.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Instant;

/// Nanoseconds since some start that all threads of this process share.
pub type Nanos = u64;

/// Now, in the time of all histories.
pub fn now() -> Nanos {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_nanos() as Nanos
}

/// Names a record for ever: a producer never sends the same one twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    pub producer: u32,
    pub sequence: u64,
}

/// A record as it was read; `None` for bytes that no producer can have sent.
pub type Read = Option<Id>;

/// What a producer was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// `OK`, with the offset if the reply says it.
    Acked(Option<u64>),
    /// An `ERR` that promises that nothing was stored.
    Refused,
    /// No reply, or one that promises nothing.
    Unknown,
}

/// One record, sent once.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    pub id: Id,
    /// Records of one connection keep their order.
    pub connection: u32,
    pub asked_at: Nanos,
    /// When the outcome was known to the client.
    pub answered_at: Nanos,
    pub outcome: Outcome,
}

/// What a reader was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Records, the first of them at this offset. None: the reader is at the tail.
    Records { first: u64, records: Vec<Read> },
    /// The offset does not exist.
    OutOfRange,
}

/// One `FETCH` that was answered.
#[derive(Debug, Clone)]
pub struct Fetch {
    pub node: u64,
    pub asked_at: Nanos,
    pub answered_at: Nanos,
    /// Offset asked for.
    pub from: u64,
    pub answer: Answer,
}

/// One `GET` of a group that has one consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// A record.
    Record(Read),
    /// `EMPTY`.
    Nothing,
    /// No reply: the cursor may have moved past one record.
    Unknown,
}

/// Everything that happened to one topic.
#[derive(Debug, Default, Clone)]
pub struct History {
    pub sent: Vec<Sent>,
    pub fetches: Vec<Fetch>,
    /// By group, in order.
    pub deliveries: BTreeMap<String, Vec<Delivery>>,
    /// Errors that clients saw, by code (`Closed` and the like for connections), with their number.
    pub errors: BTreeMap<String, u64>,
}

impl History {
    /// Adds what another client saw.
    pub fn merge(&mut self, other: History) {
        self.sent.extend(other.sent);
        self.fetches.extend(other.fetches);
        self.deliveries.extend(other.deliveries);
        for (code, count) in other.errors {
            *self.errors.entry(code).or_default() += count;
        }
    }

    /// Number of acknowledged records.
    pub fn acked(&self) -> usize {
        self.sent.iter().filter(|sent| matches!(sent.outcome, Outcome::Acked(_))).count()
    }

    /// The longest time without any acknowledgement between the first and the last one, in ms.
    pub fn longest_pause_ms(&self) -> u64 {
        let acked = self.sent.iter().filter(|sent| matches!(sent.outcome, Outcome::Acked(_)));
        let mut times: Vec<Nanos> = acked.map(|sent| sent.answered_at).collect();
        times.sort_unstable();
        times.windows(2).map(|pair| (pair[1] - pair[0]) / 1_000_000).max().unwrap_or(0)
    }
}

/// The bytes of a record: its name, then as many bytes as its name says, which differ from record
/// to record.
pub fn encode(id: Id) -> Vec<u8> {
    let mut record = format!("{}.{}.", id.producer, id.sequence).into_bytes();
    let mut noise = (u64::from(id.producer) << 40 ^ id.sequence).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let length = record.len() + (noise >> 32) as usize % 300;
    while record.len() < length {
        // xorshift64: any generator whose bytes depend on the name will do.
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        record.extend_from_slice(&noise.to_le_bytes());
    }
    record
}

/// Which record these bytes are, if they are one, whole and unchanged.
pub fn decode(bytes: &[u8]) -> Read {
    let mut parts = bytes.splitn(3, |&byte| byte == b'.');
    let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse::<u64>().ok();
    let (producer, sequence) = (number()?, number()?);
    let id = Id { producer: u32::try_from(producer).ok()?, sequence };
    (encode(id) == bytes).then_some(id)
}

#[test]
fn a_record_that_was_changed_is_recognised() {
    for sequence in 0..200 {
        let id = Id { producer: 3, sequence };
        let record = encode(id);
        assert_eq!(decode(&record), Some(id));
        let mut flipped = record.clone();
        flipped[record.len() / 2] ^= 1;
        assert_ne!(decode(&flipped), Some(id));
        assert_ne!(decode(&record[..record.len() - 1]), Some(id));
    }
    assert_eq!(decode(b"something else"), None);
}
