//! RocksDB as a log: one key per record, in order of topic, producer and sequence.
//!
//! Variants: `vanilla` (set up as the original's benchmark does it, one `Put` a record), `put`
//! (tuned) and `batch` (tuned; one `WriteBatch` for many records). Settings are RocksDB's own,
//! by its own names, as in its options files; the few that belong to this driver are listed in
//! [`OWN_SETTINGS`].
//!
//! Tiers: `memory` leaves the write-ahead log in the process (`manual_wal_flush`), `page-cache`
//! writes it without a flush, `synced` flushes it before each acknowledgement (`sync`).

mod keys;
mod session;

use crate::{Deployment, DriverError, Server, Session, Setup, System, Tools};

/// Settings that are not RocksDB options:
/// `batch_bytes` (least bytes of a `WriteBatch` that is not the last), `fetch_bytes` (bytes that
/// one fetch reads), `optimize_level_style_compaction` (memory budget for the function of that
/// name), `wal_sync_interval_ms` (flush the write-ahead log in the background; 0: never),
/// `text_keys` (`topic:producer:sequence` in decimal instead of binary).
pub const OWN_SETTINGS: [&str; 5] =
    ["batch_bytes", "fetch_bytes", "optimize_level_style_compaction", "wal_sync_interval_ms", "text_keys"];

/// RocksDB in process.
#[derive(Debug, Default)]
pub struct RocksDb;

impl System for RocksDb {
    fn name(&self) -> &'static str {
        "rocksdb"
    }

    fn deployment(&self) -> Deployment {
        Deployment::Embedded
    }

    fn version(&self, _tools: &Tools) -> String {
        "rocksdb 11.8.1 (crate rocksdb 0.25)".to_owned()
    }

    fn check(&self, _tools: &Tools) -> Result<(), DriverError> {
        Ok(())
    }

    fn start(&self, _setup: &Setup) -> Result<Option<Box<dyn Server>>, DriverError> {
        Ok(None)
    }

    fn open(&self, setup: &Setup) -> Result<Box<dyn Session>, DriverError> {
        Ok(Box::new(session::RocksSession::open(setup)?))
    }
}
