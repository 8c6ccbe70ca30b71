//! A damaged batch is reported, and never skipped.

use std::path::{Path, PathBuf};

use crate::support::{TestBroker, parse_fetched};

/// Every file below `dir` that holds `needle`.
fn files_with(dir: &Path, needle: &[u8]) -> Vec<(PathBuf, usize)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("lists") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files_with(&path, needle));
        } else if let Ok(bytes) = std::fs::read(&path)
            && let Some(at) = bytes.windows(needle.len()).position(|window| window == needle)
        {
            found.push((path, at));
        }
    }
    found
}

#[test]
fn records_before_it_are_read_and_it_is_an_error_for_fetch_and_get() {
    let mut broker = TestBroker::start();
    let mut client = broker.client();
    client.call("REGISTER t");
    // One request at a time: each record is a batch of its own.
    for n in 0..9 {
        assert_eq!(client.call(format!("PUT t the record number {n}")), "OK");
    }
    broker.stop();
    let (path, at) = files_with(broker.dir.path(), b"the record number 4").pop().expect("it is stored");
    let mut bytes = std::fs::read(&path).expect("reads");
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).expect("writes");
    broker.restart();
    let mut client = broker.client();
    client.send("FETCH t 0 100");
    let (next, records) = parse_fetched(&client.receive());
    assert_eq!((next, records.len()), (4, 4));
    assert!(client.call("FETCH t 4 100").starts_with("ERR Corrupt "));
    (0..4).for_each(|n| assert_eq!(client.call("GET t"), format!("OK the record number {n}")));
    assert!(client.call("GET t").starts_with("ERR Corrupt "));
    assert!(client.call("GET t").starts_with("ERR Corrupt "), "asking again does not skip it");
    client.send("FETCH t 5 100");
    assert_eq!(parse_fetched(&client.receive()).1.len(), 4, "what follows is whole");
}
