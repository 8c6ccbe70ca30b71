//! Records that a cursor has read ahead, within a budget of all cursors.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf, Bytes};

use crate::server::buffers::{Buffers, Reservation};

/// Records from a cursor's position on.
#[derive(Default)]
pub struct ReadAhead {
    /// Each record is `[u32 LE length][bytes]`; no piece is empty.
    pieces: VecDeque<Bytes>,
    /// What it counts for.
    memory: Option<Reservation>,
}

impl ReadAhead {
    /// Not counted yet.
    pub fn new(chunks: Vec<Bytes>) -> Self {
        ReadAhead { pieces: chunks.into(), memory: None }
    }

    /// Nothing is there.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes of the next record.
    pub fn next_bytes(&self) -> usize {
        self.pieces.front().map_or(0, |piece| piece.as_ref().get_u32_le() as usize)
    }

    /// Takes the next record.
    pub fn take(&mut self) -> Option<Bytes> {
        let piece = self.pieces.front_mut()?;
        let length = piece.get_u32_le() as usize;
        let record = piece.split_to(length);
        if piece.is_empty() {
            self.pieces.pop_front();
        }
        if self.pieces.is_empty() {
            self.memory = None;
        }
        Some(record)
    }

    /// Keeps what is left for the next time, if there is memory for it.
    pub fn keep(&mut self, memory: &Arc<Buffers>) {
        if !self.is_empty() {
            let bytes = self.pieces.iter().map(Bytes::len).sum();
            self.memory = memory.try_reserve(bytes);
            if self.memory.is_none() {
                *self = ReadAhead::default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_that_there_is_no_memory_for() {
        let memory = Arc::new(Buffers::new(0, 15));
        let two = || ReadAhead::new(vec![Bytes::from_static(b"\x01\0\0\0a\x01\0\0\0b")]);
        let (mut first, mut second) = (two(), two());
        first.keep(&memory);
        second.keep(&memory);
        assert!(second.is_empty());
        assert_eq!((first.next_bytes(), first.take().as_deref()), (1, Some(&b"a"[..])));
        assert_eq!((memory.used_bytes(), first.take().as_deref()), (10, Some(&b"b"[..])));
        assert_eq!(memory.used_bytes(), 0, "what is taken is counted no more");
    }
}
