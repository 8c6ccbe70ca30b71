//! The proof: what was acknowledged is there, unaltered, once, in order, and nothing else is.
//!
//! One [`TopicProof`] reads one topic from its start. It keeps the next expected sequence of each
//! producer and the gaps below it, so its memory does not grow with the number of records.

use serde::{Deserialize, Serialize};

use crate::acks::{self, Ranges};
use crate::record::{Assignment, Checker};

/// What one producer did in the load: the claim that is to be proved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Producer id.
    pub producer: u32,
    /// Tickets `0..sent` were handed to the system.
    pub sent: u64,
    /// Acknowledged tickets, half-open ranges, sorted. Ticket t of a producer with k topics is
    /// sequence t div k of its topic number t mod k.
    pub acked: Ranges,
}

/// What was found. All counts are records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Records read.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Acknowledged but not there.
    pub missing: u64,
    /// There, but with a wrong check, so a byte or the topic changed.
    pub altered: u64,
    /// Acknowledged, but stored after a later one of the same producer and topic.
    pub reordered: u64,
    /// Never sent to this topic.
    pub never_sent: u64,
    /// Stored more than once (each copy after the first).
    pub duplicates: u64,
    /// Stored though never acknowledged.
    pub unacked_stored: u64,
}

impl Proof {
    /// Adds the findings of another topic.
    pub fn add(&mut self, other: &Proof) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.missing += other.missing;
        self.altered += other.altered;
        self.reordered += other.reordered;
        self.never_sent += other.never_sent;
        self.duplicates += other.duplicates;
        self.unacked_stored += other.unacked_stored;
    }

    /// `Err` says what is wrong. Duplicates and stored records without an ack are reported, but
    /// break no promise.
    pub fn verdict(&self) -> Result<(), String> {
        let faults = [
            (self.missing, "acknowledged records are missing"),
            (self.altered, "records are altered"),
            (self.reordered, "acknowledged records are out of order"),
            (self.never_sent, "records are there that were never sent"),
        ];
        let told: Vec<String> = faults.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        if told.is_empty() { Ok(()) } else { Err(told.join(", ")) }
    }
}

/// Reads one topic against the claims of its producers.
#[derive(Debug)]
pub struct TopicProof {
    checker: Checker,
    streams: Vec<Stream>,
    found: Proof,
}

/// The records of one producer in one topic.
#[derive(Debug)]
struct Stream {
    claim: Claim,
    topics: u64,
    slot: u64,
    /// Next sequence in order.
    next: u64,
    /// Sequences below `next` that were not seen.
    gaps: Ranges,
}

impl TopicProof {
    /// For the topic with this index and name.
    pub fn new(assignment: Assignment, topic: usize, name: &str, claims: &[Claim]) -> TopicProof {
        let slot = assignment.slot_of(topic);
        let streams = assignment
            .producers_of(topic)
            .filter_map(|producer| claims.iter().find(|claim| claim.producer == producer))
            .map(|claim| Stream {
                claim: claim.clone(),
                topics: assignment.topics_of(claim.producer),
                slot,
                next: 0,
                gaps: Ranges::new(),
            })
            .collect();
        TopicProof { checker: Checker::new(name), streams, found: Proof::default() }
    }

    /// Takes the next record of the topic.
    pub fn accept(&mut self, record: &[u8]) {
        self.found.records += 1;
        self.found.bytes += record.len() as u64;
        let Some(header) = self.checker.open(record) else {
            self.found.altered += 1;
            return;
        };
        let stream = self.streams.iter_mut().find(|s| s.claim.producer == header.producer);
        match stream {
            Some(stream) if stream.ticket(header.sequence) < stream.claim.sent => {
                stream.accept(header.sequence, &mut self.found);
            }
            _ => self.found.never_sent += 1,
        }
    }

    /// Was every acknowledged record reached? (More may follow: unacknowledged ones, duplicates.)
    pub fn is_complete(&self) -> bool {
        self.streams.iter().all(|stream| stream.next >= stream.end_acked())
    }

    /// The findings, once the topic's end was reached.
    pub fn finish(mut self) -> Proof {
        for stream in &mut self.streams {
            let end = stream.end_acked();
            if stream.next < end {
                stream.gaps.push((stream.next, end));
            }
            let lost = stream.gaps.iter().flat_map(|&(start, end)| start..end);
            self.found.missing += lost.filter(|&s| stream.is_acked(s)).count() as u64;
        }
        self.found
    }
}

impl Stream {
    fn ticket(&self, sequence: u64) -> u64 {
        sequence.saturating_mul(self.topics).saturating_add(self.slot)
    }

    fn is_acked(&self, sequence: u64) -> bool {
        acks::contains(&self.claim.acked, self.ticket(sequence))
    }

