//! A small durable log of metadata commands for one node, with a snapshot beside it.
//!
//! ```text
//! metadata/log        preallocated, zero-filled, written from the front, recycled after a snapshot
//!   0     8         12                                4096
//!   ┌──────────┬──────────┬── zeros ──┬────────┬────────┬─ old bytes or zeros ─┐
//!   │ WALRMETA │ version  │           │ group  │ group  │                      │
//!   └──────────┴──────────┴───────────┴────────┴────────┴──────────────────────┘
//! group:   ┌───────┬───────┬────────┬─────────────┬───────┬──────────────────┐
//!          │ magic │ CRC32 │ length │ first index │ count │ commands, JSON   │
//!          │ u32   │ u32   │ u32    │ u64         │ u32   │ `length` bytes   │
//!          └───────┴───────┴────────┴─────────────┴───────┴──────────────────┘
//! metadata/snapshot   magic u64, version u32, CRC32 u32, length u64, state as JSON
//! ```
//! All integers are little-endian; a CRC covers everything after it. A group is what one flush
//! made durable: nothing in it was answered before that flush returned, and the next group is only
//! written afterwards. So an invalid group with nothing valid after it is a torn tail and is cut,
//! and one with a later valid group after it is damage and is refused.
//!
//! The file is allocated when the directory is made, so that a seal can be recorded on a full disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::MetadataError;
use super::state::{Command, State};

const FILE_MAGIC: &[u8; 8] = b"WALRMETA";
const SNAPSHOT_MAGIC: &[u8; 8] = b"WALRSNAP";
const GROUP_MAGIC: u32 = u32::from_le_bytes(*b"WMG1");
const VERSION: u32 = 1;
/// Where groups begin; the rest of the page is the file's header.
const DATA_START: u64 = 4096;
/// Bytes of a group before its commands.
const GROUP_HEADER: usize = 24;
/// Bytes of the snapshot before the state.
const SNAPSHOT_HEADER: usize = 24;
/// Size of the log file.
const CAPACITY: u64 = 8 << 20;
/// The commands of one group together are smaller than this, so that several always fit.
const GROUP_BYTES_MAX: usize = 2 << 20;

/// The log of one node, open for appending. One owner (the metadata thread).
pub(super) struct MetadataLog {
    dir: PathBuf,
    file: File,
    /// Where the next group goes.
    end: u64,
    /// A failed write or flush: what is on disk is unknown, so nothing is written any more.
    failed: bool,
}

impl MetadataLog {
    /// Opens or creates the log in `dir` and replays it.
    pub(super) fn open(dir: &Path) -> Result<(Self, State), MetadataError> {
        fs::create_dir_all(dir).map_err(|error| MetadataError::io("create", dir, error))?;
        let path = dir.join("log");
        let mut state = read_snapshot(&dir.join("snapshot"))?;
        let file = open_file(&path)?;
        let mut bytes = Vec::new();
        (&file).read_to_end(&mut bytes).map_err(|error| MetadataError::io("read", &path, error))?;
        let end = replay(&bytes, &mut state, &path)?;
        Ok((MetadataLog { dir: dir.to_owned(), file, end, failed: false }, state))
    }

    /// Makes a group durable; returns after the flush. `first_index` follows the last one written.
    pub(super) fn append(&mut self, first_index: u64, commands: &[&Command]) -> Result<(), MetadataError> {
        if self.failed {
            return Err(MetadataError::Failed);
        }
        let group = encode_group(first_index, commands)?;
        if self.end + group.len() as u64 > CAPACITY {
            return Err(MetadataError::Full);
        }
        let written = self.file.write_all_at(&group, self.end).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            self.failed = true;
            return Err(MetadataError::io("write", &self.dir.join("log"), error));
        }
        self.end += group.len() as u64;
        Ok(())
    }

    /// Half of the file is used: time for [`MetadataLog::compact`].
    pub(super) fn wants_compaction(&self) -> bool {
        self.end > CAPACITY / 2
    }

    /// Writes a snapshot of `state` (which must hold everything appended) and starts the file
    /// again from the front. Old groups there are recognised by their indices.
    pub(super) fn compact(&mut self, state: &State) -> Result<(), MetadataError> {
        let path = self.dir.join("snapshot");
        let temporary = self.dir.join("snapshot.tmp");
        let bytes = encode_snapshot(state)?;
        let written = (|| {
            let mut file = File::create(&temporary)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.dir)?.sync_all()
        })();
        written.map_err(|error| MetadataError::io("write", &path, error))?;
        self.end = DATA_START;
        Ok(())
    }
}

/// Opens the file, or creates it zero-filled under its final name only once it is complete.
fn open_file(path: &Path) -> Result<File, MetadataError> {
    let wrap = |error| MetadataError::io("open", path, error);
    if !path.exists() {
        create_file(path).map_err(|error| MetadataError::io("create", path, error))?;
    }
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(wrap)?;
    let mut header = [0; 12];
    file.read_exact_at(&mut header, 0).map_err(wrap)?;
    if header[..8] != *FILE_MAGIC {
        return Err(MetadataError::corrupt(path, "it does not begin as a metadata log does"));
    }
    check_version(path, u32_at(&header, 8))?;
    Ok(file)
}

fn create_file(path: &Path) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    let mut page = vec![0; DATA_START as usize];
    page[..8].copy_from_slice(FILE_MAGIC);
    page[8..12].copy_from_slice(&VERSION.to_le_bytes());
    file.write_all(&page)?;
    // Written zeros, not a hole: a later write needs neither space nor a journal commit.
    let zeros = vec![0; 1 << 20];
    let mut rest = CAPACITY - DATA_START;
    while rest > 0 {
        let step = rest.min(zeros.len() as u64);
        file.write_all(&zeros[..step as usize])?;
        rest -= step;
    }
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

