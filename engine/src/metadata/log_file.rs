//! The file behind the Raft log: every byte of it, and how it is found again after a crash.
//!
//! ```text
//! metadata/log        preallocated, zero-filled, written with O_DSYNC
//!   0          8         12           20      24        4096           4096 + half bytes
//!   ┌──────────┬─────────┬────────────┬───────┬─ zeros ─┬──────────────┬──────────────┐
//!   │ WALRMETA │ version │ half bytes │ CRC32 │         │ first half   │ second half  │
//!   └──────────┴─────────┴────────────┴───────┴─────────┴──────────────┴──────────────┘
//! half:    records one behind the other, each at a multiple of 64, then old bytes or zeros
//! record:  ┌───────┬───────┬────────┬──────┬────────────┬──────────┬─────────────────────┐
//!          │ magic │ CRC32 │ length │ zero │ checkpoint │ sequence │ operations, `length` │
//!          │ u32   │ u32   │ u32    │ u32  │ u64        │ u64      │ bytes, then padding  │
//!          └───────┴───────┴────────┴──────┴────────────┴──────────┴─────────────────────┘
//! operation:  kind u8, length u32, body (JSON; truncate: u64)
//! ```
//! All integers are little-endian; a CRC covers everything after it (padding left out).
//!
//! The first record of a half (sequence 0) is a *checkpoint*: it holds the whole log as it is then,
//! and those behind it, which bear its number, what came later. When a half is full, the log goes on
//! in the other one with a checkpoint of the next number. The old half stays as it is until the
//! one after that, so that a torn checkpoint costs nothing.
//!
//! A record is what one write made durable: nothing in it was answered before that write returned,
//! and the next one is only written afterwards. So an invalid record with nothing newer behind it is
//! a torn tail and is cut; one with a newer valid record anywhere is damage and is refused.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::MetadataError;

const FILE_MAGIC: &[u8; 8] = b"WALRMETA";
const RECORD_MAGIC: u32 = u32::from_le_bytes(*b"WMR2");
/// Version of the layout above.
pub(super) const VERSION: u32 = 2;
/// Where the first half begins; before it is the header.
const DATA_START: u64 = 4096;
/// Bytes of the header that are used.
const HEADER_BYTES: usize = 24;
/// Bytes of a record before its operations.
const RECORD_HEADER: usize = 32;
/// Records begin at multiples of this.
const ALIGNMENT: usize = 64;
/// Bytes of an operation before its body.
const OPERATION_HEADER: usize = 5;
/// Size of a half when the file is made: enough for thousands of entries.
const HALF_BYTES: u64 = if cfg!(feature = "sim") { 128 << 10 } else { 4 << 20 };
/// The file does not grow beyond this.
const HALF_BYTES_MAX: u64 = 256 << 20;

/// What can happen to a Raft log; the bodies are encoded by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The vote.
    Vote = 1,
    /// One more entry; one of the same or a higher index gives way to it.
    Entry = 2,
    /// Entries from this index on are gone.
    Truncate = 3,
    /// Entries up to this one are gone.
    Purge = 4,
    /// Entries up to this one are committed.
    Committed = 5,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Kind::Vote, Kind::Entry, Kind::Truncate, Kind::Purge, Kind::Committed]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// Operations on their way to the file, encoded.
#[derive(Debug, Default, Clone)]
pub(super) struct Operations(Vec<u8>);

impl Operations {
    /// Adds one.
    pub(super) fn push(&mut self, kind: Kind, body: &[u8]) {
        self.0.push(kind as u8);
        self.0.extend_from_slice(&(body.len() as u32).to_le_bytes());
        self.0.extend_from_slice(body);
    }
}

/// Bytes that an operation with such a body takes.
pub(super) fn operation_bytes(body: usize) -> usize {
    OPERATION_HEADER + body
}

/// The open file. One owner: the thread that writes it.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    half_bytes: u64,
    /// Number of the current half's checkpoint; its parity says which half that is.
    checkpoint: u64,
    /// Sequence of the next record.
    sequence: u64,
    /// Where it goes, counted from the start of the half.
    position: u64,
}

