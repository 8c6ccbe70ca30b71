//! What a node costs that has nothing to do but a thousand topics.

use std::time::Duration;

use crate::support::cluster::Cluster;

const TOPICS: u64 = 1_000;
/// Long enough for clock ticks to be fine: 10 ms is 0.05 %.
const MEASURED: Duration = Duration::from_secs(20);
/// Of one core.
const CPU_PERCENT_MAX: f64 = 2.0;
const RESIDENT_MB_MAX: f64 = 150.0;

#[test]
#[ignore = "measures; `make cluster-idle`"]
fn a_thousand_idle_topics_cost_next_to_nothing() {
    let cluster = Cluster::start(3);
    for number in 0..TOPICS {
        let topic = format!("t{number}");
        cluster.register(&topic, &[]);
        cluster.client(number % 3 + 1).put(&topic, b"one record").expect("PUT");
    }
    // What the records have started comes to its end: commits, files, write-back.
    std::thread::sleep(Duration::from_secs(10));
    let before: Vec<u64> = cluster.ids().into_iter().map(|id| cpu_ticks(cluster.node(id).pid())).collect();
    std::thread::sleep(MEASURED);
    // SAFETY: asks for a constant of the system.
    let ticks_a_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    let mut costs = Vec::new();
    for (id, before) in cluster.ids().into_iter().zip(before) {
        let pid = cluster.node(id).pid();
        let percent = (cpu_ticks(pid) - before) as f64 / ticks_a_second / MEASURED.as_secs_f64() * 100.0;
        let resident_mb = resident_kib(pid) as f64 / 1024.0;
        println!("node {id}, {TOPICS} idle topics: {percent:.2} % of a core, {resident_mb:.0} MB resident");
        costs.push((percent, resident_mb));
    }
    println!("bars: {CPU_PERCENT_MAX} % of a core, {RESIDENT_MB_MAX} MB");
    assert!(costs.iter().all(|(percent, mb)| *percent <= CPU_PERCENT_MAX && *mb <= RESIDENT_MB_MAX), "{costs:?}");
}

/// Ticks that a process has run, in user and in system mode.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    // The name, in brackets, may hold spaces; user and system time are the 12th and 13th word after it.
    let (_, words) = stat.rsplit_once(')').expect("a name in brackets");
    words.split_whitespace().skip(11).take(2).map(|word| word.parse::<u64>().expect("ticks")).sum()
}

/// Memory that a process has, in KiB.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its size");
    line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
}
