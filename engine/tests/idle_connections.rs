//! Ten thousand connections that do nothing cost next to nothing. A program of its own: it takes nearly
//! all descriptors that a process may have, and counts the memory of the whole process.

#[expect(dead_code, reason = "shared with the broker's other tests, which use all of it")]
#[path = "broker/support.rs"]
mod support;

use support::{Raw, TestBroker, frame};

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = status.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4096
}

/// Raises the limit of open descriptors; says how many there may be.
fn raise_descriptor_limit(wanted: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    let raised = libc::rlimit { rlim_cur: wanted, rlim_max: limit.rlim_max.max(wanted) };
    // SAFETY: `raised` is a valid limit; a refusal leaves the old one in place.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 { wanted } else { limit.rlim_cur }
}

#[test]
fn ten_thousand() {
    // Both ends are in this process.
    let count = ((raise_descriptor_limit(21_000) - 500) / 2).min(10_000) as usize;
    if count < 10_000 {
        eprintln!("only {count} connections: the descriptor limit cannot be raised");
    }
    let broker = TestBroker::start();
    let mut busy = broker.client();
    busy.call("REGISTER t");
    let before = resident_bytes();
    let mut idle: Vec<Raw> = (0..count).map(|_| Raw::connect(broker.address())).collect();
    // Every one of them has been used, and one in a hundred is in the midst of a frame.
    for (n, client) in idle.iter_mut().enumerate() {
        client.send("PUT t once");
        if n % 100 == 0 {
            client.send_bytes(&frame(b"PUT t never finished")[..10]);
        }
    }
    for client in &mut idle {
        assert_eq!(client.receive_text(), "OK");
    }
    let used = resident_bytes().saturating_sub(before);
    assert!(used < 100 << 20, "{count} idle connections use {used} bytes");
    assert_eq!(busy.json("METRICS")["walrus"]["connections"], count + 1);
    assert_eq!(busy.call("PUT t still served"), "OK");
}
