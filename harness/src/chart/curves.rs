//! Figures made of lines: over time, over producers, topics and record sizes.

use walrus_drivers::{Deployment, Tier};

use super::canvas::Marker;
use super::figure::{Axis, Figure, Panel, Plot, Series};
use super::pick;
use super::scale::{number_label, plain_label};
use super::theme;
use crate::csv::{SummaryRow, ThroughputRow};
use crate::plan::KILL_AT_S;
use crate::results::{Group, Results, RowKey};
use crate::stats::human_bytes;

/// A failover chart ends at so many times the offered rate.
const CATCH_UP_SHOWN: f64 = 3.0;
/// Shapes in the order in which variants of one system get them.
const MARKERS: [Marker; 4] = [Marker::Circle, Marker::Square, Marker::Triangle, Marker::Diamond];
/// Shorter intervals than this are the ragged end of a run.
const INTERVAL_MS_MIN: u64 = 250;
/// The same where samples come each 100 ms.
const FAILOVER_INTERVAL_MS_MIN: u64 = 80;

/// Sustained writes as they went: a line a system.
pub(crate) fn over_time(results: &Results, groups: &[Group<'_>]) -> Option<Figure> {
    let rows: Vec<&Group<'_>> = groups.iter().filter(|g| g.key.workload == "writes").collect();
    let sketch = Sketch {
        slug: "throughput-over-time",
        title: "Sustained writes over time",
        load: &pick::load(&rows.first()?.key),
        note: "",
        marks: "strong line: the median repeat, faint lines: the others · higher is better",
        x: Axis::linear("seconds since the first send", plain_label),
        y: Axis::linear("acknowledged records per second, each 500 ms", number_label),
        reading: "The first seconds go into free page cache; then the kernel throttles writers, \
            and what the device takes remains. Dips are flushes, compactions and pauses.",
    };
    sketch.draw(&rows, Tier::PageCache, |all, deployment| {
        let mut series: Vec<Series> =
            pick::representatives(&all).into_iter().filter_map(|g| time_series(results, g, INTERVAL_MS_MIN)).collect();
        set_markers(&mut series);
        let raw = rows.iter().filter(|g| g.key.system == "raw" && g.key.deployment == deployment);
        let raw = raw.max_by(|a, b| a.median_per_s().total_cmp(&b.median_per_s()));
        // The hardware has its own burst and its own steady state: one line across would lie.
        series.extend(raw.and_then(|g| time_series(results, g, INTERVAL_MS_MIN)).map(|raw| Series {
            label: pick::RAW.to_owned(),
            marker: Marker::Square,
            shadows: Vec::new(),
            ..raw
        }));
        series
    })
}

/// A leader lost in the middle: a line a system.
pub(crate) fn failover(results: &Results, groups: &[Group<'_>]) -> Option<Figure> {
    let rows: Vec<&Group<'_>> = groups.iter().filter(|g| g.key.workload == "failover").collect();
    let key = &rows.first()?.key;
    let sketch = Sketch {
        slug: "failover",
        title: &format!("A leader is killed, {} nodes on one machine", key.nodes),
        load: &pick::full_load(key),
        note: &format!(
            "{} Lines that leave at the top come back within moments: what piled up is written at once.",
            pick::FAILOVER_NAMES
        ),
        marks: "strong line: the median repeat, faint lines: the others",
        x: Axis::linear("seconds since the first send", plain_label),
        y: Axis::linear("acknowledged records per second, each 100 ms", number_label),
        reading: "Records are offered at one steady rate. Where a line falls, nobody acknowledges; where it \
            rises above the rate, what had piled up meanwhile is written.",
    };
    sketch.draw(&rows, Tier::PageCache, |all, _| {
        let mut series: Vec<Series> =
            all.into_iter().filter_map(|g| time_series(results, g, FAILOVER_INTERVAL_MS_MIN)).collect();
        set_markers(&mut series);
        // What is written at once after a pause would leave no height for the pause itself.
        let top = CATCH_UP_SHOWN * key.offered_per_s as f64;
        for line in series.iter_mut().flat_map(|s| s.shadows.iter_mut().chain([&mut s.points])) {
            *line = cut_at(line, top);
        }
        // A panel that shows nothing gets no line either.
        series.extend((!series.is_empty()).then(|| Series {
            label: "the leader is killed".into(),
            tone: theme::INK,
            marker: Marker::Triangle,
            points: vec![(KILL_AT_S, 0.0), (KILL_AT_S, top)],
            dots: Vec::new(),
            shadows: Vec::new(),
            has_markers: false,
        }));
        series
    })
}

/// The line without what rises above `top`.
fn cut_at(points: &[(f64, f64)], top: f64) -> Vec<(f64, f64)> {
    let mut cut: Vec<(f64, f64)> = Vec::new();
    let mut before: Option<(f64, f64)> = None;
    for &(x, y) in points {
        if let Some((x0, y0)) = before.filter(|(_, y0)| (y0 - top) * (y - top) < 0.0) {
            cut.push((x0 + (x - x0) * (top - y0) / (y - y0), top));
        }
        cut.push((x, y.min(top)));
        before = Some((x, y));
    }
    cut
}

/// More producers: how throughput grows.
pub(crate) fn over_producers(groups: &[Group<'_>]) -> Option<Figure> {
    let rows: Vec<&Group<'_>> = groups.iter().filter(|g| g.key.workload == "scaling").collect();
    let topics = most_spread(&rows, |key| key.topics, |key| key.producers)?;
    let rows: Vec<&Group<'_>> = rows.into_iter().filter(|g| g.key.topics == topics).collect();
    let sketch = Sketch {
        slug: "scaling-producers",
        title: "Throughput by number of producers",
        load: &format!("{topics} topics, {}", pick::records(&rows.first()?.key)),
        note: "",
        marks: "mark: median, small dot: one repeat · higher is better",
        x: Axis::log("producers (logarithmic)", number_label, &counts(&rows, |key| key.producers)),
        y: Axis::linear("acknowledged records per second", number_label),
        reading: "A line that rises and stays up shares the machine well; one that falls pays for \
            contention.",
    };
    lines_over(&sketch, &rows, |key| f64::from(key.producers), |row| Some(row.records_per_s))
}

/// More topics: what each costs.
pub(crate) fn over_topics(groups: &[Group<'_>]) -> Option<Figure> {
    let rows: Vec<&Group<'_>> = groups.iter().filter(|g| g.key.workload == "scaling").collect();
    let producers = most_spread(&rows, |key| key.producers, |key| key.topics)?;
    let rows: Vec<&Group<'_>> = rows.into_iter().filter(|g| g.key.producers == producers).collect();
    let sketch = Sketch {
        slug: "scaling-topics",
        title: "Throughput by number of topics",
        load: &format!("{producers} producers, {}", pick::records(&rows.first()?.key)),
        note: "",
        marks: "mark: median, small dot: one repeat · higher is better",
        x: Axis::log("topics (logarithmic)", number_label, &counts(&rows, |key| key.topics)),
        y: Axis::linear("acknowledged records per second", number_label),
        reading: "The same producers spread the same records over more topics: every topic has a \
            file or a partition of its own, and writes get smaller.",
    };
    lines_over(&sketch, &rows, |key| f64::from(key.topics), |row| Some(row.records_per_s))
}

/// Larger records: from the cost of a record to the cost of a byte.
pub(crate) fn over_sizes(groups: &[Group<'_>]) -> Option<Figure> {
    let rows: Vec<&Group<'_>> = groups.iter().filter(|g| g.key.workload == "sizes").collect();
    let first = &rows.first()?.key;
    let mut sizes: Vec<f64> = rows.iter().map(|g| g.key.record_bytes as f64).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    let sketch = Sketch {
        slug: "sizes",
        title: "Payload by record size",
        load: &format!("{} producers, {} topics", first.producers, first.topics),
        note: "",
        marks: "mark: median, small dot: one repeat · higher is better",
        x: Axis::log("bytes of a record (logarithmic)", human_bytes, &sizes),
        y: Axis::linear("acknowledged payload, MB per second", plain_label),
        reading: "Small records show what one record costs, large ones what one byte costs. The \
            same volume of payload is written at every size.",
    };
    lines_over(&sketch, &rows, |key| key.record_bytes as f64, |row| Some(row.payload_mb_per_s))
}

/// What all panels of a line figure have in common.
struct Sketch<'s> {
    slug: &'s str,
    title: &'s str,
    /// What all panels load the systems with.
    load: &'s str,
    /// Said below the panels.
    note: &'s str,
    marks: &'s str,
    x: Axis,
    y: Axis,
    reading: &'s str,
}

impl Sketch<'_> {
    /// A panel for each deployment that has series.
    fn draw<'g, 'a: 'g>(
        self,
        groups: &[&'g Group<'a>],
        tier: Tier,
        series: impl Fn(Vec<&'g Group<'a>>, Deployment) -> Vec<Series>,
    ) -> Option<Figure> {
        let mut panels = Vec::new();
        let mut deployments = Vec::new();
        for deployment in pick::DEPLOYMENTS {
            let all = pick::panel_groups(groups.iter().copied(), tier, deployment);
            let series = series(all, deployment);
            if series.iter().all(|s| s.points.len() < 2) {
                continue;
            }
            let title = pick::deployment_title(deployment).to_owned();
            panels.push(Panel { title, plot: Plot::Lines(series), ceiling: None });
            deployments.push(deployment);
        }
        if panels.is_empty() {
            return None;
        }
        if let [only] = panels.as_mut_slice() {
            only.title.clear();
        }
        let apart = if panels.len() > 1 { pick::PANELS_APART } else { "" };
        Some(Figure {
            stem: pick::stem(self.slug, tier, &deployments),
            title: pick::title(self.title, tier, &deployments),
            subtitle: format!("{} · {}\n{}", pick::tier_meaning(tier), self.load, self.marks),
            x: self.x,
            y: self.y,
            note: [self.note, apart].join(" ").trim().to_owned(),
            panels,
            reading: self.reading.to_owned(),
        })
    }
}

/// One line for each system and variant, with the raw row as a line of its own.
fn lines_over(
    sketch: &Sketch<'_>,
    groups: &[&Group<'_>],
    x: impl Fn(&RowKey) -> f64,
    y: fn(&SummaryRow) -> Option<f64>,
) -> Option<Figure> {
    let tier = groups.first()?.key.tier;
    let sketch = Sketch { x: sketch.x.clone(), y: sketch.y.clone(), ..*sketch };
    sketch.draw(groups, tier, |all, deployment| {
        let raw: Vec<&Group<'_>> =
            groups.iter().copied().filter(|g| g.key.system == "raw" && g.key.deployment == deployment).collect();
        let mut series = series_over(&all, &x, y);
        set_markers(&mut series);
        series.extend(series_over(&raw, &x, y).into_iter().take(1).map(|raw| Series {
            label: pick::CEILING.to_owned(),
            marker: Marker::Square,
            has_markers: false,
            dots: Vec::new(),
            ..raw
        }));
        series
    })
}

/// Groups of one system and variant become one series.
pub(crate) fn series_over(
    groups: &[&Group<'_>],
    x: impl Fn(&RowKey) -> f64,
    y: fn(&SummaryRow) -> Option<f64>,
) -> Vec<Series> {
    let mut all: Vec<((String, String), Series)> = Vec::new();
    for group in groups {
        let Some(spread) = group.spread(y) else { continue };
        let key = (group.key.system.clone(), group.key.variant.clone());
        let place = all.iter().position(|(k, _)| *k == key).unwrap_or_else(|| {
            all.push((key, empty_series(group)));
            all.len() - 1
        });
        let series = &mut all[place].1;
        let at = x(&group.key);
        series.points.push((at, spread.median));
        series.dots.extend(group.repeats(y).into_iter().map(|(_, value)| (at, value)));
    }
    all.into_iter()
        .map(|(_, mut series)| {
            series.points.sort_by(|a, b| a.0.total_cmp(&b.0));
            series
        })
        .collect()
}

fn empty_series(group: &Group<'_>) -> Series {
    Series {
        label: pick::full_name(&group.key),
        tone: theme::of_system(&group.key.system),
        marker: Marker::Circle,
        points: Vec::new(),
        dots: Vec::new(),
        shadows: Vec::new(),
        has_markers: true,
    }
}

/// Variants of one system get different shapes and dashes.
pub(crate) fn set_markers(series: &mut [Series]) {
    for i in 0..series.len() {
        let before = series[..i].iter().filter(|s| s.tone == series[i].tone).count();
        series[i].marker = MARKERS[before % MARKERS.len()];
    }
}

fn time_series(results: &Results, group: &Group<'_>, interval_ms_min: u64) -> Option<Series> {
    let typical = group.typical();
    let rates = |row: &SummaryRow| results.throughput.get(&row.run_id).map(|rows| rates(rows, interval_ms_min));
    let others = group.rows.iter().filter(|row| row.run_id != typical.run_id);
    Some(Series {
        points: rates(typical)?,
        shadows: others.filter_map(|row| rates(row)).collect(),
        has_markers: false,
        ..empty_series(group)
    })
}

/// Records a second in each interval, at its end.
fn rates(rows: &[ThroughputRow], interval_ms_min: u64) -> Vec<(f64, f64)> {
    let start = ThroughputRow { run_id: String::new(), t_ms: 0, records_acked: 0, bytes_acked: 0, dirty_bytes: 0 };
    let mut before = &start;
    let mut points = Vec::new();
    for row in rows {
        let interval_ms = row.t_ms.saturating_sub(before.t_ms);
        if interval_ms >= interval_ms_min {
            let records = row.records_acked.saturating_sub(before.records_acked);
            points.push((row.t_ms as f64 / 1e3, records as f64 * 1e3 / interval_ms as f64));
            before = row;
        }
    }
    points
}

/// The value of `fixed` under which `varied` takes the most values; `None` if it never varies.
fn most_spread(groups: &[&Group<'_>], fixed: fn(&RowKey) -> u32, varied: fn(&RowKey) -> u32) -> Option<u32> {
    let spread = |value: u32| {
        let rows: Vec<&Group<'_>> = groups.iter().copied().filter(|g| fixed(&g.key) == value).collect();
        counts(&rows, varied).len()
    };
    let best = groups.iter().map(|g| fixed(&g.key)).max_by_key(|value| spread(*value))?;
    (spread(best) > 1).then_some(best)
}

/// The different values, rising.
fn counts(groups: &[&Group<'_>], of: fn(&RowKey) -> u32) -> Vec<f64> {
    let mut all: Vec<u32> = groups.iter().map(|g| of(&g.key)).collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter().map(f64::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(t_ms: u64, records_acked: u64) -> ThroughputRow {
        ThroughputRow { run_id: "r".into(), t_ms, records_acked, bytes_acked: 0, dirty_bytes: 0 }
    }

    #[test]
    fn rates_are_per_interval_and_the_ragged_end_is_left_out() {
        let rates = rates(&[tick(500, 1000), tick(1000, 3000), tick(1010, 3500)], INTERVAL_MS_MIN);
        assert_eq!(rates, vec![(0.5, 2000.0), (1.0, 4000.0)]);
    }

    #[test]
    fn a_peak_is_cut_where_it_crosses_the_top() {
        let line = cut_at(&[(0.0, 1.0), (1.0, 5.0), (2.0, 1.0)], 3.0);
        assert_eq!(line, [(0.0, 1.0), (0.5, 3.0), (1.0, 3.0), (1.5, 3.0), (2.0, 1.0)]);
    }
}
