//! The generator: one lane per producer, each on its own thread.
//!
//! *Closed loop*: the next record goes out as soon as the window has room. *Open loop*: records go
//! out at the times of a fixed [`Schedule`]; a late one is sent at once, and its latency counts from
//! the time at which it should have gone out.

mod limit;
mod pauses;
mod schedule;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use walrus_drivers::{Ack, DriverError, Producer};

pub use limit::{Limit, Progress};
pub use schedule::Schedule;

use crate::acks::AckSet;
use crate::latency::Latencies;
use crate::record::{Assignment, Checker, Header, Pool, RecordBytes};
use crate::verify::Claim;
use pauses::Pauses;

/// How long a drained window may take before the rest counts as unacknowledged.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// A poll never blocks longer, so that a stop is noticed.
const POLL_MAX: Duration = Duration::from_millis(100);
/// Records sent between two looks at the clock.
const CLOCK_STRIDE: u64 = 64;
/// Closed loop with a window: one record in so many is timed.
const SAMPLE_STRIDE: u64 = 64;
/// Send times kept for timed records in flight.
const SAMPLES: usize = 8192;
/// Open loop: bound on what a system may hold unacknowledged per producer.
pub(crate) const OPEN_LOOP_BYTES_MAX: u64 = 64 << 20;

/// What one lane did.
#[derive(Debug)]
pub struct LaneResult {
    /// What has to be proved.
    pub claim: Claim,
    /// Records that the system refused.
    pub refused: u64,
    /// Send (or intended send) to acknowledgement.
    pub latencies: Latencies,
    /// Open loop: intended send to send.
    pub lateness: Latencies,
    /// When the last acknowledgement came.
    pub last_ack: Instant,
    /// The longest time that one of its topics was without an acknowledgement, if a node was killed.
    pub longest_pause: Option<Duration>,
}

/// One producer: makes records, hands them to the driver, collects acknowledgements.
#[derive(Debug)]
pub struct Lane {
    id: u32,
    assignment: Assignment,
    checkers: Vec<Checker>,
    pool: Pool,
    acks: AckSet,
    ack_buffer: Vec<Ack>,
    next_ticket: u64,
    settled_records: u64,
    acked_records: u64,
    acked_bytes: u64,
    in_flight_bytes: u64,
    sent_at: Vec<Instant>,
    sample_stride: u64,
    latencies: Latencies,
    lateness: Latencies,
    last_ack: Instant,
    pauses: Option<Pauses>,
}

impl Lane {
    /// Prepares the records of producer `id`.
    pub fn new(id: u32, assignment: Assignment, names: &[String], sizes: RecordBytes) -> Lane {
        let topic = |slot| Checker::new(&names[assignment.topic(id, slot)]);
        Lane {
            id,
            assignment,
            checkers: (0..assignment.topics_of(id)).map(topic).collect(),
            pool: Pool::new(id, sizes),
            acks: AckSet::default(),
            ack_buffer: Vec::with_capacity(4096),
            next_ticket: 0,
            settled_records: 0,
            acked_records: 0,
            acked_bytes: 0,
            in_flight_bytes: 0,
            sent_at: vec![Instant::now(); SAMPLES],
            sample_stride: SAMPLE_STRIDE,
            latencies: Latencies::default(),
            lateness: Latencies::default(),
            last_ack: Instant::now(),
            pauses: None,
        }
    }

    /// Closed loop with at most `window` unacknowledged bytes (`None`: one record).
    pub fn run_closed(
        mut self,
        producer: &mut dyn Producer,
        window: Option<u64>,
        limit: &Limit,
        progress: &Progress,
    ) -> Result<LaneResult, DriverError> {
        if window.is_none() {
            self.sample_stride = 1;
        }
        let window = window.unwrap_or(0);
        let mut portion = 0;
        loop {
            let over = self.fill(producer, window, limit, &mut portion, progress)?;
            if over {
                break;
            }
            self.collect(producer, POLL_MAX, None, progress)?;
            if limit.is_over(Instant::now()) {
                break;
            }
        }
        self.drain(producer, limit, None, progress)
    }

    /// Sends until the window is full; true when the load is over.
    fn fill(
        &mut self,
        producer: &mut dyn Producer,
        window: u64,
        limit: &Limit,
        portion: &mut u64,
        progress: &Progress,
    ) -> Result<bool, DriverError> {
        loop {
            let bytes = self.pool.record_bytes(self.next_ticket);
            if self.in_flight_bytes > 0 && self.in_flight_bytes + bytes > window {
                return Ok(false);
            }
            if *portion == 0 {
                *portion = limit.take_portion();
                if *portion == 0 {
                    return Ok(true);
                }
            }
            *portion = portion.saturating_sub(bytes);
            if self.next_ticket.is_multiple_of(self.sample_stride) {
                let slot = (self.next_ticket / self.sample_stride) as usize % SAMPLES;
                self.sent_at[slot] = Instant::now();
            }
            self.send(producer, bytes)?;
            if self.next_ticket.is_multiple_of(CLOCK_STRIDE) {
                if producer.has_acks() {
                    self.collect(producer, Duration::ZERO, None, progress)?;
                }
                if limit.is_over(Instant::now()) {
                    return Ok(true);
                }
            }
        }
    }

