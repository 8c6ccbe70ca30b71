//! What a client is told when a request fails.

use std::fmt;
use std::sync::Arc;

use crate::metadata::MetadataError;
use crate::protocol::ErrorCode;
use crate::store::StoreError;

/// A refused request: the stable code, and a text for people. `Clone`, because one failed write
/// answers many requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What a client acts on.
    pub code: ErrorCode,
    /// What a person reads.
    pub text: Arc<str>,
}

impl Refusal {
    /// A refusal with this text.
    pub fn new(code: ErrorCode, text: impl Into<Arc<str>>) -> Self {
        Refusal { code, text: text.into() }
    }

    /// No topic of this name.
    pub fn unknown_topic(name: &str) -> Self {
        Refusal::new(ErrorCode::UnknownTopic, format!("there is no topic {name}"))
    }

    /// The broker is going down; nothing was done.
    pub fn stopping() -> Self {
        Refusal::new(ErrorCode::NotReady, "the broker is stopping")
    }

    /// The offset is not there. The text begins with the first offset that is.
    pub fn out_of_range(first_offset: u64, tail: u64) -> Self {
        Refusal::new(
            ErrorCode::OffsetOutOfRange,
            format!("{first_offset} is the first offset kept, {tail} the next to be written"),
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.text)
    }
}

impl std::error::Error for Refusal {}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::DiskFull => ErrorCode::DiskFull,
            StoreError::PoolEmpty => ErrorCode::Overloaded,
            StoreError::Closed | StoreError::Cut { .. } => ErrorCode::NotReady,
            StoreError::Undecided { .. } => ErrorCode::Timeout,
            StoreError::Corrupt { .. } => ErrorCode::Corrupt,
            _ => ErrorCode::Internal,
        };
        Refusal::new(code, error.to_string())
    }
}

impl From<MetadataError> for Refusal {
    fn from(error: MetadataError) -> Self {
        let code = match &error {
            MetadataError::Stopped | MetadataError::NoLeader | MetadataError::TooFewNodes { .. } => ErrorCode::NotReady,
            MetadataError::Unknown => ErrorCode::Timeout,
            MetadataError::Full => ErrorCode::DiskFull,
            _ => ErrorCode::Internal,
        };
        Refusal::new(code, error.to_string())
    }
}
