//! Three real brokers, killed and started again: nothing acknowledged is lost, whichever node is asked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc, missing_docs, reason = "tests")]

mod alone;
mod doubt;
mod failover;
mod followers;
mod forwarded;
mod late_leader;
mod leaving;
mod letting_go;
#[path = "../support/loopback.rs"]
mod loopback;
mod peer;
mod repair;
mod rotation;
#[path = "../support/signal.rs"]
mod signal;
mod support;
