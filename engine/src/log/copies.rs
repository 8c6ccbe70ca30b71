//! This node's copies of segments that are not sealed, led here or elsewhere: one handle each,
//! whoever asks first (the metadata, a leader's stream, a recovery).

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
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
            // The next one who asks tries again; perhaps one has done so.
            let mut by_uid = lock(&self.by_uid);
            if by_uid.get(&spec.uid).is_some_and(|found| Arc::ptr_eq(found, &entry)) {
                by_uid.remove(&spec.uid);
            }
        }
        opened.clone()
    }

    /// The copy of a segment, if it is open already.
    pub fn get(&self, uid: SegmentUid) -> Option<Copy> {
        lock(&self.by_uid).get(&uid)?.opened.get()?.clone().ok()
    }

    /// Adds the copy of a segment that this node is to lead: from now on a fence meets its handle. False:
    /// a recovery was first, and what it was promised binds another handle.
    pub fn insert(&self, segment: &Segment) -> bool {
        let copy = Copy { segment: segment.clone(), reports: Arc::default() };
        let entry = Entry { opened: OnceLock::from(Ok(copy)) };
        match lock(&self.by_uid).entry(segment.spec().uid) {
            Slot::Occupied(_) => false,
            Slot::Vacant(slot) => {
                slot.insert(Arc::new(entry));
                true
            }
        }
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

#[cfg(all(test, not(feature = "sim")))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::{StoreConfig, Take};
    use crate::types::Tier;

    fn spec(number: u64) -> SegmentSpec {
        SegmentSpec {
            uid: SegmentUid { topic_id: 1, number },
            epoch: 1,
            tier: Tier::PageCache,
            segment_entries: 10,
            segment_bytes: 1 << 20,
        }
    }

    #[test]
    fn a_fence_binds_the_handle_of_the_leader_or_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreConfig::new(dir.path())).unwrap();
        let copies = Copies::default();
        let led = store.create(spec(1));
        assert!(copies.insert(&led));
        let met = copies.open(&store, spec(1)).unwrap().segment;
        store.fence(&[(met, 2)]).unwrap();
        assert!(matches!(led.try_append(&[b"late"], Take::AllOrNone), Err(StoreError::Closed)));
        // The fence comes first.
        copies.open(&store, spec(2)).unwrap();
        assert!(!copies.insert(&store.create(spec(2))));
    }
}
