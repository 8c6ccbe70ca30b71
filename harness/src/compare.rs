//! `harness compare A B`: did a change, or another machine, make a difference?
//!
//! The two runs were not made side by side, so their repeats cannot be paired: a difference is
//! shown only if the worst of one run beats the best of the other.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::chart::pick;
use crate::csv::LoadMode;
use crate::report::provenance;
use crate::report::ratios::Measure;
use crate::results::{Group, Results, RowKey};
use crate::stats::{Spread, Verdict, human, human_us, three_digits, unpaired_ratio};

/// One measurement that both runs have.
#[derive(Debug, Clone, Serialize)]
pub struct Difference {
    /// Workload with the load that it had.
    pub work: String,
    /// System and variant.
    pub system: String,
    /// What is compared.
    pub measure: Measure,
    /// Median of the first run.
    pub before: f64,
    /// Median of the second run.
    pub after: f64,
    /// Second ÷ first, over all pairs of repeats.
    pub ratio: Spread,
    /// What that shows of the second run.
    pub verdict: Verdict,
}

/// Two runs side by side.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// What makes them hard to compare.
    pub warnings: Vec<String>,
    /// Measurements of both.
    pub rows: Vec<Difference>,
    /// Measurements that only the first has.
    pub only_before: Vec<String>,
    /// Measurements that only the second has.
    pub only_after: Vec<String>,
}

/// Compares the second run with the first.
pub fn compare(before: &Results, after: &Results) -> Comparison {
    let (old, new) = (before.groups(), after.groups());
    let by_key: HashMap<&RowKey, &Group<'_>> = new.iter().map(|g| (&g.key, g)).collect();
    let is_new = |g: &Group<'_>| by_key.contains_key(&g.key);
    let name = |g: &Group<'_>| format!("{}: {}", work(&g.key), pick::full_name(&g.key));
    Comparison {
        warnings: warnings(before, after),
        rows: old.iter().filter_map(|g| difference(g, by_key.get(&g.key).copied()?)).collect(),
        only_before: old.iter().filter(|g| !is_new(g)).map(name).collect(),
        only_after: new.iter().filter(|g| !old.iter().any(|o| o.key == g.key)).map(name).collect(),
    }
}

fn difference(before: &Group<'_>, after: &Group<'_>) -> Option<Difference> {
    let is_open = matches!(before.key.load_mode, LoadMode::Open | LoadMode::Tail);
    let measure = if is_open { Measure::P99Us } else { Measure::RecordsPerS };
    let values = |g: &Group<'_>| -> Vec<f64> { g.rows.iter().filter_map(|r| measure.of(r)).collect() };
    let (old, new) = (values(before), values(after));
    let ratio = unpaired_ratio(&new, &old)?;
    Some(Difference {
        work: work(&before.key),
        system: pick::full_name(&before.key),
        measure,
        before: Spread::of(&old)?.median,
        after: Spread::of(&new)?.median,
        verdict: Verdict::of(&ratio, measure.better()),
        ratio,
    })
}

/// The load of a row, short: `scaling networked page-cache 64p 10t`.
fn work(key: &RowKey) -> String {
    let mut text = format!(
        "{}{} {} {} {}p {}t {}B",
        key.workload,
        if key.phase.is_empty() { String::new() } else { format!("-{}", key.phase) },
        pick::deployment_name(key.deployment),
        pick::tier_name(key.tier),
        key.producers,
        key.topics,
        key.record_bytes,
    );
    if key.offered_per_s > 0 {
        let _ = write!(text, " {}/s", human(key.offered_per_s as f64));
    }
    text
}

/// Values in `env.json` whose difference makes two runs hard to compare, with their names.
const MACHINE: [(&str, &str); 6] = [
    ("CPU", "/machine/cpu"),
    ("cores", "/machine/cores"),
    ("memory", "/machine/memory_bytes"),
    ("kernel", "/machine/kernel"),
    ("filesystem", "/filesystem/kind"),
    ("device cache", "/filesystem/device_cache"),
];

fn warnings(before: &Results, after: &Results) -> Vec<String> {
    let mut all = Vec::new();
    for (name, path) in MACHINE {
        // As people read it: a few kilobytes more of memory are no other machine.
        let say = |results: &Results| {
            let value = results.env.pointer(path);
            value.map_or("unknown".to_owned(), |v| provenance::readable(path, v))
        };
        let (old, new) = (say(before), say(after));
        if old != new {
            all.push(format!("other machine: {name} was {old}, is {new}"));
        }
    }
    for results in [before, after] {
        let failed = results.failed().count();
        if failed > 0 {
            all.push(format!("{}: rows that failed and are left out: {failed}", results.dir.display()));
        }
    }
    all
}

/// The comparison as a table for a terminal.
pub fn table(comparison: &Comparison) -> String {
    let mut text = String::new();
    for warning in &comparison.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    let show = |d: &Difference, v: f64| match d.measure {
        Measure::RecordsPerS => format!("{}/s", human(v)),
        Measure::P99Us => format!("p99 {}", human_us(v)),
        Measure::GapMs => format!("{v:.0} ms without writes"),
    };
    let heads = ["work", "system", "before", "after", "ratio (min–max)", "verdict"];
    let mut rows = vec![heads.map(str::to_owned)];
    for d in &comparison.rows {
        let r = &d.ratio;
        let [median, min, max] = [r.median, r.min, r.max].map(three_digits);
        rows.push([
            d.work.clone(),
            d.system.clone(),
            show(d, d.before),
            show(d, d.after),
            format!("{median} ({min}–{max})"),
            d.verdict.to_string(),
        ]);
    }
    let width = |i: usize| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    for row in &rows {
        let padded: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(text, "{}", padded.join("  ").trim_end());
    }
    for (which, names) in [("first", &comparison.only_before), ("second", &comparison.only_after)] {
        for name in names {
            let _ = writeln!(text, "only in the {which} run: {name}");
        }
    }
    text
}
