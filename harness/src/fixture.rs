//! Invented results for the tests of charts and reports: the shape of a full run, made-up numbers.

#![allow(clippy::cast_sign_loss)] // Invented numbers, none of them negative.

use std::path::Path;

use serde_json::json;
use walrus_drivers::{Deployment, Tier};

use crate::csv::{self, LatencyRow, LoadMode, SummaryRow, ThroughputRow};

/// Repeats of every row.
pub const REPEATS: u32 = 5;
const BIG_WINDOW: &str = "1MiB";

/// Rows under construction.
#[derive(Default)]
pub struct Fixture {
    /// `summary.csv`.
    pub summary: Vec<SummaryRow>,
    throughput: Vec<ThroughputRow>,
    latency: Vec<LatencyRow>,
}

/// A row with nothing special about it.
pub fn plain_row(workload: &str, system: &str, variant: &str, per_s: f64) -> SummaryRow {
    let embedded = matches!(system, "walrus-embedded" | "rocksdb" | "upstream");
    SummaryRow {
        run_id: String::new(),
        workload: workload.into(),
        system: system.into(),
        variant: variant.into(),
        deployment: if embedded { Deployment::Embedded } else { Deployment::Networked },
        tier: Tier::PageCache,
        producers: 10,
        topics: 10,
        record_bytes_mean: 762.0,
        in_flight: BIG_WINDOW.into(),
        repeat: 1,
        duration_s: 10.0,
        records_acked: (per_s * 10.0) as u64,
        records_per_s: per_s,
        payload_mb_per_s: per_s * 762.0 / 1e6,
        p50_us: Some(1.2e9 / per_s),
        p99_us: Some(6.0e9 / per_s),
        p999_us: Some(2.0e10 / per_s),
        cpu_s_per_million_client: Some(0.4e6 / per_s),
        cpu_s_per_million_server: (!embedded).then_some(0.7e6 / per_s),
        disk_bytes_per_payload_byte: Some(1.02),
        peak_rss_mb: Some(212.0),
        ceiling_pct: Some(71.0),
        verified: true,
        error: String::new(),
        load_mode: LoadMode::Closed,
        offered_per_s: None,
        p9999_us: Some(5.0e10 / per_s),
        peak_records_per_s: Some(per_s * 1.2),
        nodes: 1,
        replicas: 1,
        warmup_s: 1.0,
        payload_bytes_total: (per_s * 7620.0) as u64,
        device_flushes: Some(12),
        steal_pct: Some(0.1),
        duplicates: 0,
        marks: String::new(),
    }
}

impl Fixture {
    /// Adds the repeats of a row, each a few percent off; `change` adapts each of them.
    pub fn add(&mut self, row: &SummaryRow, change: impl Fn(&mut SummaryRow)) {
        for repeat in 1..=REPEATS {
            let noise = 1.0 + 0.03 * (f64::from(repeat * 7 % 5) - 2.0);
            let mut row = SummaryRow { repeat, ..row.clone() };
            row.records_per_s *= noise;
            row.p99_us = row.p99_us.map(|us| us * noise);
            row.run_id = format!("r{}", self.summary.len());
            change(&mut row);
            self.summary.push(row);
        }
    }

    fn curve(&mut self, from: usize) {
        for row in &self.summary[from..] {
            let ticks: u64 = if row.workload == "writes" { 120 } else { 8 };
            let (mut records, mut previous) = (0.0, 0);
            for tick in 0..=ticks {
                self.throughput.push(ThroughputRow {
                    run_id: row.run_id.clone(),
                    t_ms: tick * 500,
                    records_acked: records as u64,
                    bytes_acked: records as u64 * 762,
                    dirty_bytes: previous,
                });
                let burst = if tick < 10 { 1.9 } else { 0.9 };
                let wave = 1.0 + 0.12 * (tick as f64 * 0.9 + f64::from(row.repeat)).sin();
                records += row.records_per_s * 0.5 * burst * wave;
                previous += 1 << 20;
            }
        }
    }

