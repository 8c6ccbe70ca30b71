//! Histograms of latencies.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Percentiles that are written to `latency.csv`.
pub const PERCENTILES: [f64; 14] =
    [0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 99.999, 100.0];

/// An hour; longer latencies count as this.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;

/// Latencies of many records, to three digits.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        // Cannot fail: the bounds are constants that satisfy `2 * low <= high`.
        Latencies(Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("constant bounds"))
    }
}

impl Latencies {
    /// Takes one latency.
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(latency.as_nanos().min(u128::from(LATENCY_NS_MAX)) as u64);
    }

    /// Takes over all of `other`.
    pub fn add(&mut self, other: &Latencies) {
        // Cannot fail: both have the same bounds.
        self.0.add(&other.0).expect("same bounds");
    }

    /// (percentile, µs) at [`PERCENTILES`]; nothing if nothing was recorded.
    pub fn percentiles_us(&self) -> Vec<(f64, f64)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let at = |p: f64| (p, self.0.value_at_percentile(p) as f64 / 1000.0);
        PERCENTILES.into_iter().map(at).collect()
    }
}

/// The value at `percentile` in a list as [`Latencies::percentiles_us`] makes it.
pub fn at(list: &[(f64, f64)], percentile: f64) -> Option<f64> {
    list.iter().find(|(p, _)| (p - percentile).abs() < 1e-6).map(|(_, us)| *us)
}
