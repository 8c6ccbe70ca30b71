//! Recovery of segments whose leader is lost: find out where they end, and close them there.
//!
//! ```text
//! fence every copy ─▶ enough are certain? ─▶ the longest is the end ─▶ copy it forward until a
//!   (with this                 │ no: ask on                            write quorum holds it
//!    epoch)                    ▼                                                  │
//!                    every disk has answered: the longest that is left,           ▼
//!                    and the loss is reported                               SealAndOpen
//! ```
//! All segments that are named for recovery together share their fences: one request a node, one
//! flush there. The end is decided once an epoch; whoever is in doubt about it needs a new
//! `BeginSeal`, and after a restart of this process gets one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::calls::call;
use super::messages::{Call, CallReply, Spec};
use super::quorum::{Answer, End, end};
use crate::broker::Broker;
use crate::clock::now_ms;
use crate::metadata::MetadataError;
use crate::metadata::state::{Closing, Command, Phase, Placement, Replica, SegmentAt};
use crate::store::SegmentSpec;
use crate::types::SegmentUid;

/// Pause before nodes that did not answer are asked again.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Bytes copied at once.
const COPY_BYTES: usize = 1 << 20;
/// Closings in one command.
const CLOSINGS_MAX: usize = 1000;

/// A segment that this node is named to recover.
#[derive(Debug, Clone)]
pub struct Recovery {
    /// What the store needs to know; the epoch is the recovery's.
    pub spec: SegmentSpec,
    /// Its set.
    pub replicas: Vec<Replica>,
    /// Copies that hold every acknowledged record.
    pub write_quorum: usize,
}

/// What is known about one of them so far.
struct State {
    recovery: Recovery,
    /// The newest answer of each copy.
    answers: Vec<Option<Answer>>,
    /// Asked and not answered yet.
    asked: Vec<bool>,
    progress: Progress,
}

enum Progress {
    /// Too few have answered.
    Asking,
    /// A write quorum is being made to hold everything.
    Copying,
    /// Ready to be closed.
    Decided(Closing),
}

/// A segment to fence, and the disk that its set names.
type Question = (Spec, String);

/// What a task of the recovery found out.
enum Found {
    /// Answers of one node, by segment; `None`: it could not be asked.
    Answers { node_id: u64, segments: Vec<SegmentUid>, answers: Option<Vec<Option<Answer>>> },
    /// Time to ask a node again that had no answer.
    Retry { node_id: u64, segments: Vec<SegmentUid> },
    /// A segment may be closed, or the copying failed and its sources are to be asked again.
    Copied { uid: SegmentUid, closing: Option<Closing> },
    /// A command was applied, or has to be repeated.
    Proposed,
}

/// Recovers the segments. Ends once the metadata show that none of them is this node's any more.
pub async fn run(broker: Arc<Broker>, recoveries: Vec<Recovery>) {
    let mut states: HashMap<SegmentUid, State> = recoveries.into_iter().map(State::new).collect();
    let mut tasks: JoinSet<Found> = JoinSet::new();
    let stopped = broker.stopped();
    tokio::pin!(stopped);
    let mut proposing = false;
    loop {
        states.retain(|_, state| is_mine(&broker, state.at()));
        if states.is_empty() {
            return;
        }
        ask(&broker, &mut states, &mut tasks);
        decide(&broker, &mut states, &mut tasks);
        if !proposing {
            proposing = propose(&broker, &states, &mut tasks);
        }
        tokio::select! {
            Some(found) = tasks.join_next() => match found {
                Ok(Found::Answers { node_id, segments, answers }) => {
                    let unanswered = note(&mut states, node_id, &segments, answers);
                    retry_later(node_id, unanswered, &mut tasks);
                }
                Ok(Found::Retry { node_id, segments }) => may_ask_again(&mut states, node_id, &segments),
                Ok(Found::Copied { uid, closing }) => note_copied(&mut states, uid, closing),
                Ok(Found::Proposed) => proposing = false,
                // A task that panicked has said so; what it was for is tried again.
                Err(_) => states.values_mut().for_each(State::reset),
            },
            () = tokio::time::sleep(ASK_AGAIN), if tasks.is_empty() => {}
            () = &mut stopped => return,
        }
    }
}

impl State {
    fn new(recovery: Recovery) -> (SegmentUid, Self) {
        let copies = recovery.replicas.len();
        let uid = recovery.spec.uid;
        let state =
            State { recovery, answers: vec![None; copies], asked: vec![false; copies], progress: Progress::Asking };
        (uid, state)
    }

