//! Frames that cannot be trusted: one `ERR`, then the end. The broker serves everyone else.

use crate::support::{TestBroker, frame};

#[test]
fn length_zero() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.send_bytes(&[0, 0, 0, 0]);
    assert!(client.receive_text().starts_with("ERR BadRequest"));
    client.expect_closed();
    assert_eq!(broker.client().call("PING"), "OK");
}

#[test]
fn length_above_the_limit_is_refused_before_its_body_comes() {
    let broker = TestBroker::start_with(|config| config.max_frame_bytes = 2000);
    let mut client = broker.client();
    client.send_bytes(&2001u32.to_le_bytes());
    assert!(client.receive_text().starts_with("ERR FrameTooLarge"));
    client.expect_closed();

    let mut client = broker.client();
    client.call("REGISTER t");
    let body = [b"PUT t ".as_slice(), &[b'x'; 2000 - 6]].concat();
    assert_eq!(client.call(&body), "OK", "exactly the limit is fine");
    client.send_bytes(&u32::MAX.to_le_bytes());
    assert!(client.receive_text().starts_with("ERR FrameTooLarge"));
    client.expect_closed();
}

#[test]
fn what_came_before_a_bad_frame_is_stored_and_answered() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.call("REGISTER t");
    let stream = [frame(b"PUT t one"), frame(b"PUT t two"), vec![0; 4], frame(b"PUT t three")].concat();
    client.send_bytes(&stream);
    assert_eq!(client.receive_text(), "OK");
    assert_eq!(client.receive_text(), "OK");
    assert!(client.receive_text().starts_with("ERR BadRequest"));
    client.expect_closed();
    let records = broker.client().fetch_all("t", 0);
    assert_eq!(records, [(0, b"one".to_vec()), (1, b"two".to_vec())]);
}

#[test]
fn a_frame_cut_short_by_the_end_of_the_stream_stores_nothing() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.call("REGISTER t");
    let whole = frame(b"PUT t this one is cut");
    client.send_bytes(&[frame(b"PUT t whole"), whole[..whole.len() - 1].to_vec()].concat());
    client.stream.shutdown(std::net::Shutdown::Write).expect("half closes");
    assert_eq!(client.receive_text(), "OK");
    client.expect_closed();
    assert_eq!(broker.client().fetch_all("t", 0), [(0, b"whole".to_vec())]);
}

#[test]
fn frames_in_pieces_of_every_size_are_put_together() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.call("REGISTER t");
    let stream: Vec<u8> = (0..50).flat_map(|n| frame(format!("PUT t record {n}").as_bytes())).collect();
    for (n, piece) in stream.chunks(7).enumerate() {
        client.send_bytes(piece);
        if n % 3 == 0 {
            // A reply to another connection shows that the broker has had time to read.
            broker.client().call("PING");
        }
    }
    (0..50).for_each(|_| assert_eq!(client.receive_text(), "OK"));
    assert_eq!(broker.client().fetch_all("t", 0).len(), 50);
}

#[test]
fn a_frame_larger_than_the_read_buffer() {
    let broker = TestBroker::start_with(|config| config.read_buffer_bytes = 4096);
    let mut client = broker.client();
    client.call("REGISTER t");
    let large: Vec<u8> = (0..5_000_000u32).map(|n| (n % 251) as u8).collect();
    client.send([b"PUT t ".as_slice(), &large].concat());
    client.send("PUT t small");
    assert_eq!(client.receive_text(), "OK");
    assert_eq!(client.receive_text(), "OK");
    assert_eq!(client.fetch_all("t", 0), [(0, large), (1, b"small".to_vec())]);
}
