//! Charts, drawn from the CSV files alone.
//!
//! ```text
//! Results ──▶ groups ──▶ Figure (what is said)  ──▶ render (where it goes) ──▶ SVG ──▶ PNG
//!             results.rs  bars, curves, latency      on a wide page and a phone
//! ```
//!
//! A figure is made only from rows that passed their proof; a workload without rows has no figure.

mod bars;
mod canvas;
mod columns;
mod curves;
mod figure;
mod latency;
pub(crate) mod pick;
mod render;
mod scale;
mod theme;

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) use canvas::escape;
use figure::Figure;
use render::Page;

use crate::results::{ReportError, Results};

/// Where the charts of a run lie, below its directory.
pub const CHART_DIR: &str = "charts";

/// A finished chart.
#[derive(Debug, Clone)]
pub struct Chart {
    /// File name without its ending; holds tier and deployments.
    pub stem: String,
    /// Title.
    pub title: String,
    /// How to read it.
    pub reading: String,
    /// For wide pages.
    pub wide_svg: String,
    /// For phones.
    pub narrow_svg: String,
}

/// Draws every chart that the results have rows for.
pub fn draw(results: &Results) -> Result<Vec<Chart>, ReportError> {
    let groups = results.groups();
    let mut figures = bars::headline(&groups);
    figures.extend(curves::over_time(results, &groups));
    figures.extend(bars::synced(&groups));
    figures.extend(latency::against_rate(&groups));
    figures.extend(latency::percentiles(results, &groups));
    figures.extend(bars::read(&groups));
    figures.extend(curves::over_producers(&groups));
    figures.extend(curves::over_topics(&groups));
    figures.extend(curves::over_sizes(&groups));
    figures.extend(bars::cpu(&groups));
    figures.extend(bars::cluster(&groups));
    figures.extend(curves::failover(results, &groups));
    figures.extend(bars::failover(&groups));
    figures.iter().map(chart).collect()
}

fn chart(figure: &Figure) -> Result<Chart, ReportError> {
    let draw =
        |page| render::svg(figure, page).map_err(|cause| ReportError::Draw { chart: figure.stem.clone(), cause });
    Ok(Chart {
        stem: figure.stem.clone(),
        title: figure.title.clone(),
        reading: figure.reading.clone(),
        wide_svg: draw(Page::Wide)?,
        narrow_svg: draw(Page::Narrow)?,
    })
}

/// Writes each chart as SVG and PNG into `dir/charts`, in place of those of before, and returns
/// the files.
pub fn write(charts: &[Chart], dir: &Path) -> Result<Vec<PathBuf>, ReportError> {
    let dir = dir.join(CHART_DIR);
    fs::create_dir_all(&dir).map_err(ReportError::io(&dir))?;
    remove_old(&dir)?;
    let mut files = Vec::new();
    for chart in charts {
        let png =
            canvas::png(&chart.wide_svg).map_err(|cause| ReportError::Draw { chart: chart.stem.clone(), cause })?;
        for (ending, bytes) in [("svg", chart.wide_svg.as_bytes()), ("png", &png)] {
            let path = dir.join(format!("{}.{ending}", chart.stem));
            fs::write(&path, bytes).map_err(ReportError::io(&path))?;
            files.push(path);
        }
    }
    Ok(files)
}

/// Charts of workloads that are no longer in the CSV files would be lies.
fn remove_old(dir: &Path) -> Result<(), ReportError> {
    for entry in fs::read_dir(dir).map_err(ReportError::io(dir))?.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|ending| ending == "svg" || ending == "png") {
            fs::remove_file(&path).map_err(ReportError::io(&path))?;
        }
    }
    Ok(())
}
