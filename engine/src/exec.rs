//! Where work runs that may block: on threads of its own, or, in the simulation, in tasks of the one
//! thread that there is.

#[cfg(not(feature = "sim"))]
pub use tokio::task::spawn_blocking;

/// As tokio's function of this name, without a thread.
#[cfg(feature = "sim")]
pub fn spawn_blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> tokio::task::JoinHandle<R> {
    tokio::spawn(async move { work() })
}
