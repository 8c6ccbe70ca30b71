//! The client against scripted peers: what a sound broker never does (garbage, silence, hanging
//! up) and what it does seldom. Tests against the real broker are in `tests/`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::*;
use crate::protocol::error_code::{ErrorCode, Retry};
use crate::protocol::{Frames, reply};

const MAX: usize = 1 << 20;

/// Runs `script` with the first connection, on a port of its own.
fn peer(script: impl FnOnce(TcpStream) + Send + 'static) -> (ClientConfig, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("an address").to_string();
    let thread = thread::spawn(move || script(listener.accept().expect("a client").0));
    (ClientConfig::new(addr), thread)
}

/// Answers each request by `answer` until the client hangs up.
fn serve(mut stream: TcpStream, mut answer: impl FnMut(Request<'_>, &mut Vec<u8>)) {
    let (mut input, mut chunk) = (Vec::new(), vec![0; 64 << 10]);
    while let Ok(read_bytes @ 1..) = stream.read(&mut chunk) {
        input.extend_from_slice(&chunk[..read_bytes]);
        let mut out = Vec::new();
        let mut frames = Frames::new(&input, MAX);
        for body in frames.by_ref() {
            answer(Request::parse(body.expect("a frame")).expect("a request"), &mut out);
        }
        let consumed = frames.consumed();
        input.drain(..consumed);
        if stream.write_all(&out).is_err() {
            return;
        }
    }
}

#[test]
fn refused_connections_name_the_address_and_the_remedy() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let error = Client::connect(&free.to_string()).expect_err("nobody listens");
    assert_eq!(error.to_string(), format!("connection refused at {free}; is `walrus --node-id 1` running?"));
    assert_eq!(error.retry(), Retry::Safe);
    assert!(matches!(Client::connect("nonsense"), Err(ClientError::Resolve { .. })));
}

#[test]
fn replies_become_values() {
    let (config, thread) = peer(|stream| {
        serve(stream, |request, out| match request {
            Request::Get { group: None, .. } => reply::put_payload(out, b"a b\n"),
            Request::Get { group: Some("blank"), .. } => reply::put_payload(out, b""),
            Request::Get { .. } => reply::put_empty(out),
            Request::State { .. } => reply::put_err(out, ErrorCode::UnknownTopic, "no topic `t`"),
            Request::Append { records, .. } => reply::put_appended(out, 7, records.len()),
            Request::Topics => reply::put_json(out, b"[]"),
            _ => reply::put_ok(out),
        });
    });
    let mut client = Client::with_config(config).expect("connected");
    client.put("t", b"x").expect("put");
    assert_eq!(client.get("t", None).expect("get"), Some(b"a b\n".as_slice()));
    assert_eq!(client.get("t", Some("blank")).expect("get"), Some(b"".as_slice()));
    assert_eq!(client.get("t", Some("g")).expect("get"), None);
    assert_eq!(client.topics().expect("topics"), "[]");
    let appended = client.append("t", [b"1".as_slice(), b"22"]).expect("append");
    assert_eq!((appended.first_offset, appended.count), (7, 2));
    let error = client.state("t").expect_err("no such topic");
    assert_eq!(error.code(), Some(ErrorCode::UnknownTopic));
    assert_eq!(error.to_string(), "UnknownTopic: no topic `t`");
    assert_eq!(client.call_raw(b"PING").expect("raw"), b"OK");
    assert!(matches!(client.ping(), Ok(())), "an ERR leaves the connection usable");
    drop(client);
    thread.join().expect("the peer ends");
}

#[test]
fn bad_names_are_not_sent() {
    let (config, thread) = peer(|mut stream| {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("the end");
        assert!(rest.is_empty());
    });
    let mut client = Client::with_config(config.clone()).expect("connected");
    assert!(matches!(client.put("a b", b""), Err(ClientError::BadRequest(_))));
    assert!(matches!(client.seek("a", "g\n", SeekTo::First), Err(ClientError::BadRequest(_))));
    drop(client);
    thread.join().expect("nothing came");
}

#[test]
fn silence_is_a_timeout_and_garbage_is_told_from_it() {
    let (mut config, thread) = peer(|mut stream| {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    });
    config.request_timeout = Duration::from_millis(20);
    let mut client = Client::with_config(config).expect("connected");
    let error = client.put("t", b"x").expect_err("no reply");
    assert!(matches!(error, ClientError::TimedOut { .. }), "{error}");
    assert_eq!(error.retry(), Retry::MayRepeat);
    drop(client);
    thread.join().expect("the peer ends");

    let (config, thread) = peer(|mut stream| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("written");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let error = Client::with_config(config).and_then(|mut client| client.ping()).expect_err("not a broker");
    assert!(matches!(error, ClientError::NotWalrus { .. }), "{error}");
    thread.join().expect("the peer ends");
}

#[test]
fn after_a_hang_up_the_next_call_connects_again() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let config = ClientConfig::new(listener.local_addr().expect("an address").to_string());
    let thread = thread::spawn(move || {
        let (mut first, _) = listener.accept().expect("a client");
        first.read_exact(&mut [0; 8]).expect("PING");
        drop(first);
        let (second, _) = listener.accept().expect("the client again");
        serve(second, |_, out| reply::put_ok(out));
    });
    let mut client = Client::with_config(config).expect("connected");
    assert!(matches!(client.ping(), Err(ClientError::Closed { .. })));
    client.ping().expect("a new connection");
    drop(client);
    thread.join().expect("the peer ends");
}

