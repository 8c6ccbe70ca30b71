//! Latency: against the offered rate, and by percentile at one rate.

use std::collections::BTreeMap;

use walrus_drivers::Tier;

use super::curves::{series_over, set_markers};
use super::figure::{Axis, Figure, Panel, Plot, Series};
use super::pick;
use super::scale::{Kind, number_label, percentile_label};
use crate::csv::SummaryRow;
use crate::results::{Group, Results};
use crate::stats::{Spread, human, human_us};

/// A column of a row.
type Value = fn(&SummaryRow) -> Option<f64>;

/// Percentiles below the median say nothing about waiting.
const PERCENTILE_MIN: f64 = 50.0;

/// Median and tail against the offered rate.
pub(crate) fn against_rate(groups: &[Group<'_>]) -> Option<Figure> {
    let rows = open_rows(groups);
    let mut rates: Vec<f64> = rows.iter().map(|g| g.key.offered_per_s as f64).collect();
    rates.sort_by(f64::total_cmp);
    rates.dedup();
    let shown: Vec<&Group<'_>> = rows.iter().copied().filter(|g| is_up_to_knee(g, &rows)).collect();
    let quantiles: [(&str, Value); 2] =
        [("Median (p50)", |row| row.p50_us), ("99th percentile (p99)", |row| row.p99_us)];
    let panels: Vec<Panel> = quantiles
        .into_iter()
        .filter_map(|(title, value)| {
            let mut series = series_over(&shown, |key| key.offered_per_s as f64, value);
            set_markers(&mut series);
            let title = title.to_owned();
            (!series.is_empty()).then_some(Panel { title, plot: Plot::Lines(series), ceiling: None })
        })
        .collect();
    frame(
        &shown,
        panels,
        "latency-against-rate",
        "Latency against the offered rate",
        "mark: median, small dot: one repeat · lower is better",
        Axis::log("offered records per second (logarithmic)", number_label, &rates),
        "A line ends at the first rate that its system could not keep up with.",
        "Records are sent on a fixed schedule, and the time counts from when a record should have \
         been sent, so that a pause of the system is not hidden by a sender that waits. Each \
         system runs with its own settings for low latency.",
    )
}

/// Up to the first rate at which the system fell behind: beyond it a latency only tells how long
/// the run was.
fn is_up_to_knee(group: &Group<'_>, all: &[&Group<'_>]) -> bool {
    let first_lost = all
        .iter()
        .filter(|g| g.key.system == group.key.system && g.key.variant == group.key.variant)
        .filter(|g| !pick::keeps_up(g))
        .map(|g| g.key.offered_per_s)
        .min();
    first_lost.is_none_or(|rate| group.key.offered_per_s <= rate)
}

/// The whole distribution, at a low rate and at half of what Kafka can do.
pub(crate) fn percentiles(results: &Results, groups: &[Group<'_>]) -> Option<Figure> {
    let rows = open_rows(groups);
    let mut told: Vec<u64> =
        [rows.iter().map(|g| g.key.offered_per_s).min(), told_rate(&rows)].into_iter().flatten().collect();
    told.dedup();
    let shown: Vec<&Group<'_>> =
        rows.into_iter().filter(|g| told.contains(&g.key.offered_per_s) && pick::keeps_up(g)).collect();
    let panels: Vec<Panel> = told
        .iter()
        .filter_map(|rate| {
            let at_rate = shown.iter().filter(|g| g.key.offered_per_s == *rate);
            let mut series: Vec<Series> = at_rate.filter_map(|g| distribution(results, g)).collect();
            set_markers(&mut series);
            let title = format!("At {} records per second", human(*rate as f64));
            (!series.is_empty()).then_some(Panel { title, plot: Plot::Lines(series), ceiling: None })
        })
        .collect();
    let x = Axis {
        label: "percentile of records (logarithmic in what lies beyond)".to_owned(),
        kind: Kind::Percentile,
        format: percentile_label,
        fixed: vec![],
    };
    frame(
        &shown,
        panels,
        "latency-percentiles",
        "Latency by percentile",
        "mark: median of the repeats, small dot: one repeat · lower is better",
        x,
        "",
        "At 99.9 one record of a thousand waits longer than the line says. The further right, the \
         rarer; a flat line means that nobody waits much longer than the others.",
    )
}

/// Half of Kafka's knee; without Kafka the highest rate that every system kept up with.
fn told_rate(rows: &[&Group<'_>]) -> Option<u64> {
    pick::half_knee(rows).or_else(|| {
        let lost = rows.iter().filter(|g| !pick::keeps_up(g)).map(|g| g.key.offered_per_s).min();
        rows.iter().map(|g| g.key.offered_per_s).filter(|rate| lost.is_none_or(|l| *rate < l)).max()
    })
}

fn open_rows<'g, 'a>(groups: &'g [Group<'a>]) -> Vec<&'g Group<'a>> {
    let mut rows: Vec<&Group<'_>> =
        groups.iter().filter(|g| g.key.workload == "latency" && pick::is_system(g)).collect();
    rows.sort_by_key(|g| pick::rank(&g.key));
    rows
}

fn distribution(results: &Results, group: &Group<'_>) -> Option<Series> {
    let mut by_percentile: BTreeMap<Thousandths, Vec<f64>> = BTreeMap::new();
    for row in group.rows.iter().filter_map(|row| results.latency.get(&row.run_id)).flatten() {
        if row.percentile >= PERCENTILE_MIN && row.percentile < 100.0 {
            by_percentile.entry(thousandths(row.percentile)).or_default().push(row.latency_us);
        }
    }
    let mut series = series_over(&[group], |_| 0.0, |row| row.p50_us).pop()?;
    series.points.clear();
    series.dots.clear();
    for (key, values) in by_percentile {
        let percentile = f64::from(key) / 1e3;
        series.points.push((percentile, Spread::of(&values)?.median));
        series.dots.extend(values.into_iter().map(|us| (percentile, us)));
    }
    (series.points.len() > 1).then_some(series)
}

/// Percentiles as whole numbers, to be keys.
type Thousandths = u32;

#[allow(clippy::cast_sign_loss)] // Percentiles are not negative.
fn thousandths(percentile: f64) -> Thousandths {
    (percentile * 1e3).round() as Thousandths
}

#[allow(clippy::too_many_arguments)] // The words of one figure, each said once.
fn frame(
    shown: &[&Group<'_>],
    panels: Vec<Panel>,
    slug: &str,
    title: &str,
    marks: &str,
    x: Axis,
    note: &str,
    reading: &str,
) -> Option<Figure> {
    let first = shown.first().filter(|_| !panels.is_empty())?;
    let (tier, deployment): (Tier, _) = (first.key.tier, first.key.deployment);
    Some(Figure {
        stem: pick::stem(slug, tier, &[deployment]),
        title: pick::title(title, tier, &[deployment]),
        subtitle: format!("{} · {}\n{marks}", pick::tier_meaning(tier), pick::load(&first.key)),
        x,
        y: Axis::log("latency (logarithmic)", human_us, &[]),
        panels,
        note: note.to_owned(),
        reading: reading.to_owned(),
    })
}