impl LogFile {
    /// Opens or creates the file and hands every operation that it holds to `replay`, in order.
    pub(super) fn open(
        path: &Path,
        mut replay: impl FnMut(Kind, &[u8]) -> Result<(), String>,
    ) -> Result<Self, MetadataError> {
        if !path.try_exists().map_err(|error| MetadataError::io("find", path, error))? {
            create(path, HALF_BYTES).map_err(|error| MetadataError::io("create", path, error))?;
        }
        let (file, half_bytes) = open_file(path)?;
        let mut bytes = Vec::new();
        (&file).read_to_end(&mut bytes).map_err(|error| MetadataError::io("read", path, error))?;
        let halves = [half(&bytes, half_bytes, 0), half(&bytes, half_bytes, 1)];
        let mut log = LogFile { path: path.to_owned(), file, half_bytes, checkpoint: 0, sequence: 0, position: 0 };
        let newest = halves.iter().filter_map(|half| decode(half)).filter(|first| first.sequence == 0);
        if let Some(first) = newest.max_by_key(|first| first.checkpoint) {
            log.checkpoint = first.checkpoint;
            log.replay(halves[(first.checkpoint % 2) as usize], &mut replay)
                .map_err(|reason| MetadataError::corrupt(path, &reason))?;
        }
        log.refuse_damage(&halves)?;
        Ok(log)
    }

    /// Makes operations durable. `false`: the half is full, a [`LogFile::checkpoint`] is due.
    pub(super) fn append(&mut self, operations: &Operations) -> io::Result<bool> {
        let record = encode(operations, self.checkpoint, self.sequence);
        if self.checkpoint == 0 || self.position + record.len() as u64 > self.half_bytes {
            return Ok(false);
        }
        self.file.write_all_at(&record, self.half_start() + self.position)?;
        self.position += record.len() as u64;
        self.sequence += 1;
        Ok(true)
    }

    /// Goes on in the other half, with the whole log as `operations`. A log that does not fit
    /// gets a larger file.
    pub(super) fn checkpoint(&mut self, operations: &Operations) -> io::Result<()> {
        let record = encode(operations, self.checkpoint + 1, 0);
        // Half of a half stays free, else the next checkpoint would be due at once.
        let needed = 2 * record.len() as u64;
        if needed > self.half_bytes {
            return self.grow(operations, needed.next_power_of_two());
        }
        self.checkpoint += 1;
        self.file.write_all_at(&record, self.half_start())?;
        self.sequence = 1;
        self.position = record.len() as u64;
        Ok(())
    }

    /// Bytes that the log may have, without growing, when it is next written as a checkpoint.
    pub(super) fn roomy_bytes(&self) -> u64 {
        self.half_bytes / 2
    }

    fn grow(&mut self, operations: &Operations, half_bytes: u64) -> io::Result<()> {
        if half_bytes > HALF_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the metadata log has outgrown its limit"));
        }
        let larger = self.path.with_extension("larger");
        create(&larger, half_bytes)?;
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DSYNC).open(&larger)?;
        let record = encode(operations, self.checkpoint + 1, 0);
        let start = DATA_START + (self.checkpoint + 1) % 2 * half_bytes;
        file.write_all_at(&record, start)?;
        fs::rename(&larger, &self.path)?;
        sync_parent(&self.path)?;
        (self.file, self.half_bytes, self.checkpoint) = (file, half_bytes, self.checkpoint + 1);
        (self.sequence, self.position) = (1, record.len() as u64);
        Ok(())
    }

    fn half_start(&self) -> u64 {
        DATA_START + self.checkpoint % 2 * self.half_bytes
    }

    fn replay(
        &mut self,
        half: &[u8],
        replay: &mut impl FnMut(Kind, &[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        while let Some(record) = decode(&half[self.position as usize..]) {
            if (record.checkpoint, record.sequence) != (self.checkpoint, self.sequence) {
                break;
            }
            each_operation(record.operations, &mut *replay)?;
            self.sequence += 1;
            self.position += record_bytes(record.operations.len()) as u64;
        }
        Ok(())
    }

    /// Is there a record that is newer than the last one that was found in its place?
    fn refuse_damage(&self, halves: &[&[u8]; 2]) -> Result<(), MetadataError> {
        let magic = RECORD_MAGIC.to_le_bytes();
        for half in halves {
            let starts = (0..half.len()).step_by(ALIGNMENT).filter(|&at| half[at..].starts_with(&magic));
            for record in starts.filter_map(|at| decode(&half[at..])) {
                if (record.checkpoint, record.sequence) >= (self.checkpoint, self.sequence) {
                    let reason = format!(
                        "record {}.{} is there, but record {}.{} before it is damaged",
                        record.checkpoint, record.sequence, self.checkpoint, self.sequence
                    );
                    return Err(MetadataError::corrupt(&self.path, &reason));
                }
            }
        }
        Ok(())
    }
}

/// A record as it was found.
struct Record<'a> {
    checkpoint: u64,
    sequence: u64,
    operations: &'a [u8],
}

