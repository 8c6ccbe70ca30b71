//! Reader positions: `GET` moves them, `SEEK` sets them, and they survive a restart.
//!
//! A move counts at once and is made durable with others, at most five times a second a node. A
//! crash may therefore repeat deliveries, but only those of the last 200 ms: a cursor whose oldest
//! uncommitted move is older delivers nothing more until a commit succeeds.
//!
//! Records are read ahead as long as there is memory set aside for that; a cursor that stands still
//! while a commit is under way gives its own back.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::Instant;

use super::read_ahead::ReadAhead;
use super::reader::{self, Limits, ReadError};
use super::topic::Topic;
use crate::broker::Broker;
use crate::error::Refusal;
use crate::metadata::state::{Command, CursorCommit, CursorInfo, CursorMove, Outcome, SegmentAt};
use crate::protocol::{ErrorCode, SeekTo};
use crate::server::reply_memory::SMALL_BYTES;

/// The group of a `GET` that names none.
pub const SHARED_GROUP: &str = "shared";
/// Age of an uncommitted move at which nothing more is delivered; also the time between commits.
const COMMIT_INTERVAL: Duration = Duration::from_millis(200);
/// How long a `GET` waits for a commit before it answers `NotReady`.
const COMMIT_WAIT: Duration = Duration::from_secs(2);
/// Bytes read ahead for a cursor.
const READ_AHEAD_BYTES: usize = 64 << 10;
/// Groups that a topic may have.
const GROUPS_MAX: usize = 10_000;
/// Moves in one commit: with names as long as they may be its command is less than half of the most
/// that metadata take.
const MOVES_MAX: usize = 1000;

/// All cursors of a topic, by group.
pub struct Cursors {
    groups: Mutex<HashMap<Arc<str>, Arc<Cursor>>>,
}

/// One group's cursor.
pub struct Cursor {
    group: Arc<str>,
    position: AsyncMutex<Position>,
}

/// Where a cursor is, and what it has read ahead.
struct Position {
    at: CursorInfo,
    /// Oldest move that no commit holds.
    uncommitted_since: Option<Instant>,
    /// Oldest move that no commit, not even one under way, holds.
    unsent_since: Option<Instant>,
    ahead: ReadAhead,
}

impl Position {
    /// Nothing moved, nothing read ahead.
    fn at(at: CursorInfo) -> Self {
        Position { at, uncommitted_since: None, unsent_since: None, ahead: ReadAhead::default() }
    }

    /// Starts again from what metadata have, if that is of a newer generation.
    fn reload(&mut self, broker: &Broker, topic: &Topic, group: &str) {
        let known = broker.metadata.view(|state| {
            let (_, info) = state.topic_by_id(topic.id)?;
            info.cursors.get(group).copied()
        });
        if let Some(known) = known.filter(|known| known.generation > self.at.generation) {
            *self = Position::at(known);
        }
    }

    /// Takes the next record that was read ahead.
    fn take_ahead(&mut self) -> Option<Bytes> {
        let record = self.ahead.take()?;
        self.at.offset += 1;
        Some(record)
    }

    /// It has moved and wants to be committed.
    fn moved(&mut self, topic: &Arc<Topic>, committer: &Committer) {
        let now = Instant::now();
        self.uncommitted_since.get_or_insert(now);
        if self.unsent_since.is_none() {
            self.unsent_since = Some(now);
            committer.enqueue(topic);
        }
    }

    fn is_stale(&self) -> bool {
        self.uncommitted_since.is_some_and(|since| since.elapsed() >= COMMIT_INTERVAL)
    }
}

impl Cursors {
    /// The cursors as metadata has them.
    pub fn new(committed: &BTreeMap<String, CursorInfo>) -> Self {
        let groups = committed.iter().map(|(group, at)| (group.as_str().into(), Cursor::new(group, *at))).collect();
        Cursors { groups: Mutex::new(groups) }
    }

    /// The cursor of a group; a new one stands at offset 0.
    fn get(&self, group: &str) -> Result<Arc<Cursor>, Refusal> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cursor) = groups.get(group) {
            return Ok(Arc::clone(cursor));
        }
        if groups.len() >= GROUPS_MAX {
            return Err(Refusal::new(ErrorCode::Overloaded, format!("a topic has at most {GROUPS_MAX} groups")));
        }
        let cursor = Cursor::new(group, CursorInfo::default());
        groups.insert(group.into(), Arc::clone(&cursor));
        Ok(cursor)
    }

    fn all(&self) -> Vec<Arc<Cursor>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Gives back the memory of records that were read ahead.
    fn drop_read_ahead(&self) {
        for cursor in self.all() {
            // A read that is under way may take long, and nobody's commit may wait for it.
            if let Ok(mut position) = cursor.position.try_lock() {
                position.ahead = ReadAhead::default();
            }
        }
    }
}

