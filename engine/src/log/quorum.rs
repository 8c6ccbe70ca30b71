//! Counting copies: up to where records are committed, and where a lost segment ends. Pure.

use crate::store::{Certainty, Standing};

/// First index that is not stored by `quorum` of the copies. The leader's copy is one like any other.
///
/// ```text
///   stored    a: 90   b: 70   c: 40        quorum 2  →  70
/// ```
pub fn committed_tail(stored: impl IntoIterator<Item = u64>, quorum: usize) -> u64 {
    let mut stored: Vec<u64> = stored.into_iter().collect();
    if quorum == 0 || stored.len() < quorum {
        return 0;
    }
    stored.sort_unstable_by(|a, b| b.cmp(a));
    stored[quorum - 1]
}

/// What a copy answered to a fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The very disk that the set names, with what it holds.
    Holds(Standing),
    /// Another disk, or one that cannot be read: it says nothing about what it once had.
    Unknown,
}

/// Where a fenced segment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Its final number of records.
    pub count: u64,
    /// Acknowledged records may be missing past it.
    pub possible_loss: bool,
}

/// Decides where a segment ends, from the newest answer of each copy of its set (`None`: no answer
/// yet). `None`: too few have answered.
///
/// Every acknowledged record is on `write_quorum` copies. `set − write_quorum + 1` copies that are
/// certain to have lost nothing are one more than could all lack it, so the longest copy has it.
/// When every disk has answered and still too few are certain, the longest one is all that is
/// left, and whoever lost records is told.
pub fn end(answers: &[Option<Answer>], write_quorum: usize) -> Option<End> {
    let needed = (answers.len() + 1).saturating_sub(write_quorum);
    let held = || {
        answers.iter().flatten().filter_map(|answer| match answer {
            Answer::Holds(standing) => Some(standing),
            Answer::Unknown => None,
        })
    };
    let count = held().map(|standing| standing.length).max().unwrap_or(0);
    let certain = held().filter(|standing| standing.certainty == Certainty::Exact).count();
    if certain >= needed {
        return Some(End { count, possible_loss: false });
    }
    answers.iter().all(Option::is_some).then_some(End { count, possible_loss: true })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[allow(clippy::unnecessary_wraps, reason = "an answer as it stands in the list")]
    fn exact(length: u64) -> Option<Answer> {
        Some(Answer::Holds(Standing { length, bytes: 0, certainty: Certainty::Exact }))
    }

    #[allow(clippy::unnecessary_wraps, reason = "an answer as it stands in the list")]
    fn at_least(length: u64) -> Option<Answer> {
        Some(Answer::Holds(Standing { length, bytes: 0, certainty: Certainty::AtLeast }))
    }

    #[test]
    fn two_of_three_must_be_certain_and_the_longest_counts() {
        assert_eq!(end(&[None, exact(3), None], 2), None);
        assert_eq!(end(&[None, exact(3), exact(5)], 2), Some(End { count: 5, possible_loss: false }));
        assert_eq!(end(&[at_least(9), exact(3), exact(5)], 2), Some(End { count: 9, possible_loss: false }));
        assert_eq!(end(&[None, at_least(3), exact(5)], 2), None, "who may have lost records is no witness");
        let lost = [Some(Answer::Unknown), at_least(3), exact(5)];
        assert_eq!(end(&lost, 2), Some(End { count: 5, possible_loss: true }));
    }

    #[test]
    fn a_set_of_one_ends_where_its_copy_says() {
        assert_eq!(end(&[exact(7)], 1), Some(End { count: 7, possible_loss: false }));
        assert_eq!(end(&[at_least(7)], 1), Some(End { count: 7, possible_loss: true }));
        assert_eq!(end(&[Some(Answer::Unknown)], 1), Some(End { count: 0, possible_loss: true }));
        assert_eq!(end(&[None], 1), None);
    }

    proptest! {
        #[test]
        fn the_committed_tail_is_the_highest_index_that_a_quorum_has(
            stored in proptest::collection::vec(0u64..50, 1..7), quorum in 1usize..5,
        ) {
            let tail = committed_tail(stored.iter().copied(), quorum);
            let with = |index: u64| stored.iter().filter(|stored| **stored >= index).count();
            if stored.len() >= quorum {
                prop_assert!(with(tail) >= quorum);
                prop_assert!(with(tail + 1) < quorum);
            } else {
                prop_assert_eq!(tail, 0);
            }
        }

        /// S1: whatever was committed lies below the end, as long as fewer than a quorum of the
        /// copies are lost, whichever copies answer.
        #[test]
        fn nothing_committed_is_cut_off(
            stored in proptest::collection::vec(0u64..20, 1..6),
            answering in proptest::collection::vec(any::<bool>(), 6),
            doubtful in proptest::collection::vec(any::<bool>(), 6),
            kept in proptest::collection::vec(0u64..20, 6),
        ) {
            let quorum = stored.len() / 2 + 1;
            let committed = committed_tail(stored.iter().copied(), quorum);
            let lost = doubtful.iter().take(stored.len()).filter(|lost| **lost).count();
            let answers: Vec<Option<Answer>> = stored.iter().enumerate().map(|(at, length)| {
                if !answering[at] { None } else if doubtful[at] { at_least((*length).min(kept[at])) } else { exact(*length) }
            }).collect();
            if let Some(end) = end(&answers, quorum) {
                prop_assert!(end.count >= committed || (end.possible_loss && lost >= 1));
                // S11, no false alarm: it takes a quorum of lost copies.
                prop_assert!(!end.possible_loss || lost >= quorum);
            }
        }
    }
}
