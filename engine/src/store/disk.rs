//! The seam between the store and the operating system's files.
//!
//! Everything that the store does to a file's bytes goes through [`Disk`], so that tests can put a
//! disk that fails in its place ([`super::fault`]). The one exception is the io_uring backend,
//! which is used on the real disk only and submits its writes to the kernel itself.

use std::fs::File;
use std::io::{self, IoSlice};

/// The kernel takes no more pieces than this in one call (`UIO_MAXIOV`).
pub const PIECES_MAX: usize = 1024;

/// A disk. Positions and lengths in bytes. All calls block.
pub trait Disk: Send + Sync + std::fmt::Debug {
    /// Writes all of `pieces` at `position`; with `synced`, returns only after they were flushed
    /// to the device. After an error nothing may be assumed about the range.
    fn write(&self, file: &File, position: u64, pieces: &mut [IoSlice<'_>], synced: bool) -> io::Result<()>;
    /// Flushes the file's data, and the metadata needed to read it back, to the device.
    fn flush(&self, file: &File) -> io::Result<()>;
    /// Reserves space without changing the file's size. Where the file system cannot: nothing.
    fn reserve(&self, file: &File, position: u64, length: u64) -> io::Result<()>;
    /// Starts writing a range to the device without waiting for it.
    fn start_writeback(&self, file: &File, position: u64, length: u64);
    /// Fills `buffer` from `position`; fails with `UnexpectedEof` at the file's end.
    fn read(&self, file: &File, position: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Has a range brought into memory, without waiting. Advice only.
    fn read_ahead(&self, _file: &File, _position: u64, _length: u64) {}
    /// Reads `length` bytes from `position`; fails with `UnexpectedEof` at the file's end.
    fn read_new(&self, file: &File, position: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.read(file, position, &mut bytes)?;
        Ok(bytes)
    }
    /// Id of the machine's run. Once it is another one, what was not flushed may be gone.
    fn boot_id(&self) -> String {
        sys::boot_id()
    }
    /// Is this the real thing, so that writes may be handed to the kernel in other ways too?
    fn is_real(&self) -> bool {
        false
    }
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn write(&self, file: &File, mut position: u64, mut pieces: &mut [IoSlice<'_>], synced: bool) -> io::Result<()> {
        while !pieces.is_empty() {
            match sys::write_vectored(file, position, pieces, synced) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    position += written as u64;
                    IoSlice::advance_slices(&mut pieces, written);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn flush(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn reserve(&self, file: &File, position: u64, length: u64) -> io::Result<()> {
        sys::reserve(file, position, length)
    }

    fn start_writeback(&self, file: &File, position: u64, length: u64) {
        sys::start_writeback(file, position, length);
    }

    fn read(&self, file: &File, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(file, buffer, position)
    }

    fn read_ahead(&self, file: &File, position: u64, length: u64) {
        sys::read_ahead(file, position, length);
    }

    fn read_new(&self, file: &File, position: u64, length: usize) -> io::Result<Vec<u8>> {
        sys::read_new(file, position, length)
    }

    fn is_real(&self) -> bool {
        true
    }
}

/// How often this thread has slept in the kernel so far; 0 where that cannot be told.
pub fn times_slept() -> i64 {
    sys::times_slept()
}

/// The system calls that the standard library has no name for.
mod sys {
    use std::fs::File;
    use std::io::{self, IoSlice};
    use std::os::fd::AsRawFd;

    /// The kernel's id of this boot. Where there is none, each start counts as another boot, which
    /// errs on the side of reporting a possible loss.
    pub(super) fn boot_id() -> String {
        match std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
            Ok(id) => id.trim().to_owned(),
            Err(_) => crate::random::random_u128().map_or_else(|_| String::new(), |id| format!("{id:032x}")),
        }
    }

    /// Reads into fresh memory that nobody filled with zeros first: the kernel fills it.
    pub(super) fn read_new(file: &File, position: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes: Vec<u8> = Vec::with_capacity(length);
        while bytes.len() < length {
            let wanted = length - bytes.len();
            let at = (position + bytes.len() as u64) as libc::off_t;
            let start = bytes.spare_capacity_mut().as_mut_ptr();
            // SAFETY: the kernel writes at most `wanted` bytes from `start` on, all of which
            // is reserved capacity of `bytes`.
            let done = unsafe { libc::pread(file.as_raw_fd(), start.cast(), wanted, at) };
            match usize::try_from(done) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                // SAFETY: `done` bytes more were just filled by the kernel.
                Ok(done) => unsafe { bytes.set_len(bytes.len() + done) },
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
        Ok(bytes)
    }

    #[cfg(target_os = "linux")]
    pub(super) fn write_vectored(
        file: &File,
        position: u64,
        pieces: &[IoSlice<'_>],
        synced: bool,
    ) -> io::Result<usize> {
        let flags = if synced { libc::RWF_DSYNC } else { 0 };
        let count = pieces.len().min(super::PIECES_MAX) as libc::c_int;
        // SAFETY: `IoSlice` is ABI-compatible with `iovec`; the slices outlive the call, which
        // reads `count` of them.
        let done =
            unsafe { libc::pwritev2(file.as_raw_fd(), pieces.as_ptr().cast(), count, position as libc::off_t, flags) };
        usize::try_from(done).map_err(|_| io::Error::last_os_error())
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn write_vectored(
        file: &File,
        position: u64,
        pieces: &[IoSlice<'_>],
        synced: bool,
    ) -> io::Result<usize> {
        let count = pieces.len().min(super::PIECES_MAX) as libc::c_int;
        // SAFETY: as above.
        let done = unsafe { libc::pwritev(file.as_raw_fd(), pieces.as_ptr().cast(), count, position as libc::off_t) };
        let done = usize::try_from(done).map_err(|_| io::Error::last_os_error())?;
        if synced {
            file.sync_data()?;
        }
        Ok(done)
    }

    #[cfg(target_os = "linux")]
    pub(super) fn read_ahead(file: &File, position: u64, length: u64) {
        // SAFETY: a plain system call on an open descriptor; an error only means no advice.
        unsafe {
            let (position, length) = (position as libc::off_t, length as libc::off_t);
            libc::posix_fadvise(file.as_raw_fd(), position, length, libc::POSIX_FADV_WILLNEED);
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn read_ahead(_file: &File, _position: u64, _length: u64) {}

    #[cfg(target_os = "linux")]
    pub(super) fn times_slept() -> i64 {
        // SAFETY: an all-zero `rusage` is a valid value of that plain C struct.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: fills in `usage`, which lives through the call.
        unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
        usage.ru_nvcsw
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn times_slept() -> i64 {
        0
    }

    #[cfg(target_os = "linux")]
    pub(super) fn reserve(file: &File, position: u64, length: u64) -> io::Result<()> {
        // SAFETY: a plain system call on an open descriptor.
        let done = unsafe {
            libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, position as libc::off_t, length as libc::off_t)
        };
        if done == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        // File systems without reservation (and tmpfs of old) find out at the write.
        if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) { Ok(()) } else { Err(error) }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn reserve(_file: &File, _position: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }

    #[cfg(target_os = "linux")]
    pub(super) fn start_writeback(file: &File, position: u64, length: u64) {
        // Advice only: an error shows again, and counts, at the flush.
        // SAFETY: a plain system call on an open descriptor.
        unsafe {
            libc::sync_file_range(
                file.as_raw_fd(),
                position as libc::off64_t,
                length as libc::off64_t,
                libc::SYNC_FILE_RANGE_WRITE,
            );
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn start_writeback(_file: &File, _position: u64, _length: u64) {}
}
