//! `index.html`: one file that tells the whole run, and needs nothing but itself.
//!
//! Order: the result in one sentence, the headline with its table, how to reproduce it, what the
//! original published, every other chart, every row, what failed, the machine.

pub mod html;
pub mod provenance;
pub mod ratios;
pub mod sentence;
pub mod tables;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use crate::chart::{self, Chart};
use crate::results::{Group, ReportError, Results};
use html::{definitions, escape, push};
use ratios::Comparison;

/// Name of the page.
pub const PAGE_FILE: &str = "index.html";

const STYLE: &str = include_str!("report/style.css");

/// Draws the charts of a results directory again, and writes its page; returns the files.
pub fn write(dir: &Path) -> Result<Vec<PathBuf>, ReportError> {
    let results = Results::load(dir)?;
    let charts = chart::draw(&results)?;
    let mut files = chart::write(&charts, dir)?;
    let path = dir.join(PAGE_FILE);
    fs::write(&path, page(&results, &charts)).map_err(ReportError::io(&path))?;
    files.push(path);
    Ok(files)
}

/// The result of a run in one sentence.
pub fn sentence_of(dir: &Path) -> Result<String, ReportError> {
    let results = Results::load(dir)?;
    Ok(sentence::headline(&ratios::comparisons(&results.groups())))
}

/// The headline tables as Markdown, for a README.
pub fn markdown(dir: &Path) -> Result<String, ReportError> {
    let results = Results::load(dir)?;
    let groups = results.groups();
    let comparisons = ratios::comparisons(&groups);
    let mut text = sentence::headline(&comparisons);
    text.push_str("\n\n");
    text.push_str(&tables::markdown(&comparisons, &ratios::kept(&groups)));
    Ok(text)
}

/// The page as one string.
pub fn page(results: &Results, charts: &[Chart]) -> String {
    let groups = results.groups();
    let comparisons = ratios::comparisons(&groups);
    let sentence = sentence::headline(&comparisons);
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>Walrus benchmark report</title>\n<style>\n{STYLE}</style></head>\n<body><main>\n"
    );
    for section in [
        opening(results, &sentence),
        headline(results, charts, &comparisons, &groups),
        reproduce(results),
        published(&groups),
        other_charts(charts),
        rows(&groups),
        failures(results),
        machine(results),
    ] {
        html.push_str(&section);
    }
    html.push_str("</main></body></html>\n");
    html
}

fn opening(results: &Results, sentence: &str) -> String {
    let name = results.dir.file_name().map(|n| n.to_string_lossy().into_owned());
    let mut html =
        format!("<h1>Walrus benchmark report{}</h1>\n", name.map(|n| format!(": {}", escape(&n))).unwrap_or_default());
    // The first statement is the headline; the others stand below it.
    for (i, words) in sentence.split("; ").enumerate() {
        let class = if i == 0 { "result" } else { "also" };
        push(&mut html, format_args!("<p class=\"{class}\">{}</p>\n", escape(&sentence::alone(words))));
    }
    html.push_str(
        "<p class=\"muted\">Ratios are taken within each repeat and shown as median with minimum \
         and maximum. A difference is called one only if every repeat, of at least three, agrees. Only acknowledged records \
         count, and each was read back afterwards.</p>\n",
    );
    let failed = results.failed().count();
    if failed > 0 {
        push(
            &mut html,
            format_args!(
                "<p class=\"warning\">Rows that failed count nowhere: {failed} of {}, \
             <a href=\"#failed\">see which and why</a>.</p>\n",
                results.rows.len()
            ),
        );
    }
    for warning in provenance::warnings(&results.env) {
        push(&mut html, format_args!("<p class=\"warning\">{}</p>\n", escape(&warning)));
    }
    html.push_str(
        "<nav aria-label=\"Sections\"><ul><li><a href=\"#headline\">Headline</a></li>\
         <li><a href=\"#reproduce\">Reproduce it</a></li><li><a href=\"#charts\">More charts</a></li>\
         <li><a href=\"#rows\">All rows</a></li><li><a href=\"#machine\">Machine</a></li></ul></nav>\n",
    );
    html
}

fn is_headline(chart: &Chart) -> bool {
    chart.stem.starts_with("headline")
}