#[test]
fn a_pipeline_reports_outcomes_in_order() {
    let (config, thread) = peer(|stream| {
        serve(stream, |request, out| match request {
            Request::Put { payload: b"bad", .. } => reply::put_err(out, ErrorCode::DiskFull, "full"),
            Request::Append { records, .. } => reply::put_appended(out, 0, records.len()),
            _ => reply::put_ok(out),
        });
    });
    let mut pipeline = Pipeline::connect(&config, PipelineConfig::default()).expect("connected");
    for payload in [b"1".as_slice(), b"2", b"bad", b"3"] {
        pipeline.push_put("t", payload).expect("pushed");
    }
    let mut batch = RecordBatch::default();
    [b"4".as_slice(), b"5"].into_iter().for_each(|record| batch.push(record));
    pipeline.push_append("t", &batch).expect("pushed");
    assert_eq!(pipeline.in_flight(), 5);
    pipeline.flush().expect("flushed");
    let mut seen = Vec::new();
    while pipeline.in_flight() > 0 {
        let wait = Duration::from_secs(10);
        pipeline
            .recv_replies(wait, |outcome| match outcome {
                Outcome::Ok(count) => seen.extend((0..count).map(|_| true)),
                Outcome::Err { code, text } => {
                    assert_eq!((code, text), (ErrorCode::DiskFull, "full"));
                    seen.push(false);
                }
            })
            .expect("replies");
    }
    assert_eq!(seen, [true, true, false, true, true]);
    assert_eq!(pipeline.recv_replies(Duration::ZERO, |_| ()).expect("nothing"), 0);
    drop(pipeline);
    thread.join().expect("the peer ends");
}

/// The peer answers at once and blocks when nobody reads; a client that only wrote would hang.
#[test]
fn one_thread_can_push_without_ever_receiving() {
    const PUTS: u64 = 400_000;
    let (config, thread) = peer(|stream| serve(stream, |_, out| reply::put_ok(out)));
    let mut pipeline = Pipeline::connect(&config, PipelineConfig::default()).expect("connected");
    for _ in 0..PUTS {
        pipeline.push_put("t", b"").expect("pushed");
    }
    pipeline.flush().expect("flushed");
    let mut accepted = 0;
    while pipeline.in_flight() > 0 {
        pipeline
            .recv_replies(Duration::from_secs(10), |outcome| {
                assert!(matches!(outcome, Outcome::Ok(count) if { accepted += count; true }));
            })
            .expect("replies");
    }
    assert_eq!(accepted, PUTS);
    drop(pipeline);
    thread.join().expect("the peer ends");
}

#[test]
fn the_halves_work_in_two_threads() {
    const PUTS: u64 = 50_000;
    let (config, thread) = peer(|stream| serve(stream, |_, out| reply::put_ok(out)));
    let pipeline = Pipeline::connect(&config, PipelineConfig { max_write_bytes: 4_096, ..Default::default() });
    let (mut sender, mut receiver) = pipeline.expect("connected").split();
    let receiving = thread::spawn(move || {
        while receiver.received() < PUTS {
            receiver.recv_replies(Duration::from_secs(10), |_| ()).expect("replies");
        }
    });
    for _ in 0..PUTS {
        sender.push_put("t", &[0; 100]).expect("pushed");
    }
    sender.flush().expect("flushed");
    receiving.join().expect("all replies came");
    drop(sender);
    thread.join().expect("the peer ends");
}

#[test]
fn a_reader_walks_on_and_asks_ahead() {
    let (config, thread) = peer(|stream| {
        serve(stream, |request, out| {
            let Request::Fetch { offset, .. } = request else { panic!("{request}") };
            let count = if offset < 6 { 2 } else { 0 };
            let mut records = Vec::new();
            (offset..offset + count).for_each(|n| put_record(&mut records, &n.to_le_bytes()));
            reply::put_fetched_head(out, offset + count, count, records.len());
            out.extend_from_slice(&records);
        });
    });
    let mut reader = Reader::open(config, "t", ReaderConfig::default()).expect("connected");
    let mut got = Vec::new();
    loop {
        let batch = reader.next_batch().expect("a batch");
        if batch.records.is_empty() {
            break;
        }
        assert_eq!(batch.first_offset(), got.len() as u64);
        got.extend(batch.records.iter().map(|record| u64::from(record[0])));
    }
    assert_eq!(got, [0, 1, 2, 3, 4, 5]);
    assert_eq!(reader.next_offset(), 6);
    drop(reader);
    thread.join().expect("the peer ends");
}

#[cfg(target_os = "linux")]
#[test]
fn a_connection_over_loopback_is_not_paced() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let config = ClientConfig::new(listener.local_addr().expect("bound").to_string());
    let connection = Connection::open(&config).expect("connected");
    let control = socket2::SockRef::from(&connection.stream).tcp_congestion().expect("it has one");
    assert!(control.starts_with(b"reno"), "{}", String::from_utf8_lossy(&control));
}
