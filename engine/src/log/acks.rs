//! Ordered acknowledgement: the replies that a connection still owes for its writes.
//!
//! Writes of one read are stored per topic and become durable in any order, but their replies go
//! out in the order of the requests. So a connection keeps one FIFO of batches; a batch is
//! answered once every one of its parts is settled:
//!
//! ```text
//! requests   PUT a · PUT b · PUT a · PUT c          one read = one batch
//! parts      a: segment 7, indices 40..42   b: segment 2, 9..10   c: refused
//! order      0 1 0 2                                 (left empty when there is one part)
//! replies    OK  OK  OK  ERR UnknownTopic            once a's and b's records are committed
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::rollover;
use super::topic::Topic;
use super::writer::Accepted;
use crate::broker::Broker;
use crate::error::Refusal;
use crate::protocol::reply;
use crate::store::{Segment, StoreError};

/// Most batches that one connection may have unanswered.
const BATCHES_MAX: usize = 1024;
/// Most requests that one connection may have unanswered.
const REQUESTS_MAX: u64 = 1 << 17;
/// Finished batches kept for their memory.
const SPARE_MAX: usize = 16;
/// `OK` frames that are written at once.
const OKS_AT_ONCE: usize = 256;

static OK_FRAMES: [u8; 6 * OKS_AT_ONCE] = ok_frames();

const fn ok_frames() -> [u8; 6 * OKS_AT_ONCE] {
    let frame = *b"\x02\0\0\0OK";
    let mut frames = [0; 6 * OKS_AT_ONCE];
    let mut at = 0;
    while at < frames.len() {
        frames[at] = frame[at % 6];
        at += 1;
    }
    frames
}

/// Where the records of a part lie.
struct Stored {
    topic: Arc<Topic>,
    segment: Segment,
    first_index: u64,
}

/// Consecutive records of one segment, or records that were refused together.
struct Part {
    stored: Option<Stored>,
    /// Records in it.
    count: u32,
    /// Of these, from the front, durable: known once it is settled.
    acked: u32,
    /// What the others are told.
    refusal: Option<Refusal>,
}

/// The form of a batch's replies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// One `OK` a record.
    Puts,
    /// `OK <first offset> <count>` for all records together.
    Append {
        /// Offset of the first record.
        first_offset: u64,
    },
    /// One `OK`; there are no records.
    Ping,
}

/// The writes of one read (or one `APPEND`), to be answered together.
pub struct Batch {
    first_request: u64,
    requests: u64,
    form: Form,
    parts: Vec<Part>,
    /// Part of each request; empty if there is only one part.
    order: Vec<u32>,
    /// Parts before this one are settled.
    settled: usize,
}

impl Batch {
    /// Adds records that were taken.
    pub fn accepted(&mut self, topic: &Arc<Topic>, accepted: Accepted) -> u32 {
        self.add(Part {
            count: accepted.count as u32,
            stored: Some(Stored {
                topic: Arc::clone(topic),
                segment: accepted.segment,
                first_index: accepted.first_index,
            }),
            acked: 0,
            refusal: None,
        })
    }

    /// Adds records that another node has answered for: of `count`, the first `acked` are stored.
    pub fn answered(&mut self, count: u32, acked: u32, refusal: Option<Refusal>) -> u32 {
        self.add(Part { stored: None, count, acked, refusal })
    }

    /// Adds records that were refused.
    pub fn refused(&mut self, count: u32, refusal: Refusal) -> u32 {
        self.add(Part { stored: None, count, acked: 0, refusal: Some(refusal) })
    }

    /// Records in it that this node has taken.
    pub fn stored_here(&self) -> u64 {
        self.parts.iter().filter(|part| part.stored.is_some()).map(|part| u64::from(part.count)).sum()
    }

    /// More than one part was added.
    pub fn is_split(&self) -> bool {
        self.parts.len() > 1
    }

    /// Says for each request in turn to which group it belongs. The parts were added group by
    /// group; `counts` says how many records each group has.
    pub fn set_order(&mut self, groups: impl Iterator<Item = u32>, counts: impl ExactSizeIterator<Item = u32>) {
        if counts.len() == self.parts.len() {
            // The usual case: a group went into one segment whole.
            self.order.extend(groups);
        } else {
            self.set_split_order(groups, counts);
        }
        assert_eq!(self.order.len() as u64, self.requests, "one part for each request");
    }

