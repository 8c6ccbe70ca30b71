//! S7: what a disk has promised to a recovery, it keeps, across restarts too.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::trace;
use crate::store::disk::Disk;
use crate::types::SegmentUid;

#[derive(Default)]
struct Promises {
    /// The newest epoch that a recovery was told of, by disk and segment.
    told: BTreeMap<(usize, SegmentUid), u64>,
    /// The disk that has promised something last, until somebody asks.
    newest: Option<usize>,
    broken: Option<String>,
}

thread_local! {
    static PROMISES: RefCell<Promises> = RefCell::default();
}

/// What tells disks from each other.
pub fn address(disk: &Arc<dyn Disk>) -> usize {
    Arc::as_ptr(disk).cast::<()>() as usize
}

fn key(disk: &Arc<dyn Disk>, uid: SegmentUid) -> (usize, SegmentUid) {
    (address(disk), uid)
}

/// The disk that has made the newest promise since the last call.
pub fn take_newest() -> Option<usize> {
    PROMISES.with_borrow_mut(|promises| promises.newest.take())
}

/// A recovery is about to hear that nothing older than `epoch` will be taken.
pub(crate) fn told(disk: &Arc<dyn Disk>, uid: SegmentUid, epoch: u64) {
    PROMISES.with_borrow_mut(|promises| {
        let told = promises.told.entry(key(disk, uid)).or_default();
        *told = epoch.max(*told);
        promises.newest = Some(address(disk));
    });
    trace::note("fence", format!("segment {uid}: nothing older than epoch {epoch} is taken"));
}

/// Records of this epoch were taken.
pub(crate) fn taken(disk: &Arc<dyn Disk>, uid: SegmentUid, epoch: u64) {
    PROMISES.with_borrow_mut(|promises| {
        if let Some(told) = promises.told.get(&key(disk, uid)).filter(|told| **told > epoch) {
            let broken = format!("S7: segment {uid}: records of epoch {epoch} were taken, and {told} was promised");
            promises.broken.get_or_insert(broken);
        }
    });
}

/// The segment is closed and whole: nothing that was promised for it matters any more.
pub(crate) fn forgotten(disk: &Arc<dyn Disk>, uid: SegmentUid) {
    PROMISES.with_borrow_mut(|promises| promises.told.remove(&key(disk, uid)));
}

/// The first promise that was not kept.
pub fn broken() -> Option<String> {
    PROMISES.with_borrow(|promises| promises.broken.clone())
}
