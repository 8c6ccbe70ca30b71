//! Lays a [`Figure`] out on a page: beside each other on a wide one, below each other on a phone.

use super::canvas::{Align, Canvas, DrawResult, Font, Marker, Stroke};
use super::columns::{Columns, LYING_NAMES};
use super::figure::{Bar, Ceiling, Figure, Panel, Plot, Series};
use super::scale::Scale;
use super::theme;

/// Where a figure is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Page {
    /// A desktop, a README, a slide.
    Wide,
    /// A phone held upright.
    Narrow,
}

const MARGIN: f64 = 18.0;
/// Room for tick labels and the turned axis label, left of the first panel of a row.
const Y_AXIS_WIDTH: f64 = 66.0;
/// Size of tick labels that have little room.
const CROWDED_PX: f64 = 10.5;
const PANEL_GAP: f64 = 34.0;

impl Page {
    fn width(self) -> f64 {
        if self == Self::Wide { 1040.0 } else { 400.0 }
    }

    fn columns(self, panels: usize) -> usize {
        if self == Self::Wide { panels.min(2) } else { 1 }
    }

    fn plot_height(self) -> f64 {
        if self == Self::Wide { 300.0 } else { 240.0 }
    }

    fn font(self, wide: f64, narrow: f64) -> Font {
        Font::new(if self == Self::Wide { wide } else { narrow }, theme::INK)
    }

    fn title(self) -> Font {
        self.font(19.0, 16.5).bold()
    }

    fn panel_title(self) -> Font {
        self.font(14.5, 14.0).bold()
    }

    fn small(self) -> Font {
        Font { tone: theme::MUTED, ..self.font(12.5, 12.0) }
    }
}

/// Positions of one panel, in CSS pixels.
pub(crate) struct Frame {
    pub(crate) left: f64,
    pub(crate) right: f64,
    /// Top of the plot area.
    pub(crate) top: f64,
    pub(crate) bottom: f64,
    /// Where its title and legend begin.
    head: f64,
    /// Is it the first of its row, and so carries the y labels?
    is_first: bool,
}

impl Frame {
    pub(crate) fn y(&self, scale: &Scale, value: f64) -> f64 {
        self.bottom - scale.position(value) * (self.bottom - self.top)
    }

    fn x(&self, scale: &Scale, value: f64) -> f64 {
        self.left + scale.position(value) * (self.right - self.left)
    }

    pub(crate) fn width(&self) -> f64 {
        self.right - self.left
    }
}

/// A figure with its scales on a page.
struct Renderer<'f> {
    figure: &'f Figure,
    page: Page,
    x: Scale,
    y: Scale,
}

/// Draws the figure as SVG.
pub(crate) fn svg(figure: &Figure, page: Page) -> Result<String, String> {
    let (x, y) = (&figure.x, &figure.y);
    let renderer = Renderer {
        figure,
        page,
        x: Scale::over(x.kind, figure.x_values(), x.format, &x.fixed),
        y: Scale::over(y.kind, figure.y_values(), y.format, &y.fixed),
    };
    let layout = renderer.layout();
    let size = (page.width(), layout.height);
    Canvas::svg(size, &figure.title, &figure.description(), |canvas| renderer.draw(canvas, &layout))
}

/// Where everything goes.
struct Layout {
    frames: Vec<Frame>,
    /// Top of the note.
    note: f64,
    height: f64,
}

