//! From invented CSV files to charts and page.

use std::sync::OnceLock;

use walrus_drivers::Tier;

use crate::chart::{self, Chart};
use crate::compare;
use crate::csv::SummaryRow;
use crate::fixture::{self, Fixture, plain_row};
use crate::report::{self, ratios, sentence};
use crate::results::Results;
use crate::stats::Verdict;

fn load(fixture: &Fixture) -> Results {
    let dir = tempfile::tempdir().expect("a directory");
    fixture.write(dir.path());
    Results::load(dir.path()).expect("results")
}

/// Drawing a full run takes a moment; the tests that only look share one.
fn full() -> &'static (Results, Vec<Chart>) {
    static FULL: OnceLock<(Results, Vec<Chart>)> = OnceLock::new();
    FULL.get_or_init(|| {
        let results = load(&fixture::full());
        let charts = chart::draw(&results).expect("charts");
        (results, charts)
    })
}

fn sentence_of(fixture: &Fixture) -> String {
    sentence::headline(&ratios::comparisons(&load(fixture).groups()))
}

/// Walrus against Kafka in a burst; `change` adapts Walrus's rows.
fn duel(change: impl Fn(&mut SummaryRow)) -> Fixture {
    let mut f = Fixture::default();
    f.add(&plain_row("writes-burst", "walrus", "put-tuned", 1_500_000.0), change);
    f.add(&plain_row("writes-burst", "kafka", "tuned", 500_000.0), |_| {});
    f
}

#[test]
fn every_workload_has_its_chart_and_file_names_carry_tier_and_deployment() {
    let (_, charts) = full();
    for slug in [
        "headline-burst",
        "headline-sustained",
        "throughput-over-time",
        "synced-windowed",
        "synced-one-in-flight",
        "latency-against-rate",
        "latency-percentiles",
        "read-warm",
        "read-cold",
        "scaling-producers",
        "scaling-topics",
        "sizes",
        "cpu",
        "cluster-page-cache",
        "cluster-latency",
        "cluster-cpu",
        "failover-page-cache",
        "failover-gap",
    ] {
        let found = charts.iter().find(|chart| chart.stem.starts_with(slug));
        let stem = &found.unwrap_or_else(|| panic!("no chart {slug}")).stem;
        assert!(stem.contains("page-cache") || stem.contains("synced"), "{stem}");
        assert!(stem.contains("networked"), "{stem}");
    }
}

#[test]
fn a_workload_that_was_not_run_has_no_chart() {
    let charts = chart::draw(&load(&duel(|_| {}))).expect("charts");
    let stems: Vec<&str> = charts.iter().map(|chart| chart.stem.as_str()).collect();
    assert_eq!(stems, ["headline-burst-page-cache-networked", "cpu-page-cache-networked"]);
}

#[test]
fn an_empty_run_still_makes_a_page() {
    let dir = tempfile::tempdir().expect("a directory");
    Fixture::default().write(dir.path());
    std::fs::write(dir.path().join("summary.csv"), "run_id\n").expect("a header");
    let results = Results::load(dir.path()).expect("results");
    let page = report::page(&results, &chart::draw(&results).expect("charts"));
    assert!(page.contains("no two rows that can be compared"));
}

#[test]
fn files_are_written_and_old_charts_go() {
    let dir = tempfile::tempdir().expect("a directory");
    duel(|_| {}).write(dir.path());
    let old = dir.path().join("charts/of-a-workload-that-is-gone.svg");
    std::fs::create_dir_all(dir.path().join("charts")).expect("a directory");
    std::fs::write(&old, "old").expect("a file");
    let files = report::write(dir.path()).expect("a report");
    let names: Vec<String> = files.iter().filter_map(|f| Some(f.file_name()?.to_string_lossy().into_owned())).collect();
    for name in ["headline-burst-page-cache-networked.svg", "headline-burst-page-cache-networked.png", "index.html"] {
        assert!(names.iter().any(|n| n == name), "{name} is missing from {names:?}");
    }
    assert!(files.iter().all(|file| file.exists()) && !old.exists());
    let png = std::fs::read(dir.path().join("charts/headline-burst-page-cache-networked.png"));
    assert!(png.expect("the picture").starts_with(b"\x89PNG"));
}

