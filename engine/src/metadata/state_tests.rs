use proptest::prelude::*;

use super::*;

fn config() -> TopicConfig {
    TopicConfig {
        replicas: 1,
        tier: Tier::PageCache,
        acks: AckPolicy::Quorum,
        segment_entries: 10,
        segment_bytes: 1000,
        retention_bytes: None,
        retention_ms: None,
    }
}

fn placement() -> Placement {
    Placement { leader: 1, leader_run: 7, replicas: vec![Replica { node_id: 1, disk_id: "d".into() }], write_quorum: 1 }
}

fn create(name: &str) -> Command {
    Command::CreateTopic { name: name.into(), config: config(), placement: placement(), at_ms: 5 }
}

fn at(topic_id: u64, number: u64, epoch: u64) -> SegmentAt {
    SegmentAt { uid: SegmentUid { topic_id, number }, epoch }
}

fn seal(segment: SegmentAt, count: u64) -> Command {
    let closing = Closing {
        segment,
        count,
        bytes: 100,
        possible_loss: false,
        holders: None,
        next: placement(),
        cursors: Vec::new(),
    };
    Command::SealAndOpen { closings: vec![closing], at_ms: 6 }
}

fn move_to(segment: SegmentAt, offset: u64, generation: u64) -> Command {
    let moves = vec![CursorMove { group: "g".into(), cursor: CursorInfo { offset, generation } }];
    Command::CommitCursors { commits: vec![CursorCommit { segment, moves }] }
}

fn run(commands: &[Command]) -> (State, Vec<Outcome>) {
    let mut state = State::default();
    let outcomes = commands.iter().map(|command| state.apply(command)).collect();
    (state, outcomes)
}

#[test]
fn a_chain_grows_and_its_offsets_follow_the_sealed_counts() {
    let (state, _) = run(&[create("t"), seal(at(1, 1, 1), 10), seal(at(1, 2, 2), 7)]);
    let topic = &state.topics["t"];
    let bases: Vec<_> = topic.segments.iter().map(|s| (s.number, s.base_offset, s.epoch)).collect();
    assert_eq!(bases, [(1, 0, 1), (2, 10, 2), (3, 17, 3)]);
    assert_eq!(topic.last().phase, Phase::Open);
}

#[test]
fn an_empty_segment_leaves_the_chain_and_its_number_is_not_used_again() {
    let (state, _) = run(&[create("t"), seal(at(1, 1, 1), 10), seal(at(1, 2, 2), 0)]);
    let numbers: Vec<_> = state.topics["t"].segments.iter().map(|s| s.number).collect();
    assert_eq!(numbers, [1, 3]);
    assert_eq!(state.topics["t"].last().base_offset, 10);
}

#[test]
fn a_fence_makes_every_older_epoch_stale() {
    let fence = Command::BeginSeal { segments: vec![at(1, 1, 1)], recoverers: Vec::new() };
    let (state, outcomes) = run(&[create("t"), fence, seal(at(1, 1, 1), 10), seal(at(1, 1, 2), 9)]);
    assert_eq!(outcomes[2], Outcome::Applied(vec![false]));
    assert_eq!(outcomes[3], Outcome::Applied(vec![true]));
    assert_eq!(state.topics["t"].last().base_offset, 9);
}

#[test]
fn a_sealed_count_never_changes() {
    let (before, _) = run(&[create("t"), seal(at(1, 1, 1), 10)]);
    let (after, outcomes) = run(&[create("t"), seal(at(1, 1, 1), 10), seal(at(1, 1, 1), 3), seal(at(1, 1, 2), 3)]);
    assert_eq!(outcomes[2..], [Outcome::Applied(vec![false]), Outcome::Applied(vec![false])]);
    assert_eq!(before.topics, after.topics);
}

#[test]
fn a_name_belongs_to_one_topic_at_a_time_and_an_id_to_one_for_ever() {
    let delete = |id| Command::DeleteTopic { name: "t".into(), id };
    let (state, outcomes) = run(&[create("t"), create("t"), delete(9), delete(1), create("t"), delete(1)]);
    assert_eq!(outcomes[1], Outcome::Exists(1));
    assert_eq!(outcomes[2], Outcome::Stale);
    assert_eq!(outcomes[4], Outcome::Created(5));
    assert_eq!(outcomes[5], Outcome::Stale);
    assert_eq!(state.topic_by_id(5).map(|(name, _)| name), Some("t"));
    assert!(state.topic_by_id(1).is_none());
}