    /// Writes the CSV files and `env.json`.
    pub fn write(&self, dir: &Path) {
        csv::append(&dir.join(csv::SUMMARY_FILE), &self.summary).expect("summary.csv");
        csv::append(&dir.join(csv::THROUGHPUT_FILE), &self.throughput).expect("throughput.csv");
        csv::append(&dir.join(csv::LATENCY_FILE), &self.latency).expect("latency.csv");
        let env = json!({
            "command_line": ["harness", "run", "--profile", "full"],
            "git_revision": "0123456",
            "machine": {"cpu": "Invented CPU", "cores": 2, "memory_bytes": 25_000_000_000_u64,
                "kernel": "6.18"},
            "filesystem": {"kind": "ext4", "device_cache": "write back"},
            "versions": {"kafka": "4.4.0", "rocksdb": "10.4.2"},
        });
        std::fs::write(dir.join("env.json"), env.to_string()).expect("env.json");
    }
}

/// A run with every workload.
pub fn full() -> Fixture {
    let mut f = Fixture::default();
    for (workload, scale) in [("writes-burst", 1.0_f64), ("writes", 0.45)] {
        let from = f.summary.len();
        for (system, variant, per_s) in [
            ("raw", "frames", 1_900_000.0),
            ("walrus", "put-vanilla", 1_380_000.0),
            ("walrus", "put-tuned", 1_620_000.0),
            ("walrus", "append-tuned", 1_790_000.0),
            ("kafka", "vanilla", 276_000.0),
            ("kafka", "tuned", 471_000.0),
            ("kafka", "tuned-idempotent", 402_000.0),
            ("kafka-java", "tuned", 512_000.0),
            ("walrus-embedded", "windowed", 1_870_000.0),
            ("rocksdb", "original", 81_000.0),
            ("rocksdb", "put-tuned", 240_000.0),
            ("rocksdb", "batch-tuned", 640_000.0),
            ("upstream", "append-fd", 194_000.0),
            ("upstream", "batch-fd", 310_000.0),
            ("upstream", "batch-mmap", 280_000.0),
        ] {
            let damped = if per_s > 900_000.0 { per_s * scale } else { per_s * scale.max(0.7) };
            let one = matches!((system, variant), ("rocksdb", "original" | "put-tuned") | ("upstream", "append-fd"));
            f.add(&plain_row(workload, system, variant, damped), |row| {
                if one {
                    row.in_flight = "1".into();
                }
            });
        }
        f.add(&plain_row(workload, "raw", "uring", 2_500_000.0 * scale), |row| {
            row.deployment = Deployment::Embedded;
        });
        f.curve(from);
    }
    cluster(&mut f);
    synced(&mut f);
    curves(&mut f);
    latency(&mut f);
    for (system, variant, per_s) in
        [("walrus", "warm", 3.1e6), ("walrus", "cold", 1.1e6), ("kafka", "warm", 1.9e6), ("kafka", "cold", 0.9e6)]
    {
        f.add(&plain_row("read", system, variant, per_s), |row| row.load_mode = LoadMode::Read);
    }
    f.add(&plain_row("writes", "kafka", "broken", 9.0e9), |row| {
        row.verified = false;
        row.error = "lost 3 acknowledged records <of topic 2>".into();
    });
    f
}

fn cluster(f: &mut Fixture) {
    let rows = [("walrus", "put-tuned", 250e3), ("walrus", "put-all-tuned", 220e3), ("kafka", "tuned", 110e3)];
    for (system, variant, per_s) in rows {
        f.add(&plain_row("cluster", system, variant, per_s), |row| (row.nodes, row.replicas) = (3, 3));
        let open = |row: &mut SummaryRow| {
            (row.nodes, row.replicas) = (3, 3);
            (row.load_mode, row.offered_per_s, row.records_per_s) = (LoadMode::Open, Some(10e3), 10e3);
        };
        f.add(&plain_row("cluster", system, variant, per_s), open);
        let from = f.summary.len();
        f.add(&plain_row("failover", system, variant, per_s), |row| {
            open(row);
            row.marks = format!("gap_ms={}", if system == "kafka" { 4000 } else { 1500 });
        });
        f.curve(from);
    }
}

