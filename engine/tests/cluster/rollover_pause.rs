//! How long writers wait when a segment is full and the next node takes over: the bar is 10 ms at
//! the 99th percentile, and no error. A steady load on one node, far below what the cluster can do,
//! so that a wait is the rollover's and not a queue's.
//!
//! ```text
//! acknowledgements   ││││││││││││          ││││││││││││
//! records of segment    n                   n + 1
//!                              ◀─ pause ──▶
//! ```

use std::sync::mpsc;
use std::time::{Duration, Instant};

use walrus_engine::client::{ClientConfig, Outcome, Pipeline, PipelineConfig};

use crate::support::cluster::Cluster;

/// Records of a segment.
const SEGMENT_RECORDS: u64 = 2_500;
/// Rollovers that are measured: enough for a 99th percentile that is not the worst one.
const ROLLOVERS: u64 = 160;
/// Rollovers before that are told apart: connections between the nodes are made.
const WARM_UP: u64 = 6;
/// Records that are sent together, every [`BURST_EVERY`]: 10,000 a second.
const BURST: u64 = 10;
const BURST_EVERY: Duration = Duration::from_millis(1);
const RECORD: [u8; 100] = [b'r'; 100];
/// Before and after the boundary: acknowledgements within these records belong to its rollover.
const AROUND: u64 = SEGMENT_RECORDS / 5;
/// Longest wait for a reply.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
#[ignore = "measures; `make rollover-pause`"]
fn the_pause_of_a_rollover() {
    let cluster = Cluster::start(3);
    let entries = format!("segment_entries={SEGMENT_RECORDS}");
    cluster.register("t", &[&entries]);
    let latencies = offer(&cluster, (WARM_UP + ROLLOVERS) * SEGMENT_RECORDS + AROUND);

    // One producer, so the n-th record is at offset n.
    let longest = |middle: u64| latencies[(middle - AROUND) as usize..(middle + AROUND) as usize].iter().max().copied();
    let first = (1..=WARM_UP).filter_map(|segment| longest(segment * SEGMENT_RECORDS)).collect();
    let measured = WARM_UP + 1..=WARM_UP + ROLLOVERS;
    let pauses = measured.clone().filter_map(|segment| longest(segment * SEGMENT_RECORDS)).collect();
    let quiet = measured.filter_map(|segment| longest(segment * SEGMENT_RECORDS - SEGMENT_RECORDS / 2)).collect();
    report("longest wait of a record at a rollover", pauses);
    report("at the first ones", first);
    report("in the midst of a segment", quiet);
    report("every record", latencies);

    let state = cluster.state(1, "t");
    let sealed = state["sealed_segments"].as_object().expect("a map").len() as u64;
    assert!(sealed >= WARM_UP + ROLLOVERS, "a rollover for each full segment: {sealed}");
}

/// Sends records at a steady rate, whatever is acknowledged; returns how long each waited, from the
/// moment when it was due. An error ends the test.
fn offer(cluster: &Cluster, records: u64) -> Vec<Duration> {
    let config = ClientConfig { request_timeout: PATIENCE, ..ClientConfig::new(cluster.node(1).client_address()) };
    let pipeline = Pipeline::connect(&config, PipelineConfig::default()).expect("a connection");
    let (mut sender, mut receiver) = pipeline.split();
    let (due, dues) = mpsc::channel();
    let sending = std::thread::spawn(move || {
        let start = Instant::now();
        for burst in 0..records / BURST {
            let at = start + BURST_EVERY * burst as u32;
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            due.send(at).expect("the receiver waits for every burst");
            for _ in 0..BURST {
                sender.push_put("t", &RECORD).expect("PUT");
            }
            sender.flush().expect("the node takes everything");
        }
    });
    let mut latencies: Vec<Duration> = Vec::with_capacity(records as usize);
    let mut burst_due = Instant::now();
    while (latencies.len() as u64) < records / BURST * BURST {
        let answered = receiver.recv_replies(PATIENCE, |outcome| match outcome {
            Outcome::Ok(count) => {
                let now = Instant::now();
                for _ in 0..count {
                    if (latencies.len() as u64).is_multiple_of(BURST) {
                        burst_due = dues.recv().expect("it was sent before it was answered");
                    }
                    latencies.push(now - burst_due);
                }
            }
            Outcome::Err { code, text } => panic!("a client sees a rollover: {code} {text}"),
        });
        assert_ne!(answered.expect("replies"), 0, "no reply within {PATIENCE:?}");
    }
    sending.join().expect("the producer ends well");
    latencies
}

/// Prints the distribution.
fn report(what: &str, mut waits: Vec<Duration>) {
    waits.sort_unstable();
    let ms = |share: f64| waits[((waits.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1e3;
    println!(
        "{what:38} {:7} times: p50 {:6.2} ms, p90 {:6.2} ms, p99 {:6.2} ms, max {:6.2} ms",
        waits.len(),
        ms(0.5),
        ms(0.9),
        ms(0.99),
        ms(1.0)
    );
}