#[test]
fn cursors_only_advance_within_a_generation_and_a_seek_begins_a_new_one() {
    let seek = |generation| Command::Seek { segment: at(1, 1, 1), group: "g".into(), generation, offset: 2 };
    let open = at(1, 1, 1);
    let (state, outcomes) = run(&[
        create("t"),
        move_to(open, 8, 0),
        move_to(open, 5, 0),
        seek(1),
        seek(0),
        move_to(open, 9, 0),
        move_to(open, 3, 1),
    ]);
    assert_eq!(outcomes[3], Outcome::Stale);
    assert_eq!(state.topics["t"].cursors["g"], CursorInfo { offset: 3, generation: 1 });
}

#[test]
fn a_commit_of_a_cursor_that_was_set_meanwhile_says_so() {
    let seek = Command::Seek { segment: at(1, 1, 1), group: "g".into(), generation: 0, offset: 3 };
    let (_, outcomes) = run(&[create("t"), seek, move_to(at(1, 1, 1), 5, 0), move_to(at(1, 1, 1), 5, 1)]);
    assert_eq!(outcomes[2..], [Outcome::Applied(vec![false]), Outcome::Applied(vec![true])]);
}

#[test]
fn cursors_move_only_through_the_open_segment_at_its_epoch() {
    let fence = Command::BeginSeal { segments: vec![at(1, 1, 1)], recoverers: Vec::new() };
    let (state, outcomes) = run(&[create("t"), move_to(at(1, 1, 7), 8, 0), fence, move_to(at(1, 1, 2), 8, 0)]);
    assert_eq!(outcomes[1], Outcome::Applied(vec![false]));
    assert_eq!(outcomes[3], Outcome::Applied(vec![false]));
    assert!(state.topics["t"].cursors.is_empty());
}

#[test]
fn a_recoverer_sets_no_cursors() {
    let moves = vec![CursorMove { group: "g".into(), cursor: CursorInfo { offset: 3, generation: 0 } }];
    let closing = |epoch| Closing {
        segment: at(1, 1, epoch),
        count: 10,
        bytes: 100,
        possible_loss: false,
        holders: None,
        next: placement(),
        cursors: moves.clone(),
    };
    let seal = |epoch| Command::SealAndOpen { closings: vec![closing(epoch)], at_ms: 6 };
    let fence = Command::BeginSeal { segments: vec![at(1, 1, 1)], recoverers: Vec::new() };
    assert_eq!(run(&[create("t"), seal(1)]).0.topics["t"].cursors["g"].offset, 3);
    assert!(run(&[create("t"), fence, seal(2)]).0.topics["t"].cursors.is_empty());
}

#[test]
fn an_opening_and_a_recovery_name_the_run() {
    let recoverer = Run { node_id: 2, run_id: 9 };
    let fence = Command::BeginSeal { segments: vec![at(1, 1, 1)], recoverers: vec![recoverer] };
    let (state, _) = run(&[create("t"), fence]);
    assert_eq!(state.topics["t"].last().leader_run, 7);
    assert_eq!(state.topics["t"].last().phase, Phase::Sealing { recoverer: 2, recoverer_run: 9 });
}

#[test]
fn only_the_copies_of_a_sealed_segment_change_and_only_from_what_the_caller_knows() {
    let (from, to) = (placement().replicas, vec![Replica { node_id: 2, disk_id: "e".into() }]);
    let change = |number, from: &[Replica]| Command::SetReplicas {
        uid: SegmentUid { topic_id: 1, number },
        from: from.to_vec(),
        to: to.clone(),
    };
    let (state, outcomes) = run(&[
        create("t"),
        seal(at(1, 1, 1), 10),
        change(2, &from),
        change(1, &to),
        change(1, &from),
        change(1, &from),
    ]);
    assert_eq!(outcomes[2..], [Outcome::Stale, Outcome::Stale, Outcome::Applied(vec![true]), Outcome::Stale]);
    assert_eq!(state.topics["t"].segments[0].replicas, to);
    assert_eq!(state.topics["t"].segments[1].replicas, from);
}

fn register(node_id: u64, generation: u64, disk_id: &str) -> Command {
    let info = NodeInfo {
        generation,
        disk_id: disk_id.into(),
        run_id: 1,
        peer_address: "p".into(),
        client_address: "c".into(),
    };
    Command::RegisterNode { node_id, info }
}

#[test]
fn a_node_with_another_disk_needs_the_next_generation_and_no_generation_comes_back() {
    let leave = Command::LeaveNode { node_id: 2, generation: 1 };
    let remove = Command::RemoveNode { node_id: 2, generation: 1 };
    let (state, outcomes) = run(&[
        register(2, 0, "d"),
        register(2, 0, "d"),
        register(2, 0, "e"),
        register(2, 1, "e"),
        register(2, 0, "d"),
        remove.clone(),
        leave.clone(),
        remove,
        register(2, 1, "e"),
        leave,
        register(2, 2, "e"),
    ]);
    let applied: Vec<bool> = outcomes.iter().map(|outcome| *outcome != Outcome::Stale).collect();
    assert_eq!(applied, [true, true, false, true, false, false, true, true, false, false, true]);
    assert_eq!(state.nodes[&2].generation, 2);
}

