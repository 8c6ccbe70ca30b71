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
pub mod admin;
pub mod broker;
pub mod client;
pub mod clock;
pub mod config;
pub mod error;
pub mod log;
pub mod metadata;
pub mod node;
pub mod peer;
pub mod protocol;
pub mod server;
pub mod status;
pub mod store;
pub mod types;
