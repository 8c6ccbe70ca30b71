//! The checker itself: it must accept a sound history and fail on each kind of violation.

use super::super::history::Fetch;
use super::*;

fn id(producer: u32, sequence: u64) -> Id {
    Id { producer, sequence }
}

/// Producer 1 sends records 0..4 one after the other, each acknowledged 5 ns after it was sent; the
/// outcome of record 2 stays unknown, although it was stored.
fn sound() -> (History, Vec<Log>) {
    let sent = |sequence| Sent {
        id: id(1, sequence),
        connection: 1,
        asked_at: 10 * sequence,
        answered_at: 10 * sequence + 5,
        outcome: if sequence == 2 { Outcome::Unknown } else { Outcome::Acked(Some(sequence)) },
    };
    let records: Vec<Read> = (0..4).map(|sequence| Some(id(1, sequence))).collect();
    let history = History {
        sent: (0..4).map(sent).collect(),
        fetches: vec![
            fetch(8, 0, Answer::Records { first: 0, records: records[..1].to_vec() }),
            fetch(50, 1, Answer::Records { first: 1, records: records[1..].to_vec() }),
            fetch(60, 4, Answer::Records { first: 4, records: Vec::new() }),
        ],
        deliveries: [("g".to_owned(), (0..4).map(|n| Delivery::Record(Some(id(1, n)))).collect())].into(),
        errors: BTreeMap::new(),
    };
    let log = |node| Log { node, records: records.clone() };
    (history, vec![log(1), log(2), log(3)])
}

fn fetch(asked_at: Nanos, from: u64, answer: Answer) -> Fetch {
    Fetch { node: 2, asked_at, answered_at: asked_at + 1, from, answer }
}

fn on_all(logs: &mut [Log], change: impl Fn(&mut Vec<Read>)) {
    logs.iter_mut().for_each(|log| change(&mut log.records));
}

/// What the checker says about the sound history after this change.
fn verdict(change: impl Fn(&mut History, &mut Vec<Log>)) -> Vec<Violation> {
    let (mut history, mut logs) = sound();
    change(&mut history, &mut logs);
    check(&history, &logs)
}

fn without_readers(history: &mut History) {
    history.fetches.clear();
    history.deliveries.clear();
}

#[test]
fn a_sound_history_passes() {
    assert_eq!(verdict(|_, _| {}), []);
}

#[test]
fn an_unknown_outcome_may_be_stored_or_not() {
    let violations = verdict(|history, logs| {
        without_readers(history);
        history.sent[3].outcome = Outcome::Acked(None);
        on_all(logs, |records| _ = records.remove(2));
    });
    assert_eq!(violations, []);
}

#[test]
fn a_shorter_log_on_one_node_is_not_a_violation_by_itself() {
    assert_eq!(verdict(|_, logs| logs[1].records.truncate(2)), []);
}

#[test]
fn an_acknowledged_record_that_is_missing() {
    let violations = verdict(|history, logs| {
        without_readers(history);
        on_all(logs, |records| records.truncate(3));
    });
    assert_eq!(violations, [Violation::Lost { id: id(1, 3) }]);
}

#[test]
fn a_record_elsewhere_than_its_reply_said() {
    let violations = verdict(|history, _| history.sent[0].outcome = Outcome::Acked(Some(7)));
    assert_eq!(violations, [Violation::WrongOffset { id: id(1, 0), promised: 7, found: 0 }]);
}

#[test]
fn nodes_that_have_different_records() {
    let violations = verdict(|_, logs| logs[1].records[2] = None);
    assert!(matches!(violations[..], [Violation::Disagree { offset: 2, other: 1 | 2, .. }]), "{violations:?}");
}

#[test]
fn a_record_that_nobody_sent_or_that_was_altered() {
    for foreign in [None, Some(id(9, 9))] {
        let violations = verdict(|_, logs| on_all(logs, |records| records.push(foreign)));
        assert_eq!(violations, [Violation::NeverSent { offset: 4, read: foreign }]);
    }
}