fn record_bytes(operations: usize) -> usize {
    (RECORD_HEADER + operations).next_multiple_of(ALIGNMENT)
}

fn encode(operations: &Operations, checkpoint: u64, sequence: u64) -> Vec<u8> {
    let operations = &operations.0;
    let mut record = vec![0; record_bytes(operations.len())];
    record[0..4].copy_from_slice(&RECORD_MAGIC.to_le_bytes());
    record[8..12].copy_from_slice(&(operations.len() as u32).to_le_bytes());
    record[16..24].copy_from_slice(&checkpoint.to_le_bytes());
    record[24..32].copy_from_slice(&sequence.to_le_bytes());
    record[RECORD_HEADER..RECORD_HEADER + operations.len()].copy_from_slice(operations);
    let crc = crc(&record[8..RECORD_HEADER + operations.len()]);
    record[4..8].copy_from_slice(&crc.to_le_bytes());
    record
}

fn decode(bytes: &[u8]) -> Option<Record<'_>> {
    let header = bytes.get(..RECORD_HEADER)?;
    if u32_at(header, 0) != RECORD_MAGIC {
        return None;
    }
    let length = u32_at(header, 8) as usize;
    let covered = bytes.get(8..RECORD_HEADER + length)?;
    (crc(covered) == u32_at(header, 4)).then(|| Record {
        checkpoint: u64_at(header, 16),
        sequence: u64_at(header, 24),
        operations: &bytes[RECORD_HEADER..RECORD_HEADER + length],
    })
}

fn each_operation(mut bytes: &[u8], each: &mut impl FnMut(Kind, &[u8]) -> Result<(), String>) -> Result<(), String> {
    while !bytes.is_empty() {
        let kind = Kind::from_byte(bytes[0]).ok_or("it holds an operation that nobody knows")?;
        let header = bytes.get(..OPERATION_HEADER).ok_or("an operation is cut")?;
        let end = OPERATION_HEADER + u32_at(header, 1) as usize;
        each(kind, bytes.get(OPERATION_HEADER..end).ok_or("an operation is cut")?)?;
        bytes = &bytes[end..];
    }
    Ok(())
}

fn half(bytes: &[u8], half_bytes: u64, index: u64) -> &[u8] {
    let start = (DATA_START + index * half_bytes) as usize;
    let end = start + half_bytes as usize;
    &bytes[start.min(bytes.len())..end.min(bytes.len())]
}

fn open_file(path: &Path) -> Result<(File, u64), MetadataError> {
    let wrap = |error| MetadataError::io("open", path, error);
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DSYNC).open(path).map_err(wrap)?;
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0).map_err(wrap)?;
    if header[..8] != *FILE_MAGIC {
        return Err(MetadataError::corrupt(path, "it does not begin as a metadata log does"));
    }
    let found = u32_at(&header, 8);
    if found != VERSION {
        return Err(MetadataError::Version { path: path.to_owned(), found, wanted: VERSION });
    }
    if crc(&header[..20]) != u32_at(&header, 20) {
        return Err(MetadataError::corrupt(path, "its header's checksum does not match"));
    }
    Ok((file, u64_at(&header, 12)))
}

/// Makes the file under its final name only once it is complete.
fn create(path: &Path, half_bytes: u64) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    let mut page = vec![0; DATA_START as usize];
    page[..8].copy_from_slice(FILE_MAGIC);
    page[8..12].copy_from_slice(&VERSION.to_le_bytes());
    page[12..20].copy_from_slice(&half_bytes.to_le_bytes());
    let crc = crc(&page[..20]);
    page[20..24].copy_from_slice(&crc.to_le_bytes());
    file.write_all(&page)?;
    // Written zeros, not a hole: a later write needs neither space nor a journal commit.
    let zeros = vec![0; half_bytes.min(1 << 20) as usize];
    for _ in 0..(2 * half_bytes).div_ceil(zeros.len() as u64) {
        file.write_all(&zeros)?;
    }
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_parent(path)
}

/// Makes a new name in the directory of `path` durable.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// The checksum of every metadata file.
pub(super) fn crc(bytes: &[u8]) -> u32 {
    // The algorithm has 32 bits, so the upper half is always zero.
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// The little-endian number at `at`.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

/// The little-endian number at `at`.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
#[path = "log_file_tests.rs"]
mod tests;