    fn at(&self) -> SegmentAt {
        SegmentAt { uid: self.recovery.spec.uid, epoch: self.recovery.spec.epoch }
    }

    /// Starts again, unless the end is decided.
    fn reset(&mut self) {
        self.asked.fill(false);
        if matches!(self.progress, Progress::Copying) {
            self.progress = Progress::Asking;
        }
    }
}

fn is_mine(broker: &Broker, at: SegmentAt) -> bool {
    let (node_id, run_id) = (broker.config.node_id, broker.metadata.run_id());
    broker.metadata.view(|state| {
        state.topic_by_id(at.uid.topic_id).is_some_and(|(_, topic)| {
            let last = topic.last();
            let mine = last.phase == Phase::Sealing { recoverer: node_id, recoverer_run: run_id };
            mine && last.number == at.uid.number && last.epoch == at.epoch
        })
    })
}

/// Asks every copy that has not answered, with one request a node.
fn ask(broker: &Arc<Broker>, states: &mut HashMap<SegmentUid, State>, tasks: &mut JoinSet<Found>) {
    let mut by_node: HashMap<u64, Vec<(SegmentUid, Question)>> = HashMap::new();
    for state in states.values_mut().filter(|state| matches!(state.progress, Progress::Asking)) {
        for (index, replica) in state.recovery.replicas.iter().enumerate() {
            if state.answers[index].is_none() && !std::mem::replace(&mut state.asked[index], true) {
                let question = (state.recovery.spec.into(), replica.disk_id.clone());
                by_node.entry(replica.node_id).or_default().push((state.recovery.spec.uid, question));
            }
        }
    }
    for (node_id, questions) in by_node {
        let broker = Arc::clone(broker);
        tasks.spawn(async move {
            let (segments, questions) = questions.into_iter().unzip();
            let asked = call(&broker, node_id, Call::Fence { segments: questions }, &Bytes::new()).await;
            let answers = match asked {
                // A node that has promised more knows of a newer recovery; it says nothing to this one.
                Ok((CallReply::Fenced(answers), _)) => {
                    Some(answers.into_iter().map(|answer| answer.ok().map(Answer::from)).collect())
                }
                Ok((CallReply::Failed { reason }, _)) => {
                    tracing::warn!(node = node_id, reason, "a node could not fence its copies");
                    None
                }
                _ => None,
            };
            Found::Answers { node_id, segments, answers }
        });
    }
}

/// Takes the answers of a node; returns the segments for which it had none.
fn note(
    states: &mut HashMap<SegmentUid, State>,
    node_id: u64,
    segments: &[SegmentUid],
    answers: Option<Vec<Option<Answer>>>,
) -> Vec<SegmentUid> {
    let mut answers = answers.unwrap_or_default().into_iter();
    let mut unanswered = Vec::new();
    for uid in segments {
        let answer = answers.next().flatten();
        let Some((state, index)) = find(states, *uid, node_id) else { continue };
        match answer {
            // Replaced whole: an older answer of the same node counts for nothing any more.
            Some(_) => {
                state.answers[index] = answer;
                state.asked[index] = false;
            }
            None => unanswered.push(*uid),
        }
    }
    unanswered
}

fn find(states: &mut HashMap<SegmentUid, State>, uid: SegmentUid, node_id: u64) -> Option<(&mut State, usize)> {
    let state = states.get_mut(&uid)?;
    let index = state.recovery.replicas.iter().position(|replica| replica.node_id == node_id)?;
    Some((state, index))
}

fn retry_later(node_id: u64, segments: Vec<SegmentUid>, tasks: &mut JoinSet<Found>) {
    if !segments.is_empty() {
        tasks.spawn(async move {
            tokio::time::sleep(ASK_AGAIN).await;
            Found::Retry { node_id, segments }
        });
    }
}

fn may_ask_again(states: &mut HashMap<SegmentUid, State>, node_id: u64, segments: &[SegmentUid]) {
    for uid in segments {
        if let Some((state, index)) = find(states, *uid, node_id) {
            state.asked[index] = false;
        }
    }
}

fn note_copied(states: &mut HashMap<SegmentUid, State>, uid: SegmentUid, closing: Option<Closing>) {
    let Some(state) = states.get_mut(&uid) else { return };
    if let Some(closing) = closing {
        state.progress = Progress::Decided(closing);
    } else {
        // A source may have lost what it offered: everybody is asked again.
        state.answers.fill(None);
        state.asked.fill(false);
        state.progress = Progress::Asking;
    }
}

