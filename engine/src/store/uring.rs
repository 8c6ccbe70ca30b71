//! The io_uring backend: one thread, one long-lived ring, many segments' writes in flight.
//!
//! ext4 hands a buffered write from the ring to one of the kernel's own workers; a write of a few
//! pages is over sooner than that hand-over, so small batches are written here and now.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use io_uring::{IoUring, opcode, types};

use super::Shared;
use super::appender::{Write, complete, prepare, write_next};
use super::disk::PIECES_MAX;

/// Writes in flight at once; more wait in the queue.
const IN_FLIGHT_MAX: usize = 64;
/// Batches up to this size are written without the ring (page-cache tier).
const INLINE_BYTES_MAX: usize = 32 * 1024;
/// Marks the completion of the read that listens to the bell.
const BELL_TOKEN: u64 = u64::MAX;

/// Can this kernel, and this process, use io_uring for what we need?
pub(super) fn is_available() -> bool {
    IoUring::new(4).is_ok_and(|ring| {
        let mut probe = io_uring::Probe::new();
        ring.submitter().register_probe(&mut probe).is_ok()
            && probe.is_supported(opcode::Writev::CODE)
            && probe.is_supported(opcode::Read::CODE)
    })
}

/// Starts the writer; it ends when the queue is stopped, empty and nothing is in flight.
pub(super) fn start(shared: &Arc<Shared>, bell_fd: i32) -> io::Result<Vec<JoinHandle<()>>> {
    let ring = IoUring::new(IN_FLIGHT_MAX as u32 * 2)?;
    let shared = Arc::clone(shared);
    let writer = thread::Builder::new().name("walrus-uring".into()).spawn(move || {
        Writer {
            ring,
            shared,
            slots: Vec::new(),
            free: Vec::new(),
            in_flight: 0,
            bell_fd,
            bell_read: Box::new(0),
            listening: false,
        }
        .run();
    })?;
    Ok(vec![writer])
}

/// A write that the kernel works on. The pieces point into the batch's chunks, which stay where
/// they are (boxed) until the completion.
struct InFlight {
    write: Write,
    pieces: Vec<libc::iovec>,
    written: usize,
}

struct Writer {
    ring: IoUring,
    shared: Arc<Shared>,
    slots: Vec<Option<InFlight>>,
    free: Vec<usize>,
    in_flight: usize,
    bell_fd: i32,
    bell_read: Box<u64>,
    listening: bool,
}

impl Writer {
    fn run(mut self) {
        loop {
            let idle = self.take_work();
            if idle && self.in_flight == 0 && self.shared.queue.is_stopping() {
                return self.end();
            }
            let wait_for = usize::from(idle || self.in_flight >= IN_FLIGHT_MAX);
            if wait_for > 0 && !self.listening {
                self.listen();
            }
            match self.ring.submit_and_wait(wait_for) {
                Ok(_) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {}
                Err(error) => return self.go_on_without_ring(&error),
            }
            self.reap();
        }
    }

    /// Starts what is queued; true if the queue was emptied (the bell rings for the next one).
    fn take_work(&mut self) -> bool {
        while self.in_flight < IN_FLIGHT_MAX {
            let Some(segment) = self.shared.queue.pop_or_sleep() else { return true };
            let Some(write) = prepare(segment) else { continue };
            if write.wants_journal() {
                self.shared.journal.submit(write);
            } else if !write.is_synced() && write.batch.total_bytes() <= INLINE_BYTES_MAX {
                let result = write.run();
                complete(write, result);
            } else {
                self.start(write);
            }
        }
        false
    }

