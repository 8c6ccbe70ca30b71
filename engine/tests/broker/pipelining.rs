//! Many requests without waiting: replies in the order of the requests, records in the order of
//! the writes, and other verbs in their place among them.

use std::io::Write;

use crate::support::{TestBroker, append_body, frame};

#[test]
fn three_hundred_topics_in_one_stream() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    for topic in 0..300 {
        assert_eq!(client.call(format!("REGISTER t{topic}")), "OK");
    }
    let stream: Vec<u8> = (0..6000).flat_map(|n| frame(format!("PUT t{} {n}", n * 7 % 300).as_bytes())).collect();
    client.send_bytes(&stream);
    (0..6000).for_each(|_| assert_eq!(client.receive_text(), "OK"));
    for topic in 0..300 {
        let records = client.fetch_all(&format!("t{topic}"), 0);
        let expected = (0..6000).filter(|n| n * 7 % 300 == topic).map(|n| n.to_string().into_bytes());
        assert!(records.into_iter().map(|(_, record)| record).eq(expected), "topic {topic}");
    }
}

#[test]
fn a_burst_for_many_topics_is_answered_though_nothing_follows_it() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    for topic in 0..200 {
        assert_eq!(client.call(format!("REGISTER t{topic}")), "OK");
    }
    let body = "x".repeat(700);
    let put = |n: usize| frame(format!("PUT t{} {n} {body}", n % 200).as_bytes());
    // A megabyte at a time, of which each topic gets too little to be written before somebody waits for it.
    for round in 0..5 {
        let stream: Vec<u8> = (0..1600).flat_map(|n| put(round * 1600 + n)).collect();
        client.send_bytes(&stream);
        (0..1600).for_each(|_| assert_eq!(client.receive_text(), "OK"));
    }
    for topic in 0..200 {
        let records = client.fetch_all(&format!("t{topic}"), 0);
        let expected = (0..8000).filter(|n| n % 200 == topic).map(|n| format!("{n} {body}").into_bytes());
        assert!(records.into_iter().map(|(_, record)| record).eq(expected), "topic {topic}");
    }
}

#[test]
fn other_verbs_see_every_write_before_them_and_none_after() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.call("REGISTER t");
    let mut stream = Vec::new();
    for n in 0..100 {
        stream.extend(frame(format!("PUT t {n}").as_bytes()));
        stream.extend(frame(b"GET t"));
        stream.extend(frame(b"PING"));
    }
    client.send_bytes(&stream);
    for n in 0..100 {
        assert_eq!(client.receive_text(), "OK");
        assert_eq!(client.receive_text(), format!("OK {n}"));
        assert_eq!(client.receive_text(), "OK");
    }
}

#[test]
fn puts_and_appends_of_one_stream_keep_their_order() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.call("REGISTER t");
    let stream = [
        frame(b"PUT t 0"),
        frame(b"PUT t 1"),
        frame(&append_body("t", &[b"2", b"3", b"4"])),
        frame(b"PUT t 5"),
        frame(&append_body("t", &[b"6"])),
    ];
    client.send_bytes(&stream.concat());
    let replies: Vec<_> = (0..5).map(|_| client.receive_text()).collect();
    assert_eq!(replies, ["OK", "OK", "OK 2 3", "OK", "OK 6 1"]);
    let records: Vec<_> = client.fetch_all("t", 0).into_iter().map(|(_, record)| record).collect();
    assert_eq!(records, (0..7).map(|n| n.to_string().into_bytes()).collect::<Vec<_>>());
}

#[test]
fn eight_producers_in_one_topic_lose_nothing_and_keep_their_own_order() {
    let broker = TestBroker::start();
    broker.client().call("REGISTER t segment_entries=5000");
    std::thread::scope(|scope| {
        for producer in 0..8 {
            let mut client = broker.client();
            let mut writer = client.stream.try_clone().expect("a second handle");
            scope.spawn(move || {
                let stream: Vec<u8> =
                    (0..2000).flat_map(|n| frame(format!("PUT t {producer}:{n}").as_bytes())).collect();
                writer.write_all(&stream).expect("the broker takes it");
            });
            scope.spawn(move || (0..2000).for_each(|_| assert_eq!(client.receive_text(), "OK")));
        }
    });
    let records = broker.client().fetch_all("t", 0);
    assert_eq!(records.len(), 16_000);
    for producer in 0..8 {
        let prefix = format!("{producer}:").into_bytes();
        let own = records.iter().filter(|(_, record)| record.starts_with(&prefix));
        let numbers = own.map(|(_, record)| String::from_utf8_lossy(&record[2..]).parse::<u32>().expect("a number"));
        assert!(numbers.eq(0..2000), "producer {producer}");
    }
}
