//! Reading by offset.

use std::time::Instant;

use crate::support::{PATIENCE, TestBroker, eventually, frame, parse_fetched};

#[test]
fn limits_by_records_and_bytes() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.call("REGISTER t segment_entries=8");
    (0..30).for_each(|n| assert_eq!(client.call(format!("PUT t {n:010}")), "OK"));
    client.send("FETCH t 5 10");
    let (next, records) = parse_fetched(&client.receive());
    assert_eq!((next, records.len()), (15, 10));
    assert_eq!(records[0], b"0000000005");
    client.send("FETCH t 29 10");
    assert_eq!(parse_fetched(&client.receive()).0, 30);
    client.send("FETCH t 0 1000 1");
    assert_eq!(parse_fetched(&client.receive()).1.len(), 1, "one record always fits");
    client.send("FETCH t 0 0");
    assert_eq!(parse_fetched(&client.receive()), (0, Vec::new()));
}

#[test]
fn a_read_of_a_sealed_segment_stays_within_its_bytes() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.call("REGISTER t segment_entries=100");
    (0..101).for_each(|n| assert_eq!(client.call(format!("PUT t {n:01000}")), "OK"));
    // Each takes four bytes more, so that nine fit and ten do not.
    client.send("FETCH t 0 1000 10000");
    assert_eq!(parse_fetched(&client.receive()).0, 9);
}

#[test]
fn at_the_tail_it_is_empty_and_past_it_an_error() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.call("REGISTER t");
    assert_eq!(client.call("FETCH t 0 10"), "OK 0 0\n");
    client.call("PUT t x");
    assert_eq!(client.call("FETCH t 1 10"), "OK 1 0\n");
    assert!(client.call("FETCH t 2 10").starts_with("ERR OffsetOutOfRange 0 "));
}

#[test]
fn with_a_wait_it_returns_as_soon_as_there_is_data() {
    let broker = TestBroker::start();
    let (mut reader, mut writer) = (broker.client(), broker.client());
    // Each record fills a segment, so waits end in the open segment and across a rollover.
    writer.call("REGISTER t segment_entries=1");
    for n in 0..10 {
        reader.send(format!("FETCH t {n} 10 1000 30000"));
        assert_eq!(writer.call(format!("PUT t {n}")), "OK");
        let (next, records) = parse_fetched(&reader.receive());
        assert_eq!((next, records), (n + 1, vec![n.to_string().into_bytes()]));
    }
    let started = Instant::now();
    assert_eq!(reader.call("FETCH t 10 10 1000 50"), "OK 10 0\n");
    assert!(started.elapsed().as_millis() >= 50);
}

#[test]
fn a_waiting_reader_does_not_hold_up_the_shutdown() {
    let mut broker = TestBroker::start();
    let mut reader = broker.client();
    reader.call("REGISTER t");
    reader.send("FETCH t 0 10 1000 60000");
    let started = Instant::now();
    broker.stop();
    assert!(started.elapsed().as_secs() < 5);
}

/// Each holds a connection for a minute; memory it needs only once there is something to read.
#[test]
fn waiting_readers_leave_the_memory_to_others() {
    const READERS: usize = 16;
    // Four read buffers, or as many replies of the size that a reader allows.
    let broker = TestBroker::start_with(|config| {
        config.max_frame_bytes = 256 << 10;
        config.connection_bytes = 1 << 20;
    });
    let mut client = broker.client();
    client.call("REGISTER t");
    let mut readers: Vec<_> = (0..READERS).map(|_| broker.client()).collect();
    for reader in &mut readers {
        reader.send("FETCH t 0 10 262144 60000");
        reader.send("PING");
    }
    let started = Instant::now();
    let sent = READERS * (frame(b"FETCH t 0 10 262144 60000").len() + frame(b"PING").len());
    eventually("all of them are heard", || {
        client.json("METRICS")["walrus"]["bytes_in"].as_u64().expect("a number") >= sent as u64
    });
    assert_eq!(client.call("FETCH t 0 10"), "OK 0 0\n");
    assert_eq!(client.call("PUT t x"), "OK");
    for reader in &mut readers {
        assert_eq!(parse_fetched(&reader.receive()), (1, vec![b"x".to_vec()]));
        assert_eq!(reader.receive_text(), "OK");
    }
    assert!(started.elapsed() < PATIENCE / 2, "nobody had to wait for the end of another's wait");
}
