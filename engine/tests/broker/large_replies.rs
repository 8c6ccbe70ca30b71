//! Replies as large as clients like: the memory of all of them together stays within the budget.

use crate::support::{Raw, TestBroker, eventually, parse_fetched};

const FRAME_BYTES: usize = 8 << 20;
const RECORD_BYTES: usize = 7 << 20;
/// The smallest budget that may be set holds four of them.
const AT_ONCE: usize = 4;
const RECORDS: u8 = 8;

/// A topic `t` with a few large records, each of one byte that no other one has.
fn broker_with_large_records() -> TestBroker {
    let broker = TestBroker::start_with(|config| {
        config.max_frame_bytes = FRAME_BYTES;
        config.connection_bytes = 4 * FRAME_BYTES;
        config.write_wait_ms = 300;
    });
    let mut client = broker.client();
    client.call("REGISTER t");
    for n in 0..RECORDS {
        assert_eq!(client.call([b"PUT t ".as_slice(), &large_record(n)].concat()), "OK");
    }
    broker
}

fn large_record(n: u8) -> Vec<u8> {
    vec![n; RECORD_BYTES]
}

fn buffer_bytes(observer: &mut Raw) -> u64 {
    observer.json("METRICS")["walrus"]["connection_buffer_bytes"].as_u64().expect("a number")
}

/// Sends a request on as many connections as there are records, and takes no reply before the memory is used.
fn ask_without_reading(broker: &TestBroker, request: &str) -> Vec<Raw> {
    let mut clients: Vec<Raw> = (0..RECORDS).map(|_| broker.client()).collect();
    for client in &mut clients {
        // So little that a record does not fit between here and the broker.
        socket2::SockRef::from(&client.stream).set_recv_buffer_size(64 << 10).expect("a buffer can be set");
        client.send(request);
    }
    let mut observer = broker.client();
    eventually("replies wait to be taken", || buffer_bytes(&mut observer) >= (AT_ONCE * RECORD_BYTES) as u64);
    assert!(buffer_bytes(&mut observer) <= 4 * FRAME_BYTES as u64 + (4 << 20));
    assert_eq!(observer.call("REGISTER others"), "OK");
    assert_eq!(observer.call("PUT others x"), "OK", "there is memory for requests");
    clients
}

#[test]
fn a_get_without_memory_for_its_record_moves_nothing() {
    let broker = broker_with_large_records();
    let mut clients = ask_without_reading(&broker, "GET t");
    let mut found: Vec<u8> = replies(&mut clients).iter().map(|reply| delivered(reply)).collect();
    for _ in found.len()..usize::from(RECORDS) {
        clients[0].send("GET t");
        found.push(delivered(&clients[0].receive()));
    }
    found.sort_unstable();
    assert_eq!(found, (0..RECORDS).collect::<Vec<_>>(), "each record once");
    assert_eq!(clients[0].call("GET t"), "EMPTY");
    let mut observer = broker.client();
    eventually("the memory is given back", || buffer_bytes(&mut observer) < 1 << 20);
}

/// The replies of those who were served; the others have waited in vain, as the first took nothing meanwhile.
fn replies(clients: &mut [Raw]) -> Vec<Vec<u8>> {
    let (mut refused, served): (Vec<_>, Vec<_>) = clients.iter_mut().partition(|client| is_refused(client));
    assert_eq!(served.len(), AT_ONCE);
    refused.iter_mut().for_each(|client| assert!(client.receive_text().starts_with("ERR Overloaded ")));
    served.into_iter().map(Raw::receive).collect()
}

/// Waits for the reply, and takes nothing of it.
fn is_refused(client: &Raw) -> bool {
    let mut first = [0; 8];
    client.stream.peek(&mut first).expect("a reply comes");
    &first[4..] == b"ERR "
}

/// Which record it is.
fn delivered(reply: &[u8]) -> u8 {
    let record = reply.strip_prefix(b"OK ").expect("a record");
    assert_eq!(record, large_record(record[0]));
    record[0]
}

#[test]
fn a_fetch_of_one_byte_counts_as_what_it_brings() {
    let broker = broker_with_large_records();
    let mut clients = ask_without_reading(&broker, "FETCH t 0 1 1");
    for reply in replies(&mut clients) {
        assert_eq!(parse_fetched(&reply), (1, vec![large_record(0)]));
    }
}

/// Groups are as many as clients like.
#[test]
fn what_cursors_read_ahead_is_bounded_and_given_back() {
    const GROUPS: usize = 40;
    let broker = TestBroker::start_with(|config| {
        config.max_frame_bytes = 64 << 10;
        config.connection_bytes = 1 << 20;
    });
    let mut client = broker.client();
    client.call("REGISTER t");
    let records: Vec<String> = (0..200).map(|n| format!("{n:01000}")).collect();
    records.iter().for_each(|record| assert_eq!(client.call(format!("PUT t {record}")), "OK"));
    let read_ahead =
        |client: &mut Raw| client.json("METRICS")["walrus"]["read_ahead_bytes"].as_u64().expect("a number");
    let mut most = 0;
    for record in &records[..3] {
        for group in 0..GROUPS {
            assert_eq!(client.call(format!("GET t g{group}")), format!("OK {record}"));
            most = most.max(read_ahead(&mut client));
        }
    }
    assert!((1..=256 << 10).contains(&most), "{most} bytes");
    eventually("groups that stand still hold nothing", || read_ahead(&mut client) == 0);
    assert_eq!(client.call("GET t g0"), format!("OK {}", records[3]));
}
