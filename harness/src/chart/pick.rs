//! Choosing rows for a figure, and naming them the same way everywhere.

use walrus_drivers::{Deployment, Tier};

use crate::results::{Group, RowKey};
use crate::stats::human;

/// The name of a system as people write it.
pub(crate) fn system_name(system: &str) -> &str {
    match system {
        "walrus" | "walrus-embedded" => "Walrus",
        "kafka" | "kafka-java" => "Kafka",
        "rocksdb" => "RocksDB",
        "upstream" => "Original Walrus",
        "raw" => "Raw hardware",
        "null" => "Generator only",
        other => other,
    }
}

/// The variant in words: `PUT tuned`, `tuned, Java client`, `WriteBatch tuned, 1 in flight`.
pub(crate) fn variant_name(key: &RowKey) -> String {
    let extras = [
        key.is_one_in_flight().then_some("1 in flight"),
        (!key.phase.is_empty() && !key.has(key.phase)).then_some(key.phase),
    ];
    let parts = [settings_name(key)].into_iter().chain(extras.into_iter().flatten().map(str::to_owned));
    parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

/// The same without what all rows of a figure share.
pub(crate) fn settings_name(key: &RowKey) -> String {
    let mut name: Vec<&str> = Vec::new();
    let mut extras: Vec<&str> = Vec::new();
    for word in key.variant.split('-').filter(|word| !word.is_empty()) {
        match (word, key.system.as_str()) {
            ("put", "rocksdb") => name.push("Put"),
            ("put", _) => name.push("PUT"),
            ("append", "walrus") => name.push("APPEND"),
            ("batch", "rocksdb") => name.push("WriteBatch"),
            ("direct", "walrus") => extras.push("to the leader"),
            ("all", "walrus") => extras.push("all copies"),
            ("raft", "walrus") => extras.push("Raft leader"),
            ("session", "kafka") => extras.push("1 s session"),
            (word, _) => name.push(word),
        }
    }
    extras.extend((key.system == "kafka-java").then_some("Java client"));
    let parts = [name.join(" "), extras.join(", ")];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

/// System and variant in one line.
pub(crate) fn full_name(key: &RowKey) -> String {
    format!("{} {}", system_name(&key.system), variant_name(key)).trim_end().to_owned()
}

/// `page-cache`, as in file names and tables.
pub(crate) fn tier_name(tier: Tier) -> &'static str {
    match tier {
        Tier::Memory => "memory",
        Tier::PageCache => "page-cache",
        Tier::Synced => "synced",
    }
}

/// What an acknowledgement in the tier promises, for subtitles.
pub(crate) fn tier_meaning(tier: Tier) -> &'static str {
    match tier {
        Tier::Memory => "acknowledged from process memory",
        Tier::PageCache => "acknowledged once the kernel has it",
        Tier::Synced => "acknowledged once flushed to the device",
    }
}

/// The title of a figure: what, in which tier, in which deployments.
pub(crate) fn title(what: &str, tier: Tier, deployments: &[Deployment]) -> String {
    format!("{what}, {} tier, {}", tier_name(tier), deployments_words(deployments))
}

/// `networked` or `embedded`.
pub(crate) fn deployment_name(deployment: Deployment) -> &'static str {
    match deployment {
        Deployment::Embedded => "embedded",
        Deployment::Networked => "networked",
    }
}

/// Title of a deployment's panel.
pub(crate) fn deployment_title(deployment: Deployment) -> &'static str {
    match deployment {
        Deployment::Embedded => "Embedded: in the client's process",
        Deployment::Networked => "Networked: through a socket",
    }
}

/// Both deployments in the order of the panels.
pub(crate) const DEPLOYMENTS: [Deployment; 2] = [Deployment::Networked, Deployment::Embedded];

/// The sentence that stands below every figure with both.
pub(crate) const PANELS_APART: &str = "The two panels are not to be compared with each other: \
    a networked record crosses a socket, an embedded one does not.";

/// Names of variants that need a word.
pub(crate) const CLUSTER_NAMES: &str = "“to the leader”: the client sends to the node that leads, as Kafka's does, \
    else to any node. “all copies”: acknowledged once all three replicas have it, else once two have it.";

/// The same for failovers.
pub(crate) const FAILOVER_NAMES: &str = "“Raft leader”: the killed node leads Raft, too. “1 s session”: Kafka notices a \
    lost broker after 1 s, as long as a lease of Walrus lasts, instead of after 9 s.";