#[test]
fn the_page_loads_nothing_from_anywhere() {
    let (results, charts) = full();
    let page = report::page(results, charts);
    // The name of SVG's namespace is an identifier, not an address that is fetched.
    let page = page.replace("http://www.w3.org/2000/svg", "");
    for forbidden in ["http://", "https://", "src=", "url(", "@import", "<script", "<link"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    assert!(page.contains("prefers-color-scheme:dark") || page.contains("prefers-color-scheme: dark"));
    assert!(page.contains("<title>") && page.contains("viewport"));
}

#[test]
fn headings_are_in_order_and_every_picture_has_words() {
    let (results, charts) = full();
    let page = report::page(results, charts);
    let mut before = 0;
    for heading in page.match_indices("<h").filter_map(|(i, _)| page[i + 2..].chars().next()?.to_digit(10)) {
        assert!(heading <= before + 1, "h{heading} after h{before}");
        before = heading;
    }
    assert_eq!(page.matches("<svg").count(), 2 * charts.len());
    assert_eq!(page.matches("role=\"img\" aria-label=").count(), 2 * charts.len());
}

#[test]
fn a_failed_row_is_listed_and_in_no_chart() {
    let (results, charts) = full();
    assert!(charts.iter().all(|c| !c.wide_svg.contains("broken") && !c.narrow_svg.contains("broken")));
    let page = report::page(results, charts);
    assert!(page.contains("lost 3 acknowledged records &lt;of topic 2&gt;"));
    let (before, _) = page.split_once("id=\"failed\"").expect("the section of failures");
    assert!(!before.contains("broken"), "a failed row counts nowhere");
}

#[test]
fn the_sentence_claims_only_what_every_repeat_shows() {
    let sentence = sentence_of(&duel(|_| {}));
    assert!(sentence.contains("3 times as fast (3–3)"), "{sentence}");
    let sentence = sentence_of(&duel(|row| {
        if row.repeat == 4 {
            row.records_per_s = 400_000.0;
        }
    }));
    assert!(sentence.contains("no difference shown (0.777–3)"), "{sentence}");
    assert!(!sentence.contains("as fast"), "{sentence}");
}

#[test]
fn the_competitor_is_its_faster_client_and_a_loss_is_called_one() {
    let mut f = duel(|_| {});
    f.add(&plain_row("writes-burst", "kafka-java", "tuned", 3_000_000.0), |_| {});
    let results = load(&f);
    let groups = results.groups();
    let all = ratios::comparisons(&groups);
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].theirs, "Kafka tuned, Java client");
    assert_eq!(all[0].verdict, Verdict::Slower);
    assert!(sentence::headline(&all).contains("slower, 0.5 times its throughput"));
}

#[test]
fn default_settings_that_beat_the_tuned_ones_are_the_competitor() {
    let mut f = duel(|_| {});
    f.add(&plain_row("writes-burst", "kafka", "vanilla", 600_000.0), |_| {});
    let all = ratios::comparisons(&load(&f).groups());
    assert_eq!((all.len(), all[0].theirs.as_str()), (1, "Kafka vanilla"));
}

#[test]
fn one_repeat_claims_nothing() {
    let mut f = duel(|_| {});
    f.summary.retain(|row| row.repeat == 1);
    assert!(sentence_of(&f).contains("a ratio of 3, in 1 of the 3 repeats that would show a difference"));
}

#[test]
fn after_a_failover_the_shorter_gap_is_the_better_one() {
    let (results, _) = full();
    let all = ratios::comparisons(&results.groups());
    let find = |workload: &str, mode: &str| all.iter().find(|c| c.workload == workload && c.mode == mode);
    let gap = find("failover", "put").expect("a comparison");
    assert_eq!((gap.verdict, gap.ours_median, gap.theirs_median), (Verdict::Faster, 1500.0, 4000.0));
    let all_three = find("cluster", "all").expect("a comparison");
    assert_eq!(all_three.theirs, "Kafka tuned");
}

#[test]
fn one_in_flight_meets_only_one_in_flight() {
    let mut f = Fixture::default();
    f.add(&plain_row("writes-burst", "walrus-embedded", "tuned", 1_000_000.0), |_| {});
    f.add(&plain_row("writes-burst", "rocksdb", "put-tuned", 200_000.0), |row| {
        row.in_flight = "1".into();
    });
    assert!(ratios::comparisons(&load(&f).groups()).is_empty());
}

#[test]
fn a_disturbed_try_is_superseded_by_its_last() {
    let mut f = duel(|_| {});
    let mut disturbed = f.summary[0].clone();
    disturbed.records_per_s = 1.0;
    disturbed.marks = "superseded".into();
    f.summary.push(disturbed);
    let results = load(&f);
    assert!(results.groups().iter().all(|g| g.rows.iter().all(|row| row.records_per_s > 1.0)));
}

