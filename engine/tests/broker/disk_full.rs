//! A full disk: writes are refused, reads go on, and writing resumes when there is space.

use crate::small_disk::SmallDisk;
use crate::support::{TestBroker, eventually};

#[test]
fn refused_then_resumed() {
    let place = tempfile::tempdir().expect("temp dir");
    let Some(disk) = SmallDisk::mount(place.path()) else { return };
    let mut broker = TestBroker::start_with(|config| config.data_dir = place.path().join("data"));
    let mut client = broker.client();
    assert_eq!(client.call("REGISTER t"), "OK");
    disk.fill(16 << 20);
    let body = |n: u32| [format!("PUT t {n:08}").into_bytes(), vec![b'x'; 200_000]].concat();
    let mut acked = 0;
    let refusal = loop {
        let reply = client.call(body(acked));
        if reply != "OK" {
            break reply;
        }
        acked += 1;
        assert!(acked < 1000, "the disk never fills");
    };
    assert!(refusal.starts_with("ERR DiskFull "), "{refusal}");
    assert!(acked > 20, "{acked}");
    let records = client.fetch_all("t", 0);
    assert_eq!(records.len() as u32, acked, "reads go on");
    disk.make_space();
    eventually("writes resume", || client.call(body(acked)) == "OK");
    broker.restart();
    let records = broker.client().fetch_all("t", 0);
    assert!(records.len() as u32 > acked);
    for (n, (_, record)) in records.iter().take(acked as usize).enumerate() {
        assert_eq!(record[..8], *format!("{n:08}").as_bytes());
    }
    broker.stop();
}
