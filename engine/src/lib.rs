//! Walrus: a distributed log.
//!
//! ```text
//! client ──frames──▶ server ──▶ log::topic ──▶ log::writer ──▶ store::Segment ──▶ disk
//!    ▲                                              │               │
//!    └──────────── replies ◀──── acks ◀─────────────┴── watermark ◀─┘
//! ```
pub mod client;
pub mod protocol;
pub mod store;
pub mod types;