    /// A rollover split a group: its parts take its requests one after the other.
    #[cold]
    fn set_split_order(&mut self, groups: impl Iterator<Item = u32>, counts: impl Iterator<Item = u32>) {
        let mut left: Vec<u32> = self.parts.iter().map(|part| part.count).collect();
        let mut current = Vec::new();
        let mut part = 0;
        for mut count in counts {
            current.push(part);
            while count > 0 {
                count -= left[part];
                part += 1;
            }
        }
        for group in groups {
            let part = &mut current[group as usize];
            while left[*part] == 0 {
                *part += 1;
            }
            left[*part] -= 1;
            self.order.push(*part as u32);
        }
    }

    /// Parts are waited for one after the other, but what other nodes keep copies of is to be on its
    /// way to all of them at once.
    fn start_copying(&self) {
        for stored in self.parts.iter().filter_map(|part| part.stored.as_ref()) {
            if stored.segment.has_other_copies() {
                stored.segment.start_writing();
            }
        }
    }

    fn add(&mut self, part: Part) -> u32 {
        self.parts.push(part);
        (self.parts.len() - 1) as u32
    }

    /// Ready once every part is settled. Parts are waited for one after the other: the last
    /// watermark decides, whatever the order.
    fn poll_settled(&mut self, cx: &mut Context<'_>, broker: &Arc<Broker>) -> Poll<()> {
        while let Some(part) = self.parts.get_mut(self.settled) {
            if part.poll_settled(cx, broker).is_pending() {
                return Poll::Pending;
            }
            self.settled += 1;
        }
        Poll::Ready(())
    }

    fn answer(&mut self, out: &mut Vec<u8>) {
        match self.form {
            Form::Ping => put_oks(out, 1),
            Form::Append { first_offset } => self.answer_append(first_offset, out),
            Form::Puts if self.parts.iter().all(|part| part.refusal.is_none()) => put_oks(out, self.requests),
            Form::Puts => self.answer_puts(out),
        }
    }

    /// All or none: an `APPEND` is one batch, so its watermark passes all of it or nothing.
    fn answer_append(&self, first_offset: u64, out: &mut Vec<u8>) {
        let part = &self.parts[0];
        match &part.refusal {
            None => reply::put_appended(out, first_offset, u64::from(part.count)),
            Some(refusal) => reply::put_err(out, refusal.code, &refusal.text),
        }
    }

    /// Some were refused: one by one, in the order of the requests.
    fn answer_puts(&mut self, out: &mut Vec<u8>) {
        let order = std::mem::take(&mut self.order);
        for request in 0..self.requests as usize {
            let part = &mut self.parts[order.get(request).map_or(0, |&part| part as usize)];
            match &part.refusal {
                Some(refusal) if part.acked == 0 => reply::put_err(out, refusal.code, &refusal.text),
                _ => {
                    part.acked -= 1;
                    put_oks(out, 1);
                }
            }
        }
        self.order = order;
    }
}

impl Part {
    fn poll_settled(&mut self, cx: &mut Context<'_>, broker: &Arc<Broker>) -> Poll<()> {
        let Some(stored) = &self.stored else { return Poll::Ready(()) };
        let end = stored.first_index + u64::from(self.count);
        match stored.segment.poll_committed(end, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => {
                self.acked = self.count;
                Poll::Ready(())
            }
            Poll::Ready(Err(error)) => {
                self.fail(&error, broker);
                Poll::Ready(())
            }
        }
    }

    /// What was committed before the failure is; the rest never will be, or nobody knows.
    #[cold]
    fn fail(&mut self, error: &StoreError, broker: &Arc<Broker>) {
        let Some(stored) = &self.stored else { return };
        let committed = stored.segment.acknowledged_end().saturating_sub(stored.first_index);
        self.acked = committed.min(u64::from(self.count)) as u32;
        self.refusal = Some(Refusal::from(error.clone()));
        if error.ends_segment() {
            rollover::start(broker, &stored.topic, &stored.segment, Some(error));
        }
    }
}

