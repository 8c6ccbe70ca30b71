//! Figures made of bars: one bar a row, a panel a deployment.

use walrus_drivers::{Deployment, Tier};

use super::figure::{Axis, Bar, Ceiling, Figure, Panel, Plot};
use super::pick;
use super::scale::{Kind, number_label};
use crate::csv::SummaryRow;
use crate::results::{Group, RowKey};
use crate::stats::{human_us, three_digits};

/// What a bar figure shows of the rows that it is given.
struct Spec<'s> {
    slug: &'s str,
    title: &'s str,
    /// Quantity with its unit.
    y_label: &'s str,
    /// `higher is better`.
    better: &'s str,
    format: fn(f64) -> String,
    value: fn(&SummaryRow) -> Option<f64>,
    /// Part of the value that is the client's, for costs.
    lower_part: fn(&SummaryRow) -> Option<f64>,
    has_ceiling: bool,
    /// Said below the panels.
    note: &'s str,
    reading: &'s str,
}

const THROUGHPUT: Spec<'static> = Spec {
    slug: "",
    title: "",
    y_label: "acknowledged records per second",
    better: "higher is better",
    format: number_label,
    value: |row| Some(row.records_per_s),
    lower_part: |_| None,
    has_ceiling: true,
    note: "",
    reading: "",
};

