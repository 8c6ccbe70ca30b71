//! Who this data directory is, and how its last run ended: `LOCK` and `store.json`.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::StoreError;
use super::files::replace_file;
use super::format::FORMAT_VERSION;

/// Contents of `store.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    /// Version of all layouts in the directory.
    format_version: u32,
    /// Random id made once with the directory, 32 hex digits.
    disk_id: String,
    /// The kernel's id of the boot in which the last run started.
    boot_id: String,
    /// Random id of the journal of the last run, 16 hex digits.
    journal_id: String,
    /// The last run ended after it had flushed everything.
    clean: bool,
    /// How often the machine went down with data that may not have been flushed.
    #[serde(default)]
    crashes: u64,
}

/// An opened, locked data directory.
#[derive(Debug)]
pub(super) struct Identity {
    path: PathBuf,
    record: Record,
    boot_id: String,
    machine_crashed: bool,
    /// Held for as long as this lives; the kernel releases it when the process ends.
    _lock: File,
}

impl Identity {
    /// Locks the directory (made if it is missing) and reads or makes its identity. `boot_id`: of
    /// the machine now.
    pub(super) fn open(dir: &Path, boot_id: String) -> Result<Self, StoreError> {
        let failed = |error| StoreError::io(format!("opening the data directory {}", dir.display()), error);
        fs::create_dir_all(dir).map_err(failed)?;
        let lock = take_lock(dir)?;
        let path = dir.join("store.json");
        let record = match fs::read(&path) {
            Ok(bytes) => check(dir, &bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => fresh(&boot_id).map_err(failed)?,
            Err(error) => return Err(failed(error)),
        };
        let machine_crashed = !record.clean && record.boot_id != boot_id;
        Ok(Identity { path, record, boot_id, machine_crashed, _lock: lock })
    }

    /// Random id made once with the directory.
    pub(super) fn disk_id(&self) -> u128 {
        u128::from_str_radix(&self.record.disk_id, 16).unwrap_or(0)
    }

    /// Id of the current journal.
    pub(super) fn journal_id(&self) -> u64 {
        u64::from_str_radix(&self.record.journal_id, 16).unwrap_or(0)
    }

    /// Did the machine restart after a run that did not end cleanly?
    pub(super) fn machine_crashed(&self) -> bool {
        self.machine_crashed
    }

    /// How often the machine went down with data that may not have been flushed. A copy that was
    /// whole at an earlier count is in doubt.
    pub(super) fn crashes(&self) -> u64 {
        self.record.crashes
    }

    /// From here on the directory is in use: another boot, an empty journal, not clean. A crash of
    /// the machine is counted in the same write that records the new boot id, so that no run can
    /// take the one for granted without the other.
    pub(super) fn begin_run(&mut self) -> Result<(), StoreError> {
        let failed = |error| StoreError::io(format!("writing {}", self.path.display()), error);
        self.record.crashes += u64::from(self.machine_crashed);
        self.record.boot_id.clone_from(&self.boot_id);
        self.record.journal_id = random_hex(8).map_err(failed)?;
        self.record.clean = false;
        self.write(&self.record).map_err(failed)
    }

    /// Everything was flushed.
    pub(super) fn end_run(&self) {
        // Without it the next start only looks closer.
        if let Err(error) = self.write(&Record { clean: true, ..self.record.clone() }) {
            tracing::warn!(%error, "noting the clean end failed");
        }
    }

    fn write(&self, record: &Record) -> io::Result<()> {
        replace_file(&self.path, &serde_json::to_vec_pretty(record)?)
    }
}

fn take_lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("LOCK");
    let failed = |error| StoreError::io(format!("locking {}", path.display()), error);
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    if file.try_lock().is_err() {
        let mut holder = String::new();
        let _ = file.read_to_string(&mut holder);
        return Err(StoreError::InUse { path: dir.to_path_buf(), pid: holder.trim().parse().unwrap_or(0) });
    }
    file.set_len(0).map_err(failed)?;
    file.write_all(std::process::id().to_string().as_bytes()).map_err(failed)?;
    Ok(file)
}

fn check(dir: &Path, bytes: &[u8]) -> Result<Record, StoreError> {
    /// The one field that every version has.
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    let failed = |error: serde_json::Error| {
        StoreError::io(format!("reading {}", dir.join("store.json").display()), error.into())
    };
    let found = serde_json::from_slice::<Version>(bytes).map_err(failed)?.format_version;
    if found != FORMAT_VERSION {
        return Err(StoreError::Version { path: dir.to_path_buf(), found, wanted: FORMAT_VERSION });
    }
    serde_json::from_slice(bytes).map_err(failed)
}

fn fresh(boot_id: &str) -> io::Result<Record> {
    Ok(Record {
        format_version: FORMAT_VERSION,
        disk_id: random_hex(16)?,
        boot_id: boot_id.to_owned(),
        journal_id: random_hex(8)?,
        clean: true,
        crashes: 0,
    })
}

/// `bytes` random bytes as hex digits.
fn random_hex(bytes: usize) -> io::Result<String> {
    let mut random = vec![0; bytes];
    crate::random::fill(&mut random)?;
    let mut hex = String::with_capacity(bytes * 2);
    for byte in random {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    Ok(hex)
}
