//! A sparse index: which batch a record is in, at most 64 KiB of file away.

/// Bytes of file between two entries (unless one batch is larger).
const STRIDE_BYTES: u64 = 64 * 1024;

/// Entries `(index of a batch's first record, file position of the batch)`, rising in both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SparseIndex {
    entries: Vec<(u64, u64)>,
}

impl SparseIndex {
    /// From the entries of a footer.
    pub fn from_entries(entries: Vec<(u64, u64)>) -> Self {
        SparseIndex { entries }
    }

    /// The entries, for a footer.
    pub fn entries(&self) -> &[(u64, u64)] {
        &self.entries
    }

    /// Notes the batch that starts with record `index` at `position`, if it is far enough from
    /// the last noted one.
    pub fn note(&mut self, index: u64, position: u64) {
        if self.entries.last().is_none_or(|(_, last)| position >= last + STRIDE_BYTES) {
            self.entries.push((index, position));
        }
    }

    /// Notes a batch however near the last one is: the first one behind damage must be found
    /// without walking over the damage.
    pub fn note_always(&mut self, index: u64, position: u64) {
        self.entries.push((index, position));
    }

    /// Position of a batch at or before the one that holds record `index`.
    pub fn position_before(&self, index: u64) -> Option<u64> {
        let after = self.entries.partition_point(|(first, _)| *first <= index);
        after.checked_sub(1).map(|at| self.entries[at].1)
    }

    /// Where a read of about `bytes` from `position` should end: on a batch boundary, past at
    /// least one batch. `None`: nothing is noted after `position`.
    pub fn end_of_read(&self, position: u64, bytes: u64) -> Option<u64> {
        let next = self.entries.partition_point(|(_, at)| *at <= position);
        let beyond = self.entries.partition_point(|(_, at)| *at <= position.saturating_add(bytes));
        if beyond == self.entries.len() && beyond > next {
            // The last noted batches fit; how far the rest reaches, only the caller knows.
            return None;
        }
        self.entries.get(beyond.saturating_sub(1).max(next)).map(|(_, at)| *at)
    }

    /// First noted record after `index`.
    pub fn next_index(&self, index: u64) -> Option<u64> {
        self.entries.get(self.entries.partition_point(|(first, _)| *first <= index)).map(|(first, _)| *first)
    }

    /// Forgets batches at and past `position`.
    pub fn cut(&mut self, position: u64) {
        self.entries.truncate(self.entries.partition_point(|(_, at)| *at < position));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_batch_at_or_before_a_record() {
        let mut index = SparseIndex::default();
        for batch in 0..10 {
            index.note(batch * 100, 4096 + batch * 40_000);
        }
        assert_eq!(index.entries(), [(0, 4096), (200, 84_096), (400, 164_096), (600, 244_096), (800, 324_096)]);
        assert_eq!(index.position_before(0), Some(4096));
        assert_eq!(index.position_before(199), Some(4096));
        assert_eq!(index.position_before(200), Some(84_096));
        assert_eq!(index.position_before(5000), Some(324_096));
        assert_eq!(index.next_index(200), Some(400));
        assert_eq!(index.next_index(800), None);
    }

    #[test]
    fn a_read_ends_on_a_boundary_and_makes_progress() {
        let index = SparseIndex::from_entries(vec![(0, 4096), (10, 104_096), (20, 204_096)]);
        assert_eq!(index.end_of_read(4096, 10), Some(104_096), "at least one batch");
        assert_eq!(index.end_of_read(4096, 250_000), None, "the rest of the file fits");
        assert_eq!(index.end_of_read(4096, 150_000), Some(104_096));
        assert_eq!(index.end_of_read(204_096, 10), None);
    }
}
