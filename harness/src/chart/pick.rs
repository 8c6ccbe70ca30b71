//! Choosing rows for a figure, and naming them the same way everywhere.

use walrus_drivers::{Deployment, Tier};

use super::figure::{Bar, Ceiling};
use super::theme;
use crate::csv::SummaryRow;
use crate::results::{Group, RowKey};

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
    let words: Vec<&str> = key.variant.split('-').filter(|w| !w.is_empty()).collect();
    let mut name: Vec<&str> = Vec::new();
    for word in words {
        name.push(match (word, key.system.as_str()) {
            ("put", "rocksdb") => "Put",
            ("put", _) => "PUT",
            ("append", "walrus") => "APPEND",
            ("batch", "rocksdb") => "WriteBatch",
            (word, _) => word,
        });
    }
    let mut text = name.join(" ");
    let extras = [
        (key.system == "kafka-java").then_some("Java client"),
        (key.is_one_in_flight()).then_some("1 in flight"),
        (!key.phase.is_empty() && !key.has(key.phase)).then_some(key.phase),
    ];
    for extra in extras.into_iter().flatten() {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(extra);
    }
    text
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
        Tier::Memory => "memory tier (acknowledged from process memory)",
        Tier::PageCache => "page-cache tier (acknowledged once the kernel has it)",
        Tier::Synced => "synced tier (acknowledged once flushed to the device)",
    }
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
    let mut chosen: Vec<&Group<'_>> = groups
        .filter(|g| is_system(g) && g.key.tier == tier && g.key.deployment == deployment)
        .collect();
    chosen.sort_by_key(|g| rank(&g.key));
    chosen
}

/// Of each original backend and mode only the best counts: its rows differ in nothing else that
/// a reader could want.
pub(crate) fn keep_best_original(groups: Vec<&Group<'_>>) -> Vec<usize> {
    let mut keep: Vec<usize> = Vec::new();
    for (i, group) in groups.iter().enumerate() {
        let rival = keep.iter().position(|&k| {
            group.key.system == "upstream"
                && groups[k].key.system == "upstream"
                && groups[k].key.is_one_in_flight() == group.key.is_one_in_flight()
        });
        match rival {
            Some(at) if groups[keep[at]].median_per_s() < group.median_per_s() => keep[at] = i,
            Some(_) => {}
            None => keep.push(i),
        }
    }
    keep
}

/// A bar of one measure.
pub(crate) fn bar(group: &Group<'_>, value: impl Fn(&SummaryRow) -> Option<f64>) -> Option<Bar> {
    let spread = group.spread(&value)?;
    let variant = variant_name(&group.key);
    let system = system_name(&group.key.system).to_owned();
    Some(Bar {
        label: [system, variant].into_iter().filter(|line| !line.is_empty()).collect(),
        tone: theme::of_system(&group.key.system),
        median: spread.median,
        repeats: group.repeats(&value).into_iter().map(|(_, v)| v).collect(),
        lower_part: None,
    })
}

/// The hardware's limit for the groups of one panel: the best raw row that did the same work.
pub(crate) fn ceiling<'g, 'a: 'g>(
    groups: impl Iterator<Item = &'g Group<'a>>,
    tier: Tier,
    deployment: Deployment,
) -> Option<Ceiling> {
    groups
        .filter(|g| g.key.system == "raw" && g.key.tier == tier && g.key.deployment == deployment)
        .map(Group::median_per_s)
        .max_by(f64::total_cmp)
        .map(|value| Ceiling { value, label: "raw hardware ceiling".to_owned() })
}

/// The load in words: `10 producers, 10 topics, records of 760 bytes on average`.
pub(crate) fn load(key: &RowKey) -> String {
    let plural = |n: u32, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    format!(
        "{}, {}, records of {} bytes on average",
        plural(key.producers, "producer"),
        plural(key.topics, "topic"),
        key.record_bytes
    )
}

/// `networked-embedded`: the deployments that really have rows, for file names.
pub(crate) fn deployments_slug(deployments: &[Deployment]) -> String {
    deployments.iter().map(|d| deployment_name(*d)).collect::<Vec<_>>().join("-")
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
