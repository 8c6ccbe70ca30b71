//! Round trips, hostile bytes, and the texts that people see.

use proptest::prelude::*;

use super::command::{DEFAULT_FETCH_BYTES, put_payload};
use super::frame::{PREFIX_BYTES, put_frame};
use super::records::put_record;
use super::reply::{Appended, Fetched, put_appended, put_fetched_head};
use super::*;
use crate::types::{AckPolicy, Tier};

const MAX: usize = DEFAULT_MAX_FRAME_BYTES;

fn name() -> impl Strategy<Value = String> {
    "[A-Za-z0-9._-]{1,249}"
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..300)
}

fn settings() -> impl Strategy<Value = TopicSettings> {
    let tier = prop_oneof![Just(Tier::PageCache), Just(Tier::Synced)];
    let acks = prop_oneof![Just(AckPolicy::Quorum), Just(AckPolicy::All)];
    let number = || prop::option::of(1..=u64::MAX);
    let words = (prop::option::of(1..=u32::MAX), prop::option::of(tier), prop::option::of(acks));
    (words, number(), number(), number(), number()).prop_map(
        |((replicas, tier, acks), segment_entries, segment_bytes, retention_bytes, retention_ms)| TopicSettings {
            replicas,
            tier,
            acks,
            segment_entries,
            segment_bytes,
            retention_bytes,
            retention_ms,
        },
    )
}

/// The one frame in `bytes`.
fn only_frame(bytes: &[u8]) -> &[u8] {
    let mut frames = Frames::new(bytes, MAX);
    let body = frames.next().expect("a frame").expect("a sound one");
    assert_eq!(frames.consumed(), bytes.len());
    body
}

fn round_trip(request: Request<'_>) {
    let mut wire = Vec::new();
    request.encode(&mut wire);
    assert_eq!(Request::parse(only_frame(&wire)), Ok(request));
}

