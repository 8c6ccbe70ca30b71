//! Which tickets of one producer are acknowledged: a watermark and a bitmap above it.

use std::collections::VecDeque;

/// Ranges of tickets, half open, sorted, not touching.
pub type Ranges = Vec<(u64, u64)>;

/// Collects acknowledgements that come mostly in order. Costs memory only for what is in flight.
#[derive(Debug, Default)]
pub struct AckSet {
    /// Every ticket below is settled: acknowledged, or in `refused`.
    watermark: u64,
    /// Settled tickets from `watermark` rounded down to 64, a bit each.
    bits: VecDeque<u64>,
    /// Tickets that the system refused.
    refused: Ranges,
}

impl AckSet {
    /// Takes the tickets `first..first + count` as settled; each may be settled once.
    pub fn settle(&mut self, first: u64, count: u64, ok: bool) {
        if !ok {
            self.refused.push((first, first + count));
        }
        if first == self.watermark && self.bits.is_empty() {
            self.watermark += count;
            return;
        }
        for ticket in first..first + count {
            self.set(ticket);
        }
        self.advance();
    }

    fn set(&mut self, ticket: u64) {
        let word = (ticket / 64 - self.watermark / 64) as usize;
        if self.bits.is_empty() {
            // The fast path moved the watermark into the middle of this word.
            self.bits.push_back((1u64 << (self.watermark % 64)) - 1);
        }
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        self.bits[word] |= 1 << (ticket % 64);
    }

    fn advance(&mut self) {
        while self.bits.front() == Some(&u64::MAX) {
            self.bits.pop_front();
            self.watermark = (self.watermark / 64 + 1) * 64;
        }
        if let Some(word) = self.bits.front() {
            self.watermark = self.watermark / 64 * 64 + u64::from(word.trailing_ones());
            let open = self.bits.len() > 1 || word >> (self.watermark % 64) != 0;
            if !open {
                self.bits.clear();
            }
        }
    }

    /// Every ticket below is settled.
    pub fn watermark(&self) -> u64 {
        self.watermark
    }

    /// Tickets that the system refused.
    pub fn refused(&self) -> u64 {
        self.refused.iter().map(|(start, end)| end - start).sum()
    }

    /// The acknowledged tickets.
    pub fn acked(&self) -> Ranges {
        let mut settled = Ranges::new();
        push(&mut settled, 0, self.watermark);
        let base = self.watermark / 64 * 64;
        for ticket in self.watermark..base + self.bits.len() as u64 * 64 {
            let offset = ticket - base;
            if self.bits[(offset / 64) as usize] >> (offset % 64) & 1 == 1 {
                push(&mut settled, ticket, ticket + 1);
            }
        }
        let mut refused = self.refused.clone();
        refused.sort_unstable();
        subtract(&settled, &refused)
    }
}

/// Appends `start..end`, joined to the last range if they touch.
fn push(ranges: &mut Ranges, start: u64, end: u64) {
    match ranges.last_mut() {
        Some(last) if last.1 == start => last.1 = end,
        _ if start < end => ranges.push((start, end)),
        _ => {}
    }
}

/// `ranges` without `holes`; both sorted.
fn subtract(ranges: &[(u64, u64)], holes: &[(u64, u64)]) -> Ranges {
    let mut left = Ranges::new();
    for &(mut start, end) in ranges {
        for &(hole_start, hole_end) in holes {
            if hole_end <= start || hole_start >= end {
                continue;
            }
            push(&mut left, start, hole_start.max(start));
            start = hole_end.min(end);
        }
        push(&mut left, start, end);
    }
    left
}

/// Is `ticket` in one of the sorted ranges?
pub fn contains(ranges: &[(u64, u64)], ticket: u64) -> bool {
    let after = ranges.partition_point(|&(start, _)| start <= ticket);
    after > 0 && ticket < ranges[after - 1].1
}

/// How many tickets the ranges hold.
pub fn count(ranges: &[(u64, u64)]) -> u64 {
    ranges.iter().map(|(start, end)| end - start).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_order_acks_only_move_the_watermark() {
        let mut acks = AckSet::default();
        acks.settle(0, 100, true);
        acks.settle(100, 1, true);
        assert_eq!(acks.acked(), [(0, 101)]);
        assert!(acks.bits.is_empty());
    }

    #[test]
    fn acks_out_of_order_meet_in_the_end() {
        // Every ticket mod 7 arrives as its own wave, as from seven partitions.
        let mut acks = AckSet::default();
        acks.settle(0, 30, true);
        for wave in (0..7).rev() {
            for ticket in (30..1000).filter(|ticket| ticket % 7 == wave) {
                assert!(!contains(&acks.acked(), ticket));
                acks.settle(ticket, 1, true);
            }
        }
        assert_eq!(acks.watermark(), 1000);
        assert_eq!(acks.acked(), [(0, 1000)]);
        assert!(acks.bits.is_empty());
        acks.settle(1000, 5, true);
        assert_eq!(acks.watermark(), 1005);
    }

    #[test]
    fn refused_and_missing_tickets_are_not_acked() {
        let mut acks = AckSet::default();
        acks.settle(0, 10, true);
        acks.settle(10, 5, false);
        acks.settle(15, 5, true);
        acks.settle(70, 2, true);
        assert_eq!(acks.acked(), [(0, 10), (15, 20), (70, 72)]);
        assert_eq!(acks.refused(), 5);
        assert_eq!(count(&acks.acked()), 17);
        assert!(contains(&acks.acked(), 71) && !contains(&acks.acked(), 12));
    }
}
