//! The headline: writes as a burst and sustained, networked and embedded side by side.

use walrus_drivers::Tier;

use super::figure::{Axis, Bar, Figure, Panel, Plot};
use super::pick;
use super::scale::{Kind, number_label};
use crate::results::Group;

/// Both headline figures, as far as their workloads were run.
pub(crate) fn figures(groups: &[Group<'_>]) -> Vec<Figure> {
    let burst = "One fixed volume, small enough for the page cache to take it before the kernel \
        throttles writers: how fast each system is when the device is not the limit.";
    let sustained = "Writing goes on until the kernel throttles writers to the device's own \
        rate. What the device can do is the limit then, so systems come closer to each other.";
    [
        ("writes-burst", "headline-burst", "Writes in a burst", burst),
        ("writes", "headline-sustained", "Sustained writes", sustained),
    ]
    .into_iter()
    .filter_map(|(workload, slug, title, reading)| {
        let of_workload: Vec<&Group<'_>> =
            groups.iter().filter(|g| g.key.workload == workload).collect();
        throughput_bars(&of_workload, Tier::PageCache, slug, title, reading)
    })
    .collect()
}

/// A panel of throughput bars per deployment. The groups differ in system, variant and
/// deployment only.
pub(crate) fn throughput_bars(
    groups: &[&Group<'_>],
    tier: Tier,
    slug: &str,
    title: &str,
    reading: &str,
) -> Option<Figure> {
    let mut panels = Vec::new();
    let mut deployments = Vec::new();
    let mut shown: Vec<&Group<'_>> = Vec::new();
    for deployment in pick::DEPLOYMENTS {
        let all = pick::panel_groups(groups.iter().copied(), tier, deployment);
        let chosen: Vec<&Group<'_>> =
            pick::keep_best_original(all.clone()).into_iter().map(|i| all[i]).collect();
        let bars: Vec<Bar> =
            chosen.iter().filter_map(|g| pick::bar(g, |row| Some(row.records_per_s))).collect();
        if bars.is_empty() {
            continue;
        }
        panels.push(Panel {
            title: pick::deployment_title(deployment).to_owned(),
            plot: Plot::Bars(bars),
            ceiling: pick::ceiling(groups.iter().copied(), tier, deployment),
        });
        deployments.push(deployment);
        shown.extend(chosen);
    }
    let first = shown.first()?;
    Some(Figure {
        stem: format!(
            "{slug}-{}-{}",
            pick::tier_name(tier),
            pick::deployments_slug(&deployments)
        ),
        title: format!("{title}: {}", pick::load(&first.key)),
        subtitle: format!(
            "{}, {} · {} · higher is better",
            pick::tier_meaning(tier),
            pick::deployments_words(&deployments),
            pick::repeats_words(&shown, "bar"),
        ),
        x: Axis { label: String::new(), kind: Kind::Linear, format: number_label, fixed: vec![] },
        y: Axis {
            label: "acknowledged records per second".to_owned(),
            kind: Kind::Linear,
            format: number_label,
            fixed: vec![],
        },
        note: if panels.len() > 1 { pick::PANELS_APART.to_owned() } else { String::new() },
        panels,
        reading: reading.to_owned(),
    })
}
