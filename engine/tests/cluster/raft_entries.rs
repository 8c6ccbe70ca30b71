//! Records never pass through Raft: how many of its entries a million of them cost.

use crate::support::cluster::Cluster;

/// Three rollovers at the default segment size of a million records.
const RECORDS: u64 = 3_000_000;
const BATCH: u64 = 10_000;
/// Entries for a million records.
const ENTRIES_MAX: f64 = 10.0;

#[test]
#[ignore = "measures: three million records"]
fn a_million_records_cost_a_handful_of_raft_entries() {
    let cluster = Cluster::start(3);
    cluster.register("t", &[]);
    let entries =
        || cluster.node(1).metrics().and_then(|metrics| metrics["last_log_index"].as_u64()).expect("an index");
    let before = entries();
    let mut client = cluster.client(1);
    for _ in 0..RECORDS / BATCH {
        client.append("t", (0..BATCH).map(|_| &b"a small record"[..])).expect("APPEND");
    }
    let per_million = (entries() - before) as f64 * 1e6 / RECORDS as f64;
    println!("Raft entries for a million records: {per_million:.1} (at most {ENTRIES_MAX})");
    let sealed = cluster.state(1, "t")["sealed_segments"].as_object().map_or(0, serde_json::Map::len) as u64;
    assert!(sealed >= RECORDS / 1_000_000 - 1, "segments have the default size: {sealed} are sealed");
    assert!(per_million <= ENTRIES_MAX, "{per_million:.1} entries");
}
