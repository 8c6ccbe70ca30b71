//! What every driver must do: take records, acknowledge each once, give them back in order.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::path::Path;
use std::time::{Duration, Instant};

use walrus_drivers::{Ack, Producer, Server, Session, Setup, System, Tier, Tools};

pub const TOPICS: usize = 3;
pub const PRODUCERS: u32 = 2;
pub const RECORDS_PER_PRODUCER: u64 = 5_000;

/// A run over a few topics in the page-cache tier, with the driver's own defaults.
pub fn setup(data_dir: &Path, variant: &[&str]) -> Setup {
    Setup {
        data_dir: data_dir.to_owned(),
        topics: (0..TOPICS).map(|index| format!("topic-{index}")).collect(),
        tier: Tier::PageCache,
        producers: PRODUCERS,
        one_in_flight: false,
        in_flight_bytes: 1 << 20,
        variant: variant.iter().map(|&word| word.to_owned()).collect(),
        settings: toml::Table::new(),
        tools: Tools::default(),
        endpoint: None,
        nodes: 1,
    }
}

/// Bytes that only this record of this producer has.
pub fn record(producer: u32, ticket: u64) -> Vec<u8> {
    let mut record = producer.to_le_bytes().to_vec();
    record.extend_from_slice(&ticket.to_le_bytes());
    let body_bytes = 100 + (ticket * 37 % 900) as usize;
    record.extend((0..body_bytes).map(|index| (ticket as usize + index) as u8));
    record
}

/// Sends all records of one producer, its topics in turn, and waits for all acknowledgements.
pub fn produce(producer: &mut dyn Producer, id: u32, setup: &Setup) {
    let mut acked = vec![false; RECORDS_PER_PRODUCER as usize];
    let mut left = RECORDS_PER_PRODUCER;
    let mut acks = Vec::new();
    let mut take = |producer: &mut dyn Producer, wait| {
        producer.poll(wait, &mut acks).unwrap();
        for Ack { first_ticket, count, ok } in acks.drain(..) {
            assert!(ok, "tickets from {first_ticket} were refused");
            for ticket in first_ticket..first_ticket + count {
                assert!(!std::mem::replace(&mut acked[ticket as usize], true), "{ticket} acked twice");
                left -= 1;
            }
        }
        left
    };
    for ticket in 0..RECORDS_PER_PRODUCER {
        let topic = ticket as usize % setup.topics.len();
        producer.send(topic, ticket, &record(id, ticket)).unwrap();
        let wait_for_it = setup.one_in_flight || ticket % 500 == 499;
        while take(producer, Duration::ZERO) > 0
            && wait_for_it
            && take(producer, Duration::from_millis(100)) > RECORDS_PER_PRODUCER - ticket - 1
        {}
    }
    producer.flush().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while take(producer, Duration::from_millis(100)) > 0 {
        assert!(Instant::now() < deadline, "acknowledgements are missing");
    }
}

/// Runs all producers at once.
pub fn produce_all(session: &dyn Session, setup: &Setup) {
    session.create_topics().unwrap();
    std::thread::scope(|scope| {
        for id in 0..setup.producers {
            scope.spawn(move || produce(&mut *session.producer(id).unwrap(), id, setup));
        }
    });
    session.settle().unwrap();
}

/// Reads every topic from its start: each producer's records, all and in order.
pub fn read_back(session: &dyn Session, setup: &Setup) {
    for topic in 0..setup.topics.len() {
        let mut consumer = session.consumer(topic, false).unwrap();
        let in_topic = |ticket: &u64| *ticket as usize % setup.topics.len() == topic;
        let mut expected: Vec<_> =
            (0..setup.producers).map(|_| (0..RECORDS_PER_PRODUCER).filter(in_topic).peekable()).collect();
        while expected.iter_mut().any(|tickets| tickets.peek().is_some()) {
            let count = consumer.fetch(Duration::from_secs(5), &mut |bytes| {
                let producer = u32::from_le_bytes(bytes[..4].try_into().unwrap());
                let ticket = expected[producer as usize].next().expect("one record too many");
                assert!(bytes == record(producer, ticket), "producer {producer} ticket {ticket}");
            });
            assert!(count.unwrap() > 0, "records are missing from topic {topic}");
        }
        let more = consumer.fetch(Duration::ZERO, &mut |_| ()).unwrap();
        assert_eq!(more, 0, "records that nobody sent in topic {topic}");
    }
}

/// Write, read, close, open again, read again.
pub fn embedded_round_trip(system: &dyn System, setup: &Setup) {
    let session = system.open(setup).unwrap();
    produce_all(&*session, setup);
    read_back(&*session, setup);
    drop(session);
    let session = system.open(setup).unwrap();
    read_back(&*session, setup);
}

/// Write, kill the server, start it again, read.
pub fn networked_round_trip(system: &dyn System, setup: &mut Setup) -> Box<dyn Server> {
    let mut server = system.start(setup).unwrap().expect("a networked system has a server");
    setup.endpoint = Some(server.endpoint().to_owned());
    let session = system.open(setup).unwrap();
    produce_all(&*session, setup);
    drop(session);
    server.kill().unwrap();
    server.restart().unwrap();
    let session = system.open(setup).unwrap();
    read_back(&*session, setup);
    server
}
