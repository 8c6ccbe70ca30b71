//! Compares settings of Kafka on warm brokers, interleaved: one broker for each set of broker
//! settings, all of them warmed, then every set measured once a round.
//!
//! `kafka_sweep TABLE ROUNDS SECONDS 'key=value key=value' …` lays each list over the profile's
//! table and writes CSV to stdout (columns: `drivers/profiles/kafka.sweep.md`). Ten producers, ten
//! topics, records of 500–1024 bytes, 4 MiB in flight each, acknowledged. A rate in the environment
//! variable `RATE_PER_S` makes it an open loop. Nothing is verified here: the harness does that.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use walrus_drivers::kafka::Kafka;
use walrus_drivers::{Ack, Producer, Server, Session, Setup, System, Tier, Tools};

const PRODUCERS: u32 = 10;
const WARM: Duration = Duration::from_secs(10);
/// Latencies kept a producer, the newest.
const SAMPLES: usize = 1 << 20;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let rounds: u32 = args[1].parse().unwrap();
    let duration = Duration::from_secs_f64(args[2].parse().unwrap());
    let rate_per_s: Option<f64> = std::env::var("RATE_PER_S").ok().map(|rate| rate.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut brokers: BTreeMap<String, Box<dyn Server>> = BTreeMap::new();
    let mut setups: Vec<Setup> = args[3..].iter().map(|overlay| setup(dir.path(), &args[0], overlay)).collect();
    for setup in &mut setups {
        let key = Kafka.server_key(setup);
        if !brokers.contains_key(&key) {
            setup.data_dir = dir.path().join(brokers.len().to_string());
            let broker = Kafka.start(setup).unwrap().unwrap();
            setup.endpoint = Some(broker.endpoint().to_owned());
            trial(setup, "warm", WARM, None);
            brokers.insert(key.clone(), broker);
        }
        setup.endpoint = Some(brokers[&key].endpoint().to_owned());
    }
    println!("table,overlay,rate_per_s,round,records_per_s,p50_us,p99_us,load_average");
    for round in 0..rounds {
        for turn in 0..setups.len() {
            // Rotated: no set always comes first.
            let index = (turn + round as usize) % setups.len();
            let (rate, p50, p99) = trial(&mut setups[index], &format!("{round}"), duration, rate_per_s);
            let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
            let load = load.split(' ').next().unwrap_or_default();
            let offered = rate_per_s.map_or(String::new(), |rate| rate.to_string());
            println!("{},{},{offered},{round},{rate:.0},{p50},{p99},{load}", args[0], args[3 + index]);
        }
    }
}

fn setup(dir: &std::path::Path, table: &str, overlay: &str) -> Setup {
    let profile = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/profiles/kafka.toml")).unwrap();
    let mut profile: toml::Table = profile.parse().unwrap();
    let mut settings = profile.remove(table).and_then(|table| table.try_into::<toml::Table>().ok()).unwrap();
    for (key, value) in overlay.split_whitespace().filter_map(|pair| pair.split_once('=')) {
        let value = match key {
            "jvm" => value.split(',').collect::<Vec<_>>().into(),
            _ => value.into(),
        };
        settings.insert(key.into(), value);
    }
    Setup {
        data_dir: dir.to_owned(),
        topics: Vec::new(),
        tier: if table == "synced" { Tier::Synced } else { Tier::PageCache },
        producers: PRODUCERS,
        one_in_flight: false,
        in_flight_bytes: 4 << 20,
        variant: vec![table.into()],
        settings,
        tools: Tools::default(),
        endpoint: None,
        nodes: 1,
    }
}

/// Records a second, and the latencies in µs at 50 and 99 %.
fn trial(setup: &mut Setup, name: &str, duration: Duration, rate_per_s: Option<f64>) -> (f64, u64, u64) {
    setup.topics = (0..PRODUCERS).map(|topic| format!("{name}-{topic}")).collect();
    let session = Kafka.open(setup).unwrap();
    session.create_topics().unwrap();
    let start = Instant::now();
    let gap = rate_per_s.map(|rate| Duration::from_secs_f64(f64::from(PRODUCERS) / rate));
    let (mut acked, mut latencies) = (0, Vec::new());
    std::thread::scope(|scope| {
        let window = setup.in_flight_bytes;
        let lanes: Vec<_> = (0..PRODUCERS)
            .map(|id| {
                let producer = session.producer(id).unwrap();
                scope.spawn(move || Lane::new(producer, id as usize, gap).run(start, duration, window))
            })
            .collect();
        for lane in lanes {
            let (records, us) = lane.join().unwrap();
            acked += records;
            latencies.extend(us);
        }
    });
    let rate = acked as f64 / start.elapsed().as_secs_f64();
    remove_topics(&*session);
    latencies.sort_unstable();
    let at = |part: usize| latencies.get(latencies.len() * part / 100).copied().unwrap_or(0);
    (rate, at(50), at(99))
}

fn remove_topics(session: &dyn Session) {
    session.remove_topics().unwrap();
    // The files go a second later (`log.segment.delete.delay.ms`), and with them their dirty pages.
    std::thread::sleep(Duration::from_secs(3));
}

struct Lane<'a> {
    producer: Box<dyn Producer + 'a>,
    topic: usize,
    gap: Option<Duration>,
    sent_at: Vec<Instant>,
    latencies_us: Vec<u64>,
    next_ticket: u64,
    acked: u64,
    in_flight_bytes: u64,
}

impl<'a> Lane<'a> {
    fn new(producer: Box<dyn Producer + 'a>, topic: usize, gap: Option<Duration>) -> Lane<'a> {
        let sent_at = vec![Instant::now(); SAMPLES];
        Lane { producer, topic, gap, sent_at, latencies_us: Vec::new(), next_ticket: 0, acked: 0, in_flight_bytes: 0 }
    }

    fn run(mut self, start: Instant, duration: Duration, window: u64) -> (u64, Vec<u64>) {
        let body: Vec<u8> = (0..2048_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        while start.elapsed() < duration {
            let due = self.gap.map(|gap| start + gap.mul_f64(self.next_ticket as f64));
            let now = Instant::now();
            let is_due = due.is_none_or(|due| due <= now);
            if is_due && (due.is_some() || self.in_flight_bytes + 1024 <= window) {
                let len = size(self.next_ticket);
                self.sent_at[self.next_ticket as usize % SAMPLES] = due.unwrap_or(now);
                self.producer.send(self.topic, self.next_ticket, &body[..len]).unwrap();
                self.next_ticket += 1;
                self.in_flight_bytes += len as u64;
            } else {
                self.collect(due.map_or(Duration::from_millis(100), |due| due.saturating_duration_since(now)));
            }
        }
        self.producer.flush().unwrap();
        while self.acked < self.next_ticket {
            self.collect(Duration::from_millis(100));
        }
        (self.acked, self.latencies_us)
    }

    fn collect(&mut self, wait: Duration) {
        let mut acks = Vec::new();
        self.producer.poll(wait, &mut acks).unwrap();
        let now = Instant::now();
        for Ack { first_ticket, count, ok } in acks {
            assert!(ok, "refused");
            self.acked += count;
            for ticket in first_ticket..first_ticket + count {
                self.in_flight_bytes -= size(ticket) as u64;
                if self.gap.is_some() || ticket.is_multiple_of(64) {
                    let us = now - self.sent_at[ticket as usize % SAMPLES];
                    self.latencies_us.push(us.as_micros() as u64);
                }
            }
        }
    }
}

fn size(ticket: u64) -> usize {
    500 + (ticket.wrapping_mul(7919) % 525) as usize
}
