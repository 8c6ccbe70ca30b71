//! A disk that fails on command: the test twin of [`super::disk::RealDisk`].

use std::fs::File;
use std::io::{self, IoSlice};
use std::sync::Mutex;

use super::disk::{Disk, RealDisk};
use super::pool::lock;

/// What goes wrong from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Writes fail with this `errno` after this many more bytes, the last one written in part.
    Write {
        /// Error of the failing writes.
        errno: i32,
        /// Bytes that still get through.
        after_bytes: u64,
    },
    /// Flushes (and synced writes, after the data was written) fail with this `errno`.
    Flush {
        /// Error of the failing flushes.
        errno: i32,
    },
    /// Reservations of space fail with `ENOSPC`.
    Full,
}

/// Passes everything to the real disk, but for the current fault.
#[derive(Debug, Default)]
pub struct FaultDisk {
    fault: Mutex<Fault>,
}

impl FaultDisk {
    /// Sets what goes wrong from now on.
    pub fn set(&self, fault: Fault) {
        *lock(&self.fault) = fault;
    }

    fn flush_fault(&self) -> io::Result<()> {
        match *lock(&self.fault) {
            Fault::Flush { errno } => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(()),
        }
    }
}

impl Disk for FaultDisk {
    fn write(&self, file: &File, position: u64, pieces: &mut [IoSlice<'_>], synced: bool) -> io::Result<()> {
        let bytes: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        let fault = *lock(&self.fault);
        if let Fault::Write { errno, after_bytes } = fault {
            if bytes > after_bytes {
                let all: Vec<u8> =
                    pieces.iter().flat_map(|piece| piece.iter().copied()).take(after_bytes as usize).collect();
                RealDisk.write(file, position, &mut [IoSlice::new(&all)], false)?;
                self.set(Fault::Write { errno, after_bytes: 0 });
                return Err(io::Error::from_raw_os_error(errno));
            }
            self.set(Fault::Write { errno, after_bytes: after_bytes - bytes });
        }
        RealDisk.write(file, position, pieces, synced)?;
        if synced { self.flush_fault() } else { Ok(()) }
    }

    fn flush(&self, file: &File) -> io::Result<()> {
        self.flush_fault()?;
        RealDisk.flush(file)
    }

    fn reserve(&self, file: &File, position: u64, length: u64) -> io::Result<()> {
        if *lock(&self.fault) == Fault::Full {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        RealDisk.reserve(file, position, length)
    }

    fn start_writeback(&self, file: &File, position: u64, length: u64) {
        RealDisk.start_writeback(file, position, length);
    }

    fn read(&self, file: &File, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        RealDisk.read(file, position, buffer)
    }
}
