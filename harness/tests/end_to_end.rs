//! The harness as its users run it: the binary, its CSV files, Ctrl-C.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn harness(dir: &Path, workloads: &str, more: &[&str]) -> Command {
    harness_of("null,raw", dir, workloads, more)
}

fn harness_of(systems: &str, dir: &Path, workloads: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
    command
        .args(["run", "--yes", "--profile", "smoke", "--systems", systems, "--workload", workloads])
        .arg("--bench-dir")
        .arg(dir)
        .arg("--out")
        .arg(dir.join("results/one"))
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// On the disk of the build: `/tmp` may be in memory, which the preflight refuses.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn column<'a>(summary: &'a str, name: &str) -> Vec<&'a str> {
    let mut lines = summary.lines();
    let index = lines.next().unwrap().split(',').position(|column| column == name).unwrap();
    lines.map(|line| line.split(',').nth(index).unwrap()).collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn null_and_raw_leave_csv_files_and_nothing_else() {
    let dir = scratch();
    assert!(harness(dir.path(), "writes-burst", &[]).status().unwrap().success());
    let results = dir.path().join("results/one");
    let summary = read(&results.join("summary.csv"));
    assert_eq!(column(&summary, "system"), ["raw", "null", "raw"]);
    assert!(column(&summary, "error").iter().all(|error| error.is_empty()), "{summary}");
    let acked: Vec<u64> = column(&summary, "records_acked").iter().map(|n| n.parse().unwrap()).collect();
    assert!(acked.iter().all(|&records| records > 80_000), "{acked:?}");
    assert!(column(&summary, "ceiling_pct").iter().filter(|pct| !pct.is_empty()).count() == 2);
    assert!(read(&results.join("throughput.csv")).lines().count() > 3);
    assert!(read(&results.join("env.json")).contains("\"command_line\""));
    assert!(dir.path().join("results/latest/summary.csv").exists());
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["results"]);
}

#[test]
fn a_run_ends_with_its_charts_and_its_page() {
    let dir = scratch();
    let output =
        harness_of("walrus-embedded", dir.path(), "writes-burst", &[]).stdout(Stdio::piped()).output().unwrap();
    assert!(output.status.success());
    let results = dir.path().join("results/one");
    let chart = std::fs::read(results.join("charts/headline-burst-page-cache-embedded.png")).unwrap();
    assert!(chart.starts_with(b"\x89PNG"));
    assert!(read(&results.join("index.html")).contains("<svg"));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("index.html"), "{told}");
}

#[test]
fn the_same_out_goes_on_and_runs_nothing_twice() {
    let dir = scratch();
    assert!(harness(dir.path(), "writes-burst", &[]).status().unwrap().success());
    let summary = dir.path().join("results/one/summary.csv");
    let before = read(&summary);
    assert!(harness(dir.path(), "writes-burst", &["--repeats", "2"]).status().unwrap().success());
    let after = read(&summary);
    assert!(after.starts_with(&before), "rows that were there are kept as they were");
    assert_eq!(column(&after, "repeat"), ["1", "1", "1", "2", "2", "2"]);
}

#[test]
fn ctrl_c_leaves_what_was_measured_and_no_children() {
    let dir = scratch();
    let mut child = harness(dir.path(), "writes-burst,writes", &["--seconds", "20"]).spawn().unwrap();
    let summary = dir.path().join("results/one/summary.csv");
    wait_for(&mut child, |pid| read(&summary).lines().count() == 4 && !children(pid).is_empty());
    let before = children(child.id());
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    // SAFETY: plain system call; the child was not reaped yet, so the pid is still its own.
    unsafe { libc::kill(pid, libc::SIGINT) };
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(column(&read(&summary), "workload"), ["writes-burst"; 3]);
    assert!(read(&dir.path().join("results/one/index.html")).contains("<h1>"), "what was measured is drawn, too");
    let alive = |pid: &u32| read(Path::new(&format!("/proc/{pid}/stat"))).contains("harness");
    assert!(!before.iter().any(alive), "{before:?}");
    assert!(!dir.path().join(format!("walrus-bench-{}", child.id())).exists());
}

#[test]
fn killed_hard_the_harness_takes_its_children_along() {
    let dir = scratch();
    let mut child = harness(dir.path(), "writes", &["--seconds", "20"]).spawn().unwrap();
    wait_for(&mut child, |pid| !children(pid).is_empty());
    let before = children(child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let alive = |pid: &u32| !matches!(state(*pid), None | Some('Z'));
    while before.iter().any(alive) {
        assert!(Instant::now() < deadline, "{before:?}");
        std::thread::yield_now();
    }
}

/// Runs a workload for three nodes of Walrus; returns its rows.
///
/// The binary has to lie beside the harness: `make test-harness` puts it there.
fn three_nodes(workload: &str) -> String {
    let walrus = Path::new(env!("CARGO_BIN_EXE_harness")).with_file_name("walrus");
    assert!(walrus.exists(), "{} is missing: `make test-harness` brings it", walrus.display());
    let dir = scratch();
    let succeeded = harness_of("walrus", dir.path(), workload, &[]).status().unwrap().success();
    let summary = read(&dir.path().join("results/one/summary.csv"));
    assert!(succeeded, "{summary}");
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["results"]);
    summary
        .lines()
        .enumerate()
        .filter(|(line, row)| *line == 0 || row.contains(",walrus,"))
        .fold(String::new(), |rows, (_, row)| rows + row + "\n")
}

fn assert_three_copies_proved(rows: &str) {
    let all = |name: &str, wanted: &str| column(rows, name).iter().all(|value| *value == wanted);
    assert!(all("error", "") && all("verified", "true"), "{rows}");
    assert!(all("nodes", "3") && all("replicas", "3"), "{rows}");
    let acked: Vec<u64> = column(rows, "records_acked").iter().map(|n| n.parse().unwrap()).collect();
    assert!(acked.iter().all(|&records| records > 1000), "{rows}");
}

#[test]
fn rows_of_a_cluster_are_proved_and_say_how_many_nodes_and_copies() {
    let rows = three_nodes("cluster");
    assert_three_copies_proved(&rows);
    // A steady rate and a burst, each through any node, to the leader, and with all copies.
    let mut variants = column(&rows, "variant");
    variants.sort_unstable();
    assert_eq!(
        variants,
        ["put-all-tuned", "put-all-tuned", "put-direct-tuned", "put-direct-tuned", "put-tuned", "put-tuned"]
    );
}

#[test]
fn a_killed_leader_leaves_a_gap_that_is_told() {
    let rows = three_nodes("failover");
    assert_three_copies_proved(&rows);
    let marks = column(&rows, "marks");
    let gap = marks[0].split(' ').find_map(|mark| mark.strip_prefix("gap_ms="));
    assert!(gap.is_some_and(|gap_ms| gap_ms.parse::<u64>().unwrap() > 0), "{rows}");
}

#[test]
fn wrong_words_are_told_with_the_right_ones() {
    let dir = scratch();
    let output = harness(dir.path(), "wirtes", &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("writes-burst"));
}

fn wait_for(child: &mut Child, mut is_there: impl FnMut(u32) -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !is_there(child.id()) {
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
        assert!(Instant::now() < deadline, "nothing happened");
        std::thread::yield_now();
    }
}

fn state(pid: u32) -> Option<char> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text[text.rfind(')')? + 2..].chars().next()
}

fn children(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            let text = read(Path::new(&format!("/proc/{pid}/stat")));
            let ppid = text.rfind(')').and_then(|at| text[at + 2..].split(' ').nth(1)?.parse().ok());
            ppid == Some(parent)
        })
        .collect()
}
