//! The `key=value` settings of `REGISTER`.

use std::fmt;
use std::str::FromStr;

use crate::types::{AckPolicy, Tier};

/// Settings that a `REGISTER` names; what is `None` is left to the broker's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TopicSettings {
    /// Copies of each segment that are asked for.
    pub replicas: Option<u32>,
    /// Durability tier of acknowledgements.
    pub tier: Option<Tier>,
    /// Copies that an acknowledgement waits for.
    pub acks: Option<AckPolicy>,
    /// A segment is full once it holds this many records.
    pub segment_entries: Option<u64>,
    /// A segment is full once it holds this many bytes.
    pub segment_bytes: Option<u64>,
    /// The oldest sealed segments go once the topic holds more than this.
    pub retention_bytes: Option<u64>,
    /// Sealed segments go once their newest record is older than this.
    pub retention_ms: Option<u64>,
}

/// A setting that `REGISTER` does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// Not of the form `key=value`.
    #[error("`{0}` is not of the form key=value")]
    NotAPair(String),
    /// No such key.
    #[error(
        "there is no setting `{0}`; there are replicas, tier, acks, segment_entries, segment_bytes, retention_bytes, retention_ms"
    )]
    UnknownKey(String),
    /// The key came twice.
    #[error("`{0}` is set twice")]
    Twice(&'static str),
    /// The value does not fit the key.
    #[error("{key}: {reason}")]
    BadValue {
        /// Which setting.
        key: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
}

impl TopicSettings {
    /// Takes one `key=value`.
    pub fn set(&mut self, pair: &str) -> Result<(), SettingError> {
        let (key, value) = pair.split_once('=').ok_or_else(|| SettingError::NotAPair(clip(pair)))?;
        match key {
            "replicas" => fill(&mut self.replicas, "replicas", positive(value)),
            "tier" => fill(&mut self.tier, "tier", Tier::from_str(value)),
            "acks" => fill(&mut self.acks, "acks", AckPolicy::from_str(value)),
            "segment_entries" => fill(&mut self.segment_entries, "segment_entries", positive(value)),
            "segment_bytes" => fill(&mut self.segment_bytes, "segment_bytes", positive(value)),
            "retention_bytes" => fill(&mut self.retention_bytes, "retention_bytes", positive(value)),
            "retention_ms" => fill(&mut self.retention_ms, "retention_ms", positive(value)),
            unknown => Err(SettingError::UnknownKey(clip(unknown))),
        }
    }
}

impl fmt::Display for TopicSettings {
    /// ` key=value` for each setting that is there: what stands behind the topic in `REGISTER`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        pair(f, "replicas", self.replicas)?;
        pair(f, "tier", self.tier)?;
        pair(f, "acks", self.acks)?;
        pair(f, "segment_entries", self.segment_entries)?;
        pair(f, "segment_bytes", self.segment_bytes)?;
        pair(f, "retention_bytes", self.retention_bytes)?;
        pair(f, "retention_ms", self.retention_ms)
    }
}

fn pair(f: &mut fmt::Formatter<'_>, key: &str, value: Option<impl fmt::Display>) -> fmt::Result {
    value.map_or(Ok(()), |value| write!(f, " {key}={value}"))
}

fn fill<T>(slot: &mut Option<T>, key: &'static str, value: Result<T, String>) -> Result<(), SettingError> {
    let value = value.map_err(|reason| SettingError::BadValue { key, reason })?;
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(SettingError::Twice(key)),
    }
}

fn positive<T: FromStr + PartialOrd + From<u8>>(value: &str) -> Result<T, String> {
    match super::command::digits::<T>(value) {
        Some(number) if number >= T::from(1) => Ok(number),
        _ => Err(format!("`{}` is not a whole number above 0", clip(value))),
    }
}

/// Error texts repeat what was wrong, but never a whole payload that went astray.
pub(super) fn clip(text: &str) -> String {
    let mut short: String = text.chars().take(32).flat_map(char::escape_debug).collect();
    if text.chars().nth(32).is_some() {
        short.push('…');
    }
    short
}
