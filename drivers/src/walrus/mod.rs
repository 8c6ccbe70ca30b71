//! Our broker over TCP: the shipped `walrus` binary as a process of its own.
//!
//! Variants: `put` (one record a request, pipelined) and `append` (records of a topic coalesced
//! into `APPEND` batches). On a cluster `put` talks to any node, and `put-direct` to the node that
//! leads the topic, which it learns from `STATE`, as Kafka's clients do from metadata. With `all`,
//! every replica must have a record before it is acknowledged (`acks=all` at `REGISTER`), not only
//! most of them. `raft` is for runs in which a leader is killed: it is a node that leads Raft, too.
//!
//! Settings: `server`, a table of the binary's own flags without dashes, and those of the client,
//! listed in [`CLIENT_SETTINGS`].

mod client;
mod cluster;
mod producer;
mod routed;
mod server;

pub(crate) use client::ClientSession;

use std::path::Path;
use std::process::Command;

use crate::{Deployment, DriverError, Server, Session, Setup, System, Tools};

/// Settings of the client:
/// `max_write_bytes` (requests are collected up to this many bytes, then written), `linger_us`
/// (the longest that a collected request waits for more), `append_bytes` (bytes of records in one
/// `APPEND`), `fetch_bytes` (bytes that one `FETCH` asks for).
pub const CLIENT_SETTINGS: [&str; 4] = ["max_write_bytes", "linger_us", "append_bytes", "fetch_bytes"];

/// The `walrus` broker.
#[derive(Debug, Default)]
pub struct Walrus;

impl System for Walrus {
    fn name(&self) -> &'static str {
        "walrus"
    }

    fn deployment(&self) -> Deployment {
        Deployment::Networked
    }

    fn version(&self, tools: &Tools) -> String {
        let output = tools.walrus_bin.as_ref().and_then(|binary| Command::new(binary).arg("--version").output().ok());
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        text.filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".to_owned())
    }

    fn check(&self, tools: &Tools) -> Result<(), DriverError> {
        server::binary(tools).map(|_: &Path| ())
    }

    fn start(&self, setup: &Setup) -> Result<Option<Box<dyn Server>>, DriverError> {
        server::start(setup).map(Some)
    }

    fn open(&self, setup: &Setup) -> Result<Box<dyn Session>, DriverError> {
        Ok(Box::new(ClientSession::open(setup)?))
    }
}
