//! Looks for the best settings: of `raw` at the start of each run, of every system on demand.
//!
//! `harness tune` tries the combinations of a system's `[grid]` (each laid over `[tuned]`): the same
//! number of trials and the same time for every system. The results are kept as
//! `drivers/profiles/<system>.tune.csv`; a person decides what goes into the profile.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde::Serialize;
use walrus_drivers::{Deployment, Tier};

use crate::child::{RunError, check_stop};
use crate::csv::{self, CsvError, LoadMode, SummaryRow};
use crate::fleet::{Fleet, WarmUp};
use crate::plan::{Plan, has_ceilings};
use crate::profile::RowName;
use crate::provenance::utc_now;
use crate::run::{self, Env, Task};
use crate::settings::{self, SettingsError};
use crate::wire::Load;
use crate::workload::{self, Case};

/// A JVM is warmed before each trial, as in a run; nothing else is.
const TRIAL_WARM_UP: WarmUp = WarmUp { window_s: 1.0, s_max: 8.0 };
/// Volume of a trial: small enough that the kernel throttles none.
const TRIAL_BYTES: u64 = 1 << 30;

/// Why tuning ended.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// Interrupted, or the harness itself is broken.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The results could not be written.
    #[error(transparent)]
    Csv(#[from] CsvError),
    /// A profile is wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Anything else that the user can mend.
    #[error("{0}")]
    Usage(String),
}

/// One trial as it is kept.
#[derive(Debug, Clone, Serialize)]
struct Trial {
    tried_utc: String,
    system: String,
    variant: String,
    tier: Tier,
    load_mode: LoadMode,
    settings: String,
    records_per_s: f64,
    p99_us: Option<f64>,
    verified: bool,
    error: String,
}

/// Finds the best embedded `raw` for each tier and kind of window of the plan.
pub fn best_raw(env: &mut Env, plan: &Plan) -> Result<(), RunError> {
    let mut tuned = HashSet::new();
    for block in plan.blocks.iter().filter(|block| has_ceilings(&block.case)) {
        let key = block.case.ceiling_key();
        if !tuned.insert(key) {
            continue;
        }
        let mut best: Option<(f64, toml::Table)> = None;
        for table in walrus_drivers::raw::combinations(key.0).into_iter().take(plan.profile.raw_trials_max) {
            check_stop()?;
            let rate = try_raw(env, plan, &block.case, &table)?;
            if best.as_ref().is_none_or(|(best_rate, _)| rate > *best_rate) {
                best = Some((rate, table));
            }
        }
        if let Some((_, table)) = best {
            env.raw_settings.insert(key, table);
        }
    }
    Ok(())
}

fn try_raw(env: &mut Env, plan: &Plan, case: &Case, table: &toml::Table) -> Result<f64, RunError> {
    if plan.profile.raw_trial_s <= 0.0 {
        return Ok(0.0);
    }
    env.raw_settings.insert(case.ceiling_key(), table.clone());
    let row = RowName { system: "raw".into(), deployment: Deployment::Embedded, variant: String::new() };
    let task = trial_task("raw-trial", case, row, plan.profile.raw_trial_s);
    let mut fleet = Fleet::new(&env.bench_dir, WarmUp { window_s: 0.0, s_max: 0.0 });
    Ok(run::run(env, &mut fleet, &task)?.summary.records_per_s)
}

fn trial_task(workload: &str, case: &Case, row: RowName, seconds: f64) -> Task {
    Task {
        run_id: "trial".into(),
        workload: workload.into(),
        case: case.clone(),
        row,
        repeat: 1,
        kill: false,
        load: Load {
            record_bytes: case.record_bytes,
            seconds: Some(seconds),
            payload_bytes: case.rate_per_s.is_none().then_some(TRIAL_BYTES),
            rate_per_s: case.rate_per_s,
            warmup_s: if case.rate_per_s.is_some() { seconds / 4.0 } else { 0.0 },
            tail: false,
            kill_at_s: None,
        },
        marks: Vec::new(),
    }
}

/// What `harness tune` was asked for.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// `system/variant` rows.
    pub rows: Vec<RowName>,
    /// Workload whose first case is run.
    pub workload: String,
    /// Trials of every row.
    pub trials: usize,
    /// Longest trial in seconds.
    pub seconds: f64,
}