    fn start(&mut self, write: Write) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let pieces = write
            .batch
            .pieces()
            .map(|piece| libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() })
            .collect();
        self.in_flight += 1;
        self.slots[slot] = Some(InFlight { write, pieces, written: 0 });
        self.submit(slot);
    }

    /// Submits what is not yet written of the write in `slot`.
    fn submit(&mut self, slot: usize) {
        let Some(InFlight { write, pieces, written }) = &self.slots[slot] else { return };
        let flags = if write.is_synced() { libc::RWF_DSYNC } else { 0 };
        // More would be refused; what is left goes on as after a short write.
        let count = pieces.len().min(PIECES_MAX) as u32;
        let entry = opcode::Writev::new(types::Fd(write.file.as_raw_fd()), pieces.as_ptr(), count)
            .offset(write.position + *written as u64)
            .rw_flags(flags)
            .build()
            .user_data(slot as u64);
        self.push(&entry);
    }

    /// Reads the bell's counter, so that a ring completes something here.
    fn listen(&mut self) {
        let buffer: *mut u64 = &raw mut *self.bell_read;
        let entry = opcode::Read::new(types::Fd(self.bell_fd), buffer.cast(), 8).build().user_data(BELL_TOKEN);
        self.listening = true;
        self.push(&entry);
    }

    fn push(&mut self, entry: &io_uring::squeue::Entry) {
        // SAFETY: the buffers that the entry names (chunks, pieces, the bell's counter) live in
        // `self.slots` or `self` until its completion was reaped; what the kernel may still use when
        // `Writer` ends is never freed.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            // Full: hand over what is there and try again.
            let _ = self.ring.submit();
        }
    }

    fn reap(&mut self) {
        while let Some(entry) = self.next_completion() {
            let (token, result) = entry;
            if token == BELL_TOKEN {
                self.listening = false;
            } else {
                self.finish(token as usize, result);
            }
        }
    }

    fn next_completion(&mut self) -> Option<(u64, i32)> {
        self.ring.completion().next().map(|entry| (entry.user_data(), entry.result()))
    }

    /// A completion for `slot`: the rest of a short write is submitted again.
    fn finish(&mut self, slot: usize, result: i32) {
        let Some(in_flight) = self.slots[slot].as_mut() else { return };
        let outcome = match result {
            0 => Err(io::ErrorKind::WriteZero.into()),
            written if written > 0 => {
                let written = written.unsigned_abs() as usize;
                in_flight.written += written;
                if in_flight.written < in_flight.write.batch.total_bytes() {
                    advance(&mut in_flight.pieces, written);
                    return self.submit(slot);
                }
                Ok(())
            }
            error if -error == libc::EINTR || -error == libc::EAGAIN => return self.submit(slot),
            error => Err(io::Error::from_raw_os_error(-error)),
        };
        if let Some(InFlight { write, .. }) = self.slots[slot].take() {
            self.in_flight -= 1;
            self.free.push(slot);
            complete(write, outcome);
        }
    }

    /// Nothing is in flight, but the kernel may still fill the bell's counter.
    fn end(self) {
        if self.listening {
            std::mem::forget(self.bell_read);
        }
    }

    /// The ring itself is broken: fails what it holds rather than wait for ever, and does the other
    /// segments' writes as the blocking backend does.
    fn go_on_without_ring(mut self, error: &io::Error) {
        tracing::error!(%error, "the io_uring is broken; writing goes on without it, slower");
        self.reap();
        for in_flight in self.slots.iter_mut().filter_map(Option::take) {
            in_flight.write.segment.fail_write(error, "the io_uring");
            // The kernel may still read the chunks: they must never be used again.
            in_flight.write.batch.write_off();
            std::mem::forget(in_flight);
        }
        self.shared.queue.give_up_bell();
        while let Some(segment) = self.shared.queue.pop_blocking() {
            write_next(segment);
        }
        self.end();
    }
}

/// Drops the first `written` bytes of `pieces`.
fn advance(pieces: &mut Vec<libc::iovec>, mut written: usize) {
    let whole = pieces.iter().take_while(|piece| {
        let fits = written >= piece.iov_len;
        if fits {
            written -= piece.iov_len;
        }
        fits
    });
    let count = whole.count();
    pieces.drain(..count);
    if let Some(first) = pieces.first_mut() {
        first.iov_base = first.iov_base.cast::<u8>().wrapping_add(written).cast();
        first.iov_len -= written;
    }
}

// SAFETY: the raw pointers in `pieces` point into `write`, which moves along with them.
unsafe impl Send for InFlight {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_write_goes_on_in_the_midst_of_a_piece() {
        let data = [0u8; 30];
        let piece =
            |at: usize, length| libc::iovec { iov_base: data[at..].as_ptr().cast_mut().cast(), iov_len: length };
        let mut pieces = vec![piece(0, 10), piece(10, 10), piece(20, 10)];
        advance(&mut pieces, 13);
        assert_eq!(pieces.len(), 2);
        assert_eq!(pieces[0].iov_base, data[13..].as_ptr().cast_mut().cast());
        assert_eq!((pieces[0].iov_len, pieces[1].iov_len), (7, 10));
    }
}
