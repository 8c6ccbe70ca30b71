//! Memory for one reply, until it is sent.

use super::buffers::Reservation;
use crate::broker::Broker;
use crate::error::Refusal;
use crate::protocol::ErrorCode;

/// A reply that is no larger needs no memory of its own.
pub(crate) const SMALL_BYTES: usize = 64 << 10;

/// What every connection may have, and a part of the budget of all of them.
#[derive(Default)]
pub(super) struct ReplyMemory {
    reserved: Option<Reservation>,
}

impl ReplyMemory {
    /// The largest reply that there is room for.
    pub(super) fn room_bytes(&self) -> usize {
        self.reserved.as_ref().map_or(SMALL_BYTES, |reserved| reserved.bytes().max(SMALL_BYTES))
    }

    /// Makes room for so many bytes.
    pub(super) fn grow(&mut self, broker: &Broker, bytes: usize) -> Result<(), Refusal> {
        if bytes > self.room_bytes() {
            self.reserved = None;
            self.reserved = broker.replies.try_reserve(bytes);
            if self.reserved.is_none() {
                return Err(Refusal::new(ErrorCode::Overloaded, "too many replies are waiting to be taken"));
            }
        }
        Ok(())
    }

    /// What is to be held until the reply is sent.
    pub(super) fn into_reservation(self) -> Option<Reservation> {
        self.reserved
    }
}
