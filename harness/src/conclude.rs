//! The end of `harness run`: the page is drawn, the exit code says whether anything is missing.
//!
//! Whatever was measured is drawn, also after Ctrl-C and after an error: hours of work must not end
//! as a heap of CSV files.

use std::path::Path;

use crate::child::RunError;
use crate::csv::{self, SummaryRow};
use crate::report;
use crate::results::ReportError;
use crate::session::SessionError;

/// Something is missing in the results.
pub(crate) const EXIT_INCOMPLETE: i32 = 1;
/// Interrupted, as shells count it.
pub(crate) const EXIT_INTERRUPTED: i32 = 130;

/// Draws, tells, and returns the exit code.
pub(crate) fn conclude(result: Result<Vec<SummaryRow>, SessionError>, out: &Path) -> Result<i32, String> {
    point_latest_at(out);
    let is_drawn = match draw(out) {
        Ok(Some(sentence)) => {
            println!("{sentence}");
            true
        }
        Ok(None) => true,
        Err(error) => {
            eprintln!("harness: the results are there, but not their page: {error}");
            false
        }
    };
    match result {
        Ok(rows) => {
            let failed: Vec<&SummaryRow> = rows.iter().filter(|row| !row.error.is_empty()).collect();
            for row in &failed {
                eprintln!("missing: {}: {}", row.run_id, row.error);
            }
            let page = out.join(report::PAGE_FILE);
            println!("{} rows, {} of them failed; open {}", rows.len(), failed.len(), page.display());
            Ok(if failed.is_empty() && is_drawn { 0 } else { EXIT_INCOMPLETE })
        }
        Err(SessionError::Run(RunError::Interrupted)) => {
            eprintln!("interrupted; what was measured is in {0}; --out {0} goes on", out.display());
            Ok(EXIT_INTERRUPTED)
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Charts and page of what the directory holds, and the result in one sentence; `None` if nothing
/// was measured.
fn draw(out: &Path) -> Result<Option<String>, ReportError> {
    if !out.join(csv::SUMMARY_FILE).exists() {
        return Ok(None);
    }
    report::write(out)?;
    report::sentence_of(out).map(Some)
}

/// `results/latest` names the newest run.
fn point_latest_at(out: &Path) {
    let (Some(parent), Some(name)) = (out.parent(), out.file_name()) else { return };
    let link = parent.join("latest");
    if link.is_symlink() {
        let _ = std::fs::remove_file(&link);
    }
    // Only a convenience: a file of that name, or a filesystem without links, is left alone.
    let _ = std::os::unix::fs::symlink(name, &link);
}
