//! Jobs that read: the proof, the measured read, and the readers at the tail.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use walrus_drivers::{DriverError, Session, Setup};

use super::write::sample;
use super::{SAMPLE_EVERY, WorkerError, ready};
use crate::latency::Latencies;
use crate::load::{Progress, Schedule};
use crate::record::{self, Assignment};
use crate::verify::{Claim, Proof, TopicProof};
use crate::wire::Drained;

/// So long nothing may come before the rest counts as missing.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// A topic that gave records and then nothing for so long has no more. (The clock stops at the last
/// record, so waiting costs nobody anything.)
const END_SILENCE: Duration = Duration::from_secs(3);
/// One wait for data.
const FETCH_WAIT: Duration = Duration::from_millis(100);
/// After the last expected record: is there anything that was never sent?
const EXTRA_WAIT: Duration = Duration::from_millis(20);

/// Runs `job(topic)` for every topic on a few threads; stops at the first error.
fn for_each_topic<F>(topics: usize, threads: u32, job: F) -> Result<(), WorkerError>
where
    F: Fn(usize) -> Result<(), DriverError> + Sync,
{
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), DriverError> {
        loop {
            let topic = next.fetch_add(1, Ordering::Relaxed);
            if topic >= topics {
                return Ok(());
            }
            job(topic).inspect_err(|_| next.store(topics, Ordering::Relaxed))?;
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            thread.join().map_err(|_| WorkerError::Panic)??;
        }
        Ok(())
    })
}

/// Reads every topic to its end and proves the claims.
pub(super) fn verify(
    setup: &Setup,
    session: &dyn Session,
    claims: &[Claim],
    threads: u32,
) -> Result<Proof, WorkerError> {
    let assignment = Assignment { producers: setup.producers, topics: setup.topics.len() as u32 };
    let (found, all) = mpsc::channel();
    for_each_topic(setup.topics.len(), threads, |topic| {
        let mut proof = TopicProof::new(assignment, topic, &setup.topics[topic], claims);
        let mut consumer = session.consumer(topic, false)?;
        let mut heard = Instant::now();
        loop {
            let complete = proof.is_complete();
            let wait = if complete { EXTRA_WAIT } else { FETCH_WAIT };
            let records = consumer.fetch(wait, &mut |record| proof.accept(record))?;
            if records > 0 {
                heard = Instant::now();
            } else if complete || heard.elapsed() > SILENCE_MAX {
                break;
            }
        }
        let _ = found.send(proof.finish());
        Ok(())
    })?;
    drop(found);
    let mut sum = Proof::default();
    for proof in all {
        sum.add(&proof);
    }
    Ok(sum)
}

/// Reads `records` records as fast as the system gives them; says ready first.
pub(super) fn measure(
    setup: &Setup,
    session: &dyn Session,
    records: u64,
    threads: u32,
) -> Result<Drained, WorkerError> {
    let progress = [Progress::default()];
    let (done, over) = mpsc::channel::<()>();
    if !ready()? {
        return Err(std::io::Error::other("no `go`").into());
    }
    let start = Instant::now();
    let last_ns = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let progress = &progress;
        scope.spawn(move || {
            while over.recv_timeout(SAMPLE_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = sample(start, progress);
            }
        });
        let result = for_each_topic(setup.topics.len(), threads, |topic| {
            drain_topic(session, topic, records, start, &progress[0], &last_ns)
        });
        drop(done);
        result
    })?;
    let read = progress[0].records.load(Ordering::Relaxed);
    Ok(Drained {
        duration_s: Duration::from_nanos(last_ns.into_inner()).as_secs_f64(),
        records: read,
        bytes: progress[0].bytes.load(Ordering::Relaxed),
        refused: records.saturating_sub(read),
        ..Drained::default()
    })
}

