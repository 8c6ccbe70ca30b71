//! This node's copies of segments that are not sealed, led here or elsewhere: one handle each,
//! whoever asks first (the metadata, a leader's stream, a recovery).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::Notify;

use super::lock;
use crate::metadata::state::SegmentAt;
use crate::store::{Batch, Observer, Segment, SegmentSpec, Store, StoreError};
use crate::types::SegmentUid;

/// The copies by segment.
#[derive(Default)]
pub struct Copies {
    by_uid: Mutex<HashMap<SegmentUid, Arc<Entry>>>,
}

struct Entry {
    opened: OnceLock<Result<Copy, StoreError>>,
}

/// A copy that takes the batches of its leader.
#[derive(Debug, Clone)]
pub struct Copy {
    /// The records.
    pub segment: Segment,
    /// Where it reports what it has stored.
    pub reports: Arc<Reports>,
}

impl Copies {
    /// The copy of a segment; what an earlier run left of it is recovered at the first call. May block.
    pub fn open(&self, store: &Store, spec: SegmentSpec) -> Result<Copy, StoreError> {
        let entry = Arc::clone(
            lock(&self.by_uid).entry(spec.uid).or_insert_with(|| Arc::new(Entry { opened: OnceLock::new() })),
        );
        // Not under the lock: reading a large file must not keep all others waiting.
        let opened = entry.opened.get_or_init(|| {
            let reports = Arc::new(Reports::default());
            let (segment, recovered) = store.open_copy(spec, Arc::<Reports>::clone(&reports))?;
            for range in &recovered.damaged {
                tracing::error!(segment = %spec.uid, ?range, "records of this copy are damaged");
            }
            Ok(Copy { segment, reports })
        });
        if opened.is_err() {
            // The next one who asks tries again.
            lock(&self.by_uid).remove(&spec.uid);
        }
        opened.clone()
    }

    /// The copy of a segment, if it is open already.
    pub fn get(&self, uid: SegmentUid) -> Option<Copy> {
        lock(&self.by_uid).get(&uid)?.opened.get()?.clone().ok()
    }

    /// Adds the copy of a segment that this node leads.
    pub fn insert(&self, segment: &Segment) {
        let copy = Copy { segment: segment.clone(), reports: Arc::default() };
        let entry = Entry { opened: OnceLock::from(Ok(copy)) };
        lock(&self.by_uid).insert(segment.spec().uid, Arc::new(entry));
    }

    /// The segment is sealed, or gone.
    pub fn remove(&self, uid: SegmentUid) -> Option<Copy> {
        lock(&self.by_uid).remove(&uid)?.opened.get()?.clone().ok()
    }
}

/// Where a copy's progress goes: to the stream of its leader, if one is connected.
#[derive(Debug, Default)]
pub struct Reports {
    to: Mutex<Option<(SegmentAt, Arc<Outbox>)>>,
}

impl Reports {
    /// From now on progress is told there.
    pub fn connect(&self, at: SegmentAt, outbox: &Arc<Outbox>) {
        *lock(&self.to) = Some((at, Arc::clone(outbox)));
    }
}

impl Observer for Reports {
    fn submitted(&self, _segment: &Segment, _batch: &Arc<Batch>) {}

    fn progressed(&self, segment: &Segment) {
        if let Some((at, outbox)) = &*lock(&self.to) {
            outbox.stored(*at, segment.watermark());
        }
    }
}

/// Acknowledgements that are on their way to one leader: the newest of each segment.
#[derive(Debug, Default)]
pub struct Outbox {
    stored: Mutex<HashMap<SegmentAt, u64>>,
    /// Rings when something is there.
    pub wake: Notify,
}

impl Outbox {
    fn stored(&self, at: SegmentAt, index: u64) {
        let mut stored = lock(&self.stored);
        let was_empty = stored.is_empty();
        stored.insert(at, index);
        drop(stored);
        if was_empty {
            self.wake.notify_one();
        }
    }

    /// Takes what is there.
    pub fn take(&self) -> HashMap<SegmentAt, u64> {
        std::mem::take(&mut *lock(&self.stored))
    }
}
