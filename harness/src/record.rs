//! What a record of the benchmark looks like, and the pool it comes from.
//!
//! ```text
//!  0        4                 12      16                    len
//!  ├────────┼─────────────────┼───────┼──────────────────────┤
//!  │producer│ sequence        │ check │ body (incompressible)│   numbers little-endian
//!  └────────┴─────────────────┴───────┴──────────────────────┘
//!  check = CRC32C( topic name ‖ producer ‖ sequence ‖ CRC32C(body) as u32 )
//! ```
//!
//! So a record proves by itself who sent it, when in the order of its (producer, topic), to which
//! topic, and that no byte changed. Sequences are dense from 0 in each (producer, topic).
//! Bodies, with their checksums, are prepared before the clock starts; only the header is new.

/// Bytes of producer, sequence and check.
pub const HEADER_BYTES: usize = 16;

/// Memory that one producer's pool may take.
const POOL_BYTES_MAX: usize = 8 << 20;
/// Records in a pool, if they fit.
const POOL_RECORDS: usize = 1024;

/// Sizes of records, uniformly distributed between both ends (inclusive).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RecordBytes {
    /// Smallest record in bytes; at least [`HEADER_BYTES`].
    pub min: usize,
    /// Largest record in bytes.
    pub max: usize,
}

impl RecordBytes {
    /// Mean of the distribution.
    pub fn mean(self) -> f64 {
        (self.min + self.max) as f64 / 2.0
    }
}

/// Which producers write to which topics: producer p of P owns the topics p, p+P, p+2P … of T;
/// with more producers than topics, producer p writes to topic p mod T.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assignment {
    /// Number of producers (P).
    pub producers: u32,
    /// Number of topics (T).
    pub topics: u32,
}

impl Assignment {
    /// How many topics producer `producer` writes to, in turn: ticket t goes to its topic number
    /// t mod this, with sequence t div this.
    pub fn topics_of(self, producer: u32) -> u64 {
        if producer >= self.topics {
            return 1;
        }
        u64::from((self.topics - producer).div_ceil(self.producers))
    }

    /// Topic of the `slot`-th topic of `producer`.
    pub fn topic(self, producer: u32, slot: u64) -> usize {
        (u64::from(producer % self.topics) + slot * u64::from(self.producers)) as usize
    }

    /// The producers that write to `topic`.
    pub fn producers_of(self, topic: usize) -> impl Iterator<Item = u32> {
        let first = topic as u32 % self.producers;
        let step = if self.producers > self.topics { self.topics } else { self.producers };
        (first..self.producers).step_by(step as usize)
    }

    /// Which of its topics, in turn, `topic` is for its producers.
    pub fn slot_of(self, topic: usize) -> u64 {
        topic as u64 / u64::from(self.producers)
    }
}

/// The header of a record that was read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Who sent it.
    pub producer: u32,
    /// Its place among the records of this producer and topic.
    pub sequence: u64,
}

/// Computes `check` for one topic.
#[derive(Debug, Clone)]
pub struct Checker {
    /// Topic name, then room for producer, sequence and the body's checksum.
    scratch: Vec<u8>,
    name_bytes: usize,
}

impl Checker {
    /// For records of this topic.
    pub fn new(topic: &str) -> Checker {
        let mut scratch = topic.as_bytes().to_vec();
        scratch.resize(topic.len() + 16, 0);
        Checker { scratch, name_bytes: topic.len() }
    }

    fn check(&mut self, producer_and_sequence: [u8; 12], body_crc: u32) -> u32 {
        let tail = &mut self.scratch[self.name_bytes..];
        tail[..12].copy_from_slice(&producer_and_sequence);
        tail[12..].copy_from_slice(&body_crc.to_le_bytes());
        crc32c(&self.scratch)
    }

    /// The header, if the record belongs to this topic and no byte of it changed.
    pub fn open(&mut self, record: &[u8]) -> Option<Header> {
        let header = peek(record)?;
        let mut start = [0; 12];
        start.copy_from_slice(&record[..12]);
        let expected = self.check(start, crc32c(&record[HEADER_BYTES..]));
        (record[12..HEADER_BYTES] == expected.to_le_bytes()).then_some(header)
    }
}

/// Producer and sequence as they stand, unchecked.
pub fn peek(record: &[u8]) -> Option<Header> {
    let (producer, rest) = record.split_first_chunk::<4>()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    (rest.len() >= 4)
        .then_some(Header { producer: u32::from_le_bytes(*producer), sequence: u64::from_le_bytes(*sequence) })
}

/// Prepared records of one producer.
#[derive(Debug)]
pub struct Pool {
    bytes: Vec<u8>,
    slots: Vec<Slot>,
    /// `bytes_before[i]`: bytes of the records 0..i; the last entry is one whole round.
    bytes_before: Vec<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    start: usize,
    end: usize,
    body_crc: u32,
}

impl Pool {
    /// Bodies differ between producers; the same producer always gets the same.
    pub fn new(producer: u32, sizes: RecordBytes) -> Pool {
        let mut random = Random::new(u64::from(producer) + 1);
        let records = (POOL_BYTES_MAX / sizes.max.max(1)).clamp(4, POOL_RECORDS);
        let span = (sizes.max - sizes.min + 1) as u64;
        let mut pool = Pool { bytes: Vec::new(), slots: Vec::new(), bytes_before: vec![0] };
        for index in 0..records {
            // Strata instead of independent draws: every pool has the same mean.
            let step = (index as u64 * 2 + 1) * span / (records as u64 * 2);
            pool.push(sizes.min + step as usize, &mut random);
        }
        pool.shuffle(&mut random);
        pool
    }

