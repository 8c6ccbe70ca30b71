//! Reader positions: shared and named groups, `SEEK`, and what a restart keeps.

use crate::support::TestBroker;

#[test]
fn groups_read_independently_and_the_shared_one_is_shared() {
    let broker = TestBroker::start();
    let (mut first, mut second) = (broker.client(), broker.client());
    first.call("REGISTER t");
    (0..4).for_each(|n| assert_eq!(first.call(format!("PUT t {n}")), "OK"));
    assert_eq!(first.call("GET t"), "OK 0");
    assert_eq!(second.call("GET t"), "OK 1");
    assert_eq!(second.call("GET t mine"), "OK 0");
    assert_eq!(first.call("GET t"), "OK 2");
    assert_eq!(first.call("GET t mine"), "OK 1");
    assert_eq!(second.call("GET t"), "OK 3");
    assert_eq!(first.call("GET t"), "EMPTY");
}

#[test]
fn a_record_put_after_empty_is_delivered() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.call("REGISTER t");
    assert_eq!(client.call("GET t"), "EMPTY");
    client.call("PUT t late");
    assert_eq!(client.call("GET t"), "OK late");
}

#[test]
fn positions_survive_a_restart() {
    let mut broker = TestBroker::start();
    let mut client = broker.client();
    client.call("REGISTER t");
    (0..20).for_each(|n| assert_eq!(client.call(format!("PUT t {n}")), "OK"));
    (0..7).for_each(|n| assert_eq!(client.call("GET t"), format!("OK {n}")));
    (0..3).for_each(|n| assert_eq!(client.call("GET t mine"), format!("OK {n}")));
    broker.restart();
    let mut client = broker.client();
    assert_eq!(client.call("GET t"), "OK 7");
    assert_eq!(client.call("GET t mine"), "OK 3");
}

#[test]
fn seek_goes_anywhere_between_first_and_tail_and_is_kept() {
    let mut broker = TestBroker::start();
    let mut client = broker.client();
    client.call("REGISTER t");
    (0..10).for_each(|n| assert_eq!(client.call(format!("PUT t {n}")), "OK"));
    assert_eq!(client.call("SEEK t g 6"), "OK");
    assert_eq!(client.call("GET t g"), "OK 6");
    assert_eq!(client.call("SEEK t g first"), "OK");
    assert_eq!(client.call("GET t g"), "OK 0");
    assert_eq!(client.call("SEEK t g last"), "OK");
    assert_eq!(client.call("GET t g"), "EMPTY");
    assert!(client.call("SEEK t g 11").starts_with("ERR OffsetOutOfRange 0 "));
    assert_eq!(client.call("SEEK t g 4"), "OK");
    broker.restart();
    assert_eq!(broker.client().call("GET t g"), "OK 4");
}

#[test]
fn delivery_goes_on_past_the_commit_interval_and_over_rollovers() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.call("REGISTER t segment_entries=10");
    let started = std::time::Instant::now();
    let mut n = 0;
    // Longer than two commit intervals, so that moves age while others are made.
    while started.elapsed() < std::time::Duration::from_millis(500) {
        assert_eq!(client.call(format!("PUT t {n}")), "OK");
        assert_eq!(client.call("GET t"), format!("OK {n}"));
        n += 1;
    }
}

/// Their positions are too many for one command of the metadata.
#[test]
fn thousands_of_groups_with_long_names_move_at_once() {
    const GROUPS: usize = 9_900;
    let mut broker = TestBroker::start();
    broker.client().call("REGISTER t");
    (0..3).for_each(|n| assert_eq!(broker.client().call(format!("PUT t {n}")), "OK"));
    let all_get = |broker: &TestBroker, reply: &str| {
        let mut client = broker.client();
        for first in (0..GROUPS).step_by(100) {
            (first..first + 100).for_each(|n| client.send(format!("GET t {n:0>249}")));
            (0..100).for_each(|_| assert_eq!(client.receive_text(), reply));
        }
    };
    all_get(&broker, "OK 0");
    // A position that is not durable after a while delivers nothing more.
    all_get(&broker, "OK 1");
    broker.restart();
    all_get(&broker, "OK 2");
}

/// Positions and segments have locks of their own; once, a reader that took one twice met a rollover
/// in between, and both waited for ever.
#[test]
fn readers_and_rollovers_do_not_wait_for_each_other() {
    const RECORDS: usize = 500;
    const READERS: usize = 4;
    let broker = TestBroker::start();
    broker.client().call("REGISTER t segment_entries=1");
    std::thread::scope(|scope| {
        for reader in 0..READERS {
            let mut client = broker.client();
            scope.spawn(move || {
                let mut next = 0;
                while next < RECORDS {
                    match client.call(format!("GET t g{reader}")).as_str() {
                        "EMPTY" => {}
                        reply => {
                            assert_eq!(reply, format!("OK {next}"));
                            next += 1;
                        }
                    }
                }
            });
        }
        let mut client = broker.client();
        (0..RECORDS).for_each(|n| assert_eq!(client.call(format!("PUT t {n}")), "OK"));
    });
}
