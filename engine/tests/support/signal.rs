//! Signals to processes that a test has started.

use std::process::Child;

/// Sends it. After SIGSTOP this returns once all threads stand still: until then one could still answer.
pub fn send(child: &Child, signal: i32) {
    let pid = child.id();
    // SAFETY: whoever holds the child has not waited for it, so its id is its own.
    assert_eq!(unsafe { libc::kill(pid.cast_signed(), signal) }, 0, "process {pid} takes a signal");
    if signal == libc::SIGSTOP {
        // SAFETY: all zeros are a value of this plain C structure.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` has room for what the call fills in; it reports a stop only, and reaps nothing.
        assert_eq!(unsafe { libc::waitid(libc::P_PID, pid, &raw mut info, libc::WSTOPPED) }, 0, "{pid} stops");
    }
}
