//! Reading by offset, across segments, up to the committed tail.

use std::sync::Arc;

use bytes::Bytes;

use super::topic::{Chain, Link, Topic};
use crate::error::Refusal;
use crate::protocol::ErrorCode;

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

/// Reads on a thread that may block, since the disk may be involved.
pub async fn read(topic: &Arc<Topic>, offset: u64, max_records: u64, max_bytes: usize) -> Result<Read, Refusal> {
    // At the tail there is nothing to read, and it is where most readers are.
    if locate(&topic.chain(), offset)?.end_offset() == offset {
        return Ok(Read { next_offset: offset, ..Read::default() });
    }
    let topic = Arc::clone(topic);
    tokio::task::spawn_blocking(move || read_blocking(&topic, offset, max_records, max_bytes))
        .await
        .unwrap_or_else(|_| Err(Refusal::new(ErrorCode::Internal, "a read was given up")))
}

/// Reads from `offset` on: about `max_bytes`, at least one record if there is one. Damage at
/// `offset` is an error; damage further on ends the read before it.
fn read_blocking(topic: &Topic, offset: u64, max_records: u64, max_bytes: usize) -> Result<Read, Refusal> {
    let mut read = Read { next_offset: offset, ..Read::default() };
    let mut bytes_left = max_bytes;
    while read.count < max_records {
        let link = locate(&topic.chain(), read.next_offset)?;
        if link.end_offset() == read.next_offset {
            break;
        }
        match read_link(&link, &mut read, max_records, bytes_left) {
            Ok(()) => {}
            Err(refusal) if read.count == 0 => return Err(refusal),
            Err(_) => break,
        }
        bytes_left = max_bytes.saturating_sub(read.bytes());
        if bytes_left == 0 || link.sealed_count.is_none() {
            break;
        }
    }
    Ok(read)
}

fn read_link(link: &Link, read: &mut Read, max_records: u64, max_bytes: usize) -> Result<(), Refusal> {
    let from = read.next_offset - link.base_offset;
    let batches = link.segment.read(from, max_records - read.count, max_bytes)?;
    if batches.is_empty() {
        return Err(Refusal::new(
            ErrorCode::Corrupt,
            format!("segment {} lacks record {from}, which was committed", link.segment.spec().uid),
        ));
    }
    let before = read.next_offset;
    for batch in batches {
        let expected = read.next_offset - link.base_offset;
        if batch.base_index != expected {
            // A gap would skip records, which no reader may ever see.
            return Err(Refusal::new(
                ErrorCode::Corrupt,
                format!("segment {}: record {expected} is missing", link.segment.spec().uid),
            ));
        }
        read.next_offset += batch.count;
        read.count += batch.count;
        read.chunks.push(batch.records);
    }
    assert!(read.next_offset > before, "a batch holds at least one record");
    Ok(())
}

/// The link to read `offset` from.
fn locate(chain: &Chain, offset: u64) -> Result<Link, Refusal> {
    let tail = chain.last().end_offset();
    match chain.link_at(offset) {
        Some(link) if offset <= tail => Ok(link.clone()),
        _ => Err(Refusal::out_of_range(chain.first_offset(), tail)),
    }
}

/// Waits until there is a record at `offset`, which is the tail now, or the chain changes.
pub async fn wait_past(topic: &Topic, offset: u64) {
    let (segment, wanted, number) = {
        let chain = topic.chain();
        let last = chain.last();
        (last.segment.clone(), offset + 1 - last.base_offset.min(offset), last.number())
    };
    let rolled = topic.wait_for(|chain| {
        let moved = chain.last().number() != number || chain.last().end_offset() > offset;
        moved.then_some(())
    });
    let stored = async {
        if segment.wait_watermark(wanted).await.is_err() {
            // This segment will never hold it; the next one may.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = rolled => {}
        () = stored => {}
    }
}
