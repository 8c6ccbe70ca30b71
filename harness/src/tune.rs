//! Looks for the best settings: of `raw` at the start of each run, of every system on demand.
//!
//! `harness tune` tries the combinations of a system's grid (each laid over the table it is for): the
//! same number of trials and the same time for every system. `[grid.tuned]` is tried with a burst,
//! `[grid.latency]` with an open loop, `[grid.synced]` with a flush for each acknowledgement. The results
//! are kept as `drivers/profiles/<system>.tune.csv`; a person decides what goes into the profile.

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
    workload: String,
    system: String,
    variant: String,
    tier: Tier,
    load_mode: LoadMode,
    offered_per_s: Option<f64>,
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
    /// Workloads of which one case each is run.
    pub workloads: Vec<String>,
    /// Trials of every row and workload.
    pub trials: usize,
    /// Longest trial in seconds.
    pub seconds: f64,
}

/// Offered rate of the trials for latency, in records a second: every system keeps up with it.
const OPEN_PER_S: f64 = 10_000.0;

/// Runs the sweep and keeps its results beside the profiles in `dir`.
pub fn sweep(env: &Env, sweep: &Sweep, dir: &Path) -> Result<(), TuneError> {
    for workload in &sweep.workloads {
        let case = case_of(workload)?;
        for row in &sweep.rows {
            sweep_row(env, sweep, &Trials { workload, case: &case, row, dir })?;
        }
    }
    Ok(())
}

/// The workload's first case with more than one record in flight: only that leaves anything to tune.
fn case_of(workload: &str) -> Result<Case, TuneError> {
    let found = workload::find(workload, &[OPEN_PER_S]).map_err(|e| TuneError::Usage(e.to_string()))?;
    let case = found.cases.into_iter().find(|case| case.window_bytes.is_some() && case.nodes == 1);
    case.ok_or_else(|| TuneError::Usage(format!("{workload} has no case of one node that can be tuned")))
}

/// One row under one load.
struct Trials<'a> {
    workload: &'a str,
    case: &'a Case,
    row: &'a RowName,
    dir: &'a Path,
}

fn sweep_row(env: &Env, sweep: &Sweep, trials: &Trials<'_>) -> Result<(), TuneError> {
    let Trials { case, row, dir, .. } = *trials;
    let (variant, is_latency) = (words(&row.variant), case.rate_per_s.is_some());
    let file = settings::read(Some(dir), &row.system)?;
    let table = settings::table_name(&file, &variant, case.tier, is_latency);
    let Some(grid) = file.get("grid").and_then(|grid| grid.get(table)?.as_table()) else {
        println!("{}: its profile has no [grid.{table}], nothing to sweep", row.system);
        return Ok(());
    };
    let base = settings::for_row(Some(dir), &row.system, &variant, case.tier, is_latency)?;
    let mut best: Option<(SummaryRow, String)> = None;
    for overlay in spread(grid, sweep.trials) {
        check_stop()?;
        let mut merged = base.clone();
        merged.extend(overlay.clone());
        let words = overlay.to_string().trim().replace('\n', "; ");
        let summary = try_settings(&env.with_settings(merged), trials, sweep.seconds, &words)?;
        println!("{} {table}: {}  {words}", row.system, outcome(&summary));
        if best.as_ref().is_none_or(|(best, _)| is_better(&summary, best)) {
            best = Some((summary, words));
        }
    }
    if let Some((summary, words)) = best {
        println!("{} {table}: best of these: {}  {words}", row.system, outcome(&summary));
    }
    Ok(())
}

/// What a trial gave, in words.
fn outcome(summary: &SummaryRow) -> String {
    let p99 = summary.p99_us.map_or_else(String::new, |us| format!(", p99 {:.2} ms", us / 1000.0));
    let failure = if summary.is_valid() { "" } else { ", NOT VALID" };
    format!("{:>9.0} records/s{p99}{failure}", summary.records_per_s)
}

/// In an open loop all rates are the same, and latency decides.
fn is_better(one: &SummaryRow, other: &SummaryRow) -> bool {
    if one.is_valid() != other.is_valid() {
        return one.is_valid();
    }
    match (one.load_mode, one.p99_us, other.p99_us) {
        (LoadMode::Open, Some(one), Some(other)) => one < other,
        _ => one.records_per_s > other.records_per_s,
    }
}