impl Renderer<'_> {
    fn text_width(&self) -> f64 {
        self.page.width() - 2.0 * MARGIN
    }

    fn lines_height(&self, text: &str, font: Font) -> f64 {
        if text.is_empty() {
            return 0.0;
        }
        font.wrap(text, self.text_width()).len() as f64 * font.line_px()
    }

    fn layout(&self) -> Layout {
        let page = self.page;
        let mut y = MARGIN
            + self.lines_height(&self.figure.title, page.title())
            + 2.0
            + self.lines_height(&self.figure.subtitle, page.small())
            + 12.0;
        let columns = page.columns(self.figure.panels.len());
        let axis_width = self.axis_width();
        let usable = page.width() - 2.0 * MARGIN - axis_width;
        let width = (usable - PANEL_GAP * (columns - 1) as f64) / columns as f64;
        let mut frames = Vec::new();
        for row in self.figure.panels.chunks(columns) {
            let head = row.iter().map(|p| self.head_height(p, width)).fold(0.0, f64::max);
            let foot = row.iter().map(|p| self.foot_height(p, width)).fold(0.0, f64::max);
            let plot = row.iter().map(|p| self.plot_height(p)).fold(0.0, f64::max);
            let (top, bottom) = (y + head, y + head + plot);
            for column in 0..row.len() {
                let left = MARGIN + axis_width + column as f64 * (width + PANEL_GAP);
                let right = left + width;
                frames.push(Frame { left, right, top, bottom, head: y, is_first: column == 0 });
            }
            y = bottom + foot + 14.0;
        }
        let height = y + self.lines_height(&self.figure.note, page.small()) + MARGIN * 0.7;
        Layout { frames, note: y, height }
    }

    fn head_height(&self, panel: &Panel, width: f64) -> f64 {
        let title = if panel.title.is_empty() { 0.0 } else { self.page.panel_title().line_px() };
        let legend = match &panel.plot {
            Plot::Bars(_) => 0.0,
            Plot::Lines(series) => self.legend_rows(series, width).len() as f64 * self.page.small().line_px() + 4.0,
        };
        title + legend + 22.0
    }

    fn foot_height(&self, panel: &Panel, width: f64) -> f64 {
        let line = self.page.small().line_px();
        match &panel.plot {
            Plot::Bars(bars) => self.columns(panel, bars).foot_height(self.page, width),
            Plot::Lines(_) => 10.0 + 2.0 * line,
        }
    }

    fn plot_height(&self, panel: &Panel) -> f64 {
        let standing = self.page.plot_height();
        match &panel.plot {
            Plot::Bars(bars) => self.columns(panel, bars).height(self.page, standing),
            Plot::Lines(_) => standing,
        }
    }

    /// Room left of the plots: for the y-axis, or for the names of lying bars.
    fn axis_width(&self) -> f64 {
        let has_bars = self.figure.panels.iter().any(|p| matches!(p.plot, Plot::Bars(_)));
        if has_bars && self.page == Page::Narrow { LYING_NAMES } else { Y_AXIS_WIDTH }
    }

    fn columns<'b>(&'b self, panel: &'b Panel, bars: &'b [Bar]) -> Columns<'b> {
        let ceiling = panel.ceiling.as_ref();
        Columns { bars, scale: &self.y, format: self.figure.y.format, ceiling }
    }

    fn draw(&self, canvas: &Canvas<'_>, layout: &Layout) -> DrawResult {
        let at = |y| (MARGIN, y);
        let (figure, width) = (self.figure, self.text_width());
        let y = canvas.paragraph(at(MARGIN), width, &figure.title, self.page.title())?;
        canvas.paragraph(at(y + 2.0), width, &figure.subtitle, self.page.small())?;
        for (panel, frame) in figure.panels.iter().zip(&layout.frames) {
            self.panel(canvas, panel, frame)?;
        }
        if !figure.note.is_empty() {
            canvas.paragraph(at(layout.note), width, &figure.note, self.page.small())?;
        }
        Ok(())
    }

    fn panel(&self, canvas: &Canvas<'_>, panel: &Panel, frame: &Frame) -> DrawResult {
        let title = self.page.panel_title();
        let left = if self.page == Page::Wide { frame.left } else { MARGIN };
        if !panel.title.is_empty() {
            canvas.text((left, frame.head + title.line_px() / 2.0), &panel.title, title, Align::Start)?;
        }
        if let (Plot::Bars(bars), Page::Narrow) = (&panel.plot, self.page) {
            return self.columns(panel, bars).lie(canvas, frame, &self.figure.y.label);
        }
        self.y_axis(canvas, frame)?;
        match &panel.plot {
            Plot::Bars(bars) => self.columns(panel, bars).stand(canvas, frame)?,
            Plot::Lines(series) => self.lines(canvas, panel, series, frame)?,
        }
        let axis = Stroke::solid(theme::AXIS, 1.0);
        canvas.line(&[(frame.left, frame.bottom), (frame.right, frame.bottom)], axis)?;
        if let Some(ceiling) = &panel.ceiling {
            self.ceiling(canvas, ceiling, frame)?;
        }
        match &panel.plot {
            Plot::Bars(bars) => self.columns(panel, bars).label_standing(canvas, frame),
            Plot::Lines(_) => Ok(()),
        }
    }

    fn y_axis(&self, canvas: &Canvas<'_>, frame: &Frame) -> DrawResult {
        let font = self.page.small();
        for (value, label) in &self.y.ticks {
            let y = frame.y(&self.y, *value);
            let grid = Stroke::solid(theme::GRID, 1.0);
            canvas.line(&[(frame.left, y), (frame.right, y)], grid)?;
            if frame.is_first {
                canvas.text((frame.left - 8.0, y), label, font, Align::End)?;
            }
        }
        if frame.is_first {
            let middle = f64::midpoint(frame.top, frame.bottom);
            canvas.text_up((MARGIN + 4.0, middle), &self.figure.y.label, font)?;
        }
        Ok(())
    }

    fn ceiling(&self, canvas: &Canvas<'_>, ceiling: &Ceiling, frame: &Frame) -> DrawResult {
        let y = frame.y(&self.y, ceiling.value);
        let stroke = Stroke { dash: Some((7.0, 4.0)), ..Stroke::solid(theme::CEILING, 1.5) };
        canvas.line(&[(frame.left, y), (frame.right, y)], stroke)?;
        let label = format!("{}: {}", ceiling.label, (self.figure.y.format)(ceiling.value));
        let font = self.page.small();
        canvas.plate((frame.right - font.width(&label), y - 11.0), &label, font)
    }

    /// Entries of the legend, in rows that fit.
    fn legend_rows<'s>(&self, series: &'s [Series], width: f64) -> Vec<Vec<(f64, &'s Series)>> {
        let mut rows: Vec<Vec<(f64, &Series)>> = vec![Vec::new()];
        let mut x = 0.0;
        for one in series {
            let entry = 30.0 + self.page.small().width(&one.label) + 14.0;
            if x > 0.0 && x + entry - 14.0 > width {
                rows.push(Vec::new());
                x = 0.0;
            }
            if let Some(row) = rows.last_mut() {
                row.push((x, one));
            }
            x += entry;
        }
        rows
    }

    fn lines(&self, canvas: &Canvas<'_>, panel: &Panel, series: &[Series], frame: &Frame) -> DrawResult {
        self.x_axis(canvas, frame)?;
        let title = if panel.title.is_empty() { 0.0 } else { self.page.panel_title().line_px() };
        self.legend(canvas, series, frame, frame.head + title + 2.0)?;
        for one in series {
            for shadow in &one.shadows {
                let path = self.path(shadow, frame);
                canvas.line(&path, Stroke { alpha: 0.35, ..Stroke::solid(one.tone, 1.0) })?;
            }
        }
        for one in series {
            canvas.line(&self.path(&one.points, frame), stroke_of(one))?;
            for dot in self.path(&one.dots, frame) {
                canvas.marker(dot, 1.8, Marker::Circle, one.tone)?;
            }
            if one.has_markers {
                for point in self.path(&one.points, frame) {
                    canvas.marker(point, 4.0, one.marker, one.tone)?;
                }
            }
        }
        Ok(())
    }

    fn path(&self, points: &[(f64, f64)], frame: &Frame) -> Vec<(f64, f64)> {
        points.iter().map(|(x, y)| (frame.x(&self.x, *x), frame.y(&self.y, *y))).collect()
    }

    fn x_axis(&self, canvas: &Canvas<'_>, frame: &Frame) -> DrawResult {
        let font = self.tick_font(frame);
        let mut free_from = f64::MIN;
        for (value, label) in &self.x.ticks {
            let x = frame.x(&self.x, *value);
            let tick = Stroke::solid(theme::AXIS, 1.0);
            canvas.line(&[(x, frame.bottom), (x, frame.bottom + 4.0)], tick)?;
            let half = font.width(label) / 2.0;
            // The last label must not run into the next panel, or off the page.
            let middle = x.min(frame.right + PANEL_GAP / 2.0 - half);
            if middle - half > free_from {
                let y = frame.bottom + 6.0 + font.line_px() / 2.0;
                canvas.text((middle, y), label, font, Align::Middle)?;
                free_from = middle + half;
            }
        }
        let middle = f64::midpoint(frame.left, frame.right);
        let font = self.page.small();
        let y = frame.bottom + 8.0 + font.line_px() * 1.5;
        canvas.text((middle, y), &self.figure.x.label, font, Align::Middle)
    }

    /// A smaller one if labels would touch; what does not fit even so is left out.
    fn tick_font(&self, frame: &Frame) -> Font {
        let small = self.page.small();
        let ticks: Vec<(f64, f64)> =
            self.x.ticks.iter().map(|(value, label)| (frame.x(&self.x, *value), small.width(label))).collect();
        let is_crowded = ticks.windows(2).any(|t| t[1].0 - t[0].0 < f64::midpoint(t[0].1, t[1].1));
        if is_crowded { Font { px: CROWDED_PX, ..small } } else { small }
    }

    fn legend(&self, canvas: &Canvas<'_>, series: &[Series], frame: &Frame, top: f64) -> DrawResult {
        let font = Font { tone: theme::INK, ..self.page.small() };
        for (i, row) in self.legend_rows(series, frame.width()).into_iter().enumerate() {
            let y = top + (i as f64 + 0.5) * font.line_px();
            for (x, one) in row {
                let left = frame.left + x;
                canvas.line(&[(left, y), (left + 24.0, y)], stroke_of(one))?;
                if one.has_markers {
                    canvas.marker((left + 12.0, y), 4.0, one.marker, one.tone)?;
                }
                canvas.text((left + 30.0, y), &one.label, font, Align::Start)?;
            }
        }
        Ok(())
    }
}

fn stroke_of(series: &Series) -> Stroke {
    let dash = match series.marker {
        Marker::Circle => None,
        Marker::Square => Some((8.0, 4.0)),
        Marker::Triangle => Some((3.0, 3.0)),
        Marker::Diamond => Some((12.0, 3.0)),
    };
    Stroke { dash, ..Stroke::solid(series.tone, 2.0) }
}