#[test]
fn a_node_stays_while_a_segment_names_it() {
    let leave = Command::LeaveNode { node_id: 1, generation: 0 };
    let remove = Command::RemoveNode { node_id: 1, generation: 0 };
    let delete = Command::DeleteTopic { name: "t".into(), id: 2 };
    let (_, outcomes) = run(&[register(1, 0, "d"), create("t"), leave, remove.clone(), delete, remove]);
    assert_eq!((&outcomes[3], &outcomes[5]), (&Outcome::Stale, &Outcome::Applied(vec![true])));
}

#[test]
fn trimming_removes_whole_sealed_segments_only() {
    let trim = |upto| Command::Trim { topic_id: 1, upto };
    let (state, outcomes) =
        run(&[create("t"), seal(at(1, 1, 1), 10), seal(at(1, 2, 2), 10), trim(9), trim(19), trim(999)]);
    assert_eq!(outcomes[3], Outcome::Stale);
    assert_eq!(outcomes[4], Outcome::Applied(vec![true]));
    assert_eq!(state.topics["t"].first_offset(), 20);
    assert_eq!(state.topics["t"].segments.len(), 1, "the open segment stays");
}

/// Commands that often hit and often miss.
fn any_command() -> impl Strategy<Value = Command> {
    let segment = (1..6u64, 1..4u64, 1..5u64).prop_map(|(id, number, epoch)| at(id, number, epoch));
    prop_oneof![
        "[ab]".prop_map(|name| create(&name)),
        ("[ab]", 1..8u64).prop_map(|(name, id)| Command::DeleteTopic { name, id }),
        (segment.clone(), 0..12u64).prop_map(|(segment, count)| seal(segment, count)),
        segment.clone().prop_map(|segment| Command::BeginSeal { segments: vec![segment], recoverers: Vec::new() }),
        (segment.clone(), 0..30u64, 0..3u64)
            .prop_map(|(segment, offset, generation)| move_to(segment, offset, generation)),
        (1..6u64, 0..30u64).prop_map(|(topic_id, upto)| Command::Trim { topic_id, upto }),
        (segment, 0..3u64, 0..30u64).prop_map(|(segment, generation, offset)| Command::Seek {
            segment,
            group: "g".into(),
            generation,
            offset,
        }),
    ]
}

proptest! {
    #[test]
    fn the_same_commands_give_the_same_state_also_through_a_snapshot(commands in prop::collection::vec(any_command(), 0..60)) {
        let (whole, _) = run(&commands);
        let half = commands.len() / 2;
        let (first, _) = run(&commands[..half]);
        let snapshot = serde_json::to_vec(&first).expect("encodes");
        let mut resumed: State = serde_json::from_slice(&snapshot).expect("decodes");
        for command in &commands[half..] {
            resumed.apply(command);
        }
        prop_assert_eq!(whole, resumed);
    }

    #[test]
    fn a_refused_command_changes_nothing_but_the_count(commands in prop::collection::vec(any_command(), 0..60)) {
        let mut state = State::default();
        for (number, command) in (1..).zip(&commands) {
            let before = state.clone();
            let refused = match state.apply(command) {
                Outcome::Stale | Outcome::Exists(_) => true,
                Outcome::Applied(items) => items.iter().all(|applied| !applied),
                Outcome::Created(_) | Outcome::Registered(_) => false,
            };
            prop_assert_eq!(state.commands, number);
            if refused {
                prop_assert_eq!(&State { commands: before.commands, ..state.clone() }, &before);
            }
        }
    }

    #[test]
    fn every_chain_is_contiguous_and_ends_in_one_unsealed_segment(commands in prop::collection::vec(any_command(), 0..60)) {
        let (state, _) = run(&commands);
        for topic in state.topics.values() {
            for pair in topic.segments.windows(2) {
                let Phase::Sealed { count, .. } = pair[0].phase else { panic!("only the last may be unsealed") };
                prop_assert!(count > 0);
                prop_assert_eq!(pair[0].base_offset + count, pair[1].base_offset);
                prop_assert!(pair[0].number < pair[1].number && pair[0].epoch < pair[1].epoch);
            }
            let unsealed = !matches!(topic.last().phase, Phase::Sealed { .. });
            prop_assert!(unsealed);
        }
    }
}