/// What the ceiling's line is called.
pub(crate) const CEILING: &str = "raw hardware ceiling";

/// The same hardware over time.
pub(crate) const RAW: &str = "raw hardware";

/// Is it a system under test, and not a ceiling?
pub(crate) fn is_system(group: &Group<'_>) -> bool {
    !matches!(group.key.system.as_str(), "raw" | "null")
}

/// Order of the systems within a panel, ours first, then the others by name of variant.
pub(crate) fn rank(key: &RowKey) -> (u8, u8) {
    let system = match key.system.as_str() {
        "walrus" | "walrus-embedded" => 0,
        "kafka" => 1,
        "kafka-java" => 2,
        "rocksdb" => 3,
        "upstream" => 4,
        _ => 5,
    };
    let order = ["put", "append", "batch", "windowed", "vanilla", "original", "tuned", "idempotent"];
    let word = order.iter().rposition(|word| key.has(word)).unwrap_or(order.len());
    (system, word as u8)
}

/// Systems of one tier and deployment, in display order.
pub(crate) fn panel_groups<'g, 'a>(
    groups: impl Iterator<Item = &'g Group<'a>>,
    tier: Tier,
    deployment: Deployment,
) -> Vec<&'g Group<'a>>
where
    'a: 'g,
{
    let mut chosen: Vec<&Group<'_>> =
        groups.filter(|g| is_system(g) && g.key.tier == tier && g.key.deployment == deployment).collect();
    chosen.sort_by_key(|g| rank(&g.key));
    chosen
}

/// How many repeats a row must have to stand beside these: half of the most. One more or less may have
/// failed; a row that was run once is no match for the others' medians.
pub(crate) fn often(groups: &[&Group<'_>]) -> usize {
    groups.iter().map(|g| g.rows.len()).max().unwrap_or(0).div_ceil(2)
}

/// The original has rows for each of its backends; only the best of a class of records in flight
/// is shown.
pub(crate) fn keep_best_original<'g, 'a>(groups: &[&'g Group<'a>]) -> Vec<&'g Group<'a>> {
    let is_original = |g: &Group<'_>| g.key.system == "upstream";
    let originals: Vec<&Group<'_>> = groups.iter().copied().filter(|g| is_original(g)).collect();
    let often = often(&originals);
    let beaten = |group: &Group<'_>| {
        is_original(group)
            && originals.iter().any(|rival| {
                rival.rows.len() >= often
                    && rival.key.is_one_in_flight() == group.key.is_one_in_flight()
                    && (rival.median_per_s() > group.median_per_s() || group.rows.len() < often)
            })
    };
    groups.iter().copied().filter(|g| !beaten(g)).collect()
}

/// One row for each system and, of ours, for each way to send: the best that is not `vanilla`.
pub(crate) fn representatives<'g, 'a>(groups: &[&'g Group<'a>]) -> Vec<&'g Group<'a>> {
    let family = |g: &Group<'_>| (system_name(&g.key.system).to_owned(), g.key.has("append"));
    let beaten = |group: &Group<'_>| {
        let rank = |g: &Group<'_>| (!g.key.has("vanilla"), g.median_per_s());
        let rivals = groups.iter().filter(|rival| {
            family(rival) == family(group) || (!is_walrus(&group.key) && rival.key.system == group.key.system)
        });
        rivals.into_iter().any(|rival| rank(rival) > rank(group))
    };
    groups.iter().copied().filter(|g| !beaten(g)).collect()
}

/// Is it ours?
pub(crate) fn is_walrus(key: &RowKey) -> bool {
    matches!(key.system.as_str(), "walrus" | "walrus-embedded")
}

/// The rule of the knee, on medians: achieved at least 99 % of what was offered, and a 99th
/// percentile of at most 100 ms.
pub(crate) fn keeps_up(group: &Group<'_>) -> bool {
    let achieved = group.median_per_s() >= 0.99 * group.key.offered_per_s as f64;
    let p99_us = group.spread(|row| row.p99_us).map_or(f64::MAX, |s| s.median);
    achieved && p99_us <= 100_000.0
}

