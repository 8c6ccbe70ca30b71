//! Reading a profile's settings: a wrong name or type is an error, never a silent default.

use crate::{DriverError, Setup};

/// The settings of one profile table, read by name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings<'a>(&'a toml::Table);

impl<'a> Settings<'a> {
    /// Fails on names that the driver does not know, which are most likely misspelt.
    pub(crate) fn new(setup: &'a Setup, known: &[&str]) -> Result<Settings<'a>, DriverError> {
        match setup.settings.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(wrong(key, &format!("unknown; there are {}", known.join(", ")))),
            None => Ok(Settings(&setup.settings)),
        }
    }

    /// Takes any names: those that the driver does not know go to the system, which refuses what
    /// it does not know either.
    pub(crate) fn any(setup: &'a Setup) -> Settings<'a> {
        Settings(&setup.settings)
    }

    /// A whole number of at least 0.
    pub(crate) fn number(self, name: &str, default: u64) -> Result<u64, DriverError> {
        match self.0.get(name) {
            None => Ok(default),
            Some(value) => value
                .as_integer()
                .and_then(|number| u64::try_from(number).ok())
                .ok_or_else(|| wrong(name, "wants a whole number, 0 or more")),
        }
    }

    /// As [`number`](Self::number), for sizes in memory.
    pub(crate) fn size(self, name: &str, default: usize) -> Result<usize, DriverError> {
        self.number(name, default as u64).map(|number| number as usize)
    }

    /// `true` or `false`.
    pub(crate) fn flag(self, name: &str, default: bool) -> Result<bool, DriverError> {
        match self.0.get(name) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| wrong(name, "wants true or false")),
        }
    }

    /// One of a few words.
    pub(crate) fn word(self, name: &str, default: &'a str, among: &[&str]) -> Result<&'a str, DriverError> {
        let word = match self.0.get(name) {
            None => default,
            Some(value) => value.as_str().unwrap_or_default(),
        };
        if among.contains(&word) {
            return Ok(word);
        }
        Err(wrong(name, &format!("wants one of {}", among.join(", "))))
    }
}

fn wrong(name: &str, why: &str) -> DriverError {
    DriverError::Unavailable {
        cause: format!("setting `{name}`: {why}"),
        remedy: "mend the profile in drivers/profiles".into(),
    }
}
