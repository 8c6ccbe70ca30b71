//! The Kafka driver against a real broker. Needs Java and, at the first run, Maven and a network.
#![cfg(feature = "kafka")]
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use walrus_drivers::kafka::{Kafka, KafkaJava};
use walrus_drivers::{Ack, Consumer, DriverError, Server, Session, Setup, System, Tier, Tools};

const TIMEOUT: Duration = Duration::from_mins(1);

fn setup(data_dir: &Path) -> Setup {
    Setup {
        data_dir: data_dir.to_owned(),
        topics: vec!["a".into(), "b".into()],
        tier: Tier::PageCache,
        producers: 2,
        one_in_flight: false,
        in_flight_bytes: 1 << 20,
        variant: vec!["tuned".into()],
        settings: "heap_mb = 256\nclient_warmup_s = 0.2".parse().unwrap(),
        tools: Tools::default(),
        endpoint: None,
        nodes: 1,
    }
}

fn start(setup: &mut Setup) -> Box<dyn Server> {
    let server = Kafka.start(setup).unwrap().unwrap();
    setup.endpoint = Some(server.endpoint().to_owned());
    server
}

/// Sends records `0..count` of `producer` to `topic`, and waits until all are acknowledged.
fn produce(session: &dyn Session, producer: u32, topic: usize, count: u64) {
    let mut client = session.producer(producer).unwrap();
    let mut acks = Vec::new();
    let mut acked = 0;
    let deadline = Instant::now() + TIMEOUT;
    for ticket in 0..count {
        client.send(topic, ticket, &record(ticket)).unwrap();
    }
    client.flush().unwrap();
    while acked < count {
        assert!(Instant::now() < deadline, "only {acked} of {count} acknowledged");
        client.poll(Duration::from_millis(100), &mut acks).unwrap();
        for Ack { first_ticket, count, ok } in acks.drain(..) {
            assert!(ok);
            assert_eq!(first_ticket, acked, "one partition acknowledges in order");
            acked += count;
        }
    }
}

fn record(ticket: u64) -> Vec<u8> {
    ticket.to_le_bytes().repeat(1 + ticket as usize % 100)
}

/// Reads until `count` records came, and then once more.
fn read(consumer: &mut dyn Consumer, count: usize) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    let deadline = Instant::now() + TIMEOUT;
    while records.len() < count {
        assert!(Instant::now() < deadline, "only {} of {count} read", records.len());
        consumer.fetch(Duration::from_millis(200), &mut |bytes| records.push(bytes.to_vec())).unwrap();
    }
    consumer.fetch(Duration::from_millis(200), &mut |bytes| records.push(bytes.to_vec())).unwrap();
    records
}

#[test]
fn a_cluster_of_three_goes_on_without_a_leader() {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = setup(dir.path());
    setup.nodes = 3;
    let mut server = start(&mut setup);
    assert_eq!(server.pids().len(), 3);
    let session = Kafka.open(&setup).unwrap();
    session.create_topics().unwrap();
    produce(session.as_ref(), 0, 0, 1_000);
    server.kill_leader_of(&setup.topics[0]).unwrap();
    assert_eq!(server.pids().len(), 2);
    drop(session);
    let session = Kafka.open(&setup).unwrap();
    // The other brokers notice after the session timeout, nine seconds if nobody says otherwise.
    let deadline = Instant::now() + TIMEOUT;
    let mut consumer = loop {
        match session.consumer(0, false) {
            Ok(consumer) => break consumer,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    assert_eq!(read(consumer.as_mut(), 1_000).len(), 1_000);
    drop(consumer);
    produce(session.as_ref(), 1, 1, 10);
    server.stop().unwrap();
}

#[test]
fn a_killed_broker_keeps_everything_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = setup(dir.path());
    let mut server = start(&mut setup);
    let session = Kafka.open(&setup).unwrap();
    session.create_topics().unwrap();
    session.create_topics().unwrap();
    let mut tail = session.consumer(1, true).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| produce(session.as_ref(), 0, 0, 10_000));
        scope.spawn(|| produce(session.as_ref(), 1, 1, 100));
    });
    assert_eq!(read(tail.as_mut(), 100).len(), 100);
    drop(tail);
    drop(session);

    let pid = server.pids()[0];
    server.kill().unwrap();
    server.restart().unwrap();
    assert_ne!(server.pids()[0], pid);

    let session = Kafka.open(&setup).unwrap();
    let records = read(session.consumer(0, false).unwrap().as_mut(), 10_000);
    assert_eq!(records.len(), 10_000);
    assert!(records.iter().enumerate().all(|(ticket, bytes)| *bytes == record(ticket as u64)));
    let mut tail = session.consumer(1, true).unwrap();
    assert_eq!(tail.fetch(Duration::from_millis(100), &mut |_| {}).unwrap(), 0);
    drop(tail);

    assert!(session.remove_topics().unwrap());
    session.create_topics().unwrap();
    assert!(read(session.consumer(0, false).unwrap().as_mut(), 0).is_empty());
    drop(session);
    server.stop().unwrap();
}

#[test]
fn records_for_topics_that_are_just_created_stay_in_order() {
    const RECORDS: u64 = 2_000;
    let dir = tempfile::tempdir().unwrap();
    let mut setup = setup(dir.path());
    // Batches of a few records: many requests are under way while the partitions open.
    setup.settings.insert("producer.batch.num.messages".into(), 10.into());
    setup.settings.insert("producer.linger.ms".into(), 0.into());
    let mut server = start(&mut setup);
    for round in 0..10 {
        setup.topics = vec![format!("{round}-a"), format!("{round}-b")];
        let session = Kafka.open(&setup).unwrap();
        session.create_topics().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| produce(session.as_ref(), 0, 0, RECORDS));
            scope.spawn(|| produce(session.as_ref(), 1, 1, RECORDS));
        });
        for topic in 0..2 {
            let records = read(session.consumer(topic, false).unwrap().as_mut(), RECORDS as usize);
            assert!(records.iter().enumerate().all(|(ticket, bytes)| *bytes == record(ticket as u64)));
        }
    }
    server.stop().unwrap();
}