/// Runs the sweep and keeps its results beside the profiles in `dir`.
pub fn sweep(env: &Env, sweep: &Sweep, dir: &Path) -> Result<(), TuneError> {
    let workload = workload::find(&sweep.workload, &[]).map_err(|e| TuneError::Usage(e.to_string()))?;
    let case = workload.cases.first().ok_or_else(|| TuneError::Usage("the workload is empty".into()))?;
    for row in &sweep.rows {
        let grid = settings::read(Some(dir), &row.system)?;
        let Some(toml::Value::Table(grid)) = grid.get("grid") else {
            println!("{}: its profile has no [grid], nothing to sweep", row.system);
            continue;
        };
        let base =
            settings::for_row(Some(dir), &row.system, &words(&row.variant), case.tier, case.rate_per_s.is_some())?;
        let mut best: Option<SummaryRow> = None;
        for overlay in spread(&combinations(grid), sweep.trials) {
            check_stop()?;
            let summary = try_settings(env, row, case, sweep, &base, &overlay, dir)?;
            println!("{}: {:>9.0} records/s  {overlay}", row.system, summary.records_per_s);
            if best.as_ref().is_none_or(|best| is_better(&summary, best)) {
                best = Some(summary);
            }
        }
    }
    Ok(())
}

fn is_better(one: &SummaryRow, other: &SummaryRow) -> bool {
    one.is_valid() && (!other.is_valid() || one.records_per_s > other.records_per_s)
}

fn try_settings(
    env: &Env,
    row: &RowName,
    case: &Case,
    sweep: &Sweep,
    base: &toml::Table,
    overlay: &toml::Table,
    dir: &Path,
) -> Result<SummaryRow, TuneError> {
    let mut merged = base.clone();
    merged.extend(overlay.clone());
    let with_these = env.with_settings(merged);
    let mut fleet = Fleet::new(&env.bench_dir, TRIAL_WARM_UP);
    let task = trial_task(&sweep.workload, case, row.clone(), sweep.seconds);
    let summary = run::run(&with_these, &mut fleet, &task)?.summary;
    let trial = Trial {
        tried_utc: utc_now(),
        system: row.system.clone(),
        variant: row.variant.clone(),
        tier: case.tier,
        load_mode: case.kind.load_mode(),
        settings: overlay.to_string().trim().replace('\n', "; "),
        records_per_s: summary.records_per_s,
        p99_us: summary.p99_us,
        verified: summary.verified,
        error: summary.error.clone(),
    };
    csv::append(&dir.join(format!("{}.tune.csv", row.system)), &[trial])?;
    Ok(summary)
}

fn words(variant: &str) -> Vec<String> {
    variant.split('-').map(str::to_owned).collect()
}

/// Every combination of the grid's lists.
fn combinations(grid: &toml::Table) -> Vec<toml::Table> {
    let mut all = vec![toml::Table::new()];
    // In one order, whichever the table keeps: the trials are a part of them.
    let sorted: BTreeMap<&String, &toml::Value> = grid.iter().collect();
    for (name, values) in sorted {
        let values = values.as_array().cloned().unwrap_or_else(|| vec![values.clone()]);
        let with = |table: &toml::Table| -> Vec<toml::Table> {
            let set = |value: &toml::Value| {
                let mut table = table.clone();
                table.insert(name.clone(), value.clone());
                table
            };
            values.iter().map(set).collect()
        };
        all = all.iter().flat_map(with).collect();
    }
    all
}

/// Exactly `count` of them, evenly spread; fewer if there are fewer. The steps, of about the golden
/// section of the whole, have no divisor in common with it: else a list of the grid whose length divides
/// the step would show the same value every time.
fn spread(all: &[toml::Table], count: usize) -> Vec<toml::Table> {
    let length = all.len();
    let step = (length * 5 / 8..=length + 1).find(|step| gcd(*step, length) == 1).unwrap_or(1);
    (0..count.min(length)).map(|index| all[index * step % length].clone()).collect()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_gives_all_combinations_and_a_budget_spreads_over_them() {
        let grid: toml::Table = "a = [1, 2, 3]\nb = [true, false]".parse().unwrap();
        let all = combinations(&grid);
        assert_eq!(all.len(), 6);
        let distinct: HashSet<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(distinct.len(), 6);
        assert_eq!(spread(&all, 3).len(), 3);
        let whole: HashSet<String> = spread(&all, 100).iter().map(ToString::to_string).collect();
        assert_eq!(whole, distinct);
    }

    #[test]
    fn twelve_trials_try_every_value_of_every_profile() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../drivers/profiles");
        for system in ["walrus", "walrus-embedded", "kafka", "rocksdb", "upstream"] {
            let profile = settings::read(Some(&dir), system).unwrap();
            let grid = profile["grid"].as_table().unwrap();
            let tried = spread(&combinations(grid), 12);
            for (name, values) in grid {
                for value in values.as_array().unwrap() {
                    assert!(tried.iter().any(|table| &table[name] == value), "{system}: {name} = {value}");
                }
            }
        }
    }
}
