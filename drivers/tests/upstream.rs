//! The crate `walrus-rust` keeps process-wide settings, so this file has one test only.
#![allow(clippy::unwrap_used)]

mod common;

use walrus_drivers::System;
use walrus_drivers::upstream::Upstream;

#[test]
fn both_calls_store_and_read_back() {
    for variant in ["append", "batch"] {
        let dir = tempfile::tempdir().unwrap();
        let setup = common::setup(dir.path(), &[variant, "fd"]);
        let session = Upstream.open(&setup).unwrap();
        common::produce_all(&*session, &setup);
        common::read_back(&*session, &setup);
        drop(session);
        let session = Upstream.open(&setup).unwrap();
        common::read_back(&*session, &setup);
    }
}
