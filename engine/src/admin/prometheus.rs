//! Prometheus' text format, printed from the same values that `METRICS` shows.

use std::fmt::Write as _;

use serde_json::Value;

/// One line of the table below: name, type, where the value stands, help.
struct Metric {
    name: &'static str,
    kind: &'static str,
    /// JSON pointer into `METRICS`.
    at: &'static str,
    /// From the unit of `METRICS` to the base unit that Prometheus wants.
    scale: f64,
    help: &'static str,
}

const fn counter(name: &'static str, at: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: "counter", at, scale: 1.0, help }
}

const fn gauge(name: &'static str, at: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: "gauge", at, scale: 1.0, help }
}

const fn seconds(name: &'static str, at_ms: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: "gauge", at: at_ms, scale: 1e-3, help }
}

/// What is shown. A value that a node does not have (no lease, say) is left out.
const METRICS: &[Metric] = &[
    seconds("walrus_uptime_seconds", "/walrus/uptime_ms", "Time since the node began to serve."),
    gauge("walrus_ready", "/walrus/ready", "1 while the node takes requests."),
    counter("walrus_records_in_total", "/walrus/records_in", "Records taken as the leader of their topic."),
    counter("walrus_bytes_in_total", "/walrus/bytes_in", "Bytes read from clients."),
    counter("walrus_bytes_out_total", "/walrus/bytes_out", "Bytes written to clients."),
    gauge("walrus_connections", "/walrus/connections", "Client connections open now."),
    counter("walrus_connections_refused_total", "/walrus/connections_refused", "Client connections turned away."),
    counter("walrus_deadlines_missed_total", "/walrus/deadlines_missed", "Client connections closed for a deadline."),
    gauge("walrus_connection_buffer_bytes", "/walrus/connection_buffer_bytes", "Memory for requests and replies."),
    gauge("walrus_read_ahead_bytes", "/walrus/read_ahead_bytes", "Memory for records that cursors have read ahead."),
    gauge("walrus_free_bytes", "/walrus/free_bytes", "Free space on the data directory's device."),
    gauge("walrus_topics", "/walrus/topics", "Topics of the cluster."),
    gauge("walrus_segments", "/walrus/segments", "Segments of the cluster."),
    gauge("walrus_topics_led", "/walrus/topics_led", "Topics whose open segment this node leads."),
    gauge("walrus_under_replicated", "/walrus/under_replicated", "Sealed segments that lack copies."),
    gauge("walrus_possible_losses", "/walrus/possible_losses", "Segments closed with a possible loss of records."),
    seconds("walrus_lease_left_seconds", "/walrus/lease_left_ms", "How long this node's lease still runs."),
    gauge("walrus_raft_term", "/current_term", "Raft term."),
    gauge("walrus_raft_last_log_index", "/last_log_index", "Last index of the Raft log."),
    gauge("walrus_raft_last_applied_index", "/last_applied/index", "Last Raft log index that is applied."),
];

/// The whole exposition. `metrics` is what `METRICS` answers.
pub(super) fn render(metrics: &Value) -> String {
    let mut out = String::with_capacity(4096);
    for metric in METRICS {
        if let Some(value) = metrics.pointer(metric.at).and_then(number) {
            head(&mut out, metric.name, metric.kind, metric.help);
            line(&mut out, metric.name, "", value * metric.scale);
        }
    }
    head(&mut out, "walrus_raft_is_leader", "gauge", "1 on the Raft leader.");
    let is_leader = metrics["current_leader"] == metrics["id"];
    line(&mut out, "walrus_raft_is_leader", "", f64::from(u8::from(is_leader)));
    head(&mut out, "walrus_build_info", "gauge", "Always 1; the labels say what runs.");
    let text = |at: &str| metrics.pointer(at).and_then(Value::as_str).unwrap_or("unknown").replace(['"', '\\'], "");
    let labels = format!("{{version=\"{}\",backend=\"{}\"}}", text("/walrus/version"), text("/walrus/backend"));
    line(&mut out, "walrus_build_info", &labels, 1.0);
    process(&mut out);
    out
}

/// The standard metrics of a process, where `/proc` has them.
fn process(out: &mut String) {
    let Ok(memory) = std::fs::read_to_string("/proc/self/statm") else { return };
    // SAFETY: `sysconf` reads a constant of the system; it touches no memory of ours.
    let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.max(0) as u64;
    if let Some(pages) = memory.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()) {
        head(out, "process_resident_memory_bytes", "gauge", "Resident memory size in bytes.");
        line(out, "process_resident_memory_bytes", "", (pages * page_bytes) as f64);
    }
    if let Some(cpu_s) = cpu_seconds() {
        head(out, "process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.");
        line(out, "process_cpu_seconds_total", "", cpu_s);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        head(out, "process_open_fds", "gauge", "Number of open file descriptors.");
        line(out, "process_open_fds", "", open.count() as f64);
    }
}

fn cpu_seconds() -> Option<f64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) } != 0;
    (!failed).then_some(time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9)
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(yes) => Some(f64::from(u8::from(*yes))),
        other => other.as_f64(),
    }
}

// Writing to a `String` cannot fail.
fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &str, value: f64) {
    let _ = writeln!(out, "{name}{labels} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_have_help_type_and_base_units() {
        let text = render(&json!({
            "id": 1, "current_leader": 1, "current_term": 3, "last_applied": { "index": 17 },
            "walrus": { "records_in": 5, "ready": true, "lease_left_ms": 750, "version": "0.1.0" },
        }));
        assert!(text.contains("# TYPE walrus_records_in_total counter\nwalrus_records_in_total 5\n"), "{text}");
        assert!(text.contains("walrus_ready 1\n") && text.contains("walrus_lease_left_seconds 0.75\n"), "{text}");
        assert!(text.contains("walrus_raft_last_applied_index 17\n") && text.contains("walrus_raft_is_leader 1\n"));
        assert!(text.contains("walrus_build_info{version=\"0.1.0\",backend=\"unknown\"} 1\n"), "{text}");
        assert!(!text.contains("walrus_connections "), "what is not known is not shown");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').expect("name and value");
            let name = name.split('{').next().expect("a name");
            assert!(text.contains(&format!("# TYPE {name} ")), "{name} has no type");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
}