#[test]
fn large_records_and_one_in_flight_and_idempotence_and_flushes() {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = setup(dir.path());
    setup.tier = Tier::Synced;
    setup.one_in_flight = true;
    setup.variant.push("idempotent".into());
    // Both producers share one librdkafka instance.
    setup.settings.insert("instances".into(), 1.into());
    let mut server = start(&mut setup);
    assert!(Kafka.start(&setup).unwrap().is_none(), "one that is there already is used");
    let session = Kafka.open(&setup).unwrap();
    session.create_topics().unwrap();
    let (mut first, mut second) = (session.producer(0).unwrap(), session.producer(1).unwrap());
    let large = vec![7; 1 << 20];
    for ticket in 0..3 {
        for (topic, producer) in [(0, &mut first), (1, &mut second)] {
            producer.send(topic, ticket, &large).unwrap();
            let mut acks = Vec::new();
            producer.poll(TIMEOUT, &mut acks).unwrap();
            assert_eq!(acks, [Ack { first_ticket: ticket, count: 1, ok: true }]);
        }
    }
    assert_eq!(read(session.consumer(1, false).unwrap().as_mut(), 3), [large.clone(), large.clone(), large]);
    drop((first, second));
    drop(session);
    server.stop().unwrap();
}

#[test]
fn the_java_client_speaks_the_workers_protocol() {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = setup(dir.path());
    let mut server = start(&mut setup);
    let command = KafkaJava.worker_command(&setup).unwrap().unwrap();
    let spec = serde_json::json!({
        "system": "kafka-java", "deployment": "networked", "setup": &setup,
        "job": {"kind": "load", "record_bytes": {"min": 16, "max": 100}, "seconds": null,
            "payload_bytes": 1_000_000, "rate_per_s": null, "warmup_s": 0.0, "tail": false},
    });
    let mut worker =
        Command::new(&command[0]).args(&command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = worker.stdin.take().unwrap();
    writeln!(stdin, "{spec}\ngo\nsettle\nquit").unwrap();
    let lines: Vec<serde_json::Value> = BufReader::new(worker.stdout.take().unwrap())
        .lines()
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect();
    assert!(worker.wait().unwrap().success(), "{lines:?}");
    let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events.first(), Some(&"ready"), "{lines:?}");
    assert_eq!(events.last(), Some(&"settled"), "{lines:?}");
    let drained = &lines[lines.len() - 2];
    assert!(drained["bytes"].as_u64().unwrap() >= 1_000_000, "{drained}");

    let session = KafkaJava.open(&setup).unwrap();
    let mut sent_by_all = 0;
    for producer in 0..2_u32 {
        let claim = &drained["claims"][producer as usize];
        let sent = claim["sent"].as_u64().unwrap();
        sent_by_all += sent;
        // The payload is shared: one producer may have sent all of it before the other's thread began.
        let acked = if sent == 0 { serde_json::json!([]) } else { serde_json::json!([[0, sent]]) };
        assert_eq!(claim["acked"], acked);
        let records = read(session.consumer(producer as usize, false).unwrap().as_mut(), sent as usize);
        assert_eq!(records.len() as u64, sent);
        for (sequence, bytes) in records.iter().enumerate() {
            assert_eq!(bytes[..4], producer.to_le_bytes());
            assert_eq!(bytes[4..12], (sequence as u64).to_le_bytes());
        }
    }
    assert_eq!(drained["records"].as_u64(), Some(sent_by_all), "{drained}");
    drop(session);
    server.stop().unwrap();
}

#[test]
fn a_taken_port_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut setup = setup(dir.path());
    setup.settings.insert("port".into(), i64::from(port).into());
    let Err(error) = Kafka.start(&setup) else { panic!("the port is taken") };
    assert!(matches!(&error, DriverError::Unavailable { cause, .. } if cause.contains(&port.to_string())), "{error}");
}

#[test]
fn a_broker_that_cannot_start_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = setup(dir.path());
    setup.settings.insert("broker.num.io.threads".into(), "many".into());
    let Err(error) = Kafka.start(&setup) else { panic!("that is no number") };
    assert!(error.to_string().contains("num.io.threads"), "{error}");
}

const CHILD_DIR: &str = "WALRUS_TEST_KAFKA_DIR";

/// Not a test of its own: the process that `a_broker_dies_with_its_parent` kills.
#[test]
#[ignore = "helper of another test"]
fn parent_of_a_broker() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let dir = Path::new(&dir);
    let mut setup = setup(&dir.join("data"));
    let server = start(&mut setup);
    std::fs::write(dir.join("pid.new"), server.pids()[0].to_string()).unwrap();
    std::fs::rename(dir.join("pid.new"), dir.join("pid")).unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn a_broker_dies_with_its_parent() {
    let dir = tempfile::tempdir().unwrap();
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "parent_of_a_broker", "--ignored"])
        .env(CHILD_DIR, dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut pid = None;
    wait_until(|| {
        pid = std::fs::read_to_string(dir.path().join("pid")).ok();
        pid.is_some()
    });
    parent.kill().unwrap();
    parent.wait().unwrap();
    // Gone, or a zombie that nobody has reaped yet: in both cases it has no command line.
    let command_line = format!("/proc/{}/cmdline", pid.unwrap());
    wait_until(|| std::fs::read(&command_line).unwrap_or_default().is_empty());
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited {TIMEOUT:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
