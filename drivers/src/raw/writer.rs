//! Getting groups of buffers to the device, by `pwritev2` or by `io_uring`.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use io_uring::{IoUring, opcode, squeue, types};

use super::buffer::Filled;
use super::files::LogFile;

/// When a write counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flush {
    /// Once the kernel has it.
    None,
    /// The write itself is synchronous (`RWF_DSYNC`).
    Dsync,
    /// After an `fdatasync` behind the write.
    Fdatasync,
}

/// How a writer writes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mode {
    pub(super) flush: Flush,
    pub(super) direct: bool,
    pub(super) uring: bool,
    /// Groups under way at once (`io_uring` only).
    pub(super) depth: usize,
}

impl Mode {
    fn write_flags(self) -> i32 {
        if self.flush == Flush::Dsync { libc::RWF_DSYNC } else { 0 }
    }
}

/// Writes groups of buffers, each group as one write to one file.
pub(super) struct Writer {
    files: Arc<Vec<LogFile>>,
    mode: Mode,
    ring: Option<Ring>,
    done: VecDeque<Filled>,
    groups_of: Vec<usize>,
}

impl Writer {
    pub(super) fn new(files: Arc<Vec<LogFile>>, mode: Mode, producers: usize) -> io::Result<Writer> {
        let ring = if mode.uring { Some(Ring::new(mode)?) } else { None };
        Ok(Writer { files, mode, ring, done: VecDeque::new(), groups_of: vec![0; producers] })
    }

    /// Groups that were submitted and are not done.
    pub(super) fn in_flight(&self) -> usize {
        self.ring.as_ref().map_or(0, |ring| ring.in_flight)
    }

    /// Writes `group` (not empty), or starts to; waits while `depth` groups are under way.
    pub(super) fn submit(&mut self, group: Vec<Filled>) -> io::Result<()> {
        let file = self.next_file(group[0].producer);
        let iovecs: Vec<libc::iovec> = group.iter().map(|filled| filled.buffer.iovec(self.mode.direct)).collect();
        let length: usize = iovecs.iter().map(|iovec| iovec.iov_len).sum();
        let offset = self.files[file].reserve(length as u64);
        let file = &self.files[file];
        match &mut self.ring {
            None => {
                write_blocking(file, &iovecs, length, offset, self.mode)?;
                self.done.extend(group);
                Ok(())
            }
            Some(ring) => {
                while ring.in_flight >= ring.slots.len() {
                    ring.reap(true, &mut self.done)?;
                }
                ring.submit(file.fd(), Pending { group, iovecs, length }, offset)
            }
        }
    }

    /// Moves finished buffers to `done`; with `wait`, waits for at least one if any is under way.
    pub(super) fn reap(&mut self, wait: bool, done: &mut Vec<Filled>) -> io::Result<()> {
        if let Some(ring) = &mut self.ring {
            let wait = wait && self.done.is_empty() && ring.in_flight > 0;
            ring.reap(wait, &mut self.done)?;
        }
        done.extend(self.done.drain(..));
        Ok(())
    }

    /// Each producer goes over files of its own where there are enough, so that writers do not
    /// queue for one file's lock.
    fn next_file(&mut self, producer: usize) -> usize {
        let turn = self.groups_of[producer];
        self.groups_of[producer] += 1;
        (producer + turn * self.groups_of.len()) % self.files.len()
    }
}

