//! Segments of ten records: full ones are sealed at once, and clients notice nothing.

use crate::support::{TestBroker, append_body, eventually, frame};

#[test]
fn the_tenth_record_seals_the_segment_and_state_shows_it() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.call("REGISTER t segment_entries=10");
    (0..10).for_each(|n| assert_eq!(client.call(format!("PUT t {n}")), "OK"));
    // As soon as the limit is reached, not at the next write.
    eventually("the first segment is sealed", || client.json("STATE t")["current_segment"] == 2);
    let state = client.json("STATE t");
    assert_eq!(state["sealed_segments"], serde_json::json!({ "1": 10 }));
    assert_eq!(state["last_sealed_entry_offset"], 10);
    assert_eq!(state["leader_node"], 1);
    assert_eq!(state["segment_leaders"], serde_json::json!({ "1": 1, "2": 1 }));
}

#[test]
fn a_pipelined_stream_runs_over_many_segments_without_an_error() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.call("REGISTER a segment_entries=10");
    client.call("REGISTER b segment_entries=7");
    let stream: Vec<u8> =
        (0..600).flat_map(|n| frame(format!("PUT {} {n}", if n % 3 == 0 { "a" } else { "b" }).as_bytes())).collect();
    client.send_bytes(&stream);
    (0..600).for_each(|_| assert_eq!(client.receive_text(), "OK"));
    let records = client.fetch_all("a", 0);
    assert!(
        records
            .iter()
            .map(|(_, r)| String::from_utf8_lossy(r).parse::<u32>().expect("a number"))
            .eq((0..600).step_by(3))
    );
    assert_eq!(client.fetch_all("b", 0).len(), 400);
    let state = client.json("STATE a");
    let counts = state["sealed_segments"].as_object().expect("a map").values();
    assert!(counts.clone().all(|count| count == 10), "{state}");
    assert!(counts.count() >= 19, "{state}");
}

#[test]
fn an_append_larger_than_a_segment_stays_whole() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.call("REGISTER t segment_entries=10");
    let records: Vec<Vec<u8>> = (0..25u8).map(|n| vec![n; 3]).collect();
    let slices: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
    assert_eq!(client.call(append_body("t", &slices)), "OK 0 25");
    assert_eq!(client.call("PUT t after"), "OK");
    assert_eq!(client.json("STATE t")["sealed_segments"]["1"], 25);
    assert_eq!(client.fetch_all("t", 0).len(), 26);
}

#[test]
fn a_segment_full_by_bytes_is_sealed() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.call("REGISTER t segment_bytes=10000");
    let body = [b"PUT t ".as_slice(), &[b'x'; 900]].concat();
    (0..50).for_each(|_| assert_eq!(client.call(&body), "OK"));
    assert!(client.json("STATE t")["current_segment"].as_u64() >= Some(3));
    assert_eq!(client.fetch_all("t", 0).len(), 50);
}