#[test]
fn markdown_has_the_sentence_and_a_row_for_each_comparison() {
    let dir = tempfile::tempdir().expect("a directory");
    duel(|_| {}).write(dir.path());
    let text = report::markdown(dir.path()).expect("markdown");
    assert!(text.contains("| writes-burst, networked, page-cache | Walrus PUT tuned 1.5 M/s |"), "{text}");
    assert!(text.contains("| 3 (3–3) | faster |"), "{text}");
}

#[test]
fn two_runs_differ_only_if_their_repeats_do_not_overlap() {
    let before = load(&duel(|_| {}));
    let after = load(&duel(|row| row.records_per_s *= 1.5));
    let comparison = compare::compare(&before, &after);
    let verdict = |system: &str| {
        let row = comparison.rows.iter().find(|row| row.system.starts_with(system));
        row.map(|row| row.verdict)
    };
    assert_eq!(verdict("Walrus"), Some(Verdict::Faster));
    assert_eq!(verdict("Kafka"), Some(Verdict::NoDifferenceShown));
    assert!(comparison.warnings.is_empty() && comparison.only_before.is_empty());
    assert!(compare::table(&comparison).contains("no difference shown"));
}

#[test]
fn another_machine_is_a_warning() {
    let before = load(&duel(|_| {}));
    let mut after = before.clone();
    after.env["machine"]["cores"] = serde_json::json!(64);
    let comparison = compare::compare(&before, &after);
    assert_eq!(comparison.warnings, ["other machine: cores was 2, is 64"]);
}

#[test]
fn a_put_that_waits_for_its_flush_meets_only_what_waits_too() {
    for (in_flight, are_compared) in [("1", true), ("4MiB", false)] {
        let mut f = Fixture::default();
        for (system, variant, per_s) in [("walrus-embedded", "tuned", 20_000.0), ("rocksdb", "put-tuned", 10_000.0)] {
            f.add(&plain_row("writes-synced", system, variant, per_s), |row| {
                row.tier = Tier::Synced;
                row.in_flight = in_flight.into();
            });
        }
        let all = ratios::comparisons(&load(&f).groups());
        assert_eq!(all.iter().any(|c| c.rival == "rocksdb"), are_compared, "{in_flight} in flight");
    }
}

#[test]
fn what_remains_with_many_topics_is_told_and_meets_the_rival_there() {
    let mut f = Fixture::default();
    for (system, variant, topics, per_s) in [
        ("walrus", "put-tuned", 1, 9e6),
        ("walrus", "put-tuned", 10, 2e6),
        ("walrus", "put-tuned", 1000, 1.5e6),
        ("walrus", "put-tuned", 10_000, 1e6),
        ("kafka", "tuned", 10, 5e5),
        ("kafka", "tuned", 1000, 1e5),
        ("walrus-embedded", "tuned", 10_000, 6e5),
        ("rocksdb", "batch-tuned", 10_000, 2e5),
    ] {
        f.add(&plain_row("scaling", system, variant, per_s), |row| row.topics = topics);
    }
    let results = load(&f);
    let groups = results.groups();
    let kept: Vec<(String, u32, u32, f64)> =
        ratios::kept(&groups).into_iter().map(|k| (k.row, k.few, k.many, round(k.ratio.median))).collect();
    let walrus = |many, ratio| ("Walrus PUT tuned".to_owned(), 10, many, ratio);
    assert_eq!(kept, [walrus(1000, 0.75), walrus(10_000, 0.5), ("Kafka tuned".to_owned(), 10, 1000, 0.2)]);
    let told: Vec<(String, f64)> =
        ratios::comparisons(&groups).into_iter().map(|c| (c.phase, round(c.ratio.median))).collect();
    let met = [("1000 topics".to_owned(), 15.0), ("10000 topics".to_owned(), 3.0)];
    assert_eq!(told, met, "Kafka was not asked for 10,000, RocksDB was");
}

#[test]
fn a_row_that_was_run_once_does_not_take_the_place_of_one_with_repeats() {
    let mut f = duel(|_| {});
    f.add(&plain_row("writes-burst", "kafka", "tuned-idempotent", 600_000.0), |_| {});
    let told = |f: &Fixture| ratios::comparisons(&load(f).groups()).remove(0);
    assert!(told(&f).theirs.contains("idempotent"), "the better one");
    f.summary.pop();
    assert!(told(&f).theirs.contains("idempotent"), "one repeat has failed");
    f.summary.truncate(f.summary.len() - 2);
    let comparison = told(&f);
    assert_eq!((comparison.theirs.as_str(), comparison.verdict), ("Kafka tuned", Verdict::Faster));
}

/// Rates vary a little from repeat to repeat, alike in all rows.
fn round(ratio: f64) -> f64 {
    (ratio * 100.0).round() / 100.0
}
