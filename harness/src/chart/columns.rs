//! Bars of a panel: standing beside each other on a wide page, lying below each other on a phone,
//! where names need the width.

use super::canvas::{Align, Canvas, DrawResult, Font, Marker, Stroke};
use super::figure::{Bar, Ceiling};
use super::render::{Frame, Page};
use super::scale::Scale;
use super::theme;

/// Height of a lying bar with its gap, in CSS pixels.
const LYING_STEP: f64 = 40.0;
/// The same if a name needs three lines.
const LYING_STEP_TALL: f64 = 54.0;
const LYING_HALF: f64 = 11.0;
/// Room for the names left of lying bars.
pub(crate) const LYING_NAMES: f64 = 118.0;
/// Room for the values right of lying bars.
const LYING_VALUES: f64 = 50.0;
/// Distance of the middle of a value from what is below it.
const LABEL_ABOVE: f64 = 12.0;
/// The client's part of a cost, and the rest.
const ALPHAS: (f64, f64) = (0.45, 0.88);

/// Bars with the scale of their values.
pub(crate) struct Columns<'b> {
    pub(crate) bars: &'b [Bar],
    pub(crate) scale: &'b Scale,
    /// Writes values.
    pub(crate) format: fn(f64) -> String,
    pub(crate) ceiling: Option<&'b Ceiling>,
}

/// Font of the names below or beside bars.
fn name_font(is_system: bool) -> Font {
    if is_system { Font::new(12.5, theme::INK).bold() } else { Font::new(12.5, theme::MUTED) }
}

/// The lines of a name; whether a line is the system's is its first element.
fn name_lines(bar: &Bar, width: f64) -> Vec<(bool, String)> {
    let mut lines = Vec::new();
    for (i, text) in bar.label.iter().enumerate() {
        lines.extend(name_font(i == 0).wrap(text, width).into_iter().map(|line| (i == 0, line)));
    }
    lines
}

