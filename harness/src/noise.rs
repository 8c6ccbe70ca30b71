//! What rows say about each other: ceilings, noise, the knee.

use std::collections::HashSet;

use walrus_drivers::Deployment;

use crate::csv::{LoadMode, SummaryRow};
use crate::run::Task;
use crate::stats::Spread;

/// Rule 9: a block in which `raw` moved by more than this is noisy.
const RAW_MOVED_PCT: f64 = 10.0;
/// Rule 9: the same for stolen time.
const STEAL_PCT: f64 = 2.0;

/// Open loop: the same row could not keep up with two lower rates of this repeat. Higher ones would
/// only measure how long its queue gets.
pub fn is_beyond_knee(rows: &[SummaryRow], task: &Task) -> bool {
    let Some(rate) = task.case.rate_per_s else { return false };
    let is_lower = |row: &&SummaryRow| {
        row.load_mode == LoadMode::Open
            && (&row.workload, &row.system, &row.variant) == (&task.workload, &task.row.system, &task.row.variant)
            && row.repeat == task.repeat
            && row.offered_per_s.is_some_and(|offered| offered < rate)
    };
    rows.iter().filter(is_lower).filter(|row| !keeps_up(row)).count() >= 2
}

/// Rule 8: achieved at least 99 % of what was offered, with a 99th percentile of at most 100 ms.
fn keeps_up(row: &SummaryRow) -> bool {
    const P99_MAX_US: f64 = 100_000.0;
    let achieved = row.offered_per_s.is_some_and(|offered| row.records_per_s >= 0.99 * offered);
    achieved && row.p99_us.is_some_and(|p99| p99 <= P99_MAX_US)
}

fn of_block<'r>(rows: &'r [SummaryRow], ids: &HashSet<String>) -> Vec<&'r SummaryRow> {
    rows.iter().filter(|row| ids.contains(&row.run_id)).collect()
}

/// `ceiling_pct` of the rows of one block.
pub(crate) fn fill_ceilings(rows: &mut [SummaryRow], ids: &HashSet<String>) {
    for deployment in [Deployment::Embedded, Deployment::Networked] {
        let raw: Vec<f64> = of_block(rows, ids)
            .iter()
            .filter(|row| row.system == "raw" && row.deployment == deployment && row.error.is_empty())
            .map(|row| row.records_per_s)
            .collect();
        let Some(ceiling) = Spread::of(&raw).map(|spread| spread.median) else { continue };
        for row in rows.iter_mut() {
            let counts = ids.contains(&row.run_id) && row.deployment == deployment;
            if counts && row.system != "null" && row.error.is_empty() {
                row.ceiling_pct = Some(row.records_per_s * 100.0 / ceiling);
            }
        }
    }
}

/// Why the block's figures are not to be trusted, if so.
pub(crate) fn noise(rows: &[SummaryRow], ids: &HashSet<String>) -> Option<String> {
    let block = of_block(rows, ids);
    let raw = block.iter().filter(|row| row.system == "raw" && row.deployment == Deployment::Embedded);
    let rates: Vec<f64> = raw.map(|row| row.records_per_s).filter(|rate| *rate > 0.0).collect();
    let low = rates.iter().copied().fold(f64::MAX, f64::min);
    let high = rates.iter().copied().fold(0.0, f64::max);
    let moved_pct = if rates.len() > 1 { (high - low) * 100.0 / low } else { 0.0 };
    let steal_pct = block.iter().filter_map(|row| row.steal_pct).fold(0.0, f64::max);
    if moved_pct > RAW_MOVED_PCT {
        return Some(format!("the raw hardware moved by {moved_pct:.0} %"));
    }
    (steal_pct > STEAL_PCT).then(|| format!("{steal_pct:.1} % of the CPU was stolen"))
}

/// Adds a word to the marks of all rows of a block.
pub(crate) fn mark(rows: &mut [SummaryRow], ids: &HashSet<String>, word: &str) {
    for row in rows.iter_mut().filter(|row| ids.contains(&row.run_id) && !row.has_mark(word)) {
        row.add_mark(word);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fixture::plain_row;

    fn block(raw: [f64; 2]) -> (Vec<SummaryRow>, HashSet<String>) {
        let mut rows = vec![
            plain_row("writes", "raw", "", raw[0]),
            plain_row("writes", "walrus", "put", 5e5),
            plain_row("writes", "raw", "", raw[1]),
            plain_row("writes", "rocksdb", "put", 1e5),
            plain_row("writes", "raw", "", 8e5),
        ];
        for (index, row) in rows.iter_mut().enumerate() {
            row.run_id = index.to_string();
            row.ceiling_pct = None;
            row.steal_pct = Some(0.0);
        }
        rows[0].deployment = Deployment::Embedded;
        rows[2].deployment = Deployment::Embedded;
        let ids = rows.iter().map(|row| row.run_id.clone()).collect();
        (rows, ids)
    }

    #[test]
    fn ceilings_are_those_of_the_same_deployment() {
        let (mut rows, ids) = block([1e6, 1e6]);
        fill_ceilings(&mut rows, &ids);
        let percent: Vec<i64> = rows.iter().map(|row| row.ceiling_pct.unwrap().round() as i64).collect();
        assert_eq!(percent, [100, 63, 100, 10, 100]);
    }

    #[test]
    fn moving_hardware_and_stolen_time_are_noise() {
        let (mut rows, ids) = block([1e6, 1.09e6]);
        assert_eq!(noise(&rows, &ids), None);
        rows[1].steal_pct = Some(2.5);
        assert!(noise(&rows, &ids).unwrap().contains("stolen"));
        let (rows, ids) = block([1e6, 1.2e6]);
        assert!(noise(&rows, &ids).unwrap().contains("20 %"));
    }

    #[test]
    fn marks_are_set_once_and_only_in_the_block() {
        let (mut rows, mut ids) = block([1e6, 1e6]);
        ids.remove("1");
        mark(&mut rows, &ids, "noisy");
        mark(&mut rows, &ids, "noisy");
        assert_eq!(rows[0].marks, "noisy");
        assert_eq!(rows[1].marks, "");
    }
}
