//! What can go wrong between a client and its broker.

use std::io;
use std::time::Duration;

use crate::protocol::error_code::{ErrorCode, Retry};
use crate::protocol::reply::ReplyError;

/// Errors of the client. Each text names the address and, where there is one, the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("connection refused at {addr}; is `walrus --node-id 1` running?")]
    Refused {
        /// Where.
        addr: String,
    },
    /// The address is not of the form `host:port`, or its host has no address.
    #[error("cannot resolve `{addr}`: {source}; an address looks like 127.0.0.1:9091")]
    Resolve {
        /// What was given.
        addr: String,
        /// What the system said.
        source: io::Error,
    },
    /// The connection was not made for another reason.
    #[error("cannot connect to {addr}: {source}")]
    Connect {
        /// Where to.
        addr: String,
        /// What the system said.
        source: io::Error,
    },
    /// The broker did not answer in time; a write may have been stored all the same.
    #[error("no reply from {addr} within {} ms; a write may have been stored", .after.as_millis())]
    TimedOut {
        /// The broker.
        addr: String,
        /// How long was waited.
        after: Duration,
    },
    /// The broker closed the connection.
    #[error("{addr} closed the connection; a write that it had not answered may have been stored")]
    Closed {
        /// The broker.
        addr: String,
    },
    /// Sending or receiving failed.
    #[error("connection to {addr}: {source}")]
    Io {
        /// The broker.
        addr: String,
        /// What the system said.
        source: io::Error,
    },
    /// The broker answered `ERR`.
    #[error("{code}: {text}")]
    Refusal {
        /// The stable code.
        code: ErrorCode,
        /// The broker's text for people.
        text: String,
    },
    /// The broker answered something that the protocol does not know.
    #[error("{addr} does not speak the Walrus protocol: {reason}")]
    NotWalrus {
        /// The broker.
        addr: String,
        /// What was odd.
        reason: String,
    },
    /// The request would be refused; it was not sent.
    #[error("{0}")]
    BadRequest(String),
}

impl ClientError {
    /// The broker's code, if it was the broker that refused.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            ClientError::Refusal { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// May the same request be sent again?
    pub fn retry(&self) -> Retry {
        match self {
            ClientError::Refusal { code, .. } => code.retry(),
            ClientError::Refused { .. } | ClientError::Connect { .. } => Retry::Safe,
            ClientError::TimedOut { .. } | ClientError::Closed { .. } | ClientError::Io { .. } => Retry::MayRepeat,
            ClientError::Resolve { .. } | ClientError::NotWalrus { .. } | ClientError::BadRequest(_) => Retry::Useless,
        }
    }

    pub(super) fn not_walrus(addr: &str, error: ReplyError) -> Self {
        ClientError::NotWalrus { addr: addr.into(), reason: error.to_string() }
    }
}
