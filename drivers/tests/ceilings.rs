//! The ceilings keep nothing that could be read; they must acknowledge everything once.
#![allow(clippy::unwrap_used)]

mod common;

use walrus_drivers::null::Null;
use walrus_drivers::{System, Tier, dir_bytes};

#[test]
fn null_acknowledges_everything() {
    let dir = tempfile::tempdir().unwrap();
    let setup = common::setup(dir.path(), &[]);
    common::produce_all(&*Null.open(&setup).unwrap(), &setup);
}

/// Produces with these settings and checks that the files have grown by what was sent.
#[cfg(target_os = "linux")]
fn raw_stores_what_was_sent(tier: Tier, settings: &toml::Table, one_in_flight: bool) {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = common::setup(dir.path(), &[]);
    (setup.tier, setup.one_in_flight) = (tier, one_in_flight);
    setup.settings = settings.clone();
    let session = walrus_drivers::raw::Raw.open(&setup).unwrap();
    common::produce_all(&*session, &setup);
    let record_bytes = |id| (0..common::RECORDS_PER_PRODUCER).map(move |t| common::record(id, t).len());
    let sent: usize = (0..setup.producers).flat_map(record_bytes).sum();
    let stored = dir_bytes(dir.path());
    assert!(stored >= sent as u64, "{stored} of {sent} bytes with {settings:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn raw_writes_every_byte() {
    // Strides that are prime to the sizes of all dimensions meet each value of each.
    for (tier, stride) in [(Tier::PageCache, 7), (Tier::Synced, 17)] {
        for settings in walrus_drivers::raw::combinations(tier).into_iter().step_by(stride) {
            raw_stores_what_was_sent(tier, &settings, false);
        }
    }
    raw_stores_what_was_sent(Tier::PageCache, &toml::Table::new(), true);
    let shared: toml::Table = "writers = 1\nio = 'io_uring'".parse().unwrap();
    raw_stores_what_was_sent(Tier::PageCache, &shared, true);
}

#[cfg(target_os = "linux")]
#[test]
fn raw_refuses_a_synced_run_that_would_not_flush() {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = common::setup(dir.path(), &[]);
    setup.tier = Tier::Synced;
    setup.settings.insert("flush".into(), "none".into());
    let Err(error) = walrus_drivers::raw::Raw.open(&setup) else { panic!("it was opened") };
    assert!(error.to_string().contains("dsync"), "{error}");
}