    fn push(&mut self, len: usize, random: &mut Random) {
        let start = self.bytes.len();
        self.bytes.resize(start + HEADER_BYTES, 0);
        let body_len = len.saturating_sub(HEADER_BYTES);
        while self.bytes.len() < start + HEADER_BYTES + body_len {
            self.bytes.extend_from_slice(&random.next().to_le_bytes());
        }
        let end = start + HEADER_BYTES + body_len;
        self.bytes.truncate(end);
        let body_crc = crc32c(&self.bytes[start + HEADER_BYTES..end]);
        self.slots.push(Slot { start, end, body_crc });
    }

    fn shuffle(&mut self, random: &mut Random) {
        for index in (1..self.slots.len()).rev() {
            let other = (random.next() % (index as u64 + 1)) as usize;
            self.slots.swap(index, other);
        }
        for slot in &self.slots {
            let before = self.bytes_before[self.bytes_before.len() - 1];
            self.bytes_before.push(before + (slot.end - slot.start) as u64);
        }
    }

    /// Size of the record with this ticket.
    pub fn record_bytes(&self, ticket: u64) -> u64 {
        let slot = self.slots[(ticket % self.slots.len() as u64) as usize];
        (slot.end - slot.start) as u64
    }

    /// Bytes of the records with tickets `0..ticket`.
    pub fn bytes_before(&self, ticket: u64) -> u64 {
        let records = self.slots.len() as u64;
        let round_bytes = self.bytes_before[self.slots.len()];
        ticket / records * round_bytes + self.bytes_before[(ticket % records) as usize]
    }

    /// The record with this ticket; its header is written in place.
    pub fn record(&mut self, ticket: u64, header: Header, checker: &mut Checker) -> &[u8] {
        let slot = self.slots[(ticket % self.slots.len() as u64) as usize];
        let mut start = [0; 12];
        start[..4].copy_from_slice(&header.producer.to_le_bytes());
        start[4..].copy_from_slice(&header.sequence.to_le_bytes());
        let check = checker.check(start, slot.body_crc);
        let record = &mut self.bytes[slot.start..slot.end];
        record[..12].copy_from_slice(&start);
        record[12..HEADER_BYTES].copy_from_slice(&check.to_le_bytes());
        record
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// `SplitMix64`: bytes that do not compress, the same on every run.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SIZES: RecordBytes = RecordBytes { min: 500, max: 1024 };

    #[test]
    fn a_record_proves_who_sent_it_and_where() {
        let header = Header { producer: 3, sequence: 77 };
        let mut pool = Pool::new(3, SIZES);
        let record = pool.record(5, header, &mut Checker::new("topic")).to_vec();
        assert_eq!(record.len() as u64, pool.record_bytes(5));
        assert_eq!(Checker::new("topic").open(&record), Some(header));
        assert_eq!(Checker::new("other").open(&record), None);
        assert_eq!(Checker::new("topic").open(&record[..record.len() - 1]), None);
        for at in 0..record.len() {
            let mut altered = record.clone();
            altered[at] ^= 0x10;
            assert_eq!(Checker::new("topic").open(&altered), None, "byte {at}");
        }
    }

    #[test]
    fn the_smallest_record_is_a_header() {
        let mut pool = Pool::new(0, RecordBytes { min: 16, max: 16 });
        let header = Header { producer: 0, sequence: 1 };
        let record = pool.record(1, header, &mut Checker::new("t")).to_vec();
        assert_eq!(record.len(), HEADER_BYTES);
        assert_eq!(Checker::new("t").open(&record), Some(header));
        assert_eq!(Checker::new("t").open(&record[..15]), None);
    }

    #[test]
    fn sizes_are_uniform_and_add_up() {
        let pool = Pool::new(9, SIZES);
        let sum: u64 = (0..3000).map(|ticket| pool.record_bytes(ticket)).sum();
        assert_eq!(pool.bytes_before(3000), sum);
        let mean = pool.bytes_before(1024) as f64 / 1024.0;
        assert!((mean - SIZES.mean()).abs() < 1.0, "{mean}");
    }

    #[test]
    fn every_topic_has_its_producers_and_every_ticket_its_topic() {
        for (producers, topics) in [(10, 10), (10, 1000), (64, 10), (3, 10), (1, 1), (10, 1)] {
            let assignment = Assignment { producers, topics };
            let mut pairs = Vec::new();
            for producer in 0..producers {
                for slot in 0..assignment.topics_of(producer) {
                    let topic = assignment.topic(producer, slot);
                    assert_eq!(assignment.slot_of(topic), slot);
                    pairs.push((topic, producer));
                }
            }
            let by_topic: Vec<_> = (0..topics as usize)
                .flat_map(|topic| assignment.producers_of(topic).map(move |p| (topic, p)))
                .collect();
            pairs.sort_unstable();
            assert_eq!(pairs, by_topic, "{producers} producers, {topics} topics");
        }
    }
}
