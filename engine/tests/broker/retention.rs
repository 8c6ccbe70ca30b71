//! Old segments go, by size or by age; readers are told where the topic begins now.

use crate::support::{TestBroker, eventually};

#[test]
fn by_size() {
    let mut broker = TestBroker::start();
    let mut client = broker.client();
    client.call("REGISTER t segment_entries=10 retention_bytes=20000");
    client.call("PUT t first");
    assert_eq!(client.call("GET t slow"), "OK first");
    let body = [b"PUT t ".as_slice(), &[b'x'; 1000]].concat();
    (0..99).for_each(|_| assert_eq!(client.call(&body), "OK"));
    eventually("old segments are removed", || client.json("STATE t")["first_offset"].as_u64() >= Some(70));
    let first = client.json("STATE t")["first_offset"].as_u64().expect("a number");
    assert!(client.call("FETCH t 0 1").starts_with(&format!("ERR OffsetOutOfRange {first} ")));
    assert_eq!(client.fetch_all("t", first).len() as u64, 100 - first);
    assert!(client.call("GET t slow").starts_with("OK xxx"), "a cursor goes on where the topic begins");
    broker.restart();
    assert_eq!(broker.client().json("STATE t")["first_offset"], first);
}

#[test]
fn by_age_even_when_the_segment_is_not_full() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.call("REGISTER t retention_ms=100");
    client.call("PUT t soon gone");
    eventually("the record is removed", || client.json("STATE t")["first_offset"] == 1);
    assert_eq!(client.call("FETCH t 1 10"), "OK 1 0\n");
    assert_eq!(client.call("PUT t next"), "OK");
}
