//! Machines go down with records that were acknowledged from the page cache and never flushed.

use std::fs::File;

use crate::support::{Cluster, Told, eventually, read_all};

/// Makes a stopped node's directory look as if its machine had gone down before the last records
/// reached the device.
fn lose_tail(cluster: &Cluster, node: u64) {
    let identity = cluster.dir(node).join("store.json");
    let text = std::fs::read_to_string(&identity).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert!(text.contains(boot.trim()));
    std::fs::write(&identity, text.replace(boot.trim(), "another-boot")).unwrap();
    for entry in std::fs::read_dir(cluster.dir(node).join("segments")).unwrap() {
        let file = File::options().write(true).open(entry.unwrap().path()).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(length * 9 / 10).unwrap();
    }
}

fn cluster_with_records(told: &mut Told) -> Cluster {
    let cluster = Cluster::start(3, &["--flush-interval-ms", "3600000"]);
    cluster.register(1, "t", "");
    let mut client = cluster.client(2);
    for index in 0..500 {
        let record = format!("a record of some length, number {index}");
        // A busy machine may miss a lease, and the broker then says so and stores nothing.
        eventually("a record is taken", || told.put(&mut client, "t", record.as_bytes()));
    }
    cluster
}

#[test]
fn one_machine_that_lost_its_tail_is_no_witness_and_gets_it_back() {
    for lost in 1..=3 {
        let mut told = Told::default();
        let mut cluster = cluster_with_records(&mut told);
        for node in 1..=3 {
            cluster.kill(node);
        }
        lose_tail(&cluster, lost);
        for node in 1..=3 {
            cluster.spawn(node);
        }
        let mut client = cluster.client(lost);
        eventually("writes flow again", || told.put(&mut client, "t", b"again"));
        for node in 1..=3 {
            eventually("all is there", || read_all(&cluster, node, "t").len() >= told.acknowledged.len());
            told.check(&read_all(&cluster, node, "t"));
        }
        assert_eq!(cluster.state(lost, "t")["possible_loss"], serde_json::json!([]), "nobody lost anything");
    }
}

#[test]
fn when_all_machines_lost_their_tails_the_loss_is_reported() {
    let mut told = Told::default();
    let mut cluster = cluster_with_records(&mut told);
    for node in 1..=3 {
        cluster.kill(node);
        lose_tail(&cluster, node);
    }
    for node in 1..=3 {
        cluster.spawn(node);
    }
    let mut after = Told::default();
    let mut client = cluster.client(1);
    eventually("writes flow again", || after.put(&mut client, "t", b"again"));
    let found = read_all(&cluster, 1, "t");
    let kept = found.len() - 1;
    assert!(kept < told.acknowledged.len());
    assert_eq!(found[..kept], told.acknowledged[..kept], "what is left is what was written, from the start");
    assert_eq!(cluster.state(1, "t")["possible_loss"], serde_json::json!([1]), "never silently");
}
