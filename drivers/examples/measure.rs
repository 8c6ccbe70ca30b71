//! A small load loop for working on a driver: no verification, no ceilings, one number.
//! `measure SYSTEM [words=tuned,batch] [tier=synced] [seconds=3] [topics=10] [producers=10]
//! [window=4194304|one] [table=tuned] [read] [warm_gib=5] [key=value …]`; use the harness for figures to quote.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use walrus_drivers::{Session, Setup, Tier, Tools, registry};

fn main() {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    #[cfg(target_os = "linux")]
    if args.first().is_some_and(|arg| arg == walrus_drivers::raw::server::SUBCOMMAND) {
        return raw_server(&args);
    }
    let name = args.remove(0);
    let pairs: HashMap<String, String> =
        args.iter().filter_map(|arg| arg.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect();
    let get = |key: &str, default: &str| pairs.get(key).cloned().unwrap_or_else(|| default.to_owned());
    let (name, networked) = match name.strip_suffix("-networked") {
        Some(name) => (name.to_owned(), true),
        None => (name, false),
    };
    let system = registry::systems()
        .into_iter()
        .find(|s| s.name() == name && (!networked || s.deployment() == walrus_drivers::Deployment::Networked))
        .expect("a system of this name");
    let dir = PathBuf::from(get("dir", "/tmp/measure-data"));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    let own = ["words", "tier", "seconds", "topics", "producers", "window", "table", "dir", "warm_gib"];
    let mut settings = table(&name, &get("table", ""), &get("words", ""));
    for (key, value) in pairs.iter().filter(|(key, _)| !own.contains(&key.as_str())) {
        let parsed: toml::Table =
            format!("{key} = {value}").parse().unwrap_or_else(|_| format!("{key} = {value:?}").parse().unwrap());
        settings.extend(parsed);
    }
    let window = get("window", "4194304");
    let here = std::env::current_exe().unwrap();
    let mut setup = Setup {
        data_dir: dir.clone(),
        topics: (0..get("topics", "10").parse().unwrap()).map(|t: u32| format!("topic-{t}")).collect(),
        tier: if get("tier", "") == "synced" { Tier::Synced } else { Tier::PageCache },
        producers: get("producers", "10").parse().unwrap(),
        one_in_flight: window == "one",
        in_flight_bytes: window.parse().unwrap_or(0),
        variant: get("words", "").split(',').map(str::to_owned).collect(),
        settings,
        tools: Tools {
            walrus_bin: here.parent().and_then(|d| d.parent()).map(|d| d.join("walrus")),
            kafka_libs: std::env::var_os("KAFKA_LIBS").map(PathBuf::from),
            harness_bin: Some(here),
        },
        endpoint: None,
        nodes: 1,
    };
    system.check(&setup.tools).unwrap();
    let server = system.start(&setup).unwrap();
    setup.endpoint = server.as_ref().map(|server| server.endpoint().to_owned());
    let session = system.open(&setup).unwrap();
    session.create_topics().unwrap();
    let seconds: f64 = get("seconds", "3").parse().unwrap();
    warm_page_cache(&dir, get("warm_gib", "5").parse().unwrap());
    let records = load(&*session, &setup, Duration::from_secs_f64(seconds));
    if args.iter().any(|arg| arg == "read") {
        read(&*session, &setup, records);
    }
    drop(session);
    drop(server);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[cfg(target_os = "linux")]
fn raw_server(args: &[String]) {
    let value = |flag: &str| args.iter().position(|arg| arg == flag).map(|at| args[at + 1].clone()).unwrap();
    let config = walrus_drivers::raw::server::RawServerConfig {
        data_dir: value("--data-dir").into(),
        port: value("--port").parse().unwrap(),
        synced: args.iter().any(|arg| arg == "--synced"),
        read_bytes: value("--read-bytes").parse().unwrap(),
    };
    walrus_drivers::raw::server::run(&config).unwrap();
}

/// The profile's table `name`; tables in it that are named after a word of the variant are laid over it.
fn table(system: &str, name: &str, words: &str) -> toml::Table {
    let path = format!("{}/profiles/{system}.toml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut profile: toml::Table = text.parse().unwrap();
    let Some(toml::Value::Table(mut table)) = profile.remove(name) else {
        return toml::Table::new();
    };
    for word in ["put", "append", "batch", "idempotent", "cluster", "session"] {
        if let Some(toml::Value::Table(special)) = table.remove(word)
            && words.split(',').any(|given| given == word)
        {
            table.extend(special);
        }
    }
    table
}

/// Has the host back the pages that the page cache will use, as the harness does right before a run.
fn warm_page_cache(dir: &Path, gib: u64) {
    let path = dir.join("warm-up");
    std::fs::File::create(&path).unwrap().set_len(gib << 30).unwrap();
    let (mut file, mut chunk) = (std::fs::File::open(&path).unwrap(), vec![0; 1 << 20]);
    while file.read(&mut chunk).unwrap() > 0 {}
    std::fs::remove_file(&path).unwrap();
}

fn load(session: &dyn Session, setup: &Setup, duration: Duration) -> u64 {
    let (records, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
    let pool: Vec<u8> = (0..1 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let busy_before = machine_busy_s();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for id in 0..setup.producers {
            let (records, bytes, pool) = (&records, &bytes, &pool);
            scope.spawn(move || {
                let (r, b) = lane(session, setup, pool, id, start + duration);
                records.fetch_add(r, Ordering::Relaxed);
                bytes.fetch_add(b, Ordering::Relaxed);
            });
        }
    });
    let loaded = start.elapsed();
    session.settle().unwrap();
    let settled = start.elapsed();
    let busy_s = machine_busy_s() - busy_before;
    let records = records.into_inner();
    println!(
        "{records} records in {loaded:.2?}: {:.0}/s, {:.0} MB/s; settled after {settled:.2?}: {:.0}/s; CPU {:.3} s a million",
        records as f64 / loaded.as_secs_f64(),
        bytes.into_inner() as f64 / 1e6 / loaded.as_secs_f64(),
        records as f64 / settled.as_secs_f64(),
        busy_s * 1e6 / records as f64,
    );
    records
}

/// CPU time that the whole machine spent so far, without what the host took: client, server and kernel together.
fn machine_busy_s() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let words = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; a tick is 10 ms on every usual kernel.
    [0, 1, 2, 5, 6].iter().filter_map(|&at| ticks.get(at)).sum::<u64>() as f64 / 100.0
}

fn lane(session: &dyn Session, setup: &Setup, pool: &[u8], id: u32, end: Instant) -> (u64, u64) {
    let size = |ticket: u64| 500 + (ticket.wrapping_mul(7919) % 525) as usize;
    let mut producer = session.producer(id).unwrap();
    let my_topics: Vec<usize> =
        (0..setup.topics.len()).filter(|t| t % setup.producers as usize == id as usize % setup.topics.len()).collect();
    let (mut ticket, mut acked, mut in_flight, mut bytes) = (0, 0, 0, 0);
    let mut acks = Vec::new();
    let mut settle = |producer: &mut dyn walrus_drivers::Producer, in_flight: &mut u64| {
        producer.poll(Duration::from_millis(100), &mut acks).unwrap();
        let mut count = 0;
        for ack in acks.drain(..) {
            assert!(ack.ok);
            count += ack.count;
            *in_flight -= (ack.first_ticket..ack.first_ticket + ack.count).map(|t| size(t) as u64).sum::<u64>();
        }
        count
    };
    while Instant::now() < end {
        while in_flight == 0 || in_flight + size(ticket) as u64 <= setup.in_flight_bytes {
            let length = size(ticket);
            let from = (ticket as usize * 61) % (pool.len() - 1024);
            let topic = my_topics[ticket as usize % my_topics.len()];
            producer.send(topic, ticket, &pool[from..from + length]).unwrap();
            ticket += 1;
            in_flight += length as u64;
            bytes += length as u64;
            if ticket.is_multiple_of(64) && Instant::now() >= end {
                break;
            }
        }
        acked += settle(&mut *producer, &mut in_flight);
    }
    producer.flush().unwrap();
    while acked < ticket {
        acked += settle(&mut *producer, &mut in_flight);
    }
    (acked, bytes)
}

fn read(session: &dyn Session, setup: &Setup, written: u64) {
    let start = Instant::now();
    let mut records = 0;
    for topic in 0..setup.topics.len() {
        let mut consumer = session.consumer(topic, false).unwrap();
        loop {
            let count = consumer.fetch(Duration::ZERO, &mut |record| {
                std::hint::black_box(record);
            });
            match count.unwrap() {
                0 => break,
                count => records += count as u64,
            }
        }
    }
    println!("read {records} of {written}: {:.0}/s", records as f64 / start.elapsed().as_secs_f64());
}