proptest! {
    #[test]
    fn requests_come_back_as_they_went(
        topic in name(), group in name(), bytes in any_bytes(), settings in settings(),
        (a, b, c, d) in any::<(u64, u64, u64, u64)>(),
        list in prop::collection::vec(any_bytes(), 1..20),
    ) {
        let (topic, group) = (topic.as_str(), group.as_str());
        round_trip(Request::Register { topic, settings });
        round_trip(Request::Put { topic, payload: &bytes });
        let body = [b"PUT ", topic.as_bytes(), b" ", &bytes].concat();
        prop_assert_eq!(put_payload(&body, topic), Some(bytes.as_slice()));
        prop_assert_eq!(put_payload(&body, &topic[1..]), None);
        prop_assert_eq!(put_payload(&body[..3 + topic.len()], topic), None);
        round_trip(Request::Get { topic, group: None });
        round_trip(Request::Get { topic, group: Some(group) });
        round_trip(Request::State { topic });
        round_trip(Request::Delete { topic });
        round_trip(Request::Fetch { topic, offset: a, max_records: b, max_bytes: None, wait_ms: None });
        round_trip(Request::Fetch { topic, offset: a, max_records: b, max_bytes: Some(c), wait_ms: None });
        round_trip(Request::Fetch { topic, offset: a, max_records: b, max_bytes: Some(c), wait_ms: Some(d) });
        for to in [SeekTo::First, SeekTo::Last, SeekTo::Offset(a)] {
            round_trip(Request::Seek { topic, group, to });
        }
        let mut wire = Vec::new();
        for record in &list {
            put_record(&mut wire, record);
        }
        let records = Records::parse(&wire).expect("whole records");
        prop_assert!(records.iter().eq(list.iter().map(Vec::as_slice)));
        prop_assert_eq!(records.payload_bytes(), list.iter().map(|r| r.len() as u64).sum::<u64>());
        round_trip(Request::Append { topic, records });
    }

    #[test]
    fn replies_come_back_as_they_went(bytes in any_bytes(), text in "[^ ].{0,50}", code in prop::sample::select(&ErrorCode::ALL)) {
        for reply in [Reply::Ok, Reply::Payload(&bytes), Reply::Empty, Reply::Err { code, text: &text }, Reply::Json(b"{}")] {
            let mut wire = Vec::new();
            reply.encode(&mut wire);
            prop_assert_eq!(Reply::parse(only_frame(&wire)), Ok(reply));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in any_bytes(), max in 1_usize..400) {
        let _ = Request::parse(&bytes);
        let _ = Reply::parse(&bytes);
        let _ = Records::parse(&bytes);
        let _ = Appended::parse(&bytes);
        let _ = Fetched::parse(&bytes);
        let mut frames = Frames::new(&bytes, max);
        let yielded = frames.by_ref().flatten().map(|body| PREFIX_BYTES + body.len()).sum::<usize>();
        prop_assert_eq!(frames.consumed(), yielded);
        prop_assert!(frames.missing() <= max.max(PREFIX_BYTES));
    }

    #[test]
    fn near_requests_never_panic(verb in prop::sample::select(&Verb::ALL), rest in any_bytes()) {
        let body = [verb.name().as_bytes(), b" ", &rest].concat();
        let _ = Request::parse(&body);
    }

    /// Cut anywhere, a stream of frames yields exactly those that are whole, and says what lacks.
    #[test]
    fn a_cut_stream_yields_its_whole_frames(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 1..8), cut in any::<prop::sample::Index>()) {
        let mut wire = Vec::new();
        let mut ends = Vec::new();
        for body in &bodies {
            put_frame(&mut wire, body);
            ends.push(wire.len());
        }
        let cut = cut.index(wire.len() + 1);
        let whole = ends.iter().filter(|&&end| end <= cut).count();
        let mut frames = Frames::new(&wire[..cut], MAX);
        let got: Vec<&[u8]> = frames.by_ref().map(|body| body.expect("sound lengths")).collect();
        prop_assert!(got.iter().copied().eq(bodies[..whole].iter().map(Vec::as_slice)));
        prop_assert_eq!(frames.consumed(), if whole == 0 { 0 } else { ends[whole - 1] });
        let partial = cut - frames.consumed();
        let next_body = bodies.get(whole).map_or(0, Vec::len);
        let lacking = if partial < PREFIX_BYTES { PREFIX_BYTES - partial } else { PREFIX_BYTES + next_body - partial };
        prop_assert_eq!(frames.missing(), lacking);
    }

    #[test]
    fn numbered_replies_come_back(first in any::<u64>(), count in any::<u64>(), list in prop::collection::vec(any_bytes(), 0..9)) {
        let mut wire = Vec::new();
        put_appended(&mut wire, first, count);
        let Ok(Reply::Payload(payload)) = Reply::parse(only_frame(&wire)) else { panic!("a payload") };
        prop_assert_eq!(Appended::parse(payload), Ok(Appended { first_offset: first, count }));

        let mut records = Vec::new();
        for record in &list {
            put_record(&mut records, record);
        }
        let mut wire = Vec::new();
        put_fetched_head(&mut wire, first, list.len() as u64, records.len());
        wire.extend_from_slice(&records);
        let Ok(Reply::Payload(payload)) = Reply::parse(only_frame(&wire)) else { panic!("a payload") };
        let fetched = Fetched::parse(payload).expect("a sound reply");
        prop_assert_eq!(fetched.next_offset, first);
        prop_assert!(fetched.records.iter().eq(list.iter().map(Vec::as_slice)));
    }
}

#[test]
fn requests_without_arguments_come_back() {
    round_trip(Request::Metrics);
    round_trip(Request::Topics);
    round_trip(Request::Leave { node_id: 3 });
    round_trip(Request::Ping);
}

#[test]
fn a_wait_without_max_bytes_names_the_default() {
    let request = Request::Fetch { topic: "t", offset: 0, max_records: 1, max_bytes: None, wait_ms: Some(5) };
    assert_eq!(request.to_string(), format!("FETCH t 0 1 {DEFAULT_FETCH_BYTES} 5"));
}

#[test]
fn bad_lengths_are_found_in_the_prefix() {
    let mut frames = Frames::new(&[0, 0, 0, 0], 10);
    assert_eq!(frames.next(), Some(Err(FrameError::Empty)));
    assert_eq!(frames.next(), None);
    let large = [11, 0, 0, 0];
    let mut frames = Frames::new(&large, 10);
    assert_eq!(frames.next(), Some(Err(FrameError::TooLarge { body_bytes: 11, max_bytes: 10 })));
    assert_eq!(frames.next(), None);
}

