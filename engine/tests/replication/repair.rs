//! Sealed segments get back to full strength, and damage in one is mended from another.

use std::os::unix::fs::FileExt;

use crate::support::{Cluster, Told, eventually, read_all};

fn segment_files(cluster: &Cluster, node: u64) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(cluster.dir(node).join("segments")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn a_node_that_was_away_fetches_what_was_sealed_meanwhile() {
    let mut cluster = Cluster::start(3, &["--max-segment-entries", "10"]);
    cluster.register(1, "t", "");
    let away = 3;
    cluster.kill(away);
    let mut told = Told::default();
    let mut client = cluster.client(1);
    while told.acknowledged.len() < 50 {
        let record = format!("record {}", told.acknowledged.len() + told.unknown.len() + told.refused as usize);
        told.put(&mut client, "t", record.as_bytes());
    }
    cluster.spawn(away);
    eventually("it has a file of each segment", || segment_files(&cluster, away).len() >= 5);
    eventually("it serves them all alone", || {
        let state = cluster.state(away, "t");
        let sealed: u64 = state["sealed_segments"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
        sealed >= 50
    });
    told.check(&read_all(&cluster, away, "t"));
}

#[test]
fn a_damaged_copy_is_mended_and_readers_never_notice() {
    let cluster = Cluster::start(3, &["--max-segment-entries", "10"]);
    cluster.register(1, "t", "");
    let mut told = Told::default();
    let mut client = cluster.client(1);
    for index in 0..30 {
        assert!(told.put(&mut client, "t", format!("record {index}").as_bytes()));
    }
    let path = segment_files(&cluster, 2).remove(0);
    let whole = std::fs::read(&path).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0xff; 8], 4096 + 70).unwrap();
    assert_eq!(read_all(&cluster, 2, "t"), told.acknowledged);
    eventually("the file is as it was", || std::fs::read(&path).unwrap()[..4096 + 200] == whole[..4096 + 200]);
}