#[test]
fn a_record_that_is_there_twice() {
    let violations = verdict(|history, logs| {
        history.deliveries.clear();
        on_all(logs, |records| records.push(Some(id(1, 2))));
    });
    assert!(violations.contains(&Violation::Twice { id: id(1, 2), offsets: [2, 4] }), "{violations:?}");
}

#[test]
fn a_refused_record_that_was_stored() {
    let violations = verdict(|history, _| history.sent[2].outcome = Outcome::Refused);
    assert_eq!(violations, [Violation::RefusedButStored { id: id(1, 2), offset: 2 }]);
}

#[test]
fn records_of_a_connection_in_another_order() {
    let violations = verdict(|history, logs| {
        without_readers(history);
        history.sent.iter_mut().for_each(|sent| sent.outcome = Outcome::Unknown);
        on_all(logs, |records| records.swap(1, 2));
    });
    assert_eq!(violations, [Violation::OutOfOrder { earlier: id(1, 1), later: id(1, 2) }]);
}

#[test]
fn a_record_before_one_that_was_acknowledged_before_it_was_sent() {
    let violations = verdict(|history, logs| {
        without_readers(history);
        for sent in &mut history.sent {
            (sent.outcome, sent.connection) = (Outcome::Acked(None), sent.id.sequence as u32);
        }
        on_all(logs, |records| records.swap(0, 1));
    });
    assert_eq!(violations, [Violation::BeforeItsCause { id: id(1, 1), offset: 0, acked_before: id(1, 0) }]);
}

#[test]
fn a_reply_that_starts_elsewhere() {
    let violations = verdict(|history, _| history.fetches[1].from = 0);
    assert_eq!(violations, [Violation::Gap { node: 2, from: 0, first: 1 }]);
}

#[test]
fn a_value_that_changed_after_it_was_seen() {
    let violations = verdict(|history, _| {
        history.fetches[0].answer = Answer::Records { first: 0, records: vec![Some(id(1, 2))] };
    });
    assert_eq!(violations, [Violation::Changed { node: 2, offset: 0, then: Some(id(1, 2)), now: Some(id(1, 0)) }]);
}

#[test]
fn a_value_that_was_seen_and_vanished() {
    let violations = verdict(|history, logs| {
        history.deliveries.clear();
        history.sent[3].outcome = Outcome::Unknown;
        history.fetches.pop();
        on_all(logs, |records| records.truncate(3));
    });
    assert_eq!(violations, [Violation::Vanished { node: 2, offset: 3, then: Some(id(1, 3)) }]);
}

#[test]
fn a_reader_that_sees_less_than_was_acknowledged_or_read_before_it_asked() {
    for answer in [Answer::Records { first: 1, records: Vec::new() }, Answer::OutOfRange] {
        // Record 1 was acknowledged at 15.
        let late = verdict(|history, _| history.fetches.push(fetch(16, 1, answer.clone())));
        assert_eq!(late, [Violation::Stale { node: 2, from: 1, known: 2 }]);
        let early = verdict(|history, _| history.fetches.push(fetch(14, 1, answer.clone())));
        assert_eq!(early, []);
    }
}

#[test]
fn a_cursor_that_skips() {
    let skip = |history: &mut History| _ = history.deliveries.get_mut("g").expect("there").remove(1);
    let violations = verdict(|history, _| skip(history));
    assert_eq!(violations, [Violation::Skipped { group: "g".into(), from: 1, to: 2 }]);
    let lost_reply = verdict(|history, _| {
        skip(history);
        history.deliveries.get_mut("g").expect("there").insert(1, Delivery::Unknown);
    });
    assert_eq!(lost_reply, [], "a reply that was lost explains one missing record");
}

#[test]
fn a_cursor_may_repeat_after_a_failover() {
    let violations = verdict(|history, _| {
        let deliveries = history.deliveries.get_mut("g").expect("there");
        deliveries.insert(2, Delivery::Record(Some(id(1, 0))));
        deliveries.insert(3, Delivery::Record(Some(id(1, 1))));
    });
    assert_eq!(violations, []);
}
