//! The commands that tell what was measured: `chart`, `report`, `compare`.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use crate::results::{ReportError, Results};
use crate::{chart, compare, report};

/// Commands that read results and measure nothing.
#[derive(Debug, Subcommand)]
pub enum Show {
    /// Draw the charts of a run again, from its CSV files alone.
    Chart {
        /// Directory of the run, such as results/latest.
        dir: PathBuf,
    },
    /// Draw the charts and write index.html, one page that needs nothing but itself.
    Report {
        /// Directory of the run, such as results/latest.
        dir: PathBuf,
        /// Write nothing; print the result and the table of ratios as Markdown.
        #[arg(long)]
        markdown: bool,
    },
    /// Compare two runs row by row; the second is said to be faster or slower than the first.
    Compare {
        /// Directory of the first run.
        before: PathBuf,
        /// Directory of the second run.
        after: PathBuf,
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
}

/// Carries the command out; results go to standard output.
pub fn run(command: &Show) -> Result<(), ReportError> {
    match command {
        Show::Chart { dir } => {
            let charts = chart::draw(&Results::load(dir)?)?;
            list(&chart::write(&charts, dir)?);
        }
        Show::Report { dir, markdown: true } => print!("{}", report::markdown(dir)?),
        Show::Report { dir, markdown: false } => list(&report::write(dir)?),
        Show::Compare { before, after, json } => compare_runs(before, after, *json)?,
    }
    Ok(())
}

fn list(files: &[PathBuf]) {
    for file in files {
        println!("{}", file.display());
    }
}

fn compare_runs(before: &Path, after: &Path, json: bool) -> Result<(), ReportError> {
    let comparison = compare::compare(&Results::load(before)?, &Results::load(after)?);
    if json {
        let text = serde_json::to_string_pretty(&comparison)
            .map_err(|source| ReportError::Json { path: before.to_owned(), source })?;
        println!("{text}");
    } else {
        print!("{}", compare::table(&comparison));
    }
    Ok(())
}