    /// First sequence above all acknowledged ones.
    fn end_acked(&self) -> u64 {
        let end_ticket = self.claim.acked.last().map_or(0, |range| range.1);
        end_ticket.saturating_sub(self.slot).div_ceil(self.topics)
    }

    fn accept(&mut self, sequence: u64, found: &mut Proof) {
        if sequence >= self.next {
            if sequence > self.next {
                self.gaps.push((self.next, sequence));
            }
            self.next = sequence + 1;
            found.unacked_stored += u64::from(!self.is_acked(sequence));
            return;
        }
        if !self.fill_gap(sequence) {
            found.duplicates += 1;
        } else if self.is_acked(sequence) {
            found.reordered += 1;
        } else {
            found.unacked_stored += 1;
        }
    }

    /// Removes `sequence` from the gaps; false if it was in none.
    fn fill_gap(&mut self, sequence: u64) -> bool {
        let after = self.gaps.partition_point(|&(start, _)| start <= sequence);
        let Some(index) = after.checked_sub(1).filter(|&i| sequence < self.gaps[i].1) else {
            return false;
        };
        let (start, end) = self.gaps[index];
        let pieces = [(start, sequence), (sequence + 1, end)];
        self.gaps.splice(index..=index, pieces.into_iter().filter(|(start, end)| start < end));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Header, Pool, RecordBytes};

    const ONE: Assignment = Assignment { producers: 1, topics: 1 };

    fn record(producer: u32, sequence: u64) -> Vec<u8> {
        let mut pool = Pool::new(producer, RecordBytes { min: 20, max: 60 });
        pool.record(sequence, Header { producer, sequence }, &mut Checker::new("t")).to_vec()
    }

    /// Sent 0..10, acknowledged 0..8; `stored` is what comes back.
    fn prove(stored: impl IntoIterator<Item = u64>) -> Proof {
        let claims = [Claim { producer: 0, sent: 10, acked: vec![(0, 8)] }];
        let mut proof = TopicProof::new(ONE, 0, "t", &claims);
        for sequence in stored {
            proof.accept(&record(0, sequence));
        }
        proof.finish()
    }

    #[test]
    fn what_was_acked_and_nothing_else_passes() {
        let found = prove(0..8);
        assert_eq!(found.verdict(), Ok(()));
        assert_eq!((found.records, found.unacked_stored, found.duplicates), (8, 0, 0));
    }

    #[test]
    fn unacked_and_duplicate_records_are_counted_but_pass() {
        let found = prove([0, 1, 2, 1, 2, 3, 4, 5, 6, 7, 9]);
        assert_eq!(found.verdict(), Ok(()));
        assert_eq!((found.unacked_stored, found.duplicates), (1, 2));
    }

    #[test]
    fn missing_records_fail_in_the_middle_and_at_the_end() {
        assert_eq!(prove([0, 1, 2, 4, 5, 6, 7]).missing, 1);
        assert_eq!(prove(0..7).missing, 1);
        assert_eq!(prove([]).missing, 8);
        assert!(prove([]).verdict().is_err());
    }

    #[test]
    fn order_is_proved() {
        let found = prove([0, 2, 1, 3, 4, 5, 6, 7]);
        assert_eq!((found.reordered, found.missing), (1, 0));
        assert!(found.verdict().is_err());
    }

    #[test]
    fn altered_and_invented_records_fail() {
        let claims = [Claim { producer: 0, sent: 10, acked: vec![(0, 1)] }];
        let mut proof = TopicProof::new(ONE, 0, "t", &claims);
        let mut altered = record(0, 0);
        altered[18] ^= 1;
        proof.accept(&record(0, 0));
        proof.accept(&altered);
        proof.accept(&record(0, 10));
        proof.accept(&record(7, 0));
        let found = proof.finish();
        assert_eq!((found.altered, found.never_sent), (1, 2));
    }

    #[test]
    fn tickets_of_a_producer_with_several_topics_map_to_sequences() {
        // Tickets 0..5 of one producer over two topics: sequences 0,1,2 and 0,1.
        let two = Assignment { producers: 1, topics: 2 };
        let claims = [Claim { producer: 0, sent: 5, acked: vec![(0, 5)] }];
        let mut checker = Checker::new("t");
        for (topic, sequences) in [(0, 3), (1, 2)] {
            let mut proof = TopicProof::new(two, topic, "t", &claims);
            let mut pool = Pool::new(0, RecordBytes { min: 20, max: 60 });
            for sequence in 0..sequences {
                assert!(!proof.is_complete());
                let header = Header { producer: 0, sequence };
                proof.accept(pool.record(sequence, header, &mut checker));
            }
            assert!(proof.is_complete());
            assert_eq!(proof.finish().verdict(), Ok(()));
        }
    }
}
