//! How long a topic takes no writes while a node is lost.

use std::time::{Duration, Instant};

/// How long each topic of a lane was without an acknowledgement.
#[derive(Debug)]
pub(super) struct Pauses {
    /// Pauses that end earlier do not count.
    after: Instant,
    acked_at: Vec<Instant>,
    longest: Duration,
}

impl Pauses {
    /// A lane that writes to so many topics in turn.
    pub(super) fn new(start: Instant, after: Duration, topics: usize) -> Pauses {
        Pauses { after: start + after, acked_at: vec![start; topics], longest: Duration::ZERO }
    }

    /// Tickets `first..end` are acknowledged.
    pub(super) fn acked(&mut self, first: u64, end: u64, now: Instant) {
        let topics = self.acked_at.len() as u64;
        for ticket in first..end.min(first + topics) {
            self.ended((ticket % topics) as usize, now);
        }
    }

    fn ended(&mut self, slot: usize, now: Instant) {
        let pause = now.saturating_duration_since(self.acked_at[slot]);
        if now > self.after {
            self.longest = self.longest.max(pause);
        }
        self.acked_at[slot] = self.acked_at[slot].max(now);
    }

    /// A topic that is silent at the end of the load has been so until then.
    pub(super) fn finish(mut self, end: Option<Instant>) -> Duration {
        if let Some(end) = end {
            (0..self.acked_at.len()).for_each(|slot| self.ended(slot, end));
        }
        self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_without_acknowledgements_is_noticed_beside_those_that_have_them() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut pauses = Pauses::new(start, Duration::from_millis(100), 2);
        pauses.acked(0, 2, at(90));
        // Topic 1 is silent from 90 to 400, topic 0 is not.
        (100..400).step_by(10).for_each(|ms| pauses.acked(2, 3, at(ms)));
        assert!(pauses.longest <= Duration::from_millis(10));
        pauses.acked(3, 4, at(400));
        assert_eq!(pauses.longest, Duration::from_millis(310));
        // Topic 0 never comes back.
        assert_eq!(pauses.finish(Some(at(900))), Duration::from_millis(510));
    }
}
