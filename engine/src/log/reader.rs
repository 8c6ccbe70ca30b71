//! Reading by offset, across segments, up to the committed tail.

use std::sync::Arc;

use bytes::Bytes;

use super::forward;
use super::topic::{Chain, Link, Route, Topic};
use crate::broker::Broker;
use crate::error::Refusal;
use crate::exec;
use crate::protocol::ErrorCode;
use crate::types::SegmentUid;

/// Consecutive records as they lie in the store.
#[derive(Debug, Default)]
pub struct Read {
    /// Offset after the last of them; the offset asked for if there are none.
    pub next_offset: u64,
    /// How many.
    pub count: u64,
    /// Records, each `[u32 LE length][bytes]`.
    pub chunks: Vec<Bytes>,
}

impl Read {
    /// Bytes in all chunks.
    pub fn bytes(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }
}

/// Why nothing was read here.
#[derive(Debug)]
pub enum ReadError {
    /// This node does not know whether there is a record, or has no sound copy of it: another one
    /// is to be asked. `sealed`: any that has a copy; else the one that leads.
    Elsewhere {
        /// Number of the segment.
        number: u64,
        /// It is sealed.
        sealed: bool,
        /// What is said if nobody else can be asked.
        refusal: Refusal,
    },
    /// The offset lies past the tail as this node, which leads, knows it.
    PastTail(Refusal),
    /// Another node has the records; they are of so many bytes, more than there is room for.
    Larger(usize),
    /// Refused, whatever any node knows.
    Refused(Refusal),
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Elsewhere { refusal, .. } | ReadError::PastTail(refusal) | ReadError::Refused(refusal) => {
                refusal
            }
            ReadError::Larger(bytes) => {
                Refusal::new(ErrorCode::Overloaded, format!("there is no room for a reply of {bytes} bytes"))
            }
        }
    }
}

/// Reads on a thread that may block, since the disk may be involved.
pub async fn read(topic: &Arc<Topic>, offset: u64, max_records: u64, max_bytes: usize) -> Result<Read, ReadError> {
    // At the tail there is nothing to read, and it is where most readers are.
    if locate(&topic.chain(), offset)?.end_offset() == offset {
        return Ok(Read { next_offset: offset, ..Read::default() });
    }
    let topic = Arc::clone(topic);
    exec::spawn_blocking(move || read_blocking(&topic, offset, max_records, max_bytes))
        .await
        .unwrap_or_else(|_| Err(ReadError::Refused(Refusal::new(ErrorCode::Internal, "a read was given up"))))
}

/// As [`read`], from whichever node has the records.
pub async fn read_anywhere(broker: &Arc<Broker>, topic: &Arc<Topic>, limits: Limits) -> Result<Read, ReadError> {
    match read(topic, limits.offset, limits.max_records, limits.max_bytes).await {
        Err(ReadError::Elsewhere { number, sealed: true, refusal }) => {
            read_elsewhere(broker, topic, number, limits, refusal).await
        }
        result => result,
    }
}

/// What is to be read.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// First record.
    pub offset: u64,
    /// At most so many records.
    pub max_records: u64,
    /// About so many bytes; one record is read however large it is.
    pub max_bytes: usize,
    /// No more than so many come from another node.
    pub room_bytes: usize,
}

/// Reads a sealed segment that this node has no sound copy of. If it should have one, it is mended.
pub async fn read_elsewhere(
    broker: &Arc<Broker>,
    topic: &Topic,
    number: u64,
    limits: Limits,
    refusal: Refusal,
) -> Result<Read, ReadError> {
    let read = forward::read_sealed(broker, topic, number, limits).await?;
    if read.is_some()
        && let Some(link) = topic.chain().links.iter().find(|link| link.number == number)
        && link.segment.is_some()
    {
        broker.damage.note(SegmentUid { topic_id: topic.id, number }, limits.offset - link.base_offset);
    }
    read.ok_or(ReadError::Refused(refusal))
}

