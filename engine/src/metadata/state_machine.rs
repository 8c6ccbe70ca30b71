//! The state machine as Raft drives it: applies entries, builds and installs snapshots.
//!
//! ```text
//! metadata/snapshot   ┌──────────┬─────────┬───────┬────────┬──────────────────────────────┐
//!                     │ WALRSNAP │ version │ CRC32 │ length │ meta and state as JSON        │
//!                     │          │ u32     │ u32   │ u64    │ `length` bytes                │
//!                     └──────────┴─────────┴───────┴────────┴──────────────────────────────┘
//! ```
//! Little-endian; the CRC covers everything after it. A snapshot travels to other nodes as its JSON.

use std::fs::{self, File};
use std::io::{self, Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use openraft::storage::RaftStateMachine;
use openraft::{
    LogId, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageError, StorageIOError, StoredMembership,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::MetadataError;
use super::log_file::{VERSION, crc, sync_parent, u32_at, u64_at};
use super::raft_types::{Batch, Entry, EntryPayload, NodeId, TypeConfig};
use super::state::{Outcome, State};
use crate::exec;

const MAGIC: &[u8; 8] = b"WALRSNAP";
const HEADER_BYTES: usize = 24;

type Meta = SnapshotMeta<NodeId, openraft::BasicNode>;

/// What has been applied.
#[derive(Default)]
struct Applied {
    state: State,
    last: Option<LogId<NodeId>>,
    membership: StoredMembership<NodeId, openraft::BasicNode>,
}

/// The state as everyone on the node reads it.
pub(super) struct View {
    applied: RwLock<Applied>,
    /// Index of the last entry applied.
    index: watch::Sender<u64>,
    /// Last index that a durable snapshot holds.
    snapshot_index: watch::Sender<u64>,
}

impl View {
    /// Reads the state.
    pub(super) fn read<R>(&self, read: impl FnOnce(&State) -> R) -> R {
        read(&self.applied.read().unwrap_or_else(PoisonError::into_inner).state)
    }

    /// Moves after each apply.
    pub(super) fn index(&self) -> watch::Receiver<u64> {
        self.index.subscribe()
    }

    /// Last index that a durable snapshot holds; the log may be purged up to it.
    pub(super) fn snapshot_index(&self) -> u64 {
        *self.snapshot_index.borrow()
    }

    /// Returns once a durable snapshot holds more than `index`.
    pub(super) async fn wait_snapshot(&self, index: u64) {
        // An error means that the state machine is gone, and with it everyone who asks.
        let _ = self.snapshot_index.subscribe().wait_for(|held| *held > index).await;
    }

    fn change<R>(&self, change: impl FnOnce(&mut Applied) -> R) -> R {
        let mut applied = self.applied.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut applied);
        // Within the lock, so that nobody sees the index of a state that is not there yet.
        self.index.send_replace(applied.last.map_or(0, |id| id.index));
        result
    }
}

/// A snapshot's meta, and its body.
type Kept = (Meta, Vec<u8>);

/// The body of a snapshot, as it is kept and sent.
#[derive(Serialize, Deserialize)]
struct Content {
    meta: Meta,
    state: State,
}

/// The part of a body that is needed before the state is read.
#[derive(Deserialize)]
struct OnlyMeta {
    meta: Meta,
}

/// Drives a [`View`]; also the builder of its snapshots.
#[derive(Clone)]
pub(super) struct StateMachine {
    path: PathBuf,
    view: Arc<View>,
    current: Arc<Mutex<Option<Kept>>>,
    /// Held while a snapshot is written: one that is built here may be overtaken by one that the leader sends.
    keeping: Arc<Mutex<()>>,
}

impl StateMachine {
    /// Starts with the snapshot at `path`, or empty.
    pub(super) fn open(path: &Path) -> Result<Self, MetadataError> {
        let current = read_snapshot(path)?;
        let mut applied = Applied::default();
        if let Some((meta, body)) = &current {
            let content: Content =
                serde_json::from_slice(body).map_err(|error| MetadataError::corrupt(path, &error.to_string()))?;
            (applied.state, applied.last) = (content.state, meta.last_log_id);
            applied.membership = meta.last_membership.clone();
        }
        let index = applied.last.map_or(0, |id| id.index);
        let view = View {
            applied: RwLock::new(applied),
            index: watch::Sender::new(index),
            snapshot_index: watch::Sender::new(index),
        };
        Ok(StateMachine {
            path: path.to_owned(),
            view: Arc::new(view),
            current: Arc::new(Mutex::new(current)),
            keeping: Arc::default(),
        })
    }

    /// The state.
    pub(super) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view)
    }

    /// Makes a snapshot the one that counts, unless there is a newer one already.
    fn keep(&self, meta: &Meta, body: &[u8]) -> io::Result<()> {
        let _keeping = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            if current.as_ref().is_some_and(|(kept, _)| kept.last_log_id > meta.last_log_id) {
                return Ok(());
            }
            *current = Some((meta.clone(), body.to_vec()));
        }
        write_snapshot(&self.path, body)?;
        self.view.snapshot_index.send_replace(meta.last_log_id.map_or(0, |id| id.index));
        Ok(())
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError<NodeId>> {
        let (meta, state) = {
            let applied = self.view.applied.read().unwrap_or_else(PoisonError::into_inner);
            let index = applied.last.map_or(0, |id| id.index);
            let meta = Meta {
                last_log_id: applied.last,
                last_membership: applied.membership.clone(),
                snapshot_id: format!("{index}-{}", applied.state.commands),
            };
            (meta, applied.state.clone())
        };
        let (this, signature) = (self.clone(), meta.signature());
        let built = blocking(move || {
            let body = serde_json::to_vec(&Content { meta: meta.clone(), state })?;
            if let Err(error) = this.keep(&meta, &body) {
                // A full disk is no harm yet: the log is purged only up to what is durable.
                tracing::warn!(%error, "a snapshot of the metadata could not be written");
            }
            Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(body)) })
        });
        Ok(built.await.map_err(|error| StorageIOError::write_snapshot(Some(signature), &error))?)
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<NodeId>>, StoredMembership<NodeId, openraft::BasicNode>), StorageError<NodeId>> {
        let applied = self.view.applied.read().unwrap_or_else(PoisonError::into_inner);
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Vec<Outcome>>, StorageError<NodeId>>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        Ok(self.view.change(|applied| entries.into_iter().map(|entry| apply_entry(applied, entry)).collect()))
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError<NodeId>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &Meta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError<NodeId>> {
        let (this, meta, body) = (self.clone(), meta.clone(), snapshot.into_inner());
        let signature = meta.signature();
        let kept = blocking(move || {
            let content: Content = serde_json::from_slice(&body)?;
            this.keep(&meta, &body)?;
            Ok((meta, content))
        });
        let (meta, content) = kept.await.map_err(|error| StorageIOError::write_snapshot(Some(signature), &error))?;
        self.view.change(|applied| {
            applied.state = content.state;
            applied.last = meta.last_log_id;
            applied.membership = meta.last_membership;
        });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError<NodeId>> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(current
            .as_ref()
            .map(|(meta, body)| Snapshot { meta: meta.clone(), snapshot: Box::new(Cursor::new(body.clone())) }))
    }
}

