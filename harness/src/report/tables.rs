//! The tables of the report.

use walrus_drivers::Deployment;

use super::html::{Cell, table};
use super::ratios::{self, Comparison, Kept, Measure};
use crate::chart::pick;
use crate::csv::SummaryRow;
use crate::results::{Group, Results, RowKey};
use crate::stats::{Spread, Verdict, human, human_us, three_digits};

/// The work of a comparison in words: `writes-burst, networked, page-cache`.
pub fn work(c: &Comparison) -> String {
    let mut words = vec![c.workload.clone()];
    if !c.phase.is_empty() && !c.workload.contains(&c.phase) {
        words.push(c.phase.clone());
    }
    words.push(pick::deployment_name(c.deployment).to_owned());
    words.push(pick::tier_name(c.tier).to_owned());
    words.join(", ")
}

/// A measured value with its unit.
pub fn value(measure: Measure, value: f64) -> String {
    match measure {
        Measure::RecordsPerS => format!("{}/s", human(value)),
        Measure::P99Us => format!("p99 {}", human_us(value)),
        Measure::GapMs => format!("{} s without writes", three_digits(value / 1e3)),
    }
}

/// `3.4 (3.1–3.9)`.
pub fn ratio(ratio: &Spread) -> String {
    format!("{} ({}–{})", three_digits(ratio.median), three_digits(ratio.min), three_digits(ratio.max))
}

/// Ours against theirs, with the verdict.
pub fn ratios(comparisons: &[Comparison]) -> String {
    let rows: Vec<Vec<Cell>> = comparisons
        .iter()
        .map(|c| {
            let class = match c.verdict {
                Verdict::Faster => "faster",
                Verdict::Slower => "slower",
                Verdict::NoDifferenceShown => "none",
            };
            vec![
                Cell::text(work(c)),
                Cell::text(&c.ours),
                Cell::text(&c.theirs),
                Cell::number(ratio(&c.ratio)),
                Cell::classed(c.verdict.to_string(), class),
                Cell::number(value(c.measure, c.ours_median)),
                Cell::number(value(c.measure, c.theirs_median)),
                Cell::number(c.ratio.count.to_string()),
            ]
        })
        .collect();
    table(
        "",
        "Ratios ours ÷ theirs, taken in each repeat: median (minimum–maximum). For latency a \
         ratio below 1 is faster.",
        &["Work", "Ours", "Theirs", "#Ratio", "Verdict", "#Ours", "#Theirs", "#Repeats"],
        &rows,
    )
}

/// What the original project published: system, its average, its maximum, in writes a second.
const PUBLISHED: [(&str, &[&str], [&str; 2]); 3] = [
    ("Original Walrus", &["upstream"], ["1,205,762", "1,593,984"]),
    ("Kafka", &["kafka", "kafka-java"], ["1,112,120", "1,424,073"]),
    ("RocksDB", &["rocksdb"], ["432,821", "1,000,000"]),
];
/// Ours, for which there is nothing to be published by others.
const OURS: (&str, &[&str], [&str; 2]) = ("Walrus (this project), embedded", &["walrus-embedded"], ["–", "–"]);

