//! What a figure says, before anything is drawn: data that the renderer lays out.

use super::canvas::Marker;
use super::scale::Kind;
use super::theme::Tone;

/// A figure: a title, one or more panels with one common y-scale, and how to read it.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    /// File name without its ending; holds tier and deployments.
    pub(crate) stem: String,
    /// Headline of the figure.
    pub(crate) title: String,
    /// Tier, deployment, repeats.
    pub(crate) subtitle: String,
    /// Horizontal axis of line panels.
    pub(crate) x: Axis,
    /// Vertical axis, shared by all panels.
    pub(crate) y: Axis,
    /// At least one.
    pub(crate) panels: Vec<Panel>,
    /// Below the panels, inside the picture: what must not be overlooked.
    pub(crate) note: String,
    /// Beside the picture, on the page: how to read it.
    pub(crate) reading: String,
}

/// One axis.
#[derive(Debug, Clone)]
pub(crate) struct Axis {
    /// Quantity with its unit.
    pub(crate) label: String,
    /// Linear or logarithmic.
    pub(crate) kind: Kind,
    /// Writes the tick labels.
    pub(crate) format: fn(f64) -> String,
    /// Ticks at exactly these values; computed if empty.
    pub(crate) fixed: Vec<f64>,
}

impl Axis {
    /// Linear from zero.
    pub(crate) fn linear(label: &str, format: fn(f64) -> String) -> Self {
        Self { label: label.to_owned(), kind: Kind::Linear, format, fixed: Vec::new() }
    }

    /// Logarithmic, with ticks at the values given, if any are.
    pub(crate) fn log(label: &str, format: fn(f64) -> String, fixed: &[f64]) -> Self {
        Self { label: label.to_owned(), kind: Kind::Log, format, fixed: fixed.to_vec() }
    }
}

/// One plot of a figure.
#[derive(Debug, Clone)]
pub(crate) struct Panel {
    /// What distinguishes it from its neighbour.
    pub(crate) title: String,
    /// Bars or lines.
    pub(crate) plot: Plot,
    /// The hardware's limit.
    pub(crate) ceiling: Option<Ceiling>,
}

/// What a panel holds.
#[derive(Debug, Clone)]
pub(crate) enum Plot {
    /// A category each.
    Bars(Vec<Bar>),
    /// Series over the x-axis.
    Lines(Vec<Series>),
}

/// A line across the panel.
#[derive(Debug, Clone)]
pub(crate) struct Ceiling {
    /// On the y-axis.
    pub(crate) value: f64,
    /// What it is.
    pub(crate) label: String,
}

/// One category of a bar panel.
#[derive(Debug, Clone)]
pub(crate) struct Bar {
    /// Below the bar; the first line is the system.
    pub(crate) label: Vec<String>,
    /// The system's colour.
    pub(crate) tone: Tone,
    /// Height.
    pub(crate) median: f64,
    /// A dot each.
    pub(crate) repeats: Vec<f64>,
    /// How much of the bar's foot is the client's, for stacked costs; drawn paler.
    pub(crate) lower_part: Option<f64>,
}

/// One line.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    /// In the legend.
    pub(crate) label: String,
    /// The system's colour.
    pub(crate) tone: Tone,
    /// Shape of its points and, by it, its dashes: variants of one system share a colour.
    pub(crate) marker: Marker,
    /// `(x, median)`, by rising x.
    pub(crate) points: Vec<(f64, f64)>,
    /// `(x, value)` of every repeat.
    pub(crate) dots: Vec<(f64, f64)>,
    /// Paler lines behind it: the other repeats of a time series.
    pub(crate) shadows: Vec<Vec<(f64, f64)>>,
    /// Are the points marked? Time series have too many.
    pub(crate) has_markers: bool,
}

impl Figure {
    /// What somebody who cannot see the picture is told.
    pub(crate) fn description(&self) -> String {
        let format = self.y.format;
        let panels: Vec<String> = self
            .panels
            .iter()
            .map(|panel| {
                let items: Vec<String> = match &panel.plot {
                    Plot::Bars(bars) => {
                        bars.iter().map(|bar| format!("{} {}", bar.label.join(" "), format(bar.median))).collect()
                    }
                    Plot::Lines(series) => series.iter().map(|s| s.label.clone()).collect(),
                };
                format!("{}: {}.", panel.title, items.join(", "))
            })
            .collect();
        let subtitle = self.subtitle.replace('\n', " · ");
        format!("{subtitle} {} ({}). {}", self.y.label, self.x.label, panels.join(" ")).replace(" ().", ".")
    }

    /// Every y value that must fit.
    pub(crate) fn y_values(&self) -> impl Iterator<Item = f64> + '_ {
        self.panels.iter().flat_map(|panel| {
            let ceiling = panel.ceiling.iter().map(|c| c.value);
            let values: Vec<f64> = match &panel.plot {
                Plot::Bars(bars) => {
                    bars.iter().flat_map(|bar| bar.repeats.iter().copied().chain([bar.median])).collect()
                }
                Plot::Lines(series) => series.iter().flat_map(Series::values).map(|p| p.1).collect(),
            };
            ceiling.chain(values)
        })
    }

    /// Every x value that must fit.
    pub(crate) fn x_values(&self) -> impl Iterator<Item = f64> + '_ {
        self.panels.iter().flat_map(|panel| match &panel.plot {
            Plot::Bars(_) => Vec::new(),
            Plot::Lines(series) => series.iter().flat_map(Series::values).map(|p| p.0).collect(),
        })
    }
}

impl Series {
    fn values(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let shadows = self.shadows.iter().flatten();
        self.points.iter().chain(&self.dots).chain(shadows).copied()
    }
}