/// Both headline figures, as far as their workloads were run.
pub(crate) fn headline(groups: &[Group<'_>]) -> Vec<Figure> {
    let burst = Spec {
        slug: "headline-burst",
        title: "Writes in a burst",
        reading: "One fixed volume, small enough for the page cache to take it before the kernel \
            throttles writers: how fast each system is when the device is not the limit.",
        ..THROUGHPUT
    };
    let sustained = Spec {
        slug: "headline-sustained",
        title: "Sustained writes",
        reading: "Writing goes on until the kernel throttles writers to the device's own rate. \
            What the device can do is the limit then, so systems come closer to each other.",
        ..THROUGHPUT
    };
    [("writes-burst", burst), ("writes", sustained)]
        .iter()
        .filter_map(|(name, spec)| figure(&select(groups, |key| key.workload == *name), Tier::PageCache, spec))
        .collect()
}

/// Three nodes on one machine: latency and cost at one rate, then throughput.
pub(crate) fn cluster(groups: &[Group<'_>]) -> Vec<Figure> {
    let latency = Spec {
        slug: "cluster-latency",
        title: "Latency of writes to three nodes on one machine",
        y_label: "p99 latency from the intended send",
        better: "lower is better",
        format: human_us,
        value: |row| row.p99_us,
        has_ceiling: false,
        note: pick::CLUSTER_NAMES,
        reading: "Records are offered at one low rate, and timed from when each should \
            have been sent to its acknowledgement.",
        ..THROUGHPUT
    };
    let cost = Spec {
        slug: "cluster-cpu",
        title: "CPU per million records, three nodes on one machine",
        note: "Pale: the client; strong: the servers. At a low rate most of it is waking up.",
        ..CPU
    };
    let throughput = Spec {
        slug: "cluster",
        title: "Writes to three nodes on one machine",
        has_ceiling: false,
        note: pick::CLUSTER_NAMES,
        reading: "Every record is stored by three processes that share one machine's processors and device, \
            and is acknowledged once a majority has it (Kafka: all replicas in sync, two at least). The \
            figures say what replication costs, not what three machines would do.",
        ..THROUGHPUT
    };
    [(true, latency), (true, cost), (false, throughput)]
        .iter()
        .filter_map(|(is_open, spec)| {
            let rows = select(groups, |key| key.workload == "cluster" && (key.offered_per_s > 0) == *is_open);
            figure(&rows, Tier::PageCache, spec)
        })
        .collect()
}

/// After a leader was killed: how long a topic was without it.
pub(crate) fn failover(groups: &[Group<'_>]) -> Vec<Figure> {
    let few = Spec {
        slug: "failover-gap",
        title: "Pause after a leader is killed, three nodes on one machine",
        y_label: "seconds without an acknowledged write",
        better: "lower is better",
        format: three_digits,
        value: |row| Some(row.mark_value("gap_ms")? / 1e3),
        has_ceiling: false,
        note: pick::FAILOVER_NAMES,
        reading: "Of all topics the one that waits longest, from its last acknowledgement before to its \
            first one after.",
        ..THROUGHPUT
    };
    let many = Spec { slug: "failover-1000-gap", ..few };
    [("failover", few), ("failover-1000", many)]
        .iter()
        .filter_map(|(name, spec)| figure(&select(groups, |key| key.workload == *name), Tier::PageCache, spec))
        .collect()
}

/// Writes that wait for a flush of the device: one record in flight, and a window of them.
pub(crate) fn synced(groups: &[Group<'_>]) -> Vec<Figure> {
    let windowed = Spec {
        slug: "synced-windowed",
        title: "Writes that wait for the device, many in flight",
        reading: "Every acknowledgement waits until the device has flushed the record. With many \
            records in flight one flush serves all that wait for it, so that the device's \
            bandwidth is the limit.",
        ..THROUGHPUT
    };
    let one = Spec {
        slug: "synced-one-in-flight",
        title: "Writes that wait for the device, one in flight",
        reading: "Each producer waits for the flush of its record before it sends the next: the \
            number of producers divided by the time of one flush is the limit, unless flushes are \
            shared between producers.",
        ..THROUGHPUT
    };
    [(false, windowed), (true, one)]
        .iter()
        .filter_map(|(is_one, spec)| {
            let rows = select(groups, |key| key.workload == "writes-synced" && key.is_one_in_flight() == *is_one);
            figure(&rows, Tier::Synced, spec)
        })
        .collect()
}

/// Reading back: from the page cache, from the device, and at the tail.
pub(crate) fn read(groups: &[Group<'_>]) -> Vec<Figure> {
    let read = Spec { y_label: "records read per second", has_ceiling: false, ..THROUGHPUT };
    let warm = Spec {
        slug: "read-warm",
        title: "Reading everything back, from the page cache",
        reading: "The records were just written and lie in memory. Kafka's client checks its \
            checksums, for Walrus the broker does. Each asks for as much at a time as its profile says.",
        ..read
    };
    let cold = Spec {
        slug: "read-cold",
        title: "Reading everything back, from the device",
        reading: "The files were dropped from the page cache before, so that the device and the \
            order in which it is read decide.",
        ..read
    };
    let tail = Spec {
        slug: "read-tail",
        title: "Reading at the tail while records are written",
        y_label: "p99 latency, intended send to reader",
        better: "lower is better",
        format: human_us,
        value: |row| row.p99_us,
        reading: "Records are sent on a fixed schedule and read as soon as they can be; the time \
            counts from when a record should have been sent.",
        ..read
    };
    [("warm", warm), ("cold", cold), ("tail", tail)]
        .iter()
        .filter_map(|(phase, spec)| {
            let rows = select(groups, |key| key.workload == "read" && key.phase == *phase);
            let tier = rows.first()?.key.tier;
            figure(&rows, tier, spec)
        })
        .collect()
}

/// What a million records cost in CPU time.
pub(crate) fn cpu(groups: &[Group<'_>]) -> Option<Figure> {
    ["writes", "writes-burst"]
        .into_iter()
        .find_map(|name| figure(&select(groups, |key| key.workload == name), Tier::PageCache, &CPU))
}

const CPU: Spec<'static> = Spec {
    slug: "cpu",
    title: "CPU time per million records",
    y_label: "CPU seconds per million records",
    better: "lower is better",
    format: three_digits,
    value: |row| {
        let server = row.cpu_s_per_million_server;
        Some(row.cpu_s_per_million_client? + server.unwrap_or(0.0))
    },
    lower_part: |row| row.cpu_s_per_million_server.and(row.cpu_s_per_million_client),
    has_ceiling: false,
    note: "Pale: the client; strong: the server. An embedded system is in its client's process.",
    reading: "What is left of the machine for other work. Taken from the processes' own \
            accounts during the writes shown; the kernel's background writing is in neither.",
};

fn select<'g, 'a>(groups: &'g [Group<'a>], filter: impl Fn(&RowKey) -> bool) -> Vec<&'g Group<'a>> {
    groups.iter().filter(|g| filter(&g.key)).collect()
}

fn figure(groups: &[&Group<'_>], tier: Tier, spec: &Spec<'_>) -> Option<Figure> {
    let mut panels = Vec::new();
    let mut deployments = Vec::new();
    let mut shown: Vec<&Group<'_>> = Vec::new();
    for deployment in pick::DEPLOYMENTS {
        let all = pick::panel_groups(groups.iter().copied(), tier, deployment);
        let chosen = pick::keep_best_original(&all);
        let bars: Vec<Bar> = chosen.iter().filter_map(|g| bar(g, spec)).collect();
        if bars.is_empty() {
            continue;
        }
        panels.push(Panel {
            title: pick::deployment_title(deployment).to_owned(),
            plot: Plot::Bars(bars),
            ceiling: spec.has_ceiling.then(|| ceiling(groups, tier, deployment)).flatten(),
        });
        deployments.push(deployment);
        shown.extend(chosen);
    }
    let key = &shown.first()?.key;
    if let [only] = panels.as_mut_slice() {
        only.title.clear();
    }
    let apart = if panels.len() > 1 { pick::PANELS_APART } else { "" };
    Some(Figure {
        stem: pick::stem(spec.slug, tier, &deployments),
        title: pick::title(spec.title, tier, &deployments),
        subtitle: format!(
            "{} · {}\n{} · {}",
            pick::tier_meaning(tier),
            pick::full_load(key),
            pick::repeats_words(&shown, "bar"),
            spec.better,
        ),
        x: Axis::linear("system and its settings", number_label),
        y: Axis { label: spec.y_label.to_owned(), kind: Kind::Linear, format: spec.format, fixed: vec![] },
        note: [spec.note, apart].join(" ").trim().to_owned(),
        panels,
        reading: spec.reading.to_owned(),
    })
}

fn bar(group: &Group<'_>, spec: &Spec<'_>) -> Option<Bar> {
    let median = group.spread(spec.value)?.median;
    let names = [pick::system_name(&group.key.system).to_owned(), pick::settings_name(&group.key)];
    Some(Bar {
        label: names.into_iter().filter(|line| !line.is_empty()).collect(),
        tone: super::theme::of_system(&group.key.system),
        median,
        repeats: group.repeats(spec.value).into_iter().map(|(_, v)| v).collect(),
        lower_part: group.spread(spec.lower_part).map(|s| s.median.min(median)),
    })
}

/// The hardware's limit for one panel: the best raw row that did the same work.
fn ceiling(groups: &[&Group<'_>], tier: Tier, deployment: Deployment) -> Option<Ceiling> {
    groups
        .iter()
        .filter(|g| g.key.system == "raw" && g.key.tier == tier && g.key.deployment == deployment)
        .map(|g| g.median_per_s())
        .max_by(f64::total_cmp)
        .map(|value| Ceiling { value, label: pick::CEILING.to_owned() })
}