fn try_settings(env: &Env, trials: &Trials<'_>, seconds: f64, settings: &str) -> Result<SummaryRow, TuneError> {
    let Trials { workload, case, row, dir } = *trials;
    let mut fleet = Fleet::new(&env.bench_dir, TRIAL_WARM_UP);
    let task = trial_task(workload, case, row.clone(), seconds);
    let summary = run::run(env, &mut fleet, &task)?.summary;
    // The next trial's server has other settings, and the same directory.
    fleet.end()?;
    let trial = Trial {
        tried_utc: utc_now(),
        workload: workload.to_owned(),
        system: row.system.clone(),
        variant: row.variant.clone(),
        tier: case.tier,
        load_mode: case.kind.load_mode(),
        offered_per_s: case.rate_per_s,
        settings: settings.to_owned(),
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

/// The grid's lists in one order, whichever the table keeps: the trials are a part of all combinations.
fn lists(grid: &toml::Table) -> BTreeMap<&String, Vec<toml::Value>> {
    let list = |values: &toml::Value| values.as_array().cloned().unwrap_or_else(|| vec![values.clone()]);
    grid.iter().map(|(name, values)| (name, list(values))).collect()
}

/// Every combination of the grid's lists.
fn combinations(grid: &toml::Table) -> Vec<toml::Table> {
    let mut all = vec![toml::Table::new()];
    for (name, values) in lists(grid) {
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

/// `count` different combinations, evenly spread; all of them if there are no more. The n-th one is where
/// the n-th point of the sequence `R_d` lies (M. Roberts, "The Unreasonable Effectiveness of Quasirandom
/// Sequences", 2018): whichever lists one looks at, its points lie far apart.
fn spread(grid: &toml::Table, count: usize) -> Vec<toml::Table> {
    let all = combinations(grid);
    if all.len() <= count {
        return all;
    }
    let lists = lists(grid);
    let ratio = golden_ratio(lists.len());
    let point = |n: i32| -> toml::Table {
        let value = |(at, (name, values)): (i32, (&&String, &Vec<toml::Value>))| {
            let place = (0.5 + f64::from(n) / ratio.powi(at + 1)).fract();
            ((*name).clone(), values[(place * values.len() as f64) as usize].clone())
        };
        (0..).zip(&lists).map(value).collect()
    };
    let mut chosen: Vec<toml::Table> = Vec::new();
    for table in (1..).map(point) {
        if chosen.len() == count {
            break;
        }
        if !chosen.contains(&table) {
            chosen.push(table);
        }
    }
    chosen
}

/// The positive root of x^(d+1) = x + 1; of one dimension the golden ratio.
fn golden_ratio(dimensions: usize) -> f64 {
    let exponent = 1.0 / (dimensions as f64 + 1.0);
    (0..32).fold(2.0, |x: f64, _| (1.0 + x).powf(exponent))
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
        assert_eq!(spread(&grid, 3).len(), 3);
        let whole: HashSet<String> = spread(&grid, 100).iter().map(ToString::to_string).collect();
        assert_eq!(whole, distinct);
    }

    #[test]
    fn twelve_trials_try_every_value_of_every_grid() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../drivers/profiles");
        for system in ["walrus", "walrus-embedded", "kafka", "kafka-java", "rocksdb", "upstream"] {
            let profile = settings::read(Some(&dir), system).unwrap();
            for (table, grid) in profile["grid"].as_table().unwrap() {
                assert!(profile.contains_key(table), "{system}: [grid.{table}] is for no table");
                let tried = spread(grid.as_table().unwrap(), 12);
                assert_eq!(tried.len(), 12, "{system}, {table}: every system has as many trials");
                for (name, values) in grid.as_table().unwrap() {
                    for value in values.as_array().unwrap() {
                        assert!(tried.iter().any(|trial| &trial[name] == value), "{system}, {table}: {name} = {value}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_open_loop_is_judged_by_its_latency() {
        let row = |mode, per_s, p99_us| {
            let mut row = crate::fixture::plain_row("latency", "kafka", "tuned", per_s);
            (row.load_mode, row.p99_us) = (mode, Some(p99_us));
            row
        };
        assert!(is_better(&row(LoadMode::Open, 9_999.0, 500.0), &row(LoadMode::Open, 10_000.0, 900.0)));
        assert!(!is_better(&row(LoadMode::Closed, 9_999.0, 500.0), &row(LoadMode::Closed, 10_000.0, 900.0)));
        let mut failed = row(LoadMode::Open, 10_000.0, 1.0);
        failed.verified = false;
        assert!(!is_better(&failed, &row(LoadMode::Open, 10_000.0, 900.0)));
    }

    #[test]
    fn what_is_tuned_has_a_window() {
        assert_eq!(case_of("latency").unwrap().rate_per_s, Some(OPEN_PER_S));
        assert!(case_of("writes-synced").unwrap().window_bytes.is_some());
    }
}
