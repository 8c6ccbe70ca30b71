//! The requests by which a node keeps its lease.
//!
//! ```text
//!   t_send 1     2     3                     a request every [`RENEWAL`], whether or not the last one
//!     ├──────┬─────┬──────┬───▶ time         was answered
//!     └───────────▶ grant 1                  counts from t_send 1, however late it comes
//!            └───────────▶ grant 2
//! ```
//! A request that takes long goes on beside the newer ones, because its grant is still worth what is
//! left of it: where grants take longer than the pause between two requests, a node that forgot the
//! one before would never get its lease. No grant ever shortens the lease.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use super::lease::{self, Lease, RENEWAL};
use super::rpc::Refused;
use crate::clock::{self, Clock};
#[cfg(feature = "sim")]
use crate::sim::bugs::{self, Bug};

/// From a request that was refused to the next one.
const RETRY: Duration = Duration::from_millis(20);
/// Requests on the way at a time. One a [`RENEWAL`] makes four within the lease's length; a change of
/// the Raft leader adds one. Beyond that the oldest is given up.
const ON_THE_WAY_MAX: usize = 8;

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A request is due.
    Due,
    /// A grant came, and the lease was extended if it ran out earlier.
    Granted,
    /// The newest request was refused, or never answered.
    Refused,
}

/// The requests of one node that are on the way.
pub(super) struct Renewal {
    clock: Arc<dyn Clock>,
    lease: Lease,
    requests: JoinSet<Answer>,
    /// The same requests, the oldest first.
    handles: VecDeque<AbortHandle>,
    /// Number of the newest request, and when it was sent.
    newest: u64,
    asked: Instant,
    /// When the next one is due.
    due: Instant,
}

struct Answer {
    number: u64,
    /// Read before the request left.
    sent: clock::Instant,
    granted: bool,
}

impl Renewal {
    /// Nothing is on the way, and a request is due.
    pub(super) fn new(clock: Arc<dyn Clock>, lease: Lease) -> Self {
        let now = Instant::now();
        Renewal { clock, lease, requests: JoinSet::new(), handles: VecDeque::new(), newest: 0, asked: now, due: now }
    }

    /// Sends a request. `ask` sends nothing before it is polled, and ends once the grant counts here.
    pub(super) fn send(&mut self, ask: impl Future<Output = Result<(), Refused>> + Send + 'static) {
        self.handles.retain(|request| !request.is_finished());
        if self.handles.len() >= ON_THE_WAY_MAX
            && let Some(oldest) = self.handles.pop_front()
        {
            oldest.abort();
        }
        self.newest += 1;
        let (number, sent) = (self.newest, self.clock.now());
        self.handles.push_back(self.requests.spawn(async move {
            // What comes later than the lease's end is worth nothing.
            let granted = matches!(timeout(lease::LENGTH, ask).await, Ok(Ok(())));
            Answer { number, sent, granted }
        }));
        self.asked = Instant::now();
        self.due = self.asked + RENEWAL;
    }

    /// The next request is due now.
    pub(super) fn hurry(&mut self) {
        self.due = Instant::now();
    }

    /// Waits for what comes next. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Event {
        loop {
            let answer = tokio::select! {
                () = sleep_until(self.due) => return Event::Due,
                Some(answer) = self.requests.join_next() => answer,
            };
            // The others were given up.
            let Ok(Answer { number, sent, granted }) = answer else { continue };
            if granted {
                #[cfg(feature = "sim")]
                let sent = if bugs::is_on(Bug::LeaseFromReply) { self.clock.now() } else { sent };
                self.lease.extend(lease::valid_until(sent));
                return Event::Granted;
            }
            if number == self.newest {
                self.due = self.due.min(self.asked + RETRY);
                return Event::Refused;
            }
        }
    }
}

#[cfg(test)]
#[path = "renewal_tests.rs"]
mod tests;
