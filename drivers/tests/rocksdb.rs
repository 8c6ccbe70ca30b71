//! `RocksDB` in each variant; needs `--features rocksdb`.
#![cfg(feature = "rocksdb")]
#![allow(clippy::unwrap_used)]

mod common;

use walrus_drivers::rocksdb::RocksDb;
use walrus_drivers::{System, Tier};

const VANILLA: &str = "optimize_level_style_compaction = 17179869184
text_keys = true
wal_sync_interval_ms = 1000";

#[test]
fn every_variant_stores_and_reads_back() {
    for (variant, settings) in [("vanilla", VANILLA), ("put", ""), ("batch", "batch_bytes = 100000")] {
        let dir = tempfile::tempdir().unwrap();
        let mut setup = common::setup(dir.path(), &[variant]);
        setup.settings = settings.parse().unwrap();
        common::embedded_round_trip(&RocksDb, &setup);
    }
}

#[test]
fn the_synced_tier_works_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = common::setup(dir.path(), &["tuned", "batch"]);
    setup.tier = Tier::Synced;
    common::embedded_round_trip(&RocksDb, &setup);
}

#[test]
fn an_unknown_option_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = common::setup(dir.path(), &["put"]);
    setup.settings.insert("write_bufer_size".into(), 1.into());
    let Err(error) = RocksDb.open(&setup) else { panic!("it was opened") };
    assert!(error.to_string().contains("write_bufer_size"), "{error}");
}
