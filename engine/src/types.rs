//! The small nouns that every layer shares: identifiers, the durability tier, how many copies an
//! acknowledgement waits for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What an acknowledgement promises (design: durability tier).
///
/// There is a third tier, `memory`, that some compared systems have; Walrus never acknowledges
/// from process memory, so it is not a value here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// The kernel has the bytes: they survive a crash of the process, not of the machine.
    #[default]
    PageCache,
    /// The bytes were flushed to the device: they survive a crash of the machine.
    Synced,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tier::PageCache => "page-cache",
            Tier::Synced => "synced",
        })
    }
}

impl FromStr for Tier {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "page-cache" => Ok(Tier::PageCache),
            "synced" => Ok(Tier::Synced),
            other => Err(format!("tier is `page-cache` or `synced`, not `{other}`")),
        }
    }
}

/// How many copies of a record an acknowledgement waits for.
///
/// It never waits for fewer than the write quorum, and recovery counts on no more than that: `All`
/// only holds acknowledgements back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AckPolicy {
    /// The write quorum: the fastest of the set decide.
    #[default]
    Quorum,
    /// Every copy of the segment's set: the slowest decides, and one that is lost holds writes up
    /// until the next segment is opened without it.
    All,
}

impl AckPolicy {
    /// Copies that must have stored a record of a set of `copies` with this write quorum.
    pub fn needed(self, write_quorum: usize, copies: usize) -> usize {
        match self {
            AckPolicy::Quorum => write_quorum,
            AckPolicy::All => write_quorum.max(copies),
        }
    }
}

impl fmt::Display for AckPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AckPolicy::Quorum => "quorum",
            AckPolicy::All => "all",
        })
    }
}

impl FromStr for AckPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "quorum" => Ok(AckPolicy::Quorum),
            "all" => Ok(AckPolicy::All),
            other => Err(format!("acks is `quorum` or `all`, not `{other}`")),
        }
    }
}

/// Identity of a segment: the same on every replica, and stamped into every batch, so that
/// stale bytes of another file are never taken for this segment's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SegmentUid {
    /// Number of the metadata command that created the topic; never reused.
    pub topic_id: u64,
    /// Position of the segment in its topic's chain, from 1.
    pub number: u64,
}

impl fmt::Display for SegmentUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}/{}", self.topic_id, self.number)
    }
}
