//! Requests that cannot be understood: an `ERR` each, and the connection goes on.

use crate::support::{TestBroker, append_body, frame};

#[test]
fn each_is_refused_by_name_and_the_connection_goes_on() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.call("REGISTER t");
    let long_name = format!("PUT {} x", "n".repeat(250));
    let bad = [
        "NONSENSE",
        "put t x",
        " PUT t x",
        "PUT",
        "PUT ",
        "PUT t",
        "GET",
        "FETCH t",
        "FETCH t x 1",
        "FETCH t 0 -1",
        "SEEK t g",
        "SEEK t g middle",
        "STATE",
        "DELETE",
        "PUT bad/name x",
        "PUT ../../etc x",
        "GET t bad/group",
        "REGISTER t colour=red",
        "REGISTER t replicas=none",
        "APPEND t\nxx",
        "APPEND t\n",
        &long_name,
    ];
    for request in bad {
        let reply = client.call(request);
        assert!(reply.starts_with("ERR BadRequest "), "{request:?} → {reply}");
    }
    assert_eq!(client.call("PING"), "OK");
    assert_eq!(client.fetch_all("t", 0), []);
}

#[test]
fn an_unknown_topic_is_unknown_to_every_verb() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    for request in ["PUT nope x", "GET nope", "STATE nope", "FETCH nope 0 1", "SEEK nope g first", "DELETE nope"] {
        let reply = client.call(request);
        assert!(reply.starts_with("ERR UnknownTopic "), "{request:?} → {reply}");
    }
    assert!(client.call(append_body("nope", &[b"x"])).starts_with("ERR UnknownTopic "));
    assert_eq!(client.call("TOPICS"), "[]", "nothing was created");
}

#[test]
fn auto_create_makes_the_topic_of_a_write_and_of_nothing_else() {
    let broker = TestBroker::start_with(|config| config.auto_create = true);
    let mut client = broker.client();
    assert!(client.call("GET a").starts_with("ERR UnknownTopic "));
    assert_eq!(client.call("PUT a x"), "OK");
    assert_eq!(client.call(append_body("b", &[b"x", b"y"])), "OK 0 2");
    assert_eq!(client.json("TOPICS").as_array().map(Vec::len), Some(2));
}

#[test]
fn a_payload_may_hold_every_byte_and_may_be_empty() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.call("REGISTER t");
    let every: Vec<u8> = (0..=255).collect();
    let payloads: [&[u8]; 5] = [&every, b"", b" ", b"  leading and trailing  ", b"line\nfeed\r\n\0"];
    for payload in payloads {
        assert_eq!(client.call([b"PUT t ".as_slice(), payload].concat()), "OK");
    }
    for payload in payloads {
        client.send("GET t");
        assert_eq!(client.receive(), [b"OK ".as_slice(), payload].concat());
    }
    assert_eq!(client.call("GET t"), "EMPTY");
    let records = client.fetch_all("t", 0);
    assert!(records.iter().map(|(_, record)| record.as_slice()).eq(payloads));
}

#[test]
fn a_refused_write_amid_others_leaves_their_order_alone() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.call("REGISTER a");
    client.call("REGISTER b");
    let bodies = ["PUT a 1", "PUT nope 2", "PUT b 3", "PUT a 4", "BAD", "PUT nope 5", "PUT a 6"];
    let stream: Vec<u8> = bodies.iter().flat_map(|body| frame(body.as_bytes())).collect();
    client.send_bytes(&stream);
    let replies: Vec<String> = bodies.iter().map(|_| client.receive_text().chars().take(8).collect()).collect();
    assert_eq!(replies, ["OK", "ERR Unkn", "OK", "OK", "ERR BadR", "ERR Unkn", "OK"]);
    let stored: Vec<_> = client.fetch_all("a", 0).into_iter().map(|(_, record)| record).collect();
    assert_eq!(stored, [b"1", b"4", b"6"]);
}
