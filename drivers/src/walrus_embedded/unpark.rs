//! Waiting for a watermark with a time limit, in a thread without a runtime.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use walrus_engine::store::{Segment, StoreError};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

thread_local! {
    static WAKER: Waker = Waker::from(Arc::new(Unpark(std::thread::current())));
}

/// Returns once the watermark has reached `index`, or after `timeout`.
pub(super) fn wait_watermark(segment: &Segment, index: u64, timeout: Duration) -> Result<(), StoreError> {
    let deadline = Instant::now() + timeout;
    WAKER.with(|waker| {
        let mut context = Context::from_waker(waker);
        loop {
            if let Poll::Ready(outcome) = segment.poll_watermark(index, &mut context) {
                return outcome;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::park_timeout(left);
        }
    })
}
