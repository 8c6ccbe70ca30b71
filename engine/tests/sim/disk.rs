//! A machine's disk: real files in memory, and what the device would have of them.
//!
//! A process that crashes loses nothing of what it wrote. A machine that crashes loses of each segment
//! file any of the pages that were written and not flushed. Files outside of the segments directory
//! are flushed with every write (metadata, promises, journal), and their loss is not simulated.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use walrus_engine::sim::{random, trace};
use walrus_engine::store::disk::{Disk, RealDisk};

const PAGE: usize = 4096;

/// The disk of one machine.
#[derive(Debug)]
pub struct SimDisk {
    node: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    boots: u64,
    /// By name of segment file: what the device has.
    flushed: BTreeMap<String, Vec<u8>>,
}

impl SimDisk {
    pub fn new(node: u64) -> Self {
        SimDisk { node, state: Mutex::default() }
    }

    /// Copies the data directory as the next run of the process finds it. `power_lost`: after a crash of
    /// the machine. Whatever the old run still does, it does to the old directory.
    pub fn carry_over(&self, from: &Path, to: &Path, power_lost: bool) -> io::Result<()> {
        let mut state = self.lock();
        state.boots += u64::from(power_lost);
        copy_dir(from, to, &mut |path, bytes| {
            if !power_lost || path.extension().is_none_or(|extension| extension != "seg") {
                return bytes;
            }
            let flushed = path.file_name().and_then(|name| state.flushed.get(&*name.to_string_lossy()));
            survivors(flushed.map_or(&[], Vec::as_slice), &bytes)
        })?;
        if power_lost {
            // What has survived is on the device.
            state.flushed.clear();
            for entry in fs::read_dir(to.join("segments"))? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                state.flushed.insert(name, fs::read(entry.path())?);
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of what was written and not flushed, any page may be there or not.
fn survivors(flushed: &[u8], written: &[u8]) -> Vec<u8> {
    let mut bytes = flushed.to_vec();
    // The length is such a thing as well.
    let length = if random::next().is_multiple_of(2) { written.len() } else { flushed.len() };
    bytes.resize(length, 0);
    for (page, new) in bytes.chunks_mut(PAGE).zip(written.chunks(PAGE)) {
        let common = page.len().min(new.len());
        if page[..common] != new[..common] && random::next().is_multiple_of(2) {
            page[..common].copy_from_slice(&new[..common]);
        }
    }
    bytes
}

fn copy_dir(from: &Path, to: &Path, content: &mut impl FnMut(&Path, Vec<u8>) -> Vec<u8>) -> io::Result<()> {
    fs::create_dir_all(to)?;
    // In an order that does not depend on the file system.
    let mut names: Vec<_> =
        fs::read_dir(from)?.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<_, _>>()?;
    names.sort();
    for name in names {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy_dir(&from, &to, content)?;
        } else {
            fs::write(&to, content(&from, fs::read(&from)?))?;
        }
    }
    Ok(())
}

/// The name of an open file.
fn name_of(file: &File) -> io::Result<String> {
    let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    Ok(path.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

impl Disk for SimDisk {
    fn write(&self, file: &File, position: u64, pieces: &mut [IoSlice<'_>], synced: bool) -> io::Result<()> {
        let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        trace::event("write", &[self.node, position, u64::from(synced)], &bytes);
        file.write_all_at(&bytes, position)?;
        if synced {
            let mut state = self.lock();
            let flushed = state.flushed.entry(name_of(file)?).or_default();
            let (start, end) = (position as usize, position as usize + bytes.len());
            flushed.resize(flushed.len().max(end), 0);
            flushed[start..end].copy_from_slice(&bytes);
        }
        Ok(())
    }

    fn flush(&self, file: &File) -> io::Result<()> {
        trace::event("flush", &[self.node], &[]);
        let mut bytes = vec![0; file.metadata()?.len() as usize];
        file.read_exact_at(&mut bytes, 0)?;
        self.lock().flushed.insert(name_of(file)?, bytes);
        Ok(())
    }

    fn reserve(&self, file: &File, position: u64, length: u64) -> io::Result<()> {
        RealDisk.reserve(file, position, length)
    }

    fn start_writeback(&self, _file: &File, _position: u64, _length: u64) {}

    fn read(&self, file: &File, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        RealDisk.read(file, position, buffer)
    }

    fn boot_id(&self) -> String {
        format!("boot {} of machine {}", self.lock().boots, self.node)
    }
}
