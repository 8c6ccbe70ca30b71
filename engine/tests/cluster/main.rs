//! Real clusters: several `walrus` processes, one scenario a file, each reading like its description.
//!
//! While faults happen, producers and readers work on all nodes and write down every request and
//! reply ([`support::history`]). Afterwards [`support::checker`] decides from that alone whether the
//! cluster kept its promises.
//!
//! Scenarios that take long are ignored by `cargo test`; `make cluster-test` runs all.
#![cfg(target_os = "linux")]

mod support;

mod any_node;
mod empty_disk;
mod followers_killed;
mod full_stop;
mod leader_killed;
mod one_node;
mod original_clients;
mod partitions;
mod paused_leader;
mod rolling_restart;
mod rollover_pause;
mod rotation;
mod status_page;
