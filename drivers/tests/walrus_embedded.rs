//! Our store in process.
#![allow(clippy::unwrap_used)]

mod common;

use walrus_drivers::Tier;
use walrus_drivers::walrus_embedded::WalrusEmbedded;

#[test]
fn it_stores_and_reads_back_over_several_segments() {
    for settings in ["segment_entries = 700", "segment_bytes = 100_000", "disable_io_uring = true"] {
        let dir = tempfile::tempdir().unwrap();
        let mut setup = common::setup(dir.path(), &[]);
        setup.settings = settings.parse().unwrap();
        common::embedded_round_trip(&WalrusEmbedded, &setup);
    }
}

#[test]
fn it_works_one_in_flight_and_synced() {
    for (tier, one_in_flight) in [(Tier::PageCache, true), (Tier::Synced, false)] {
        let dir = tempfile::tempdir().unwrap();
        let mut setup = common::setup(dir.path(), &[]);
        (setup.tier, setup.one_in_flight) = (tier, one_in_flight);
        common::embedded_round_trip(&WalrusEmbedded, &setup);
    }
}
