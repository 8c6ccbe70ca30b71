//! Topics: appending, rolling over, acknowledging, reading, cursors, retention.
//!
//! ```text
//! try_append ──▶ open segment ──full or failed──▶ rollover: close, wait for the watermark,
//!      ▲              │                             propose SealAndOpen, open the next
//!      └── wait ◀─────┼───────────────────────────────────────┘
//!                     └──▶ acks: one FIFO a connection, answered as watermarks pass
//! ```

pub mod acks;
pub mod cursor;
pub mod reader;
pub mod retention;
pub mod rollover;
pub mod startup;
pub mod topic;
pub mod topics;
pub mod writer;
