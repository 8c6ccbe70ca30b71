//! The result in one sentence, no stronger than the repeats allow.

use walrus_drivers::Deployment;

use super::ratios::{Comparison, Measure};
use crate::stats::{REPEATS_MIN, Verdict, three_digits};

/// The sentence that the report begins with.
pub fn headline(comparisons: &[Comparison]) -> String {
    let find = |workload: &str, deployment, mode: &str, rival: &str| {
        comparisons.iter().find(|c| {
            c.workload == workload
                && c.deployment == deployment
                && c.mode == mode
                && c.rival == rival
                && !c.is_vanilla
                && !c.is_one_in_flight
                && c.measure == Measure::RecordsPerS
        })
    };
    let networked = [
        ("in a burst", find("writes-burst", Deployment::Networked, "put", "kafka")),
        ("when writing goes on", find("writes", Deployment::Networked, "put", "kafka")),
    ];
    let embedded = [
        ("against RocksDB", find("writes-burst", Deployment::Embedded, "", "rocksdb")),
        ("against the original Walrus", find("writes-burst", Deployment::Embedded, "", "upstream")),
    ];
    let told = |claims: &[(&str, Option<&Comparison>)]| -> Vec<String> {
        claims.iter().filter_map(|(what, c)| Some(format!("{what} {}", claim((*c)?)))).collect()
    };
    let mut parts = Vec::new();
    let networked = told(&networked);
    if !networked.is_empty() {
        parts.push(format!(
            "Over TCP, with one record a request acknowledged from the page cache, Walrus \
             against Kafka at its best: {}",
            networked.join(", ")
        ));
    }
    let embedded = told(&embedded);
    if !embedded.is_empty() {
        parts.push(format!("in process, in a burst: {}", embedded.join(", ")));
    }
    let cluster = [
        ("with two of three copies", find("cluster", Deployment::Networked, "put", "kafka")),
        ("with all three", find("cluster", Deployment::Networked, "all", "kafka")),
    ];
    let cluster = told(&cluster);
    if !cluster.is_empty() {
        parts.push(format!("three nodes on one machine, against three Kafka brokers: {}", cluster.join(", ")));
    }
    match parts.join("; ") {
        none if none.is_empty() => "This run holds no two rows that can be compared.".to_owned(),
        text => alone(&text),
    }
}

/// A part as a sentence of its own.
pub fn alone(part: &str) -> String {
    let mut letters = part.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str().trim_end_matches('.'))
}

/// `3.4 times as fast (3.1–3.9)`, or that nothing was shown.
pub fn claim(comparison: &Comparison) -> String {
    let ratio = &comparison.ratio;
    if ratio.count < REPEATS_MIN {
        let (ratio, count) = (three_digits(ratio.median), ratio.count);
        return format!("a ratio of {ratio}, in {count} of the {REPEATS_MIN} repeats that would show a difference");
    }
    let range = format!("{}–{}", three_digits(ratio.min), three_digits(ratio.max));
    let times = three_digits(ratio.median);
    match (comparison.verdict, comparison.measure) {
        (Verdict::NoDifferenceShown, _) => format!("no difference shown ({range})"),
        (Verdict::Faster, Measure::RecordsPerS) => format!("{times} times as fast ({range})"),
        (Verdict::Slower, Measure::RecordsPerS) => {
            format!("slower, {times} times its throughput ({range})")
        }
        (Verdict::Faster, Measure::P99Us) => format!("{times} times its latency ({range})"),
        (Verdict::Faster, Measure::GapMs) => format!("back after {times} times its time ({range})"),
        (Verdict::Slower, Measure::GapMs) => format!("slower, back after {times} times its time ({range})"),
        (Verdict::Slower, Measure::P99Us) => format!("slower, {times} times its latency ({range})"),
    }
}
