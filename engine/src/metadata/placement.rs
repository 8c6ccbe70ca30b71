//! Who holds the next segment, and who recovers one: what the Raft leader fills into a proposal
//! just before it appends it, because only the Raft leader knows which leases run.

use std::collections::BTreeMap;

use super::state::{Command, Placement, Replica, Run, SegmentAt, State};

/// Nodes whose lease runs, with the run that holds it.
pub(super) type Live = BTreeMap<u64, u64>;

/// Too few nodes are alive for what was proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooFew {
    /// Live nodes that are needed.
    pub(super) needed: usize,
    /// Live nodes that there are.
    pub(super) live: usize,
}

/// Fills placements and recoverers in. `turn` is any number that goes on from one topic to the
/// next, so that first segments spread over the nodes.
pub(super) fn fill_in(command: &mut Command, state: &State, live: &Live, turn: u64) -> Result<(), TooFew> {
    let all = live;
    let live = &stayers(state, live);
    match command {
        Command::CreateTopic { config, placement, .. } => {
            let first = live.keys().nth(turn as usize % live.len().max(1));
            *placement = place(state, live, config.replicas, first.copied().unwrap_or_default())?;
        }
        Command::SealAndOpen { closings, .. } => {
            for closing in closings {
                // A topic that is gone makes the closing stale; it needs no placement.
                let Some((_, topic)) = state.topic_by_id(closing.segment.uid.topic_id) else { continue };
                let after = topic.last().leader;
                let next = live.range(after + 1..).chain(live.range(..=after)).next();
                let leader = next.map(|(node_id, _)| *node_id).unwrap_or_default();
                closing.next = place(state, live, topic.config.replicas, leader)?;
            }
        }
        Command::BeginSeal { segments, recoverers } => {
            *recoverers = segments
                .iter()
                .map(|at| recoverer(state, all, *at))
                .collect::<Option<_>>()
                .ok_or(TooFew { needed: 1, live: 0 })?;
        }
        _ => {}
    }
    Ok(())
}

/// Live nodes that are not to leave.
fn stayers(state: &State, live: &Live) -> Live {
    live.iter().filter(|(node_id, _)| !state.leaving.contains(node_id)).map(|(id, run)| (*id, *run)).collect()
}

/// The set for an opening: `leader` and the live nodes after it, R of them if there are so many,
/// and never fewer than the write quorum of R.
fn place(state: &State, live: &Live, asked: u32, leader: u64) -> Result<Placement, TooFew> {
    let full = (asked as usize).min(state.members()).max(1);
    let write_quorum = full / 2 + 1;
    let ring = live.range(leader..).chain(live.range(..leader));
    let replicas: Vec<Replica> = ring
        .filter_map(|(node_id, _)| {
            let disk_id = state.nodes.get(node_id)?.disk_id.clone();
            Some(Replica { node_id: *node_id, disk_id })
        })
        .take(full)
        .collect();
    match live.get(&leader) {
        Some(leader_run) if replicas.len() >= write_quorum => {
            Ok(Placement { leader, leader_run: *leader_run, replicas, write_quorum: write_quorum as u32 })
        }
        _ => Err(TooFew { needed: write_quorum, live: replicas.len() }),
    }
}

