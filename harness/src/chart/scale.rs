//! From values to positions, and the ticks that a person would have chosen.

use crate::stats::human;

/// How an axis maps values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Linear from zero.
    Linear,
    /// Logarithmic.
    Log,
    /// Percentiles: logarithmic in the share that lies beyond, so that 99 and 99.9 stay apart.
    Percentile,
}

/// A domain of values, laid over a stretch of 0 to 1.
#[derive(Debug, Clone)]
pub(crate) struct Scale {
    kind: Kind,
    low: f64,
    high: f64,
    /// Value and label of each tick.
    pub(crate) ticks: Vec<(f64, String)>,
}

impl Scale {
    /// A scale that holds all values. `format` writes tick labels; `fixed` ticks (sizes, counts)
    /// replace computed ones.
    pub(crate) fn over(
        kind: Kind,
        values: impl Iterator<Item = f64>,
        format: fn(f64) -> String,
        fixed: &[f64],
    ) -> Self {
        let usable = values.filter(|v| v.is_finite() && (kind == Kind::Linear || *v > 0.0));
        let (min, max) = usable.fold((f64::MAX, f64::MIN), |(lo, hi), v| (lo.min(v), hi.max(v)));
        let (min, max) = if min > max { (1.0, 1.0) } else { (min, max) };
        let (low, high, marks) = match kind {
            Kind::Linear => linear(max),
            Kind::Log if fixed.is_empty() => logarithmic(min, max),
            Kind::Log => (min / 1.25, max * 1.25, fixed.to_vec()),
            Kind::Percentile => percentiles(max),
        };
        // Nothing has no unit.
        let label = |v: f64| if v == 0.0 { "0".to_owned() } else { format(v) };
        let ticks = marks.into_iter().map(|v| (v, label(v))).collect();
        Self { kind, low, high, ticks }
    }

    /// Position of a value, 0 at the low end and 1 at the high one (not clamped).
    pub(crate) fn position(&self, value: f64) -> f64 {
        let (low, high) = (self.project(self.low), self.project(self.high));
        if high > low { (self.project(value) - low) / (high - low) } else { 0.5 }
    }

    fn project(&self, value: f64) -> f64 {
        match self.kind {
            Kind::Linear => value,
            Kind::Log => value.max(f64::MIN_POSITIVE).log10(),
            Kind::Percentile => -(1.0 - value / 100.0).max(1e-7).log10(),
        }
    }
}

/// From zero to a round number above `max`, in four to six steps.
fn linear(max: f64) -> (f64, f64, Vec<f64>) {
    let max = if max > 0.0 { max } else { 1.0 };
    let rough = max / 5.0;
    let unit = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * unit)
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(rough);
    let steps = (max / step * 0.999).ceil().max(1.0);
    let marks = std::iter::successors(Some(0.0), |mark| Some(mark + step))
        .take_while(|mark| *mark <= (steps + 0.5) * step)
        .collect();
    (0.0, steps * step, marks)
}

/// Around the values; ticks at powers of ten, with 2 and 5 between them if there are few decades.
fn logarithmic(min: f64, max: f64) -> (f64, f64, Vec<f64>) {
    let (low, high) = (min / 1.3, max * 1.3);
    let decades = (low.log10().floor() as i32)..=(high.log10().ceil() as i32);
    let factors: &[f64] = if (high / low).log10() < 3.2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let marks = decades
        .flat_map(|decade| factors.iter().map(move |f| f * 10f64.powi(decade)))
        .filter(|mark| *mark >= low && *mark <= high)
        .collect();
    (low, high, marks)
}

/// From the median to the outermost nine that was measured.
fn percentiles(max: f64) -> (f64, f64, Vec<f64>) {
    let all = [50.0, 90.0, 99.0, 99.9, 99.99, 99.999];
    let high = all.into_iter().find(|mark| *mark >= max.min(99.999)).unwrap_or(99.999);
    (50.0, high, all.into_iter().filter(|mark| *mark <= high).collect())
}

/// `99.9`, never `1e2`.
pub(crate) fn percentile_label(value: f64) -> String {
    format!("{value}")
}

/// A number as it is.
pub(crate) fn plain_label(value: f64) -> String {
    format!("{value}")
}

/// The label of a rate or count.
pub(crate) fn number_label(value: f64) -> String {
    human(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(scale: &Scale) -> Vec<&str> {
        scale.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn linear_scales_start_at_zero_and_hold_the_largest_value() {
        for max in [0.3, 7.0, 99.0, 100.0, 101.0, 1_623_000.0] {
            let scale = Scale::over(Kind::Linear, [max].into_iter(), human, &[]);
            assert!(scale.position(0.0).abs() < 1e-12);
            assert!(scale.position(max) > 0.6 && scale.position(max) <= 1.0, "{max}");
            assert!((3..=8).contains(&scale.ticks.len()), "{max}: {:?}", scale.ticks);
        }
        let scale = Scale::over(Kind::Linear, [1_623_000.0].into_iter(), human, &[]);
        assert_eq!(marks(&scale), ["0", "500 k", "1 M", "1.5 M", "2 M"]);
    }

    #[test]
    fn an_empty_or_zero_domain_still_draws() {
        for values in [vec![], vec![0.0], vec![f64::NAN]] {
            for kind in [Kind::Linear, Kind::Log, Kind::Percentile] {
                let scale = Scale::over(kind, values.clone().into_iter(), human, &[]);
                assert!(scale.position(1.0).is_finite());
            }
        }
    }

    #[test]
    fn percentiles_are_spread_by_their_nines() {
        let scale = Scale::over(Kind::Percentile, [50.0, 99.9].into_iter(), percentile_label, &[]);
        assert_eq!(marks(&scale), ["50", "90", "99", "99.9"]);
        let step = scale.position(99.9) - scale.position(99.0);
        assert!((step - (scale.position(99.0) - scale.position(90.0))).abs() < 1e-9);
    }
}
