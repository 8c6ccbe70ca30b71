//! Real clusters: several `walrus` processes, one scenario a file, each reading like its description.
//!
//! While faults happen, producers and readers work on all nodes and write down every request and
//! reply ([`support::history`]). Afterwards [`support::checker`] decides from that alone whether the
//! cluster kept its promises.
//!
//! Scenarios that take long are ignored by `cargo test`; `make cluster-test` runs all.
#![cfg(target_os = "linux")]

#[path = "../support/loopback.rs"]
mod loopback;
#[path = "../support/signal.rs"]
mod signal;
#[path = "../support/small_disk.rs"]
mod small_disk;
mod support;

mod any_node;
mod disk_full;
mod empty_disk;
mod fetch;
mod followers_killed;
mod full_stop;
mod idle;
mod leader_killed;
mod one_node;
mod original_clients;
mod partitions;
mod paused_leader;
mod raft_entries;
mod rolling_restart;
mod rollover_pause;
mod rotation;
mod status_page;
