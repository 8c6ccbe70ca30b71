//! What a record costs in the protocol: cutting and parsing on the broker's side, encoding and
//! counting replies on the client's. `cargo bench -p walrus-engine --bench protocol`

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use walrus_engine::protocol::command::{put_append_head, put_put};
use walrus_engine::protocol::records::put_record;
use walrus_engine::protocol::reply::{Fetched, put_fetched_head, put_ok};
use walrus_engine::protocol::{DEFAULT_MAX_FRAME_BYTES, Frames, Reply, Request};

const RECORDS: u64 = 1_000;

fn payloads() -> Vec<Vec<u8>> {
    (0..RECORDS as usize).map(|n| vec![n as u8; 500 + n % 525]).collect()
}

fn parse_put(criterion: &mut Criterion) {
    let mut wire = Vec::new();
    payloads().iter().for_each(|payload| put_put(&mut wire, "topic-0007", payload));
    let mut group = criterion.benchmark_group("protocol");
    group.throughput(Throughput::Elements(RECORDS));
    group.bench_function("cut and parse PUT frames", |bencher| {
        bencher.iter(|| {
            let mut bytes = 0;
            for body in Frames::new(black_box(&wire), DEFAULT_MAX_FRAME_BYTES) {
                if let Ok(Ok(Request::Put { topic, payload })) = body.map(Request::parse) {
                    bytes += topic.len() + payload.len();
                }
            }
            bytes
        });
    });
    let list: Vec<u8> = payloads().iter().fold(Vec::new(), |mut list, payload| {
        put_record(&mut list, payload);
        list
    });
    let mut append = Vec::new();
    put_append_head(&mut append, "topic-0007", list.len());
    append.extend_from_slice(&list);
    group.bench_function("parse APPEND and walk over its records", |bencher| {
        bencher.iter(|| match Request::parse(black_box(&append[4..])) {
            Ok(Request::Append { records, .. }) => records.iter().map(<[u8]>::len).sum::<usize>(),
            _ => 0,
        });
    });
    group.finish();
}

fn client_side(criterion: &mut Criterion) {
    let payloads = payloads();
    let mut group = criterion.benchmark_group("client");
    group.throughput(Throughput::Elements(RECORDS));
    let mut out = Vec::with_capacity(2 << 20);
    group.bench_function("encode PUT frames (the copy included)", |bencher| {
        bencher.iter(|| {
            out.clear();
            payloads.iter().for_each(|payload| put_put(&mut out, "topic-0007", black_box(payload)));
            out.len()
        });
    });
    let mut replies = Vec::new();
    (0..RECORDS).for_each(|_| put_ok(&mut replies));
    group.bench_function("count OK replies", |bencher| {
        bencher.iter(|| {
            let bodies = Frames::new(black_box(&replies), DEFAULT_MAX_FRAME_BYTES).flatten();
            bodies.filter(|body| matches!(Reply::parse(body), Ok(Reply::Ok))).count()
        });
    });
    let mut list = Vec::new();
    payloads.iter().for_each(|payload| put_record(&mut list, payload));
    let mut fetched = Vec::new();
    put_fetched_head(&mut fetched, RECORDS, RECORDS, list.len());
    fetched.extend_from_slice(&list);
    group.bench_function("parse a FETCH reply and walk over its records", |bencher| {
        bencher.iter(|| {
            match Reply::parse(black_box(&fetched[4..])).map(|reply| match reply {
                Reply::Payload(payload) => Fetched::parse(payload),
                _ => Fetched::parse(b""),
            }) {
                Ok(Ok(fetched)) => fetched.records.iter().map(<[u8]>::len).sum::<usize>(),
                _ => 0,
            }
        });
    });
    group.finish();
}

criterion_group!(benches, parse_put, client_side);
criterion_main!(benches);