/// Published by the original project, next to what the same systems did here.
pub fn published(groups: &[Group<'_>]) -> Option<String> {
    let cells = |systems: &[&str], workload: &str| -> [Cell; 3] {
        let best = groups
            .iter()
            .filter(|g| g.key.workload == workload && systems.contains(&g.key.system.as_str()))
            .max_by(|a, b| a.median_per_s().total_cmp(&b.median_per_s()));
        let Some(group) = best else { return ["–", "–", "–"].map(Cell::number) };
        let peak = group.spread(|row| row.peak_records_per_s).map_or("–".to_owned(), |s| human(s.median));
        [Cell::number(human(group.median_per_s())), Cell::number(peak), Cell::text(pick::variant_name(&group.key))]
    };
    let mut has_any = false;
    let mut rows = Vec::new();
    for (name, systems, published) in PUBLISHED.into_iter().chain([OURS]) {
        has_any |=
            groups.iter().any(|g| systems.contains(&g.key.system.as_str()) && g.key.workload.starts_with("writes"));
        let mut row = vec![Cell::text(name)];
        row.extend(published.map(Cell::number));
        row.extend(cells(systems, "writes-burst"));
        row.extend(cells(systems, "writes"));
        rows.push(row);
    }
    has_any.then(|| {
        table(
            "",
            "Writes per second, no flush before the acknowledgement. Measured here: the best row \
             of each system, median of the repeats; best 500 ms: the best half second within it.",
            &[
                "System",
                "#Published: average",
                "#Published: best",
                "#Here, burst: average",
                "#Burst: best 500 ms",
                "Burst: row",
                "#Here, sustained: average",
                "#Sustained: best 500 ms",
                "Sustained: row",
            ],
            &rows,
        )
    })
}

/// Rows that write on beyond the page cache: the whole run, and its second half.
pub fn steady(results: &Results, groups: &[Group<'_>]) -> Option<String> {
    let rows: Vec<Vec<Cell>> = groups
        .iter()
        .filter(|g| g.key.workload == "writes" && g.key.system != "null")
        .map(|g| {
            let half = g.spread(|row| results.second_half_per_s(row));
            let range = |s: Spread| format!("{} ({}–{})", human(s.median), human(s.min), human(s.max));
            let seconds = g.spread(|row| Some(row.duration_s));
            vec![
                Cell::text(pick::full_name(&g.key)),
                Cell::text(pick::deployment_name(g.key.deployment)),
                Cell::number(seconds.map_or(String::new(), |s| three_digits(s.median))),
                Cell::number(human(g.median_per_s())),
                Cell::number(half.map_or(String::new(), range)),
            ]
        })
        .collect();
    (!rows.is_empty()).then(|| {
        table(
            "",
            "Writes that go on, records per second: medians over the repeats; of the second half (steady state) \
             with minimum and maximum.",
            &["System", "Deployment", "#Seconds", "#Whole run", "#Second half"],
            &rows,
        )
    })
}

/// What systems keep of their throughput when the same records go to more topics.
pub fn topics(kept: &[Kept]) -> Option<String> {
    let rows: Vec<Vec<Cell>> = kept
        .iter()
        .map(|kept| {
            vec![
                Cell::text(&kept.row),
                Cell::text(pick::deployment_name(kept.deployment)),
                Cell::number(kept.few.to_string()),
                Cell::number(human(kept.few_median)),
                Cell::number(kept.many.to_string()),
                Cell::number(human(kept.many_median)),
                Cell::number(ratio(&kept.ratio)),
                Cell::number(kept.ratio.count.to_string()),
            ]
        })
        .collect();
    (!rows.is_empty()).then(|| {
        table(
            "",
            "The same records to more topics: records per second (medians), and what remains of them, taken in each \
             repeat: median (minimum–maximum).",
            &["System", "Deployment", "#Topics", "#Records/s", "#More topics", "#Records/s", "#Ratio", "#Repeats"],
            &rows,
        )
    })
}

/// Every measurement that passed its proof: medians over its repeats.
pub fn all_rows(groups: &[Group<'_>]) -> String {
    let rows: Vec<Vec<Cell>> = groups.iter().map(group_row).collect();
    table(
        "all",
        "Every measurement that passed its proof; medians over its repeats.",
        &[
            "Workload",
            "System",
            "Deployment",
            "Tier",
            "#Producers",
            "#Topics",
            "#Bytes",
            "In flight",
            "#Offered/s",
            "#Repeats",
            "#Records/s",
            "#min",
            "#max",
            "#MB/s",
            "#% of ceiling",
            "#p50",
            "#p99",
            "#p99.9",
            "#CPU s/M client",
            "#CPU s/M server",
            "#Written/payload",
            "#Peak MB",
            "#Flushes",
            "#Duplicates",
            "Marks",
        ],
        &rows,
    )
}

fn group_row(group: &Group<'_>) -> Vec<Cell> {
    let key: &RowKey = &group.key;
    let median = |f: fn(&SummaryRow) -> Option<f64>| group.spread(f).map(|s| s.median);
    let number = |v: Option<f64>, f: fn(f64) -> String| Cell::number(v.map_or(String::new(), f));
    let rate = group.spread(|row| Some(row.records_per_s));
    let offered = (key.offered_per_s > 0).then_some(key.offered_per_s as f64);
    let duplicates: u64 = group.rows.iter().map(|row| row.duplicates).sum();
    vec![
        Cell::text(&key.workload),
        Cell::text(pick::full_name(key)),
        Cell::text(pick::deployment_name(key.deployment)),
        Cell::text(pick::tier_name(key.tier)),
        Cell::number(key.producers.to_string()),
        Cell::number(key.topics.to_string()),
        Cell::number(key.record_bytes.to_string()),
        Cell::text(&key.in_flight),
        number(offered, human),
        Cell::number(group.rows.len().to_string()),
        number(rate.map(|s| s.median), human),
        number(rate.map(|s| s.min), human),
        number(rate.map(|s| s.max), human),
        number(median(|row| Some(row.payload_mb_per_s)), three_digits),
        number(median(|row| row.ceiling_pct), three_digits),
        number(median(|row| row.p50_us), human_us),
        number(median(|row| row.p99_us), human_us),
        number(median(|row| row.p999_us), human_us),
        number(median(|row| row.cpu_s_per_million_client), three_digits),
        number(median(|row| row.cpu_s_per_million_server), three_digits),
        number(median(|row| row.disk_bytes_per_payload_byte), three_digits),
        number(median(|row| row.peak_rss_mb), three_digits),
        number(median(|row| row.device_flushes.map(|n| n as f64)), human),
        Cell::number(duplicates.to_string()),
        Cell::text(marks(group)),
    ]
}

/// The marks that any repeat carries, without their values.
fn marks(group: &Group<'_>) -> String {
    let mut words: Vec<&str> = Vec::new();
    for mark in group.rows.iter().flat_map(|row| row.marks.split_whitespace()) {
        let word = mark.split('=').next().unwrap_or(mark);
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words.join(" ")
}

/// Rows that failed, with their error; `None` if there are none.
pub fn failures(results: &Results) -> Option<String> {
    let rows: Vec<Vec<Cell>> = results
        .failed()
        .map(|row| {
            let key = RowKey::of(row);
            let error = if row.error.is_empty() { "not proved" } else { row.error.as_str() };
            vec![
                Cell::text(&row.workload),
                Cell::text(pick::full_name(&key)),
                Cell::text(pick::deployment_name(row.deployment)),
                Cell::text(pick::tier_name(row.tier)),
                Cell::number(row.repeat.to_string()),
                Cell::classed(error, "error"),
            ]
        })
        .collect();
    (!rows.is_empty()).then(|| {
        table(
            "all",
            "Rows that failed. They are in no chart and in no ratio.",
            &["Workload", "System", "Deployment", "Tier", "#Repeat", "Error"],
            &rows,
        )
    })
}

/// The tables for a README: the comparisons that the headline is about, and what many topics cost.
pub fn markdown(comparisons: &[Comparison], kept: &[Kept]) -> String {
    let mut text =
        String::from("| work | ours | theirs | ratio: median (min–max) | verdict |\n|---|---|---|---|---|\n");
    for c in comparisons.iter().filter(|c| !c.is_vanilla) {
        let line = format!(
            "| {} | {} {} | {} {} | {} | {} |\n",
            work(c),
            c.ours,
            value(c.measure, c.ours_median),
            c.theirs,
            value(c.measure, c.theirs_median),
            ratio(&c.ratio),
            c.verdict
        );
        text.push_str(&line);
    }
    if !kept.is_empty() {
        text.push_str("\n| more topics | records/s | fewer topics | ratio: median (min–max) |\n|---|---|---|---|\n");
    }
    for k in kept {
        let (many, few) = (human(k.many_median), human(k.few_median));
        let line =
            format!("| {}, {} | {many} | {}: {few} | {} |\n", k.row, ratios::topics(k.many), k.few, ratio(&k.ratio));
        text.push_str(&line);
    }
    text
}

/// Does any row of `RocksDB` take part? Then the report says what it does beyond a log.
pub fn has_rocksdb(groups: &[Group<'_>]) -> bool {
    groups.iter().any(|g| g.key.system == "rocksdb" && g.key.deployment == Deployment::Embedded)
}