/// A live node of the segment's set, not its leader if another one lives. `None`: no node of the
/// set lives. A segment that is not there any more makes the command stale, whoever is named.
pub(super) fn recoverer(state: &State, live: &Live, at: SegmentAt) -> Option<Run> {
    let Some((_, topic)) = state.topic_by_id(at.uid.topic_id) else { return Some(Run::default()) };
    let segment = topic.last();
    let alive = |node_id: u64| live.get(&node_id).map(|run_id| Run { node_id, run_id: *run_id });
    let others: Vec<Run> = segment
        .replicas
        .iter()
        .filter(|replica| replica.node_id != segment.leader)
        .filter_map(|replica| alive(replica.node_id))
        .collect();
    let chosen = others.get(at.uid.topic_id as usize % others.len().max(1)).copied();
    chosen.or_else(|| alive(segment.leader))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::state::{Closing, NodeInfo, TopicConfig};
    use crate::types::{AckPolicy, SegmentUid, Tier};

    fn state(nodes: u64) -> State {
        let mut state = State::default();
        for node_id in 1..=nodes {
            let info = NodeInfo {
                generation: 0,
                disk_id: format!("disk {node_id}"),
                run_id: 10 * node_id,
                peer_address: String::new(),
                client_address: String::new(),
            };
            state.apply(&Command::RegisterNode { node_id, info });
        }
        state
    }

    fn live(nodes: &[u64]) -> Live {
        nodes.iter().map(|node_id| (*node_id, 10 * node_id)).collect()
    }

    fn create(replicas: u32) -> Command {
        let config = TopicConfig {
            replicas,
            tier: Tier::PageCache,
            acks: AckPolicy::Quorum,
            segment_entries: 10,
            segment_bytes: 1000,
            retention_bytes: None,
            retention_ms: None,
        };
        Command::CreateTopic { name: "t".into(), config, placement: Placement::default(), at_ms: 0 }
    }

    fn created(nodes: u64, alive: &[u64], replicas: u32, turn: u64) -> Result<Placement, TooFew> {
        let mut command = create(replicas);
        fill_in(&mut command, &state(nodes), &live(alive), turn)?;
        let Command::CreateTopic { placement, .. } = command else { panic!("the command stays what it is") };
        Ok(placement)
    }

    fn nodes_of(placement: &Placement) -> Vec<u64> {
        placement.replicas.iter().map(|replica| replica.node_id).collect()
    }

    #[test]
    fn the_set_is_as_large_as_asked_but_no_larger_than_the_cluster() {
        let one = created(1, &[1], 3, 0).expect("is placed");
        assert_eq!((nodes_of(&one), one.write_quorum, one.leader_run), (vec![1], 1, 10));
        let three = created(5, &[1, 2, 3, 4, 5], 3, 3).expect("is placed");
        assert_eq!((three.leader, nodes_of(&three), three.write_quorum), (4, vec![4, 5, 1], 2));
    }

    #[test]
    fn the_quorum_counts_registered_nodes_not_live_ones() {
        let two = created(3, &[1, 3], 3, 1).expect("is placed");
        assert_eq!((two.leader, nodes_of(&two), two.write_quorum), (3, vec![3, 1], 2));
        assert_eq!(created(3, &[2], 3, 0), Err(TooFew { needed: 2, live: 1 }));
        assert_eq!(created(3, &[], 3, 0), Err(TooFew { needed: 2, live: 0 }));
    }

    #[test]
    fn a_node_that_is_to_leave_gets_no_segments_and_is_not_counted() {
        let mut state = state(3);
        state.apply(&Command::LeaveNode { node_id: 2, generation: 0 });
        for turn in 0..3 {
            let mut command = create(3);
            fill_in(&mut command, &state, &live(&[1, 2, 3]), turn).expect("is placed");
            let Command::CreateTopic { placement, .. } = command else { panic!("the command stays what it is") };
            assert_eq!((placement.replicas.len(), placement.write_quorum), (2, 2));
            assert!(!nodes_of(&placement).contains(&2));
        }
    }

    fn with_topic(leader_turn: u64) -> (State, SegmentAt) {
        let mut state = state(3);
        let mut command = create(3);
        fill_in(&mut command, &state, &live(&[1, 2, 3]), leader_turn).expect("is placed");
        state.apply(&command);
        (state, SegmentAt { uid: SegmentUid { topic_id: 4, number: 1 }, epoch: 1 })
    }

    #[test]
    fn the_next_leader_is_the_next_live_node() {
        let next = |turn, alive: &[u64]| {
            let (state, segment) = with_topic(turn);
            let closing = Closing {
                segment,
                count: 1,
                bytes: 1,
                possible_loss: false,
                holders: None,
                next: Placement::default(),
                cursors: Vec::new(),
            };
            let mut command = Command::SealAndOpen { closings: vec![closing], at_ms: 0 };
            fill_in(&mut command, &state, &live(alive), 0).expect("is placed");
            let Command::SealAndOpen { closings, .. } = command else { panic!("the command stays what it is") };
            closings[0].next.leader
        };
        assert_eq!([next(0, &[1, 2, 3]), next(1, &[1, 2, 3]), next(2, &[1, 2, 3])], [2, 3, 1]);
        assert_eq!([next(0, &[1, 3]), next(2, &[2, 3])], [3, 2]);
    }

    #[test]
    fn a_recoverer_is_alive_and_not_the_one_that_was_lost() {
        let (state, at) = with_topic(0);
        assert_eq!(recoverer(&state, &live(&[2, 3]), at).map(|run| run.node_id), Some(2));
        assert_eq!(recoverer(&state, &live(&[1, 3]), at), Some(Run { node_id: 3, run_id: 30 }));
        assert_eq!(recoverer(&state, &live(&[1]), at), Some(Run { node_id: 1, run_id: 10 }));
        assert_eq!(recoverer(&state, &live(&[]), at), None);
    }
}