#[test]
fn a_payload_is_the_rest_of_the_frame() {
    let put = |body| {
        Request::parse(body).map(|request| match request {
            Request::Put { payload, .. } => payload.to_vec(),
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(put(b"PUT t  two\n spaces "), Ok(b" two\n spaces ".to_vec()));
    assert_eq!(put(b"PUT t "), Ok(Vec::new()), "an empty payload");
    assert_eq!(put(b"PUT t"), Err(RequestError::Usage(Verb::Put)), "no payload at all");
    assert_eq!(put(b"PUT "), Err(RequestError::Usage(Verb::Put)));
    assert_eq!(put(b"PUT a/b x"), Err(RequestError::BadName { what: "topic" }));
    assert_eq!(put(b"PUT  x"), Err(RequestError::BadName { what: "topic" }));
    let every_byte: Vec<u8> = (0..=255).collect();
    assert_eq!(put(&[b"PUT t ".as_slice(), &every_byte].concat()), Ok(every_byte));
}

#[test]
fn bad_requests_say_what_is_wrong() {
    let text = |body: &[u8]| Request::parse(body).expect_err("a bad request").to_string();
    assert_eq!(text(b"put t x"), "verbs are upper case: PUT");
    assert!(text(b"HELLO").starts_with("there is no verb `HELLO`; there are REGISTER PUT GET"));
    assert_eq!(text(b"GET"), "usage: GET <topic> [group]");
    assert_eq!(text(b"GET t g more"), "usage: GET <topic> [group]");
    assert_eq!(text(b"PING now"), "usage: PING");
    assert!(text(b"FETCH t -1 5").starts_with("the offset must be a whole number; usage: FETCH"));
    assert!(text(b"FETCH t 1 +5").starts_with("max records must be a whole number"));
    assert_eq!(
        text(b"SEEK t g middle"),
        "the offset must be a whole number; usage: SEEK <topic> <group> <offset|first|last>"
    );
    assert!(text(b"GET a\xff").starts_with("a topic name is"));
    assert!(text(b"REGISTER t color=red").starts_with("there is no setting `color`"));
    assert_eq!(text(b"REGISTER t tier=fast"), "tier: tier is `page-cache` or `synced`, not `fast`");
    assert_eq!(text(b"REGISTER t replicas=0"), "replicas: `0` is not a whole number above 0");
    assert_eq!(text(b"REGISTER t replicas=1 replicas=1"), "`replicas` is set twice");
    assert_eq!(text(b"APPEND t\n\x05\0\0\0abc"), "APPEND: record 0 of the list is cut short");
    assert_eq!(text(b"APPEND t\n"), "APPEND: the list holds no record");
    assert_eq!(text(b"APPEND t"), "usage: APPEND <topic>\\n<records>");
}

#[test]
fn an_unknown_error_code_keeps_its_text() {
    let reply = Reply::parse(b"ERR Fancy new thing").expect("an error");
    assert_eq!(reply, Reply::Err { code: ErrorCode::Internal, text: "Fancy new thing" });
    assert!(Reply::parse(b"WHAT").is_err());
}

#[test]
fn a_fetch_reply_must_hold_as_many_records_as_it_says() {
    assert!(Fetched::parse(b"7 1\n").is_err());
    assert!(Fetched::parse(b"7 0\n").is_ok());
}

/// `UPDATE_DOCS=1 cargo test -p walrus-engine error_table` writes the table anew.
#[test]
fn the_error_table_of_the_docs_is_the_enum() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md");
    let docs = std::fs::read_to_string(path).expect("docs/protocol.md");
    let table = error_code::markdown_table();
    let start = docs.find("| code |").expect("a table of errors");
    let end = docs[start..].find("\n\n").map_or(docs.len(), |bytes| start + bytes + 1);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let updated = [&docs[..start], &table, &docs[end..]].concat();
        std::fs::write(path, updated).expect("docs/protocol.md is written");
    } else {
        assert_eq!(&docs[start..end], table, "run UPDATE_DOCS=1 cargo test -p walrus-engine error_table");
    }
}

#[test]
fn error_codes_have_the_names_that_clients_rely_on() {
    let names: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.name()).collect();
    let stable = [
        "BadRequest",
        "FrameTooLarge",
        "UnknownTopic",
        "TopicExists",
        "OffsetOutOfRange",
        "NotReady",
        "Timeout",
        "DiskFull",
        "Corrupt",
        "Overloaded",
        "Internal",
    ];
    assert_eq!(names, stable);
    assert!(ErrorCode::ALL.iter().all(|code| code.name().parse() == Ok(*code)));
}
