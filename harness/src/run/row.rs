//! From what the worker and the kernel said to the row of `summary.csv`.

use walrus_drivers::Tier;

use super::{Outcome, Run, Task};
use crate::csv::{LatencyRow, SummaryRow, ThroughputRow};
use crate::latency;
use crate::meter::Reading;
use crate::verify::Proof;
use crate::wire::Drained;

impl Run<'_> {
    /// Fills the summary row from what the worker and the kernel said.
    pub(super) fn account(&self, drained: &Drained, settle_s: f64, reading: &Reading, outcome: &mut Outcome) {
        let task = self.task;
        let row = &mut outcome.summary;
        row.duration_s = drained.duration_s;
        row.records_acked = drained.records;
        row.payload_bytes_total = drained.bytes;
        if drained.records > 0 {
            row.record_bytes_mean = drained.bytes as f64 / drained.records as f64;
        }
        rate(row, settle_s);
        row.p50_us = latency::at(&drained.latency_us, 50.0);
        row.p99_us = latency::at(&drained.latency_us, 99.0);
        row.p999_us = latency::at(&drained.latency_us, 99.9);
        row.p9999_us = latency::at(&drained.latency_us, 99.99);
        // A short run may be over within its first interval.
        row.peak_records_per_s = peak(&outcome.throughput).map(|best| best.max(row.records_per_s));
        reading.fill(row, self.env.cores);
        if task.load.payload_bytes.is_some_and(|bytes| drained.bytes < bytes / 100 * 95) {
            row.add_mark("time-limit");
        }
        if drained.refused > 0 {
            row.add_mark(&format!("refused={}", drained.refused));
        }
        if let Some(ms) = drained.longest_pause_ms {
            row.add_mark(&format!("gap_ms={ms:.0}"));
        }
        if let Some(late) = latency::at(&drained.lateness_us, 99.0) {
            row.add_mark(&format!("late_p99_us={late:.0}"));
        }
        if task.case.tier == Tier::Synced {
            self.require_flushes(row);
        }
        let achieved_per_s = row.records_per_s;
        outcome.latencies = drained
            .latency_us
            .iter()
            .map(|&(percentile, latency_us)| LatencyRow {
                run_id: task.run_id.clone(),
                offered_per_s: task.case.rate_per_s,
                achieved_per_s,
                percentile,
                latency_us,
            })
            .collect();
    }

    /// Rule 2: a synced row without device flushes is a failed row.
    fn require_flushes(&self, row: &mut SummaryRow) {
        let Some(flushes) = row.device_flushes else { return };
        let per_1000 = flushes as f64 * 1000.0 / row.records_acked.max(1) as f64;
        row.add_mark(&format!("flushes_per_1000={per_1000:.2}"));
        if flushes == 0 && row.error.is_empty() && self.task.row.system != "null" {
            row.error = "the device saw no flush, so nothing was synced".into();
        }
    }
}

/// Adds `extra_s` to the measured time and derives the rates.
pub(super) fn rate(row: &mut SummaryRow, extra_s: f64) {
    // Most systems settle in no time; do not let the clock's noise into their rows.
    if extra_s > 0.001 {
        row.duration_s += extra_s;
    }
    let seconds = row.duration_s.max(1e-9);
    row.records_per_s = row.records_acked as f64 / seconds;
    row.payload_mb_per_s = row.payload_bytes_total as f64 / seconds / 1e6;
}

/// Best interval between two samples (the last one may be short and does not count).
fn peak(curve: &[ThroughputRow]) -> Option<f64> {
    // The last acknowledgement may be older than the last sample.
    let full = |pair: &&[ThroughputRow]| pair[1].t_ms.saturating_sub(pair[0].t_ms) >= 400;
    let per_s = |pair: &[ThroughputRow]| {
        let records = pair[1].records_acked.saturating_sub(pair[0].records_acked);
        records as f64 * 1000.0 / (pair[1].t_ms - pair[0].t_ms) as f64
    };
    let first = curve.first().filter(|row| row.t_ms >= 400);
    let first = first.map(|row| row.records_acked as f64 * 1000.0 / row.t_ms as f64);
    curve
        .windows(2)
        .filter(full)
        .map(per_s)
        .chain(first)
        .fold(None, |best: Option<f64>, rate| Some(best.map_or(rate, |best| best.max(rate))))
}

/// Takes the findings into the row.
pub(super) fn judge(row: &mut SummaryRow, proof: &Proof) {
    row.duplicates = proof.duplicates;
    if proof.unacked_stored > 0 {
        row.add_mark(&format!("unacked-stored={}", proof.unacked_stored));
    }
    match proof.verdict() {
        Ok(()) => row.verified = true,
        Err(why) if row.has_mark("killed") => {
            row.error = format!("after SIGKILL and restart {why}: not the tier that it claims");
        }
        Err(why) => row.error = why,
    }
}

/// The row before anything was measured; it stays like this if the system cannot run.
pub(super) fn blank_row(task: &Task) -> SummaryRow {
    let case = &task.case;
    SummaryRow {
        run_id: task.run_id.clone(),
        workload: task.workload.clone(),
        system: task.row.system.clone(),
        variant: task.row.variant.clone(),
        deployment: task.row.deployment,
        tier: case.tier,
        producers: case.producers,
        topics: case.topics,
        record_bytes_mean: case.record_bytes.mean(),
        in_flight: case.in_flight(),
        repeat: task.repeat,
        duration_s: 0.0,
        records_acked: 0,
        records_per_s: 0.0,
        payload_mb_per_s: 0.0,
        p50_us: None,
        p99_us: None,
        p999_us: None,
        cpu_s_per_million_client: None,
        cpu_s_per_million_server: None,
        disk_bytes_per_payload_byte: None,
        peak_rss_mb: None,
        ceiling_pct: None,
        verified: false,
        error: String::new(),
        load_mode: case.kind.load_mode(),
        offered_per_s: case.rate_per_s,
        p9999_us: None,
        peak_records_per_s: None,
        nodes: case.nodes,
        replicas: case.nodes.min(3),
        warmup_s: 0.0,
        payload_bytes_total: 0,
        device_flushes: None,
        steal_pct: None,
        duplicates: 0,
        marks: task.marks.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(t_ms: u64, records_acked: u64) -> ThroughputRow {
        ThroughputRow { run_id: "r".into(), t_ms, records_acked, bytes_acked: 0, dirty_bytes: 0 }
    }

    #[test]
    fn the_peak_is_of_a_whole_interval_also_when_the_end_lies_before_the_last_sample() {
        let curve = [sample(500, 100), sample(1000, 400), sample(1500, 500), sample(1490, 500)];
        assert_eq!(peak(&curve).map(f64::round), Some(600.0));
        assert_eq!(peak(&[sample(300, 100), sample(301, 200)]), None);
    }
}