/// Starts to copy where the end is known.
fn decide(broker: &Arc<Broker>, states: &mut HashMap<SegmentUid, State>, tasks: &mut JoinSet<Found>) {
    for state in states.values_mut().filter(|state| matches!(state.progress, Progress::Asking)) {
        let Some(end) = end(&state.answers, state.recovery.write_quorum) else { continue };
        #[cfg(feature = "sim")]
        let end = bugged(broker, state, end);
        if let Some(closing) = close_at_once(state, end) {
            state.progress = Progress::Decided(closing);
            continue;
        }
        state.progress = Progress::Copying;
        let (broker, recovery, answers) = (Arc::clone(broker), state.recovery.clone(), state.answers.clone());
        tasks.spawn(async move {
            let uid = recovery.spec.uid;
            let closing = copy_forward(&broker, &recovery, &answers, end).await;
            if closing.is_none() {
                tokio::time::sleep(ASK_AGAIN).await;
            }
            Found::Copied { uid, closing }
        });
    }
}

/// The end, unless that is the bug that is on.
#[cfg(feature = "sim")]
fn bugged(broker: &Broker, state: &State, end: End) -> End {
    use crate::sim::bugs::{Bug, is_on};
    if !is_on(Bug::SealAtOneCommittedTail) {
        return end;
    }
    let copy = super::reconciler::open_copy(broker, state.recovery.spec);
    End { count: copy.map_or(end.count, |copy| copy.segment.readable_end()).min(end.count), ..end }
}

/// Nothing to copy: enough hold everything already, or there is nothing to hold. (An empty segment
/// leaves the chain, so it needs no copies; waiting for more of its set would only delay it.)
fn close_at_once(state: &State, end: End) -> Option<Closing> {
    let holders = holders(&state.recovery, &state.answers, end);
    let bytes = bytes_of(&state.answers, end);
    (end.count == 0 || holders.len() >= state.recovery.write_quorum)
        .then(|| closing(&state.recovery, end, bytes, holders))
}

/// Copies that are known to hold everything below the end. If there is nothing to hold, everyone
/// who answered will do.
fn holders(recovery: &Recovery, answers: &[Option<Answer>], end: End) -> Vec<Replica> {
    let holds = |answer: &Option<Answer>| match answer {
        Some(Answer::Holds(standing)) => standing.length >= end.count,
        Some(Answer::Unknown) => end.count == 0,
        None => false,
    };
    let pairs = recovery.replicas.iter().zip(answers);
    pairs.filter(|(_, answer)| holds(answer)).map(|(replica, _)| replica.clone()).collect()
}

fn bytes_of(answers: &[Option<Answer>], end: End) -> u64 {
    let longest = answers.iter().flatten().filter_map(|answer| match answer {
        Answer::Holds(standing) if standing.length == end.count => Some(standing.bytes),
        _ => None,
    });
    longest.max().unwrap_or(0)
}

fn closing(recovery: &Recovery, end: End, bytes: u64, holders: Vec<Replica>) -> Closing {
    if end.possible_loss {
        tracing::error!(segment = %recovery.spec.uid, records = end.count, "acknowledged records past the end may be lost");
    }
    Closing {
        segment: SegmentAt { uid: recovery.spec.uid, epoch: recovery.spec.epoch },
        count: end.count,
        bytes,
        possible_loss: end.possible_loss,
        holders: Some(holders),
        next: Placement::default(),
        cursors: Vec::new(),
    }
}

/// Makes a write quorum hold everything below the end: copies of the set first, then nodes that
/// stand in for those that are lost. `None`: a source or too many targets failed.
async fn copy_forward(
    broker: &Arc<Broker>,
    recovery: &Recovery,
    answers: &[Option<Answer>],
    end: End,
) -> Option<Closing> {
    let mut holders = holders(recovery, answers, end);
    for (target, from) in targets(broker, recovery, answers, end) {
        if holders.len() >= recovery.write_quorum {
            break;
        }
        // One source may be damaged where another is sound.
        for source in holders.clone() {
            match copy_to(broker, recovery, source.node_id, target, from, end.count).await {
                Ok(replica) => {
                    holders.push(replica);
                    break;
                }
                Err(error) => tracing::warn!(segment = %recovery.spec.uid, node = target, %error, "a copy failed"),
            }
        }
    }
    let enough = holders.len() >= recovery.write_quorum;
    enough.then(|| closing(recovery, end, bytes_of(answers, end), holders))
}