fn headline(results: &Results, charts: &[Chart], comparisons: &[Comparison], groups: &[Group<'_>]) -> String {
    let mut html = String::from("<h2 id=\"headline\">Headline</h2>\n");
    for chart in charts.iter().filter(|chart| is_headline(chart)) {
        html.push_str(&figure(chart));
    }
    if !comparisons.is_empty() {
        html.push_str("<h3>Ratios</h3>\n");
        html.push_str(&tables::ratios(comparisons));
    }
    html.push_str(&tables::steady(results, groups).unwrap_or_default());
    html.push_str(&tables::topics(&ratios::kept(groups)).unwrap_or_default());
    if tables::has_rocksdb(groups) {
        html.push_str(
            "<p>RocksDB keeps a searchable index of its keys; Walrus, like any log, does not. \
             Whoever needs to look records up by key gets from RocksDB something that these \
             numbers do not show.</p>\n",
        );
    }
    html
}

fn figure(chart: &Chart) -> String {
    format!(
        "<figure><div class=\"wide\">{}</div><div class=\"narrow\">{}</div>\
         <figcaption>{}</figcaption></figure>\n",
        chart.wide_svg,
        chart.narrow_svg,
        escape(&chart.reading)
    )
}

fn reproduce(results: &Results) -> String {
    let mut html = String::from("<h2 id=\"reproduce\">Reproduce it</h2>\n");
    if let Some(command) = provenance::command_line(&results.env) {
        push(&mut html, format_args!("<p>This run was made with</p>\n<pre><code>{}</code></pre>\n", escape(&command)));
    }
    html.push_str(
        "<p>On a fresh machine <code>make bench-all</code> builds everything, runs every system \
         and writes this page; <code>harness chart DIR</code> redraws the charts from the CSV \
         files, and <code>harness compare DIR DIR</code> sets two runs side by side. The numbers \
         are in <code>summary.csv</code>, <code>throughput.csv</code> and <code>latency.csv</code> \
         beside this page.</p>\n",
    );
    html
}

fn published(groups: &[Group<'_>]) -> String {
    tables::published(groups).map_or(String::new(), |table| {
        format!(
            "<h2 id=\"published\">Published by the original, measured here</h2>\n{table}\
             <p>Why they differ: the published numbers come from another machine; they count \
             writes that were sent, here only those that the system acknowledged and that were \
             read back count; a short run measures memory, a long one the device, which is why \
             burst and sustained are apart here; and each system had another workload there, \
             while here all get the same records, the same number of them in flight, and their \
             best settings. An average over a run also hides its best half second: the published \
             maximum is to be compared with the best 500 ms.</p>\n"
        )
    })
}

fn other_charts(charts: &[Chart]) -> String {
    let others: Vec<&Chart> = charts.iter().filter(|chart| !is_headline(chart)).collect();
    if others.is_empty() {
        return String::new();
    }
    let mut html = String::from(
        "<h2 id=\"charts\">More charts</h2>\n<p>A colour is one system in every chart. Dots are \
         single repeats. A dashed grey line is what the hardware does when nothing but the \
         writing is done.</p>\n",
    );
    for chart in others {
        html.push_str(&figure(chart));
    }
    html
}

fn rows(groups: &[Group<'_>]) -> String {
    format!(
        "<h2 id=\"rows\">All rows</h2>\n{}\
         <p>The ceiling is the median of the bare-hardware rows of the same repeat. A row and its ceiling run minutes \
         apart: a percentage above 100 says that the device was faster in the minute of the row, not that a system \
         outdid its hardware. What the marks mean is told in docs/measuring.md.</p>\n",
        tables::all_rows(groups)
    )
}

fn failures(results: &Results) -> String {
    let table = tables::failures(results).unwrap_or_else(|| "<p>None: every row passed its proof.</p>\n".to_owned());
    format!("<h2 id=\"failed\">Failed and missing</h2>\n{table}")
}

fn machine(results: &Results) -> String {
    let pairs = provenance::flatten(&results.env);
    if pairs.is_empty() {
        return "<h2 id=\"machine\">Machine</h2>\n<p>There is no env.json.</p>\n".to_owned();
    }
    let first = |(name, _): &(String, String)| {
        let group = name.split('.').next().unwrap_or(name);
        matches!(group, "machine" | "filesystem" | "versions" | "git_revision" | "started_utc" | "profile")
    };
    let (short, rest): (Vec<_>, Vec<_>) = pairs.into_iter().partition(first);
    format!(
        "<h2 id=\"machine\">Machine, versions and settings</h2>\n{}\
         <details><summary>Settings of every system, and all else in env.json</summary>{}</details>\n",
        definitions(&short),
        definitions(&rest)
    )
}