/// Reads one topic until all topics together gave `expected`, or this one has no more.
fn drain_topic(
    session: &dyn Session,
    topic: usize,
    expected: u64,
    start: Instant,
    progress: &Progress,
    last_ns: &AtomicU64,
) -> Result<(), DriverError> {
    let mut consumer = session.consumer(topic, false)?;
    let mut any = false;
    let mut heard = Instant::now();
    while progress.records.load(Ordering::Relaxed) < expected {
        let mut bytes = 0;
        let records = consumer.fetch(FETCH_WAIT, &mut |record| bytes += record.len() as u64)?;
        if records > 0 {
            any = true;
            heard = Instant::now();
            progress.records.fetch_add(records as u64, Ordering::Relaxed);
            progress.bytes.fetch_add(bytes, Ordering::Relaxed);
            last_ns.fetch_max(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        } else if heard.elapsed() > if any { END_SILENCE } else { SILENCE_MAX } {
            return Ok(());
        }
    }
    Ok(())
}

/// Readers at the tails of all topics, while others write.
pub(super) struct Tails<'scope> {
    shared: Arc<TailState>,
    threads: Vec<ScopedJoinHandle<'scope, Result<Latencies, DriverError>>>,
}

/// What the readers share.
#[derive(Default)]
struct TailState {
    schedule: OnceLock<Schedule>,
    records: AtomicU64,
    stop: AtomicBool,
}

impl<'scope> Tails<'scope> {
    /// Opens a reader a topic; returns when all stand at the end.
    pub(super) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        setup: &'env Setup,
        session: &'env dyn Session,
        assignment: Assignment,
    ) -> Result<Tails<'scope>, WorkerError> {
        let shared = Arc::new(TailState::default());
        let mut threads = Vec::new();
        let (opened, ready) = mpsc::channel();
        for topic in 0..setup.topics.len() {
            let (shared, opened) = (shared.clone(), opened.clone());
            threads.push(scope.spawn(move || tail(session, topic, assignment, &shared, opened)));
        }
        drop(opened);
        let count = ready.iter().count();
        if count == threads.len() {
            return Ok(Tails { shared, threads });
        }
        shared.stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().map_err(|_| WorkerError::Panic)??;
        }
        Err(WorkerError::Panic)
    }

    /// The clock runs.
    pub(super) fn set_schedule(&self, schedule: Schedule) {
        let _ = self.shared.schedule.set(schedule);
    }

    /// Waits until everything acknowledged was read, and returns the end-to-end latencies.
    pub(super) fn finish(self, acked: u64) -> Result<Latencies, WorkerError> {
        let (mut seen, mut heard) = (0, Instant::now());
        while seen < acked && heard.elapsed() < SILENCE_MAX {
            std::thread::sleep(Duration::from_millis(5));
            let now = self.shared.records.load(Ordering::Relaxed);
            if now > seen {
                (seen, heard) = (now, Instant::now());
            }
        }
        let all = self.stop()?;
        if seen < acked {
            let text = format!("the readers saw {seen} of {acked} acknowledged records");
            return Err(DriverError::System(text).into());
        }
        Ok(all)
    }

    /// Ends the readers.
    pub(super) fn stop(self) -> Result<Latencies, WorkerError> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut all = Latencies::default();
        for thread in self.threads {
            all.add(&thread.join().map_err(|_| WorkerError::Panic)??);
        }
        Ok(all)
    }
}

