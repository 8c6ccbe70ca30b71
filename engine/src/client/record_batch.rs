//! Records that go out together.

use crate::protocol::records::put_record;

/// Records for one `APPEND`, encoded as they are pushed: sending them copies nothing more.
#[derive(Debug, Default, Clone)]
pub struct RecordBatch {
    encoded: Vec<u8>,
    records: u64,
}

impl RecordBatch {
    /// An empty one with memory for so many bytes (see [`RecordBatch::bytes`]), which is in place: none
    /// of it is given by the operating system only when a record comes.
    pub fn with_capacity(bytes: usize) -> Self {
        // Written to, since memory that never was is not there yet.
        let mut encoded = vec![1; bytes];
        encoded.clear();
        RecordBatch { encoded, records: 0 }
    }

    /// Copies a record in.
    #[inline]
    pub fn push(&mut self, record: &[u8]) {
        put_record(&mut self.encoded, record);
        self.records += 1;
    }

    /// How many records it holds.
    pub fn len(&self) -> u64 {
        self.records
    }

    /// It holds none.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes that it takes on the wire.
    pub fn bytes(&self) -> usize {
        self.encoded.len()
    }

    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.encoded.clear();
        self.records = 0;
    }

    /// As it goes over the wire.
    pub(super) fn encoded(&self) -> &[u8] {
        &self.encoded
    }
}