impl Columns<'_> {
    /// Height of the plot itself.
    pub(crate) fn height(&self, page: Page, standing: f64) -> f64 {
        if page == Page::Wide { standing } else { self.bars.len() as f64 * self.lying_step() }
    }

    fn lying_step(&self) -> f64 {
        let lines = self.bars.iter().map(|bar| name_lines(bar, LYING_NAMES - 10.0).len()).max();
        if lines > Some(2) { LYING_STEP_TALL } else { LYING_STEP }
    }

    /// Height of the names below standing bars, and of the axis below lying ones.
    pub(crate) fn foot_height(&self, page: Page, width: f64) -> f64 {
        if page == Page::Narrow {
            return 40.0;
        }
        let step = width / self.bars.len().max(1) as f64;
        let lines = self.bars.iter().map(|bar| name_lines(bar, step - 4.0).len()).max();
        8.0 + lines.unwrap_or(0) as f64 * name_font(false).line_px()
    }

    /// Middle of each standing bar, and half of their width.
    fn places(&self, frame: &Frame) -> (impl Iterator<Item = (f64, &Bar)>, f64) {
        let step = frame.width() / self.bars.len().max(1) as f64;
        let left = frame.left;
        let middles = self.bars.iter().enumerate().map(move |(i, bar)| (left + (i as f64 + 0.5) * step, bar));
        (middles, (step * 0.3).min(34.0))
    }

    /// Standing bars, whose grid is already drawn.
    pub(crate) fn stand(&self, canvas: &Canvas<'_>, frame: &Frame) -> DrawResult {
        let (places, half) = self.places(frame);
        for (middle, bar) in places {
            let y = |value: f64| frame.y(self.scale, value);
            for (low, high, alpha) in parts(bar) {
                canvas.rect((middle - half, y(high)), (middle + half, y(low)), bar.tone, alpha)?;
            }
        }
        Ok(())
    }

    /// Repeats, values and names of standing bars, over whatever lines there are.
    pub(crate) fn label_standing(&self, canvas: &Canvas<'_>, frame: &Frame) -> DrawResult {
        let step = frame.width() / self.bars.len().max(1) as f64;
        let (places, half) = self.places(frame);
        for (middle, bar) in places {
            let y = |value: f64| frame.y(self.scale, value);
            let value = Font::new(13.0, theme::INK).bold();
            let text = (self.format)(bar.median);
            let dots: Vec<f64> = bar.repeats.iter().map(|repeat| y(*repeat)).collect();
            let left = middle - value.width(&text) / 2.0;
            canvas.plate((left, free_above(y(bar.median), &dots)), &text, value)?;
            for (offset, value) in spread_dots(&bar.repeats, half) {
                canvas.marker((middle + offset, y(value)), 2.8, Marker::Circle, theme::INK)?;
            }
            let mut below = frame.bottom + 8.0;
            for (is_system, line) in name_lines(bar, step - 4.0) {
                let font = name_font(is_system);
                canvas.text((middle, below + font.line_px() / 2.0), &line, font, Align::Middle)?;
                below += font.line_px();
            }
        }
        Ok(())
    }

    /// Lying bars with their own grid and axis; `label` says what is measured.
    pub(crate) fn lie(&self, canvas: &Canvas<'_>, frame: &Frame, label: &str) -> DrawResult {
        let right = frame.right - LYING_VALUES;
        let x = |value: f64| frame.left + self.scale.position(value) * (right - frame.left);
        self.lying_grid(canvas, frame, label, &x)?;
        let step = self.lying_step();
        for (i, bar) in self.bars.iter().enumerate() {
            let middle = frame.top + (i as f64 + 0.5) * step;
            for (low, high, alpha) in parts(bar) {
                let (top, bottom) = (middle - LYING_HALF, middle + LYING_HALF);
                canvas.rect((x(low), top), (x(high), bottom), bar.tone, alpha)?;
            }
            for (offset, value) in spread_dots(&bar.repeats, LYING_HALF) {
                canvas.marker((x(value), middle + offset), 2.4, Marker::Circle, theme::INK)?;
            }
            let value = Font::new(12.5, theme::INK).bold();
            let end = x(highest(bar)) + 8.0;
            canvas.plate((end, middle), &(self.format)(bar.median), value)?;
            let lines = name_lines(bar, LYING_NAMES - 10.0);
            let line_px = name_font(false).line_px() - 2.0;
            let mut y = middle - (lines.len() as f64 - 1.0) * line_px / 2.0;
            for (is_system, line) in lines {
                canvas.text((frame.left - 8.0, y), &line, name_font(is_system), Align::End)?;
                y += line_px;
            }
        }
        Ok(())
    }

    fn lying_grid(&self, canvas: &Canvas<'_>, frame: &Frame, label: &str, x: &impl Fn(f64) -> f64) -> DrawResult {
        let font = Font::new(12.0, theme::MUTED);
        let mut free_from = f64::MIN;
        for (value, text) in &self.scale.ticks {
            let grid = Stroke::solid(theme::GRID, 1.0);
            canvas.line(&[(x(*value), frame.top), (x(*value), frame.bottom)], grid)?;
            let half = font.width(text) / 2.0;
            if x(*value) - half > free_from {
                canvas.text((x(*value), frame.bottom + 12.0), text, font, Align::Middle)?;
                free_from = x(*value) + half + 8.0;
            }
        }
        canvas.text((frame.right, frame.bottom + 30.0), label, font, Align::End)?;
        let Some(ceiling) = self.ceiling else { return Ok(()) };
        let at = x(ceiling.value);
        let dashed = Stroke { dash: Some((7.0, 4.0)), ..Stroke::solid(theme::CEILING, 1.5) };
        canvas.line(&[(at, frame.top - 4.0), (at, frame.bottom)], dashed)?;
        let text = format!("{}: {}", ceiling.label, (self.format)(ceiling.value));
        let end = (at + font.width(&text) / 2.0).min(frame.right);
        canvas.text((end, frame.top - 13.0), &text, font, Align::End)
    }
}

/// From where to where, and how strong: the client's part of a cost is paler.
fn parts(bar: &Bar) -> Vec<(f64, f64, f64)> {
    let (pale, strong) = ALPHAS;
    bar.lower_part
        .map_or_else(|| vec![(0.0, bar.median, strong)], |part| vec![(0.0, part, pale), (part, bar.median, strong)])
}

fn highest(bar: &Bar) -> f64 {
    bar.repeats.iter().copied().fold(bar.median, f64::max)
}

/// The middle of a label as near above a bar's end as the dots allow.
fn free_above(end: f64, dots: &[f64]) -> f64 {
    let mut middle = end - LABEL_ABOVE;
    let mut rising: Vec<f64> = dots.to_vec();
    rising.sort_by(|a, b| b.total_cmp(a));
    for dot in rising {
        if (dot - middle).abs() < LABEL_ABOVE {
            middle = dot - LABEL_ABOVE;
        }
    }
    middle
}

/// Repeats with their offset across the bar, so that equal ones can be counted.
fn spread_dots(repeats: &[f64], half: f64) -> impl Iterator<Item = (f64, f64)> + '_ {
    let step = (half * 1.2 / repeats.len().max(1) as f64).min(9.0);
    let first = -step * repeats.len().saturating_sub(1) as f64 / 2.0;
    repeats.iter().enumerate().map(move |(i, value)| (first + step * i as f64, *value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stands_by_its_bar_and_on_no_dot() {
        // One repeat far above the bar does not carry the value away.
        let px = |end, dots: &[f64]| free_above(end, dots).round() as i64;
        assert_eq!(px(100.0, &[100.0, 103.0, 20.0]), 88);
        assert_eq!(px(100.0, &[100.0, 95.0]), 83);
        assert_eq!(px(100.0, &[100.0, 92.0, 80.0]), 68);
    }
}
