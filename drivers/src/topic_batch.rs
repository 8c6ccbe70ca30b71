//! Records of one topic, collected for a call that takes many.

use crate::Ack;

/// Copies of records in one block of memory, and the tickets that belong to them.
#[derive(Debug, Default)]
pub(crate) struct TopicBatch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    tickets: Runs,
}

impl TopicBatch {
    pub(crate) fn push(&mut self, ticket: u64, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.ends.push(self.bytes.len());
        self.tickets.push(ticket);
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.bytes[start..end])
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Empties the batch, keeping its memory, and reports its tickets.
    pub(crate) fn settle(&mut self, ok: bool, acks: &mut Vec<Ack>) {
        self.bytes.clear();
        self.ends.clear();
        self.tickets.settle(ok, acks);
    }
}

/// Rising tickets as runs of consecutive ones: `(first, count)`.
#[derive(Debug, Default)]
pub(crate) struct Runs(Vec<(u64, u64)>);

impl Runs {
    pub(crate) fn push(&mut self, ticket: u64) {
        match self.0.last_mut() {
            Some((first, count)) if *first + *count == ticket => *count += 1,
            _ => self.0.push((ticket, 1)),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reports all runs and empties the list, keeping its memory.
    pub(crate) fn settle(&mut self, ok: bool, acks: &mut Vec<Ack>) {
        acks.extend(self.0.drain(..).map(|(first_ticket, count)| Ack { first_ticket, count, ok }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_tickets_as_runs() {
        let mut batch = TopicBatch::default();
        for (ticket, record) in [(3, &b"a"[..]), (4, b""), (7, b"ccc")] {
            batch.push(ticket, record);
        }
        assert_eq!(batch.records().collect::<Vec<_>>(), [&b"a"[..], b"", b"ccc"]);
        let mut acks = Vec::new();
        batch.settle(true, &mut acks);
        let runs: Vec<_> = acks.iter().map(|ack| (ack.first_ticket, ack.count)).collect();
        assert_eq!(runs, [(3, 2), (7, 1)]);
        assert!(batch.is_empty());
    }
}
