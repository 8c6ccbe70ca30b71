//! A thousand topics: created together, written together, recovered together.

use std::time::Instant;

use crate::support::{TestBroker, frame};

#[test]
fn a_thousand_topics_start_again_quickly() {
    let mut broker = TestBroker::start();
    std::thread::scope(|scope| {
        for part in 0..10 {
            let mut client = broker.client();
            scope.spawn(move || {
                let stream: Vec<u8> =
                    (0..100).flat_map(|n| frame(format!("REGISTER t{}", part * 100 + n).as_bytes())).collect();
                client.send_bytes(&stream);
                (0..100).for_each(|_| assert_eq!(client.receive_text(), "OK"));
            });
        }
    });
    let mut client = broker.client();
    // Half of them have records.
    let stream: Vec<u8> = (0..500).flat_map(|n| frame(format!("PUT t{n} record of {n}").as_bytes())).collect();
    client.send_bytes(&stream);
    (0..500).for_each(|_| assert_eq!(client.receive_text(), "OK"));
    let before = client.json("METRICS")["last_log_index"].as_u64().expect("a number");
    let started = Instant::now();
    broker.restart();
    assert!(started.elapsed().as_secs() < 30, "the restart took {:?}", started.elapsed());
    let mut client = broker.client();
    let after = client.json("METRICS")["last_log_index"].as_u64().expect("a number");
    assert!(after - before < 10, "recovery took {} commands", after - before);
    for n in [0, 250, 499] {
        assert_eq!(client.call(format!("GET t{n}")), format!("OK record of {n}"));
    }
    assert_eq!(client.call("GET t500"), "EMPTY");
    assert_eq!(client.json("TOPICS").as_array().map(Vec::len), Some(1000));
}
