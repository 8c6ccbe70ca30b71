//! Clients that are too slow, in sending or in taking: bounded memory, then the end.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::support::{TestBroker, eventually, frame};

#[test]
fn a_frame_that_comes_byte_by_byte_is_cut_off_at_the_deadline() {
    let broker = TestBroker::start_with(|config| config.frame_timeout_ms = 300);
    let mut client = broker.client();
    client.call("REGISTER t");
    let started = Instant::now();
    let slow = frame(&[b'x'; 10_000]);
    // Each byte comes well within the deadline; the frame as a whole does not.
    for byte in slow {
        if client.stream.write_all(&[byte]).is_err() || started.elapsed() > Duration::from_secs(20) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
        client.stream.set_read_timeout(Some(Duration::from_millis(1))).expect("a timeout can be set");
        let mut reply = [0; 64];
        if matches!(client.stream.read(&mut reply), Ok(bytes) if bytes > 0) {
            assert!(
                String::from_utf8_lossy(&reply).contains("ERR BadRequest the frame was not complete within 300 ms")
            );
            break;
        }
    }
    assert!(started.elapsed() < Duration::from_secs(20), "the client was never cut off");
    assert!(started.elapsed() >= Duration::from_millis(300));
    let mut observer = broker.client();
    assert_eq!(observer.call("PUT t others are served"), "OK");
    assert_eq!(observer.json("METRICS")["walrus"]["deadlines_missed"], 1);
}

#[test]
fn an_idle_connection_is_closed_after_its_time() {
    let broker = TestBroker::start_with(|config| config.idle_timeout_ms = 100);
    let mut client = broker.client();
    assert_eq!(client.call("PING"), "OK");
    client.expect_closed();
}

#[test]
fn a_client_that_never_reads_is_held_back_and_then_cut_off() {
    let broker = TestBroker::start_with(|config| config.frame_timeout_ms = 500);
    let mut client = broker.client();
    client.call("REGISTER t");
    let large = vec![b'x'; 1 << 20];
    for _ in 0..4 {
        client.call([b"PUT t ".as_slice(), &large].concat());
    }
    client.stream.set_write_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
    // Replies a thousand times larger than the requests, and none is taken.
    let request = frame(b"FETCH t 0 100");
    let mut sent = 0;
    while client.stream.write_all(&request).is_ok() && sent < 100_000 {
        sent += 1;
    }
    let mut observer = broker.client();
    eventually("the client is cut off", || observer.json("METRICS")["walrus"]["deadlines_missed"] == 1);
    eventually("its memory is given back", || {
        observer.json("METRICS")["walrus"]["connection_buffer_bytes"].as_u64() < Some(2 << 20)
    });
}

#[test]
fn writes_without_reading_replies_are_bounded_too() {
    let broker = TestBroker::start_with(|config| config.frame_timeout_ms = 500);
    let mut client = broker.client();
    client.call("REGISTER t");
    client.stream.set_write_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
    let burst: Vec<u8> = (0..10_000).flat_map(|_| frame(b"PING")).collect();
    // Requests smaller than their replies would fit many times over; the broker stops reading.
    let mut bytes = 0;
    while client.stream.write_all(&burst).is_ok() {
        bytes += burst.len();
        assert!(bytes < 2 << 30, "the broker takes requests without end");
    }
    assert_eq!(broker.client().call("PING"), "OK");
}

#[test]
fn one_connection_too_many_is_told_so() {
    let broker = TestBroker::start_with(|config| config.max_connections = 2);
    let (mut first, mut second) = (broker.client(), broker.client());
    assert_eq!(first.call("PING"), "OK");
    assert_eq!(second.call("PING"), "OK");
    let mut third = broker.client();
    assert!(third.receive_text().starts_with("ERR Overloaded "));
    third.expect_closed();
    drop(second);
    eventually("a place is free again", || {
        let mut next = broker.client();
        next.stream.write_all(&frame(b"PING")).is_ok() && {
            let mut reply = [0; 6];
            next.stream.read_exact(&mut reply).is_ok() && &reply[4..] == b"OK"
        }
    });
}