fn encode_group(first_index: u64, commands: &[&Command]) -> Result<Vec<u8>, MetadataError> {
    let mut group = vec![0; GROUP_HEADER];
    serde_json::to_writer(&mut group, commands).map_err(MetadataError::encode)?;
    let length = group.len() - GROUP_HEADER;
    if length > GROUP_BYTES_MAX {
        return Err(MetadataError::TooLarge { bytes: length });
    }
    group[0..4].copy_from_slice(&GROUP_MAGIC.to_le_bytes());
    group[8..12].copy_from_slice(&(length as u32).to_le_bytes());
    group[12..20].copy_from_slice(&first_index.to_le_bytes());
    group[20..24].copy_from_slice(&(commands.len() as u32).to_le_bytes());
    let crc = crc(&group[8..]);
    group[4..8].copy_from_slice(&crc.to_le_bytes());
    Ok(group)
}

/// A group as it was found: its first index, its commands, and its length in bytes.
struct Group<'a> {
    first_index: u64,
    count: u32,
    body: &'a [u8],
}

fn decode_group(bytes: &[u8]) -> Option<Group<'_>> {
    let header = bytes.get(..GROUP_HEADER)?;
    let length = u32_at(header, 8) as usize;
    if u32_at(header, 0) != GROUP_MAGIC || length > GROUP_BYTES_MAX {
        return None;
    }
    let covered = bytes.get(8..GROUP_HEADER + length)?;
    (crc(covered) == u32_at(header, 4)).then(|| Group {
        first_index: u64_at(header, 12),
        count: u32_at(header, 20),
        body: &bytes[GROUP_HEADER..GROUP_HEADER + length],
    })
}

/// Applies what follows the snapshot and returns where the next group goes.
fn replay(bytes: &[u8], state: &mut State, path: &Path) -> Result<u64, MetadataError> {
    let mut at = DATA_START as usize;
    let snapshot_index = state.commands;
    let mut next_index = None;
    while let Some(group) = decode_group(&bytes[at.min(bytes.len())..]) {
        // After a restart of the file, old groups follow the new ones: their indices go back.
        if next_index.is_some_and(|next| group.first_index != next) {
            break;
        }
        next_index = Some(group.first_index + u64::from(group.count));
        if group.first_index > snapshot_index {
            apply_group(&group, state, path)?;
        }
        at += GROUP_HEADER + group.body.len();
    }
    if let Some(index) = find_later_group(&bytes[at.min(bytes.len())..], state.commands) {
        return Err(MetadataError::corrupt(
            path,
            &format!("the group after command {} is damaged, but command {index} is there", state.commands),
        ));
    }
    // Only groups that the snapshot holds: the file was about to be started again.
    let fresh = state.commands == snapshot_index;
    Ok(if fresh { DATA_START } else { at as u64 })
}

fn apply_group(group: &Group<'_>, state: &mut State, path: &Path) -> Result<(), MetadataError> {
    let commands: Vec<Command> =
        serde_json::from_slice(group.body).map_err(|error| MetadataError::corrupt(path, &error.to_string()))?;
    if group.first_index != state.commands + 1 || commands.len() != group.count as usize {
        return Err(MetadataError::corrupt(path, "commands are missing"));
    }
    for command in &commands {
        state.apply(command);
    }
    Ok(())
}

/// First index of any valid group past `applied`, wherever it begins.
fn find_later_group(bytes: &[u8], applied: u64) -> Option<u64> {
    let magic = GROUP_MAGIC.to_le_bytes();
    (0..bytes.len().saturating_sub(GROUP_HEADER))
        .filter(|&at| bytes[at] == magic[0] && bytes[at..at + 4] == magic)
        .filter_map(|at| decode_group(&bytes[at..]))
        .find(|group| group.first_index > applied)
        .map(|group| group.first_index)
}

fn encode_snapshot(state: &State) -> Result<Vec<u8>, MetadataError> {
    let mut bytes = vec![0; SNAPSHOT_HEADER];
    serde_json::to_writer(&mut bytes, state).map_err(MetadataError::encode)?;
    let length = (bytes.len() - SNAPSHOT_HEADER) as u64;
    bytes[..8].copy_from_slice(SNAPSHOT_MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&length.to_le_bytes());
    let crc = crc(&bytes[16..]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

fn read_snapshot(path: &Path) -> Result<State, MetadataError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
        Err(error) => return Err(MetadataError::io("read", path, error)),
    };
    if bytes.len() < SNAPSHOT_HEADER || bytes[..8] != *SNAPSHOT_MAGIC {
        return Err(MetadataError::corrupt(path, "it does not begin as a snapshot does"));
    }
    check_version(path, u32_at(&bytes, 8))?;
    let body = &bytes[SNAPSHOT_HEADER..];
    if u64_at(&bytes, 16) != body.len() as u64 || crc(&bytes[16..]) != u32_at(&bytes, 12) {
        return Err(MetadataError::corrupt(path, "its checksum does not match"));
    }
    serde_json::from_slice(body).map_err(|error| MetadataError::corrupt(path, &error.to_string()))
}

fn check_version(path: &Path, found: u32) -> Result<(), MetadataError> {
    if found == VERSION {
        return Ok(());
    }
    Err(MetadataError::Version { path: path.to_owned(), found, wanted: VERSION })
}

fn crc(bytes: &[u8]) -> u32 {
    // The algorithm has 32 bits, so the upper half is always zero.
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