    /// Open loop; every record goes out at its time, or as soon after it as the system takes it.
    pub fn run_open(
        mut self,
        producer: &mut dyn Producer,
        schedule: &Schedule,
        limit: &Limit,
        progress: &Progress,
    ) -> Result<LaneResult, DriverError> {
        self.pauses = schedule.kill_at.map(|after| Pauses::new(schedule.start, after, self.checkers.len()));
        loop {
            let mut now = Instant::now();
            if limit.is_over(now) {
                break;
            }
            let mut due = schedule.due(self.id, self.next_ticket);
            let mut sent = 0;
            while due <= now && sent < CLOCK_STRIDE && self.in_flight_bytes < OPEN_LOOP_BYTES_MAX {
                if schedule.latency(self.id, self.next_ticket, now).is_some() {
                    self.lateness.record(now - due);
                }
                self.send(producer, self.pool.record_bytes(self.next_ticket))?;
                sent += 1;
                now = Instant::now();
                due = schedule.due(self.id, self.next_ticket);
            }
            let wait = due.saturating_duration_since(now).min(POLL_MAX);
            if self.in_flight_bytes == 0 {
                std::thread::sleep(wait);
            } else {
                let wait = if self.in_flight_bytes < OPEN_LOOP_BYTES_MAX { wait } else { POLL_MAX };
                self.collect(producer, wait, Some(schedule), progress)?;
            }
        }
        self.drain(producer, limit, Some(schedule), progress)
    }

    fn send(&mut self, producer: &mut dyn Producer, bytes: u64) -> Result<(), DriverError> {
        let ticket = self.next_ticket;
        let topics = self.checkers.len() as u64;
        let (slot, sequence) = (ticket % topics, ticket / topics);
        let header = Header { producer: self.id, sequence };
        let record = self.pool.record(ticket, header, &mut self.checkers[slot as usize]);
        self.next_ticket += 1;
        self.in_flight_bytes += bytes;
        producer.send(self.assignment.topic(self.id, slot), ticket, record)
    }

    /// Takes the acknowledgements that are there, waiting up to `wait` for the first.
    fn collect(
        &mut self,
        producer: &mut dyn Producer,
        wait: Duration,
        schedule: Option<&Schedule>,
        progress: &Progress,
    ) -> Result<(), DriverError> {
        let mut acks = std::mem::take(&mut self.ack_buffer);
        acks.clear();
        let result = producer.poll(wait, &mut acks);
        if !acks.is_empty() {
            self.settle(&acks, schedule);
            progress.records.store(self.acked_records, Ordering::Relaxed);
            progress.bytes.store(self.acked_bytes, Ordering::Relaxed);
        }
        self.ack_buffer = acks;
        result
    }

    fn settle(&mut self, acks: &[Ack], schedule: Option<&Schedule>) {
        let now = Instant::now();
        for ack in acks {
            let end = ack.first_ticket + ack.count;
            let bytes = self.pool.bytes_before(end) - self.pool.bytes_before(ack.first_ticket);
            self.in_flight_bytes -= bytes;
            self.settled_records += ack.count;
            self.acks.settle(ack.first_ticket, ack.count, ack.ok);
            if ack.ok {
                self.acked_records += ack.count;
                self.acked_bytes += bytes;
                self.time(ack.first_ticket, end, now, schedule);
                if let Some(pauses) = &mut self.pauses {
                    pauses.acked(ack.first_ticket, end, now);
                }
            }
        }
        self.last_ack = now;
    }

    fn time(&mut self, first: u64, end: u64, now: Instant, schedule: Option<&Schedule>) {
        if let Some(schedule) = schedule {
            let latencies = (first..end).filter_map(|t| schedule.latency(self.id, t, now));
            latencies.for_each(|latency| self.latencies.record(latency));
            return;
        }
        for sample in first.div_ceil(self.sample_stride)..end.div_ceil(self.sample_stride) {
            self.latencies.record(now - self.sent_at[sample as usize % SAMPLES]);
        }
    }

