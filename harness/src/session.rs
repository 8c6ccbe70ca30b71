//! A whole `harness run`: blocks, repeats, noise, files.
//!
//! ```text
//!  for each block (a point of a workload), for each repeat:
//!      raw │ rows in rotated order (ABC, BCA, CAB) │ raw      ◀─┐ raw moved by more than 10 %, or
//!      └── rows appended to the CSVs as they come   ───────────┘ steal above 2 %: run again, mark
//!      ceilings known: percentages filled in
//! ```

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use walrus_drivers::Deployment;

use crate::child::{RunError, check_stop};
use crate::csv::{self, CsvError, SummaryRow};
use crate::estimate;
use crate::fleet::{Fleet, WarmUp};
use crate::noise::{fill_ceilings, is_beyond_knee, mark, noise};
use crate::plan::{Block, Plan, has_ceilings};
use crate::profile::RowName;
use crate::run::{self, Env, Outcome, Task};

/// Why a session ended early.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Ctrl-C, or the harness itself is broken.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Results could not be written.
    #[error(transparent)]
    Csv(#[from] CsvError),
}

/// A results directory that is being filled.
pub struct Session<'a> {
    env: &'a Env,
    plan: &'a Plan,
    out: PathBuf,
    rows: Vec<SummaryRow>,
    progress: ProgressBar,
    done_s: f64,
    fleet: Fleet,
}

impl<'a> Session<'a> {
    /// Goes on in `out` if it holds results already.
    pub fn open(env: &'a Env, plan: &'a Plan, out: &Path) -> Result<Session<'a>, SessionError> {
        let rows: Vec<SummaryRow> = csv::read(&out.join(csv::SUMMARY_FILE))?;
        let progress = ProgressBar::new(ticks(estimate::of_plan(plan).seconds));
        // Cannot fail: the template is a constant.
        let style = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {eta} left  {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        progress.set_style(style);
        let profile = &plan.profile;
        let warm_up = WarmUp { window_s: profile.warmup_window_s, s_max: profile.warmup_s_max };
        let fleet = Fleet::new(&env.bench_dir, warm_up);
        Ok(Session { env, plan, out: out.to_owned(), rows, progress, done_s: 0.0, fleet })
    }

    /// Runs every block; what is there already is not run again. Returns all rows.
    pub fn run(mut self) -> Result<Vec<SummaryRow>, SessionError> {
        for block in &self.plan.blocks {
            for repeat in 1..=block.repeats {
                self.run_repeat(block, repeat)?;
            }
        }
        self.progress.finish_and_clear();
        Ok(self.rows)
    }

    /// One repeat of a block, again if it was noisy.
    fn run_repeat(&mut self, block: &Block, repeat: u32) -> Result<(), SessionError> {
        for attempt in 0..=self.plan.profile.block_reruns_max {
            let ids = self.run_rows(block, repeat, attempt)?;
            fill_ceilings(&mut self.rows, &ids);
            let noise = noise(&self.rows, &ids);
            let is_last = attempt == self.plan.profile.block_reruns_max;
            if let Some(noise) = &noise {
                let word = if is_last { "noisy" } else { "superseded" };
                self.say(&format!("{} repeat {repeat}: {noise} ({word})", block.workload));
                mark(&mut self.rows, &ids, word);
            }
            csv::rewrite(&self.out.join(csv::SUMMARY_FILE), &self.rows)?;
            if noise.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// All rows of one repeat in rotated order, between two rows of `raw`. Returns their run ids.
    fn run_rows(&mut self, block: &Block, repeat: u32, attempt: u32) -> Result<HashSet<String>, SessionError> {
        let mut rows = block.rows.clone();
        if !rows.is_empty() {
            let turn = (repeat - 1) as usize % rows.len();
            rows.rotate_left(turn);
        }
        let mut order: Vec<(RowName, &str)> = rows.into_iter().map(|row| (row, "")).collect();
        if has_ceilings(&block.case) {
            let raw = RowName { system: "raw".into(), deployment: Deployment::Embedded, variant: String::new() };
            order.insert(0, (raw.clone(), "before"));
            order.push((raw, "after"));
        }
        let mut ids = HashSet::new();
        for (row, place) in order {
            let task = self.task(block, &row, repeat, attempt, place);
            ids.insert(task.run_id.clone());
            self.run_row(block, &task)?;
        }
        Ok(ids)
    }

    fn task(&self, block: &Block, row: &RowName, repeat: u32, attempt: u32, place: &str) -> Task {
        let deployment = match row.deployment {
            Deployment::Embedded => "e",
            Deployment::Networked => "n",
        };
        let mut parts = vec![
            block.workload.clone(),
            block.case.key(),
            format!("{}-{deployment}", row.system),
            row.variant.clone(),
            place.to_owned(),
            format!("r{repeat}"),
        ];
        let mut marks = Vec::new();
        if attempt > 0 {
            parts.push(format!("try{}", attempt + 1));
            marks.push(format!("rerun={attempt}"));
        }
        parts.retain(|part| !part.is_empty());
        let run_id = parts.join(".");
        Task {
            run_id,
            workload: block.workload.clone(),
            case: block.case.clone(),
            row: row.clone(),
            repeat,
            kill: repeat == block.repeats && !matches!(row.system.as_str(), "null" | "raw"),
            load: self.plan.load(&block.case),
            marks,
        }
    }

    fn run_row(&mut self, block: &Block, task: &Task) -> Result<(), SessionError> {
        let label = format!("{} {} {}", task.workload, task.row.system, task.row.variant);
        self.progress.set_message(label.clone());
        let is_done = self.rows.iter().any(|row| row.run_id == task.run_id && row.error.is_empty());
        if !is_done && !is_beyond_knee(&self.rows, task) {
            check_stop()?;
            let outcome = run::run(self.env, &mut self.fleet, task)?;
            self.say(&told(&label, &outcome.summary));
            self.keep(outcome)?;
        }
        self.done_s += estimate::of_row(self.plan, block, &task.row).seconds;
        self.progress.set_position(ticks(self.done_s));
        Ok(())
    }

    /// Writes a row down at once, so that an interruption loses nothing that was measured.
    fn keep(&mut self, outcome: Outcome) -> Result<(), SessionError> {
        self.rows.retain(|row| row.run_id != outcome.summary.run_id);
        csv::append(&self.out.join(csv::THROUGHPUT_FILE), &outcome.throughput)?;
        csv::append(&self.out.join(csv::LATENCY_FILE), &outcome.latencies)?;
        self.rows.push(outcome.summary);
        Ok(csv::rewrite(&self.out.join(csv::SUMMARY_FILE), &self.rows)?)
    }

    fn say(&self, line: &str) {
        if self.progress.is_hidden() {
            eprintln!("{line}");
        } else {
            self.progress.println(line);
        }
    }
}

/// Steps of the progress bar.
fn ticks(seconds: f64) -> u64 {
    Duration::from_secs_f64(seconds).as_millis() as u64
}

/// One line about a finished run.
fn told(label: &str, row: &SummaryRow) -> String {
    if !row.error.is_empty() {
        return format!("{label}: FAILED: {}", row.error);
    }
    let p99 = row.p99_us.map_or_else(String::new, |us| format!(", p99 {:.2} ms", us / 1000.0));
    let proof = if row.verified { "proved" } else { "not provable" };
    let rate = row.records_per_s;
    format!("{label}: {rate:.0} records/s in {:.2} s{p99}, {proof} {}", row.duration_s, row.marks)
}