fn synced(f: &mut Fixture) {
    for (system, variant, per_s, in_flight) in [
        ("raw", "dsync", 22_000.0, "1"),
        ("walrus-embedded", "blocking", 16_100.0, "1"),
        ("rocksdb", "put-tuned", 14_700.0, "1"),
        ("upstream", "append-fd", 9_700.0, "1"),
        ("raw", "dsync", 610_000.0, BIG_WINDOW),
        ("walrus-embedded", "windowed", 420_000.0, BIG_WINDOW),
        ("rocksdb", "batch-tuned", 260_000.0, BIG_WINDOW),
        ("walrus", "put-tuned", 390_000.0, BIG_WINDOW),
        ("walrus", "append-tuned", 405_000.0, BIG_WINDOW),
        ("kafka", "tuned", 310_000.0, BIG_WINDOW),
        ("walrus", "put-tuned", 15_200.0, "1"),
        ("kafka", "tuned", 11_000.0, "1"),
    ] {
        f.add(&plain_row("writes-synced", system, variant, per_s), |row| {
            row.tier = Tier::Synced;
            row.in_flight = in_flight.into();
            if system == "raw" {
                row.deployment = Deployment::Embedded;
            }
        });
    }
}

fn curves(f: &mut Fixture) {
    let systems = [
        ("walrus", "put-tuned", 1.5e6),
        ("kafka", "tuned", 0.45e6),
        ("walrus-embedded", "windowed", 1.8e6),
        ("rocksdb", "batch-tuned", 0.6e6),
        ("upstream", "batch-fd", 0.3e6),
    ];
    for (system, variant, per_s) in systems {
        for producers in [1, 2, 4, 8, 16, 32, 64] {
            let share = 1.0 - 0.75f64.powf(f64::from(producers));
            f.add(&plain_row("scaling", system, variant, per_s * share), |row| row.producers = producers);
        }
        for topics in [1, 100, 1000] {
            let share = 1.05 - 0.1 * f64::from(topics).log10();
            f.add(&plain_row("scaling", system, variant, per_s * share), |row| row.topics = topics);
        }
        for size in [16.0, 64.0, 256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0] {
            let rate = per_s * 1.5 / (1.0 + size / 700.0);
            f.add(&plain_row("sizes", system, variant, rate), |row| row.record_bytes_mean = size);
        }
    }
}

fn latency(f: &mut Fixture) {
    for (system, variant, knee, base_us) in [("walrus", "put-tuned", 1.4e6, 120.0), ("kafka", "tuned", 0.36e6, 900.0)] {
        for offered in [50e3, 100e3, 200e3, 400e3, 800e3, 1.6e6] {
            let from = f.summary.len();
            let load: f64 = offered / knee;
            let p50 = if load < 1.0 { base_us / (1.0 - load * 0.9) } else { 400_000.0 };
            f.add(&plain_row("latency", system, variant, offered.min(knee)), |row| {
                row.records_per_s = offered.min(knee);
                row.load_mode = LoadMode::Open;
                row.offered_per_s = Some(offered);
                row.p50_us = Some(p50);
                row.p99_us = Some(p50 * 4.0);
                row.p999_us = Some(p50 * 11.0);
            });
            for row in f.summary[from..].iter().map(|row| row.run_id.clone()) {
                for (percentile, factor) in [
                    (0.0, 0.4),
                    (50.0, 1.0),
                    (75.0, 1.4),
                    (90.0, 2.0),
                    (95.0, 2.6),
                    (99.0, 4.0),
                    (99.9, 11.0),
                    (99.99, 24.0),
                ] {
                    f.latency.push(LatencyRow {
                        run_id: row.clone(),
                        offered_per_s: Some(offered),
                        achieved_per_s: offered.min(knee),
                        percentile,
                        latency_us: p50 * factor,
                    });
                }
            }
        }
    }
}
