//! Creating and deleting topics, restarting, and directories that are refused.

use std::io::{Read, Write};
use std::path::Path;

use walrus_engine::node::Node;

use crate::support::{TestBroker, config, eventually, frame};

#[test]
fn registering_twice_is_fine_and_other_settings_are_not() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    assert_eq!(client.call("REGISTER t segment_entries=10 tier=synced"), "OK");
    assert_eq!(client.call("REGISTER t segment_entries=10 tier=synced"), "OK");
    assert_eq!(client.call("REGISTER t"), "OK", "names no setting that differs");
    assert!(client.call("REGISTER t segment_entries=11").starts_with("ERR TopicExists "));
    assert!(client.call("REGISTER t retention_ms=5").starts_with("ERR TopicExists "));
    assert_eq!(client.json("STATE t")["settings"]["tier"], "synced");
}

#[test]
fn a_deleted_topic_is_gone_with_its_data_and_may_be_registered_again() {
    let mut broker = TestBroker::start();
    let (mut client, mut other) = (broker.client(), broker.client());
    client.call("REGISTER t segment_entries=5");
    (0..12).for_each(|n| assert_eq!(client.call(format!("PUT t old{n}")), "OK"));
    assert_eq!(other.call("PUT t known to this connection"), "OK");
    let id = client.json("STATE t")["topic_id"].clone();
    assert_eq!(client.call("DELETE t"), "OK");
    assert!(client.call("DELETE t").starts_with("ERR UnknownTopic "));
    assert!(other.call("PUT t x").starts_with("ERR UnknownTopic "));
    assert_eq!(client.call("REGISTER t"), "OK");
    assert_ne!(client.json("STATE t")["topic_id"], id);
    assert_eq!(other.call("PUT t new"), "OK");
    assert_eq!(client.call("GET t"), "OK new", "its cursors are new as well");
    broker.restart();
    assert_eq!(broker.client().fetch_all("t", 0), [(0, b"new".to_vec())]);
}

#[test]
fn deleting_in_the_midst_of_a_pipeline() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.call("REGISTER t");
    let stream: Vec<u8> = ["PUT t a", "DELETE t", "PUT t b", "REGISTER t", "PUT t c"]
        .iter()
        .flat_map(|body| frame(body.as_bytes()))
        .collect();
    client.send_bytes(&stream);
    let replies: Vec<_> = (0..5).map(|_| client.receive_text()).collect();
    assert_eq!((&*replies[0], &*replies[1], &*replies[3], &*replies[4]), ("OK", "OK", "OK", "OK"));
    assert!(replies[2].starts_with("ERR UnknownTopic "));
    assert_eq!(client.fetch_all("t", 0), [(0, b"c".to_vec())]);
}

/// A client that is in the midst of sending gets every reply that it is owed, and then the end.
#[test]
fn a_stop_does_not_take_the_last_replies_away() {
    let mut broker = TestBroker::start();
    let mut client = broker.client();
    client.call("REGISTER t");
    let mut sending = client.stream.try_clone().expect("a second handle");
    let reading = std::thread::spawn(move || {
        let mut replies = Vec::new();
        let ended = client.stream.read_to_end(&mut replies);
        let answered = replies.chunks_exact(6).filter(|reply| *reply == b"\x02\0\0\0OK").count();
        (ended.map(|_| ()).map_err(|error| error.kind()), answered, replies.len())
    });
    let burst: Vec<u8> = (0..1000).flat_map(|_| frame(b"PUT t x")).collect();
    let sender = std::thread::spawn(move || while sending.write_all(&burst).is_ok() {});
    let mut observer = broker.client();
    eventually("much is on its way", || {
        observer.json("METRICS")["walrus"]["records_in"].as_u64().expect("a number") > 100_000
    });
    drop(observer);
    broker.stop();
    let (ended, answered, reply_bytes) = reading.join().expect("it reads to the end");
    assert_eq!(ended, Ok(()), "the end, not a reset, comes after the replies");
    assert_eq!(reply_bytes, 6 * answered, "whole replies, all of them OK");
    sender.join().expect("it is told that nobody takes more");
    broker.restart();
    assert_eq!(broker.client().fetch_all("t", 0).len(), answered, "all that is stored was answered");
}

#[test]
fn restarts_keep_records_and_never_append_to_an_old_segment() {
    let mut broker = TestBroker::start();
    broker.client().call("REGISTER t");
    for run in 0..4u64 {
        let mut client = broker.client();
        assert_eq!(client.call(format!("PUT t run {run}")), "OK");
        let state = client.json("STATE t");
        assert_eq!(state["sealed_segments"].as_object().map(serde_json::Map::len), Some(run as usize));
        broker.restart();
    }
    // A run without records leaves no segment behind.
    broker.restart();
    let mut client = broker.client();
    assert_eq!(client.json("STATE t")["sealed_segments"].as_object().map(serde_json::Map::len), Some(4));
    let records: Vec<_> =
        client.fetch_all("t", 0).into_iter().map(|(_, record)| String::from_utf8_lossy(&record).into_owned()).collect();
    assert_eq!(records, ["run 0", "run 1", "run 2", "run 3"]);
}

fn start_error(dir: &Path) -> String {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(Node::start(config(dir))).err().expect("is refused").to_string()
}

#[test]
fn a_directory_in_use_is_refused() {
    let broker = TestBroker::start();
    let error = start_error(broker.dir.path());
    assert!(error.contains("in use by another process") && error.contains("--data-dir"), "{error}");
}

#[test]
fn a_directory_of_another_version_is_refused() {
    let mut broker = TestBroker::start();
    broker.stop();
    let path = broker.dir.path().join("metadata/log");
    let mut bytes = std::fs::read(&path).expect("reads");
    bytes[8] = 99;
    std::fs::write(&path, bytes).expect("writes");
    let error = start_error(broker.dir.path());
    assert!(error.contains("metadata format 99") && error.contains("reads format 2"), "{error}");
}

#[test]
fn a_taken_port_is_refused() {
    let broker = TestBroker::start();
    let dir = tempfile::tempdir().expect("temp dir");
    let mut config = config(dir.path());
    config.client_port = broker.address().port();
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let error = runtime.block_on(Node::start(config)).err().expect("is refused").to_string();
    assert!(error.contains("cannot listen on") && error.contains("--client-port"), "{error}");
}
