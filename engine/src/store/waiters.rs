//! Tasks and threads that wait for a condition which others make true.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use super::pool::lock;

/// A list of wakers, woken all at once.
#[derive(Debug, Default)]
pub struct Waiters {
    wakers: Mutex<Vec<Waker>>,
}

impl Waiters {
    /// Ready once `check` says so. Registers before it checks the second time, so that a change
    /// between the two is never missed.
    pub fn poll_until<T>(&self, cx: &mut Context<'_>, check: impl Fn() -> Option<T>) -> Poll<T> {
        if let Some(value) = check() {
            return Poll::Ready(value);
        }
        {
            let mut wakers = lock(&self.wakers);
            if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                wakers.push(cx.waker().clone());
            }
        }
        check().map_or(Poll::Pending, Poll::Ready)
    }

    /// Waits in a task.
    pub async fn until<T>(&self, check: impl Fn() -> Option<T>) -> T {
        poll_fn(|cx| self.poll_until(cx, &check)).await
    }

    /// Waits in a thread.
    pub fn until_blocking<T>(&self, check: impl Fn() -> Option<T>) -> T {
        block_on(|cx| self.poll_until(cx, &check))
    }

    /// Wakes everyone; call it after the condition changed.
    pub fn wake_all(&self) {
        let wakers = std::mem::take(&mut *lock(&self.wakers));
        for waker in wakers {
            waker.wake();
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

thread_local! {
    static THREAD_WAKER: Waker = Waker::from(Arc::new(Unpark(std::thread::current())));
}

/// Polls on this thread, parked in between.
pub fn block_on<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    THREAD_WAKER.with(|waker| {
        let mut cx = Context::from_waker(waker);
        loop {
            if let Poll::Ready(value) = poll(&mut cx) {
                return value;
            }
            std::thread::park();
        }
    })
}