/// One reader: takes the latency of each record from its intended send time.
fn tail(
    session: &dyn Session,
    topic: usize,
    assignment: Assignment,
    shared: &TailState,
    opened: mpsc::Sender<()>,
) -> Result<Latencies, DriverError> {
    let mut consumer = session.consumer(topic, true)?;
    let _ = opened.send(());
    // The count of those who are ready ends when the last sender is gone.
    drop(opened);
    let slot = assignment.slot_of(topic);
    let mut latencies = Latencies::default();
    while !shared.stop.load(Ordering::Relaxed) {
        let records = consumer.fetch(FETCH_WAIT, &mut |bytes| {
            let now = Instant::now();
            let (Some(schedule), Some(header)) = (shared.schedule.get(), record::peek(bytes)) else {
                return;
            };
            let ticket = header.sequence * assignment.topics_of(header.producer) + slot;
            if let Some(latency) = schedule.latency(header.producer, ticket, now) {
                latencies.record(latency);
            }
        })?;
        shared.records.fetch_add(records as u64, Ordering::Relaxed);
    }
    Ok(latencies)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    use walrus_drivers::{Ack, Consumer, Producer, Tier, Tools};

    use crate::load::{Lane, Limit};
    use crate::record::RecordBytes;

    /// Keeps records in memory, acknowledges all of them, and loses one that it was told to lose.
    struct Forgetful {
        topics: Vec<Mutex<Vec<Vec<u8>>>>,
        loses_ticket: Option<u64>,
    }

    impl Forgetful {
        fn new(loses_ticket: Option<u64>) -> Forgetful {
            Forgetful { topics: (0..3).map(|_| Mutex::default()).collect(), loses_ticket }
        }
    }

    impl Session for Forgetful {
        fn create_topics(&self) -> Result<(), DriverError> {
            Ok(())
        }

        fn producer(&self, _id: u32) -> Result<Box<dyn Producer + '_>, DriverError> {
            Ok(Box::new(Writer { store: self, sent: 0, acked: 0 }))
        }

        fn consumer(&self, topic: usize, _at_end: bool) -> Result<Box<dyn Consumer + '_>, DriverError> {
            Ok(Box::new(Reader(self.topics[topic].lock().unwrap().clone())))
        }
    }

    struct Writer<'a> {
        store: &'a Forgetful,
        sent: u64,
        acked: u64,
    }

    impl Producer for Writer<'_> {
        fn send(&mut self, topic: usize, ticket: u64, record: &[u8]) -> Result<(), DriverError> {
            if self.store.loses_ticket != Some(ticket) {
                self.store.topics[topic].lock().unwrap().push(record.to_vec());
            }
            self.sent = ticket + 1;
            Ok(())
        }

        fn poll(&mut self, _wait: Duration, acks: &mut Vec<Ack>) -> Result<(), DriverError> {
            acks.push(Ack { first_ticket: self.acked, count: self.sent - self.acked, ok: true });
            self.acked = self.sent;
            Ok(())
        }

        fn flush(&mut self) -> Result<(), DriverError> {
            Ok(())
        }
    }

    /// Gives all records in one go, then none.
    struct Reader(Vec<Vec<u8>>);

    impl Consumer for Reader {
        fn fetch(&mut self, _: Duration, sink: &mut dyn FnMut(&[u8])) -> Result<usize, DriverError> {
            let records = std::mem::take(&mut self.0);
            records.iter().for_each(|record| sink(record));
            Ok(records.len())
        }
    }

    fn load_and_verify(loses_ticket: Option<u64>) -> Proof {
        let setup = Setup {
            data_dir: "unused".into(),
            topics: vec!["a".into(), "b".into(), "c".into()],
            tier: Tier::Memory,
            producers: 1,
            one_in_flight: false,
            in_flight_bytes: 10_000,
            variant: Vec::new(),
            settings: toml::Table::new(),
            tools: Tools::default(),
            endpoint: None,
            nodes: 1,
        };
        let store = Forgetful::new(loses_ticket);
        let assignment = Assignment { producers: 1, topics: 3 };
        let lane = Lane::new(0, assignment, &setup.topics, RecordBytes { min: 16, max: 200 });
        let limit = Limit::new(Instant::now(), None, Some(200_000));
        let mut producer = store.producer(0).unwrap();
        let result = lane.run_closed(producer.as_mut(), Some(10_000), &limit, &Progress::default()).unwrap();
        verify(&setup, &store, &[result.claim], 2).unwrap()
    }

    #[test]
    fn an_honest_system_passes() {
        let proof = load_and_verify(None);
        assert_eq!(proof.verdict(), Ok(()));
        assert!(proof.records > 1000);
    }

    #[test]
    fn one_lost_record_in_the_middle_fails() {
        let proof = load_and_verify(Some(100));
        assert_eq!(proof.missing, 1);
        assert!(proof.verdict().is_err());
    }
}
