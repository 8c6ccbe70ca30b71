//! The arithmetic of comparisons: medians, spreads, per-repeat ratios and the verdict on them.
//!
//! Noise decides. A ratio is taken within each repeat (the two runs were minutes apart on the same
//! machine) and never between two medians alone; a difference counts only if every repeat shows it.

use std::fmt;

use serde::Serialize;

/// Fewer repeats than this prove nothing, whatever they say.
pub const REPEATS_MIN: usize = 3;

/// Median with the smallest and the largest value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Middle value; mean of the two middle ones if their number is even.
    pub median: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// How many values.
    pub count: usize,
}

impl Spread {
    /// `None` without any finite value.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let median = f64::midpoint(sorted[(count - 1) / 2], sorted[count / 2]);
        Some(Self { median, min, max, count })
    }
}

/// Which way a measure is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// Throughput.
    Higher,
    /// Latency, CPU seconds, bytes.
    Lower,
}

/// What the repeats allow us to say of A against B.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// A won in every repeat.
    Faster,
    /// B won in every repeat.
    Slower,
    /// The repeats disagree, or there are fewer than [`REPEATS_MIN`].
    NoDifferenceShown,
}

impl Verdict {
    /// The rule, in one place: all on one side of 1, in enough repeats, or nothing is shown.
    pub fn of(ratio: &Spread, better: Better) -> Self {
        let (above, below) = match better {
            Better::Higher => (Self::Faster, Self::Slower),
            Better::Lower => (Self::Slower, Self::Faster),
        };
        match ratio {
            r if r.count < REPEATS_MIN => Self::NoDifferenceShown,
            r if r.min > 1.0 => above,
            r if r.max < 1.0 => below,
            _ => Self::NoDifferenceShown,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::NoDifferenceShown => "no difference shown",
        })
    }
}

/// Ratios A ÷ B of the repeats that both have. `a` and `b` are `(repeat, value)`.
pub fn paired_ratio(a: &[(u32, f64)], b: &[(u32, f64)]) -> Option<Spread> {
    let ratios: Vec<f64> = a
        .iter()
        .filter_map(|(repeat, value)| {
            let (_, other) = b.iter().find(|(r, _)| r == repeat)?;
            (*other > 0.0).then(|| value / other)
        })
        .collect();
    Spread::of(&ratios)
}

/// Ratio A ÷ B of runs that were not made side by side, so that their repeats cannot be paired:
/// every pairing counts, and the extremes are the worst and the best of them.
pub fn unpaired_ratio(a: &[f64], b: &[f64]) -> Option<Spread> {
    let (a, b) = (Spread::of(a)?, Spread::of(b)?);
    if b.min <= 0.0 {
        return None;
    }
    Some(Spread { median: a.median / b.median, min: a.min / b.max, max: a.max / b.min, count: a.count.min(b.count) })
}