impl Drop for Acks {
    /// The client is gone and nobody waits for its records any more; they are written all the same.
    fn drop(&mut self) {
        let unsettled = self.queue.iter().flat_map(|batch| &batch.parts);
        unsettled.filter_map(|part| part.stored.as_ref()).for_each(|stored| stored.segment.kick());
    }
}

/// The FIFO of one connection.
#[derive(Default)]
pub struct Acks {
    queue: VecDeque<Batch>,
    spare: Vec<Batch>,
    /// Requests that were given a place so far.
    pushed: u64,
    /// Requests that were answered so far.
    answered: u64,
}

impl Acks {
    /// Nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// So much is owed that no more should be read from the connection.
    pub fn is_full(&self) -> bool {
        self.queue.len() >= BATCHES_MAX || self.pushed - self.answered >= REQUESTS_MAX
    }

    /// An empty batch for `requests` `PUT`s that follow everything pushed so far.
    pub fn puts(&mut self, requests: u64) -> Batch {
        self.batch(requests, Form::Puts)
    }

    /// Owes the reply to one `APPEND`.
    pub fn push_append(&mut self, topic: &Arc<Topic>, accepted: Accepted) {
        let first_offset = accepted.base_offset + accepted.first_index;
        let mut batch = self.batch(1, Form::Append { first_offset });
        batch.accepted(topic, accepted);
        self.push(batch);
    }

    /// Owes the reply to an `APPEND` that another node has stored.
    pub fn push_answered_append(&mut self, first_offset: u64, count: u64) {
        let mut batch = self.batch(1, Form::Append { first_offset });
        batch.answered(count as u32, count as u32, None);
        self.push(batch);
    }

    /// Owes a refusal, after everything before it.
    pub fn push_refusal(&mut self, refusal: Refusal) {
        let mut batch = self.puts(1);
        batch.refused(1, refusal);
        self.push(batch);
    }

    /// Owes one `OK`, after everything before it.
    pub fn push_ok(&mut self) {
        let batch = self.batch(1, Form::Ping);
        self.push(batch);
    }

    /// Gives memory back while the connection is idle.
    pub fn park(&mut self) {
        if self.queue.is_empty() {
            self.spare = Vec::new();
        }
    }

    /// Owes the replies of a batch.
    pub fn push(&mut self, batch: Batch) {
        assert_eq!(batch.first_request, self.pushed, "batches are pushed in the order of their requests");
        self.pushed += batch.requests;
        batch.start_copying();
        self.queue.push_back(batch);
    }

    /// Writes the replies of everything at the front that is settled. Ready when nothing is owed.
    pub fn poll_answer(&mut self, cx: &mut Context<'_>, broker: &Arc<Broker>, out: &mut Vec<u8>) -> Poll<()> {
        while let Some(batch) = self.queue.front_mut() {
            if batch.poll_settled(cx, broker).is_pending() {
                return Poll::Pending;
            }
            assert_eq!(batch.first_request, self.answered, "replies go out in the order of the requests");
            batch.answer(out);
            self.answered += batch.requests;
            if let Some(batch) = self.queue.pop_front() {
                self.recycle(batch);
            }
        }
        Poll::Ready(())
    }

    fn batch(&mut self, requests: u64, form: Form) -> Batch {
        let mut batch = self.spare.pop().unwrap_or_else(|| Batch {
            first_request: 0,
            requests: 0,
            form,
            parts: Vec::new(),
            order: Vec::new(),
            settled: 0,
        });
        batch.first_request = self.pushed;
        batch.requests = requests;
        batch.form = form;
        batch
    }

    fn recycle(&mut self, mut batch: Batch) {
        if self.spare.len() < SPARE_MAX {
            batch.parts.clear();
            batch.order.clear();
            batch.settled = 0;
            self.spare.push(batch);
        }
    }
}

/// Writes plain `OK`s, many at once.
fn put_oks(out: &mut Vec<u8>, count: u64) {
    let mut rest = count as usize;
    while rest > 0 {
        let step = rest.min(OKS_AT_ONCE);
        out.extend_from_slice(&OK_FRAMES[..6 * step]);
        rest -= step;
    }
}