/// Reads from `offset` on: about `max_bytes`, at least one record if there is one. Damage at
/// `offset` is an error; damage further on ends the read before it.
fn read_blocking(topic: &Topic, offset: u64, max_records: u64, max_bytes: usize) -> Result<Read, ReadError> {
    let mut read = Read { next_offset: offset, ..Read::default() };
    let mut bytes_left = max_bytes;
    while read.count < max_records {
        let link = match locate(&topic.chain(), read.next_offset) {
            Ok(link) => link,
            Err(_) if read.count > 0 => break,
            Err(error) => return Err(error),
        };
        if link.end_offset() == read.next_offset {
            break;
        }
        match read_link(&link, &mut read, max_records, bytes_left) {
            Ok(()) => {}
            Err(refusal) if read.count == 0 => return Err(unsound(&link, refusal)),
            Err(_) => break,
        }
        bytes_left = max_bytes.saturating_sub(read.bytes());
        // Another look at the same segment would take one record more, also if it is too much.
        if bytes_left == 0 || link.sealed_count.is_none() || link.end_offset() > read.next_offset {
            break;
        }
    }
    Ok(read)
}

/// Another copy of a sealed segment may be sound where this one is damaged or short.
fn unsound(link: &Link, refusal: Refusal) -> ReadError {
    ReadError::Elsewhere { number: link.number, sealed: link.sealed_count.is_some(), refusal }
}

fn read_link(link: &Link, read: &mut Read, max_records: u64, max_bytes: usize) -> Result<(), Refusal> {
    let from = read.next_offset - link.base_offset;
    let number = link.number;
    let corrupt = |text: String| Refusal::new(ErrorCode::Corrupt, text);
    let segment = link.segment.as_ref().ok_or_else(|| corrupt(format!("segment {number} is not on this node")))?;
    let batches = segment.read(from, max_records - read.count, max_bytes)?;
    if batches.is_empty() {
        return Err(corrupt(format!("segment {number} lacks record {from}, which was committed")));
    }
    let before = read.next_offset;
    for batch in batches {
        let expected = read.next_offset - link.base_offset;
        if batch.base_index != expected {
            // A gap would skip records, which no reader may ever see.
            return Err(corrupt(format!("segment {number}: record {expected} is missing")));
        }
        read.next_offset += batch.count;
        read.count += batch.count;
        read.chunks.push(batch.records);
    }
    assert!(read.next_offset > before, "a batch holds at least one record");
    Ok(())
}

/// The link to read `offset` from, on this node.
fn locate(chain: &Chain, offset: u64) -> Result<Link, ReadError> {
    let (first, tail) = (chain.first_offset(), chain.last().end_offset());
    let leads = chain.route() == Route::Here;
    let refusal = Refusal::out_of_range(first, tail);
    // What is not kept any more never comes back, so every node may say so.
    let Some(link) = chain.link_at(offset) else { return Err(ReadError::Refused(refusal)) };
    let sealed = link.sealed_count.is_some();
    if link.segment.is_none() {
        let refusal = Refusal::new(ErrorCode::NotReady, "the records are on nodes that cannot be asked now");
        return Err(ReadError::Elsewhere { number: link.number, sealed, refusal });
    }
    // How far the open segment reaches, only its leader knows.
    if !sealed && !leads && offset >= tail {
        return Err(ReadError::Elsewhere { number: link.number, sealed, refusal });
    }
    if offset <= tail { Ok(link.clone()) } else { Err(ReadError::PastTail(refusal)) }
}

/// Waits until there is a record at `offset`, which is the tail now, or the chain changes.
pub async fn wait_past(topic: &Topic, offset: u64) {
    let (segment, wanted, number) = {
        let chain = topic.chain();
        let last = chain.last();
        (last.segment.clone(), offset.saturating_sub(last.base_offset), last.number)
    };
    let rolled = topic.wait_for(|chain| {
        let moved = chain.last().number != number
            || chain.last().end_offset() > offset
            || !matches!(chain.route(), Route::Here | Route::Wait);
        moved.then_some(())
    });
    let stored = async {
        match segment {
            Some(segment) => {
                segment.readable(wanted).await;
                if segment.readable_end() <= wanted {
                    // This segment will never hold it; the next one may.
                    std::future::pending::<()>().await;
                }
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = rolled => {}
        () = stored => {}
    }
}