impl Cursor {
    fn new(group: &str, at: CursorInfo) -> Arc<Self> {
        Arc::new(Cursor { group: group.into(), position: AsyncMutex::new(Position::at(at)) })
    }
}

/// Why a cursor cannot be moved here.
#[derive(Debug)]
pub enum CursorError {
    /// This node does not own the topic's cursors, or not any more: ask who leads it now.
    NotHere,
    /// The next record has so many bytes, more than there is room for. Nothing has moved.
    Larger(usize),
    /// Refused.
    Refused(Refusal),
}

impl From<Refusal> for CursorError {
    fn from(refusal: Refusal) -> Self {
        CursorError::Refused(refusal)
    }
}

/// The next record of a group, if it was read ahead: no wait, no I/O.
pub fn try_next(broker: &Broker, topic: &Arc<Topic>, group: &str) -> Option<Bytes> {
    let cursors = topic.cursors();
    let cursor = cursors.get(group).ok()?;
    let mut position = cursor.position.try_lock().ok()?;
    if position.is_stale() || !owns(broker, topic, &cursors) {
        return None;
    }
    // A large one needs memory first.
    let record = (position.ahead.next_bytes() <= SMALL_BYTES).then(|| position.take_ahead())??;
    position.moved(topic, &broker.committer);
    Some(record)
}

/// Are these the topic's cursors now, and is this node the one that moves them? To be asked with a
/// position locked: whoever ends the segment takes each position under its lock, after it has said
/// so in the chain.
fn owns(broker: &Broker, topic: &Topic, cursors: &Arc<Cursors>) -> bool {
    topic.chain().cursors_here && Arc::ptr_eq(&topic.cursors(), cursors) && broker.lease.is_valid()
}

/// The next record of a group if it has at most `room_bytes`, or `None` at the tail.
pub async fn next(
    broker: &Arc<Broker>,
    topic: &Arc<Topic>,
    group: &str,
    room_bytes: usize,
) -> Result<Option<Bytes>, CursorError> {
    let cursors = topic.cursors();
    let cursor = cursors.get(group)?;
    let deadline = Instant::now() + COMMIT_WAIT;
    loop {
        let mut committed = std::pin::pin!(broker.committer.committed.notified());
        committed.as_mut().enable();
        let mut position = cursor.position.lock().await;
        if !owns(broker, topic, &cursors) {
            return Err(CursorError::NotHere);
        }
        if !position.is_stale() {
            let record = next_locked(broker, topic, &mut position, room_bytes).await?;
            // "Nothing there" is true only if nobody else had gone on by the time of the look.
            if record.is_none() && !owns(broker, topic, &cursors) {
                return Err(CursorError::NotHere);
            }
            return Ok(record);
        }
        drop(position);
        if tokio::time::timeout_at(deadline, committed).await.is_err() {
            let text = "the cursor's last moves could not be made durable yet";
            return Err(Refusal::new(ErrorCode::NotReady, text).into());
        }
    }
}

async fn next_locked(
    broker: &Arc<Broker>,
    topic: &Arc<Topic>,
    position: &mut Position,
    room_bytes: usize,
) -> Result<Option<Bytes>, CursorError> {
    let is_new = position.ahead.is_empty();
    if is_new {
        let (first, tail) = topic.bounds();
        // What retention removed is skipped: it is gone for every reader. Past the tail a cursor
        // can only be if a crash of the machine took records that it had delivered.
        let from = position.at.offset.clamp(first, tail.max(first));
        let limits = Limits { offset: from, max_records: u64::MAX, max_bytes: READ_AHEAD_BYTES, room_bytes };
        let read = match reader::read_anywhere(broker, topic, limits).await {
            Ok(read) if read.count > 0 => read,
            Ok(_) => return Ok(None),
            Err(ReadError::Larger(bytes)) => return Err(CursorError::Larger(bytes)),
            Err(error) => match Refusal::from(error) {
                // `from` was in range: a segment that is just being closed has its end here for a moment.
                refusal if refusal.code == ErrorCode::OffsetOutOfRange => return Ok(None),
                refusal => return Err(refusal.into()),
            },
        };
        position.at.offset = from;
        position.ahead = ReadAhead::new(read.chunks);
    }
    let next_bytes = position.ahead.next_bytes();
    if next_bytes > room_bytes {
        // Whoever has room for it reads it again; nobody else's memory may hold it until then.
        position.ahead = ReadAhead::default();
        return Err(CursorError::Larger(next_bytes));
    }
    let record = position.take_ahead();
    if is_new {
        position.ahead.keep(&broker.read_ahead);
    }
    position.moved(topic, &broker.committer);
    Ok(record)
}