/// Does what takes long (a flush, a large encoding) elsewhere: heartbeats and leases go on meanwhile.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    exec::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn apply_entry(applied: &mut Applied, entry: Entry) -> Vec<Outcome> {
    applied.last = Some(entry.log_id);
    match entry.payload {
        EntryPayload::Blank => Vec::new(),
        EntryPayload::Normal(batch) => apply_batch(&mut applied.state, &batch, entry.log_id.leader_id.term),
        EntryPayload::Membership(membership) => {
            applied.membership = StoredMembership::new(Some(entry.log_id), membership);
            Vec::new()
        }
    }
}

fn apply_batch(state: &mut State, batch: &Batch, term: u64) -> Vec<Outcome> {
    if batch.term.is_some_and(|wanted| wanted != term) {
        return vec![Outcome::Stale; batch.commands.len()];
    }
    batch.commands.iter().map(|command| state.apply(command)).collect()
}

fn write_snapshot(path: &Path, body: &[u8]) -> io::Result<()> {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&(body.len() as u64).to_le_bytes());
    let mut covered = header[16..].to_vec();
    covered.extend_from_slice(body);
    header[12..16].copy_from_slice(&crc(&covered).to_le_bytes());
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(&header)?;
    file.write_all(body)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_parent(path)
}

/// Meta and body of the snapshot, if there is one.
fn read_snapshot(path: &Path) -> Result<Option<Kept>, MetadataError> {
    let mut bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(MetadataError::io("read", path, error)),
    };
    if bytes.len() < HEADER_BYTES || bytes[..8] != *MAGIC {
        return Err(MetadataError::corrupt(path, "it does not begin as a snapshot does"));
    }
    let found = u32_at(&bytes, 8);
    if found != VERSION {
        return Err(MetadataError::Version { path: path.to_owned(), found, wanted: VERSION });
    }
    let whole = u64_at(&bytes, 16) == (bytes.len() - HEADER_BYTES) as u64;
    if !whole || crc(&bytes[16..]) != u32_at(&bytes, 12) {
        return Err(MetadataError::corrupt(path, "its checksum does not match"));
    }
    let body = bytes.split_off(HEADER_BYTES);
    let content: OnlyMeta =
        serde_json::from_slice(&body).map_err(|error| MetadataError::corrupt(path, &error.to_string()))?;
    Ok(Some((content.meta, body)))
}

#[cfg(test)]
#[path = "storage_tests.rs"]
mod tests;
