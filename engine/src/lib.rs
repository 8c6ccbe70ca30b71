//! Walrus: a distributed log.
//!
//! ```text
//! client ──frames──▶ server ──▶ log::topic ──▶ log::writer ──▶ store::Segment ──▶ disk
//!    ▲                                              │               │
//!    └──────────── replies ◀──── acks ◀─────────────┴── watermark ◀─┘
//!
//! other nodes ──data──▶ peer ──▶ log (copies, fences, recovery)
//!             ──control▶ peer ──▶ metadata (Raft: topics, chains of segments, leases)
//! ```
#![cfg_attr(feature = "sim", allow(dead_code, reason = "the simulation does without what ends threads"))]

pub mod admin;
pub mod broker;
pub mod client;
pub mod clock;
pub mod config;
pub mod error;
pub mod exec;
pub mod log;
pub mod metadata;
pub mod net;
pub mod node;
pub mod peer;
pub mod protocol;
pub mod random;
pub mod server;
#[cfg(feature = "sim")]
pub mod sim;
pub mod status;
pub mod store;
pub mod types;