/// Sets a cursor; durable, and applied here, when this returns.
pub async fn seek(broker: &Broker, topic: &Topic, group: &str, to: SeekTo) -> Result<(), CursorError> {
    let cursors = topic.cursors();
    let cursor = cursors.get(group)?;
    let mut position = cursor.position.lock().await;
    if !owns(broker, topic, &cursors) {
        return Err(CursorError::NotHere);
    }
    let (first, tail) = topic.bounds();
    let offset = match to {
        SeekTo::First => first,
        SeekTo::Last => tail,
        SeekTo::Offset(offset) => offset,
    };
    if !(first..=tail).contains(&offset) {
        return Err(Refusal::out_of_range(first, tail).into());
    }
    let generation = position.at.generation;
    let command = Command::Seek { segment: topic.last_at(), group: group.to_owned(), generation, offset };
    match broker.metadata.propose(command).await {
        Ok(Outcome::Stale) => {
            // Another command for this group was first, or the segment has ended: what metadata
            // have counts from now on.
            position.reload(broker, topic, &cursor.group);
            let text = "the cursor was moved by somebody else meanwhile; try again";
            return Err(Refusal::new(ErrorCode::NotReady, text).into());
        }
        Ok(_) => {}
        Err(error) => {
            // It may yet be applied: nothing is delivered from the old position.
            position.reload(broker, topic, &cursor.group);
            return Err(Refusal::from(error).into());
        }
    }
    *position = Position::at(CursorInfo { offset, generation: generation + 1 });
    Ok(())
}

/// A position on its way into metadata.
struct Taken {
    cursor: Arc<Cursor>,
    /// What is being committed.
    position: CursorMove,
}

/// Takes the positions of a topic that no commit holds yet. Hand them to [`settle`] afterwards.
async fn uncommitted(topic: &Topic) -> Vec<Taken> {
    let mut taken = Vec::new();
    for cursor in topic.cursors().all() {
        let mut position = cursor.position.lock().await;
        if position.unsent_since.take().is_some() {
            let position = CursorMove { group: cursor.group.to_string(), cursor: position.at };
            taken.push(Taken { cursor: Arc::clone(&cursor), position });
        }
    }
    taken
}

/// The positions that go into metadata with the end of the segment: all that no commit is known to
/// hold. Nothing is delivered any more when this is called, so they are final.
pub async fn final_positions(topic: &Topic) -> Vec<CursorMove> {
    let mut moves = Vec::new();
    for cursor in topic.cursors().all() {
        let position = cursor.position.lock().await;
        if position.uncommitted_since.is_some() {
            moves.push(CursorMove { group: cursor.group.to_string(), cursor: position.at });
        }
    }
    moves
}

/// Says what became of positions that were taken: committed, or to be tried again.
async fn settle(broker: &Broker, topic: &Topic, taken: Vec<Taken>, committed: bool) {
    let mut again = false;
    for Taken { cursor, position: sent } in taken {
        let mut position = cursor.position.lock().await;
        if position.at.generation != sent.cursor.generation {
            continue;
        }
        if committed {
            position.uncommitted_since = position.unsent_since;
            if position.unsent_since.is_none() {
                // It has stood still meanwhile, and may do so for long.
                position.ahead = ReadAhead::default();
            }
        } else {
            position.unsent_since = position.uncommitted_since;
            // The command may have been applied all the same; a newer generation tells.
            position.reload(broker, topic, &cursor.group);
            if topic.chain().cursors_here {
                again |= position.unsent_since.is_some();
            } else {
                position.ahead = ReadAhead::default();
            }
        }
    }
    if again && let Some(topic) = broker.topics.get(&topic.name).filter(|found| found.id == topic.id) {
        broker.committer.enqueue(&topic);
    }
}

/// Collects moved cursors and commits them in batches.
#[derive(Default)]
pub struct Committer {
    moved: Mutex<HashMap<u64, Arc<Topic>>>,
    wanted: Notify,
    committed: Notify,
}