/// The measured rate next to half of Kafka's knee; `None` if Kafka kept up with none.
pub(crate) fn half_knee(groups: &[&Group<'_>]) -> Option<u64> {
    let knee = knee(groups)?;
    let kafka = groups.iter().filter(|g| g.key.system.starts_with("kafka"));
    kafka.map(|g| g.key.offered_per_s).filter(|rate| *rate <= knee).min_by_key(|rate| (rate * 2).abs_diff(knee))
}

/// Highest rate up to which one of Kafka's rows kept up with every lower one, in all repeats. A rate
/// beyond one that was lost, or that few repeats came to, is luck.
fn knee(groups: &[&Group<'_>]) -> Option<u64> {
    let kafka: Vec<&Group<'_>> = groups.iter().copied().filter(|g| g.key.system.starts_with("kafka")).collect();
    let repeats = kafka.iter().map(|g| g.rows.len()).max()?;
    let of_row = |row: &Group<'_>| {
        let mut rates: Vec<&Group<'_>> = kafka.clone();
        rates.retain(|g| (&g.key.system, &g.key.variant) == (&row.key.system, &row.key.variant));
        rates.sort_by_key(|g| g.key.offered_per_s);
        let kept = rates.into_iter().take_while(|g| g.rows.len() == repeats && keeps_up(g));
        kept.last().map(|g| g.key.offered_per_s)
    };
    kafka.iter().filter_map(|row| of_row(row)).max()
}

/// The load in words: `10 producers, 10 topics, records of 760 bytes on average`.
pub(crate) fn load(key: &RowKey) -> String {
    let plural = |n: u32, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    format!("{}, {}, {}", plural(key.producers, "producer"), plural(key.topics, "topic"), records(key))
}

/// The same, with the rate at which records are offered and the copies that are kept, if any.
pub(crate) fn full_load(key: &RowKey) -> String {
    let mut text = load(key);
    if key.offered_per_s > 0 {
        text.push_str(&format!(", {} offered per second", human(key.offered_per_s as f64)));
    }
    if key.replicas > 1 {
        text.push_str(&format!(", {} replicas", key.replicas));
    }
    text
}

/// `records of 760 bytes on average`.
pub(crate) fn records(key: &RowKey) -> String {
    format!("records of {} bytes on average", key.record_bytes)
}

/// File name of a figure, without its ending: it carries tier and deployments.
pub(crate) fn stem(slug: &str, tier: Tier, deployments: &[Deployment]) -> String {
    let places: Vec<&str> = deployments.iter().map(|d| deployment_name(*d)).collect();
    format!("{slug}-{}-{}", tier_name(tier), places.join("-"))
}

/// `networked and embedded`, for subtitles.
pub(crate) fn deployments_words(deployments: &[Deployment]) -> String {
    deployments.iter().map(|d| deployment_name(*d)).collect::<Vec<_>>().join(" and ")
}

/// `median of 5 repeats (bar), each repeat (dot)`.
pub(crate) fn repeats_words(groups: &[&Group<'_>], mark: &str) -> String {
    let counts: Vec<usize> = groups.iter().map(|g| g.rows.len()).collect();
    let (min, max) = (counts.iter().min().unwrap_or(&0), counts.iter().max().unwrap_or(&0));
    let count = if min == max { format!("{max}") } else { format!("{min} to {max}") };
    let noun = if *max == 1 { "repeat" } else { "repeats" };
    format!("{mark}: median of {count} {noun}, dot: one repeat")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csv::SummaryRow;
    use crate::fixture::plain_row;

    fn open_row(rate: f64, repeat: u32, p99_us: f64) -> SummaryRow {
        let mut row = plain_row("latency", "kafka", "tuned", rate);
        (row.offered_per_s, row.repeat, row.p99_us) = (Some(rate), repeat, Some(p99_us));
        row
    }

    #[test]
    fn a_rate_beyond_one_that_was_lost_is_no_knee() {
        let mut rows: Vec<SummaryRow> = Vec::new();
        for (rate, p99_us) in [(5e3, 4e3), (10e3, 9e3), (50e3, 274e3)] {
            rows.extend((1..=3).map(|repeat| open_row(rate, repeat, p99_us)));
        }
        // Skipped in two repeats, as two lower rates were lost there; in one it went well.
        rows.push(open_row(150e3, 1, 9e3));
        let mut groups: Vec<Group<'_>> = Vec::new();
        for row in &rows {
            let key = RowKey::of(row);
            match groups.iter_mut().find(|g| g.key == key) {
                Some(group) => group.rows.push(row),
                None => groups.push(Group { key, rows: vec![row] }),
            }
        }
        let groups: Vec<&Group<'_>> = groups.iter().collect();
        assert_eq!(knee(&groups), Some(10_000));
        assert_eq!(half_knee(&groups), Some(5_000));
        assert_eq!(half_knee(&groups[2..]), None, "what Kafka never kept up with is compared at no rate");
    }
}