/// Writes `length` bytes and waits until they count as written.
pub(super) fn write_blocking(
    file: &LogFile,
    iovecs: &[libc::iovec],
    length: usize,
    offset: u64,
    mode: Mode,
) -> io::Result<()> {
    let count = libc::c_int::try_from(iovecs.len()).map_err(io::Error::other)?;
    let fd = file.fd();
    // SAFETY: every iovec points into a buffer that the caller's group keeps alive over the call.
    let written = unsafe { libc::pwritev2(fd, iovecs.as_ptr(), count, offset.cast_signed(), mode.write_flags()) };
    check_length(written, length)?;
    match mode.flush {
        Flush::None if !mode.direct => file.note_cached(offset, length as u64),
        Flush::None | Flush::Dsync => {}
        Flush::Fdatasync => {
            // SAFETY: plain system call on an open descriptor.
            let result = unsafe { libc::fdatasync(fd) };
            if result != 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(())
}

fn check_length(written: isize, wanted: usize) -> io::Result<()> {
    match usize::try_from(written) {
        Err(_) => Err(io::Error::last_os_error()),
        Ok(written) if written < wanted => Err(io::Error::new(io::ErrorKind::WriteZero, "short write")),
        Ok(_) => Ok(()),
    }
}

/// A group that the kernel works on; it keeps buffers and iovecs where they are.
struct Pending {
    group: Vec<Filled>,
    iovecs: Vec<libc::iovec>,
    length: usize,
}

// SAFETY: the iovecs point into the buffers of the same `Pending`, which moves along with them.
unsafe impl Send for Pending {}

struct Ring {
    uring: IoUring,
    slots: Vec<Option<Pending>>,
    in_flight: usize,
    mode: Mode,
}

/// Set in `user_data` of a flush that follows its write.
const FLUSH_TAG: u64 = 1 << 32;

impl Ring {
    fn new(mode: Mode) -> io::Result<Ring> {
        let depth = mode.depth.max(1);
        let uring = IoUring::new((depth as u32 * 2).next_power_of_two())?;
        Ok(Ring { uring, slots: (0..depth).map(|_| None).collect(), in_flight: 0, mode })
    }

    /// Needs a free slot.
    fn submit(&mut self, fd: i32, pending: Pending, offset: u64) -> io::Result<()> {
        let slot = self
            .slots
            .iter()
            .position(Option::is_none)
            .expect("the caller waits until fewer groups than slots are under way");
        let linked = self.mode.flush == Flush::Fdatasync;
        let write = opcode::Writev::new(types::Fd(fd), pending.iovecs.as_ptr(), pending.iovecs.len() as u32)
            .offset(offset)
            .rw_flags(self.mode.write_flags())
            .build()
            .user_data(slot as u64)
            .flags(if linked { squeue::Flags::IO_LINK } else { squeue::Flags::empty() });
        let flush = opcode::Fsync::new(types::Fd(fd))
            .flags(types::FsyncFlags::DATASYNC)
            .build()
            .user_data(slot as u64 | FLUSH_TAG);
        self.slots[slot] = Some(pending);
        self.in_flight += 1;
        let entries = [write, flush];
        let entries = if linked { &entries[..] } else { &entries[..1] };
        // SAFETY: buffers and iovecs stay in the slot until the completion was seen.
        unsafe { self.uring.submission().push_multiple(entries) }.map_err(io::Error::other)?;
        self.uring.submit()?;
        Ok(())
    }

    fn reap(&mut self, wait: bool, done: &mut VecDeque<Filled>) -> io::Result<()> {
        if wait {
            self.uring.submit_and_wait(1)?;
        }
        let linked = self.mode.flush == Flush::Fdatasync;
        for entry in self.uring.completion() {
            if entry.result() < 0 {
                return Err(io::Error::from_raw_os_error(-entry.result()));
            }
            let slot = (entry.user_data() & (FLUSH_TAG - 1)) as usize;
            let is_flush = entry.user_data() & FLUSH_TAG != 0;
            if !is_flush {
                let wanted = self.slots[slot].as_ref().map_or(0, |pending| pending.length);
                check_length(entry.result() as isize, wanted)?;
            }
            if is_flush == linked
                && let Some(pending) = self.slots[slot].take()
            {
                self.in_flight -= 1;
                done.extend(pending.group);
            }
        }
        Ok(())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The kernel may still read from the buffers of these groups.
        let mut done = VecDeque::new();
        while self.in_flight > 0 {
            if self.reap(true, &mut done).is_err() {
                // Rather lose the memory than free it under the kernel's hands.
                self.slots.drain(..).for_each(std::mem::forget);
                return;
            }
        }
    }
}