impl Committer {
    fn enqueue(&self, topic: &Arc<Topic>) {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        if moved.is_empty() {
            self.wanted.notify_one();
        }
        moved.entry(topic.id).or_insert_with(|| Arc::clone(topic));
    }

    /// Commits as moves come, until the broker stops.
    pub async fn run(broker: Arc<Broker>) {
        let stopping = broker.stopping();
        tokio::pin!(stopping);
        loop {
            tokio::select! {
                () = broker.committer.wanted.notified() => {}
                () = &mut stopping => return,
            }
            let next = Instant::now() + COMMIT_INTERVAL;
            commit_moved(&broker).await;
            tokio::time::sleep_until(next).await;
        }
    }
}

/// A topic, and the segment that was open when its moves were taken.
type Place = (Arc<Topic>, SegmentAt);

/// Commits everything that has moved, in as many commands as it takes.
pub async fn commit_moved(broker: &Arc<Broker>) {
    let topics = std::mem::take(&mut *broker.committer.moved.lock().unwrap_or_else(PoisonError::into_inner));
    let mut moved = Vec::with_capacity(topics.len());
    for topic in topics.into_values() {
        let segment = topic.last_at();
        if topic.chain().cursors_here {
            let taken = uncommitted(&topic).await;
            moved.push(((topic, segment), taken));
        } else {
            // The positions went into metadata together with the end of the segment.
            topic.cursors().drop_read_ahead();
        }
    }
    for list in cut(moved, MOVES_MAX) {
        commit(broker, list).await;
        broker.committer.committed.notify_waiters();
    }
    broker.committer.committed.notify_waiters();
}

/// Cuts lists into portions of at most `most` items each, in the order given.
fn cut<P: Clone, T>(lists: Vec<(P, Vec<T>)>, most: usize) -> Vec<Vec<(P, Vec<T>)>> {
    let mut portions = Vec::new();
    let (mut portion, mut room) = (Vec::new(), most);
    for (place, mut items) in lists {
        while !items.is_empty() {
            let rest = items.split_off(items.len().min(room));
            room -= items.len();
            portion.push((place.clone(), items));
            items = rest;
            if room == 0 {
                portions.push(std::mem::take(&mut portion));
                room = most;
            }
        }
    }
    if !portion.is_empty() {
        portions.push(portion);
    }
    portions
}

async fn commit(broker: &Arc<Broker>, list: Vec<(Place, Vec<Taken>)>) {
    let moves = |taken: &[Taken]| taken.iter().map(|taken| taken.position.clone()).collect();
    let commits =
        list.iter().map(|((_, segment), taken)| CursorCommit { segment: *segment, moves: moves(taken) }).collect();
    let outcome = broker.metadata.propose(Command::CommitCursors { commits }).await;
    let applied = match outcome {
        Ok(Outcome::Applied(applied)) => applied,
        Ok(_) => Vec::new(),
        Err(error) => {
            tracing::error!(%error, "reader positions could not be made durable");
            Vec::new()
        }
    };
    for (index, ((topic, _), taken)) in list.into_iter().enumerate() {
        settle(broker, &topic, taken, applied.get(index).copied().unwrap_or(false)).await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::types::SegmentUid;

    #[test]
    fn lists_are_cut_into_portions_and_nothing_is_lost() {
        let lists = vec![("a", vec![1, 2]), ("b", vec![]), ("c", vec![3, 4, 5, 6, 7]), ("d", vec![8])];
        let cut = cut(lists, 3);
        assert_eq!(
            cut,
            [vec![("a", vec![1, 2]), ("c", vec![3])], vec![("c", vec![4, 5, 6])], vec![("c", vec![7]), ("d", vec![8])],]
        );
    }

    #[test]
    fn a_commit_is_small_enough_for_metadata() {
        let long = CursorMove { group: "g".repeat(249), cursor: CursorInfo { offset: u64::MAX, generation: u64::MAX } };
        let segment = SegmentAt { uid: SegmentUid { topic_id: u64::MAX, number: u64::MAX }, epoch: u64::MAX };
        // The most that metadata take is 1 MiB; each move of a topic of its own is the worst case.
        let commits = vec![CursorCommit { segment, moves: vec![long] }; MOVES_MAX];
        let bytes = serde_json::to_vec(&Command::CommitCursors { commits }).unwrap().len();
        assert!(bytes < 1 << 19, "{bytes} bytes");
    }
}
