//! Bytes between the socket and the parser.

/// Room that each read has at least.
const MIN_SPACE_BYTES: usize = 16 << 10;

/// A buffer that is filled at its end and consumed at its front. Its memory is kept.
///
/// ```text
///   │ consumed │ filled() │ space() │
///   0        start       end      len
/// ```
#[derive(Debug)]
pub(super) struct ReadBuffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    min_space_bytes: usize,
}

impl ReadBuffer {
    pub(super) fn new(capacity_bytes: usize) -> Self {
        let capacity_bytes = capacity_bytes.max(MIN_SPACE_BYTES);
        ReadBuffer { bytes: vec![0; capacity_bytes], start: 0, end: 0, min_space_bytes: MIN_SPACE_BYTES }
    }

    /// What was read and not consumed.
    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(super) fn consume(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.end - self.start, "only what was read can be consumed");
        self.start += bytes;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// The frame at hand lacks this much. Asks for more room, though never for more than doubles
    /// the buffer, so that a peer's announced length alone does not take memory.
    pub(super) fn expect(&mut self, missing_bytes: usize) {
        self.min_space_bytes = missing_bytes.clamp(MIN_SPACE_BYTES, self.bytes.len().max(MIN_SPACE_BYTES));
    }

    /// Where the next read goes; never empty.
    pub(super) fn space(&mut self) -> &mut [u8] {
        if self.bytes.len() - self.end < self.min_space_bytes {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            let wanted = self.end + self.min_space_bytes;
            if self.bytes.len() < wanted {
                self.bytes.resize(wanted, 0);
            }
        }
        &mut self.bytes[self.end..]
    }

    /// So many bytes were read into `space()`.
    pub(super) fn advance(&mut self, read_bytes: usize) {
        self.end += read_bytes;
        debug_assert!(self.end <= self.bytes.len(), "a read fits in the space it was given");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(buffer: &mut ReadBuffer, bytes: &[u8]) {
        buffer.space()[..bytes.len()].copy_from_slice(bytes);
        buffer.advance(bytes.len());
    }

    #[test]
    fn what_is_not_consumed_survives_moves_and_growth() {
        let mut buffer = ReadBuffer::new(0);
        let mut expected = Vec::new();
        for round in 0..50_u8 {
            let chunk = vec![round; 4_000];
            fill(&mut buffer, &chunk);
            expected.extend_from_slice(&chunk);
            buffer.consume(1_000);
            expected.drain(..1_000);
            assert_eq!(buffer.filled(), expected);
        }
    }

    #[test]
    fn an_announced_length_only_doubles_the_buffer() {
        let mut buffer = ReadBuffer::new(0);
        fill(&mut buffer, &[1; 100]);
        buffer.expect(1 << 30);
        assert!(buffer.space().len() <= 2 * MIN_SPACE_BYTES);
    }
}