    fn drain(
        mut self,
        producer: &mut dyn Producer,
        limit: &Limit,
        schedule: Option<&Schedule>,
        progress: &Progress,
    ) -> Result<LaneResult, DriverError> {
        producer.flush()?;
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        while self.settled_records < self.next_ticket && !limit.is_aborted() && Instant::now() < deadline {
            self.collect(producer, POLL_MAX, schedule, progress)?;
        }
        Ok(LaneResult {
            claim: Claim { producer: self.id, sent: self.next_ticket, acked: self.acks.acked() },
            refused: self.acks.refused(),
            latencies: self.latencies,
            lateness: self.lateness,
            last_ack: self.last_ack,
            longest_pause: self.pauses.map(|pauses| pauses.finish(limit.deadline)),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::acks;

    /// Acknowledges at each poll half of what is in flight, and remembers the most that was.
    #[derive(Default)]
    struct Half {
        sent: Vec<u64>,
        acked: usize,
        in_flight_bytes_max: u64,
        refuse: Option<u64>,
        at_once: bool,
    }

    impl Producer for Half {
        fn send(&mut self, _topic: usize, ticket: u64, record: &[u8]) -> Result<(), DriverError> {
            assert_eq!(ticket, self.sent.len() as u64);
            self.sent.push(record.len() as u64);
            let in_flight = self.sent[self.acked..].iter().sum();
            self.in_flight_bytes_max = self.in_flight_bytes_max.max(in_flight);
            Ok(())
        }

        fn poll(&mut self, _wait: Duration, acks: &mut Vec<Ack>) -> Result<(), DriverError> {
            let count = (self.sent.len() - self.acked).div_ceil(2);
            for ticket in (self.acked..self.acked + count).rev() {
                let ticket = ticket as u64;
                let ok = self.refuse != Some(ticket);
                acks.push(Ack { first_ticket: ticket, count: 1, ok });
            }
            self.acked += count;
            Ok(())
        }

        fn has_acks(&self) -> bool {
            self.at_once
        }

        fn flush(&mut self) -> Result<(), DriverError> {
            Ok(())
        }
    }

    const SIZES: RecordBytes = RecordBytes { min: 500, max: 1024 };

    fn lane() -> Lane {
        Lane::new(0, Assignment { producers: 1, topics: 3 }, &["a".into(), "b".into(), "c".into()], SIZES)
    }

    #[test]
    fn the_closed_loop_keeps_its_window_and_its_volume() {
        let mut system = Half::default();
        let limit = Limit::new(Instant::now(), None, Some(2 << 20));
        let progress = Progress::default();
        let result = lane().run_closed(&mut system, Some(64 << 10), &limit, &progress).unwrap();
        let sent: u64 = system.sent.iter().sum();
        assert!(system.in_flight_bytes_max <= 64 << 10);
        assert!(system.in_flight_bytes_max > 60 << 10, "the window was used");
        assert!(sent.abs_diff(2 << 20) < 8 * 1024, "{sent}");
        assert_eq!(result.claim.acked, [(0, result.claim.sent)]);
        assert_eq!(progress.bytes.into_inner(), sent);
    }

    #[test]
    fn one_in_flight_is_one_in_flight() {
        let mut system = Half::default();
        let limit = Limit::new(Instant::now(), None, Some(100_000));
        lane().run_closed(&mut system, None, &limit, &Progress::default()).unwrap();
        assert!(system.in_flight_bytes_max <= 1024);
        assert!(system.sent.len() > 90);
    }

    #[test]
    fn acknowledgements_that_come_at_once_do_not_wait_for_a_full_window() {
        let mut system = Half { at_once: true, ..Half::default() };
        let limit = Limit::new(Instant::now(), None, Some(2 << 20));
        lane().run_closed(&mut system, Some(1 << 20), &limit, &Progress::default()).unwrap();
        assert!(system.in_flight_bytes_max <= 2 * CLOCK_STRIDE * 1024, "{}", system.in_flight_bytes_max);
    }

    #[test]
    fn refused_records_are_not_claimed() {
        let mut system = Half { refuse: Some(10), ..Half::default() };
        let limit = Limit::new(Instant::now(), None, Some(100_000));
        let result = lane().run_closed(&mut system, Some(10_000), &limit, &Progress::default()).unwrap();
        assert_eq!(result.refused, 1);
        assert!(!acks::contains(&result.claim.acked, 10));
        assert_eq!(acks::count(&result.claim.acked), result.claim.sent - 1);
    }

    #[test]
    fn the_open_loop_follows_its_schedule() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 1, 10_000.0, Duration::ZERO);
        let limit = Limit::new(start, Some(0.1), None);
        let mut system = Half::default();
        let result = lane().run_open(&mut system, &schedule, &limit, &Progress::default()).unwrap();
        assert!(result.claim.sent <= 1000 && result.claim.sent > 500, "{}", result.claim.sent);
        assert_eq!(schedule.due_after(0, 100), Duration::from_millis(10));
    }
}