/// Nodes to copy to, with the index from which on they lack records.
fn targets(broker: &Broker, recovery: &Recovery, answers: &[Option<Answer>], end: End) -> Vec<(u64, u64)> {
    let of_set = recovery.replicas.iter().zip(answers).filter_map(|(replica, answer)| match answer {
        Some(Answer::Holds(standing)) if standing.length < end.count => Some((replica.node_id, standing.length)),
        Some(Answer::Unknown) => Some((replica.node_id, 0)),
        _ => None,
    });
    let in_set = |node_id: &u64| recovery.replicas.iter().any(|replica| replica.node_id == *node_id);
    let others: Vec<u64> = broker.metadata.view(|state| state.nodes.keys().copied().collect());
    of_set.chain(others.into_iter().filter(|node_id| !in_set(node_id)).map(|node_id| (node_id, 0))).collect()
}

async fn copy_to(
    broker: &Arc<Broker>,
    recovery: &Recovery,
    source: u64,
    target: u64,
    mut from: u64,
    count: u64,
) -> std::io::Result<Replica> {
    let spec = recovery.spec.into();
    let failed = |what: &str| std::io::Error::other(what.to_owned());
    loop {
        let read = Call::Read { spec, from, max_bytes: COPY_BYTES };
        let (CallReply::Batches { end_index, .. }, batches) = call(broker, source, read, &Bytes::new()).await? else {
            return Err(failed("the source could not be read"));
        };
        if end_index <= from {
            return Err(failed("the source has lost what it offered"));
        }
        let (reply, _) = call(broker, target, Call::Copy { spec }, &batches).await?;
        match reply {
            CallReply::Stored { stored, disk_id, .. } if stored >= count => {
                return Ok(Replica { node_id: target, disk_id });
            }
            CallReply::Stored { stored, .. } if stored == end_index || stored < from => from = stored,
            CallReply::Failed { reason } => return Err(failed(&reason)),
            _ => return Err(failed("the target did not store what it was sent")),
        }
    }
}

/// Proposes to close whatever is decided. The closings of an epoch never change, so they may be
/// proposed as often as it takes.
fn propose(broker: &Arc<Broker>, states: &HashMap<SegmentUid, State>, tasks: &mut JoinSet<Found>) -> bool {
    let decided = states.values().filter_map(|state| match &state.progress {
        Progress::Decided(closing) => Some(closing.clone()),
        _ => None,
    });
    let closings: Vec<Closing> = decided.take(CLOSINGS_MAX).collect();
    if closings.is_empty() {
        return false;
    }
    let broker = Arc::clone(broker);
    tasks.spawn(async move {
        match broker.metadata.propose(Command::SealAndOpen { closings, at_ms: now_ms() }).await {
            Ok(_) => {}
            Err(error) => {
                if !matches!(error, MetadataError::Unknown | MetadataError::NoLeader) {
                    tracing::warn!(%error, "recovered segments cannot be closed yet");
                }
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
        Found::Proposed
    });
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Certainty, Standing};
    use crate::types::Tier;

    /// A set of two, both of which must hold every record; only the first has answered.
    fn one_of_two(length: u64) -> State {
        let replica = |node_id: u64| Replica { node_id, disk_id: format!("disk {node_id}") };
        let spec = SegmentSpec {
            uid: SegmentUid { topic_id: 6, number: 6 },
            epoch: 9,
            tier: Tier::PageCache,
            segment_entries: 10,
            segment_bytes: 1000,
        };
        let mut state = State::new(Recovery { spec, replicas: vec![replica(1), replica(3)], write_quorum: 2 }).1;
        state.answers[0] = Some(Answer::Holds(Standing { length, bytes: 0, certainty: Certainty::Exact }));
        state
    }

    #[test]
    fn an_empty_segment_is_closed_as_soon_as_its_end_is_known() {
        let state = one_of_two(0);
        let end = end(&state.answers, 2).expect("one of two is enough to know the end");
        let closing = close_at_once(&state, end).expect("nothing is to be copied");
        assert_eq!((closing.count, closing.possible_loss), (0, false));
    }

    #[test]
    fn a_segment_with_records_waits_until_a_write_quorum_holds_them() {
        let state = one_of_two(5);
        let end = end(&state.answers, 2).expect("one of two is enough to know the end");
        assert!(close_at_once(&state, end).is_none());
    }
}