/// A number as people say it: `1.62 M`, `640 k`, `81.3 k`, `9.72 k`, `412`, `0.83`.
pub fn human(value: f64) -> String {
    // Rounded to three digits before the unit is chosen, so that 999,700 is 1 M and not 1000 k.
    let value = round_to_digits(value, 3);
    let (scaled, unit) = match value.abs() {
        v if v >= 1e9 => (value / 1e9, " G"),
        v if v >= 1e6 => (value / 1e6, " M"),
        v if v >= 1e3 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    format!("{}{unit}", three_digits(scaled))
}

/// At most three significant digits, no trailing zeros: `3.4`, `12`, `0.83`.
pub fn three_digits(value: f64) -> String {
    let value = round_to_digits(value, 3);
    let decimals = match value.abs() {
        v if v >= 100.0 || v == 0.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        v if v >= 0.1 => 3,
        v if v >= 0.01 => 4,
        _ => 6,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn round_to_digits(value: f64, digits: i32) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let magnitude = value.abs().log10().floor() as i32;
    let factor = 10f64.powi(digits - 1 - magnitude);
    (value * factor).round() / factor
}

/// A latency with its unit: `840 µs`, `3.2 ms`, `1.5 s`.
pub fn human_us(us: f64) -> String {
    match us {
        v if v >= 1e6 => format!("{} s", three_digits(v / 1e6)),
        v if v >= 1e3 => format!("{} ms", three_digits(v / 1e3)),
        v => format!("{} µs", three_digits(v)),
    }
}

/// A size with its binary unit: `16 B`, `1 KiB`, `1 MiB`.
pub fn human_bytes(bytes: f64) -> String {
    const KIB: f64 = 1024.0;
    match bytes {
        v if v >= KIB * KIB * KIB => format!("{} GiB", three_digits(v / KIB / KIB / KIB)),
        v if v >= KIB * KIB => format!("{} MiB", three_digits(v / KIB / KIB)),
        v if v >= KIB => format!("{} KiB", three_digits(v / KIB)),
        v => format!("{} B", three_digits(v)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(values: &[f64]) -> Spread {
        Spread::of(values).expect("values")
    }

    #[test]
    #[allow(clippy::float_cmp)] // Exact in binary.
    fn median_of_odd_and_even_counts() {
        assert_eq!(spread(&[3.0, 1.0, 2.0]).median, 2.0);
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert!(Spread::of(&[]).is_none());
        assert!(Spread::of(&[f64::NAN]).is_none());
    }

    #[test]
    fn a_single_repeat_that_dips_below_one_takes_the_verdict_away() {
        assert_eq!(Verdict::of(&spread(&[3.0, 2.0, 1.01]), Better::Higher), Verdict::Faster);
        assert_eq!(Verdict::of(&spread(&[3.0, 2.0, 0.99]), Better::Higher), Verdict::NoDifferenceShown);
        assert_eq!(Verdict::of(&spread(&[3.0, 2.0, 1.0]), Better::Higher), Verdict::NoDifferenceShown);
        assert_eq!(Verdict::of(&spread(&[0.3, 0.2, 0.9]), Better::Higher), Verdict::Slower);
    }

    #[test]
    fn for_latency_less_is_faster() {
        assert_eq!(Verdict::of(&spread(&[0.3, 0.2, 0.9]), Better::Lower), Verdict::Faster);
        assert_eq!(Verdict::of(&spread(&[1.3, 1.2, 1.9]), Better::Lower), Verdict::Slower);
    }

    #[test]
    fn too_few_repeats_show_nothing() {
        assert_eq!(Verdict::of(&spread(&[9.0, 8.0]), Better::Higher), Verdict::NoDifferenceShown);
    }

    #[test]
    #[allow(clippy::float_cmp)] // Exact in binary.
    fn ratios_pair_equal_repeats_only() {
        let a = [(1, 10.0), (2, 30.0), (3, 50.0)];
        let b = [(3, 10.0), (1, 10.0), (4, 1.0)];
        let ratio = paired_ratio(&a, &b).expect("two pairs");
        assert_eq!((ratio.min, ratio.max, ratio.count), (1.0, 5.0, 2));
        assert!(paired_ratio(&a, &[(1, 0.0)]).is_none());
    }

    #[test]
    #[allow(clippy::float_cmp)] // The same division on both sides.
    fn unpaired_ratios_take_the_extremes() {
        let ratio = unpaired_ratio(&[10.0, 12.0, 14.0], &[10.0, 11.0, 13.0]).expect("a ratio");
        assert!(ratio.min < 1.0 && ratio.max == 14.0 / 10.0);
        assert_eq!(Verdict::of(&ratio, Better::Higher), Verdict::NoDifferenceShown);
    }

    #[test]
    fn numbers_read_like_speech() {
        for (value, text) in [
            (1_623_400.0, "1.62 M"),
            (999_700.0, "1 M"),
            (640_000.0, "640 k"),
            (81_250.0, "81.3 k"),
            (412.4, "412"),
            (0.0, "0"),
            (0.834, "0.834"),
            (0.05, "0.05"),
        ] {
            assert_eq!(human(value), text);
        }
        assert_eq!(human_us(840.0), "840 µs");
        assert_eq!(human_us(3_210.0), "3.21 ms");
        assert_eq!(human_bytes(16.0), "16 B");
        assert_eq!(human_bytes(1_048_576.0), "1 MiB");
    }
}
