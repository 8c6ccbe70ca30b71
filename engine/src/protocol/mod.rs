//! The client protocol: length-prefixed frames that hold one line-like request or reply.
//!
//! ```text
//! bytes ──▶ frame (check the length, then cut) ──▶ request (verb, arguments, payload)
//!                                                        │
//! bytes ◀── frame ◀── reply (OK, EMPTY, ERR, JSON) ◀─────┘
//! ```
//!
//! Nothing in here does I/O, and nothing on the path of a record allocates: requests and replies
//! borrow from the buffer that the socket was read into. The reader's version of this is
//! `docs/protocol.md`; the two are kept in step by tests.

pub mod command;
pub mod error_code;
pub mod frame;
pub mod name;
pub mod records;
pub mod reply;
pub mod settings;
pub mod verb;

pub use command::{Request, RequestError, SeekTo};
pub use error_code::{ErrorCode, Retry};
pub use frame::{DEFAULT_MAX_FRAME_BYTES, FrameError, Frames};
pub use name::valid_name;
pub use records::{BadRecords, Records};
pub use reply::Reply;
pub use settings::TopicSettings;
pub use verb::Verb;

#[cfg(test)]
mod tests;
