//! A full disk: writes are refused, reads go on, and writing resumes when there is space.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::support::{TestBroker, eventually};

/// A file system of 48 MiB, if this process may mount one.
struct SmallDisk {
    path: CString,
}

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        let path = CString::new(at.as_os_str().as_bytes()).ok()?;
        // SAFETY: all four strings are terminated and live over the call.
        let mounted =
            unsafe { libc::mount(c"tmpfs".as_ptr(), path.as_ptr(), c"tmpfs".as_ptr(), 0, c"size=48m".as_ptr().cast()) };
        (mounted == 0).then_some(SmallDisk { path })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // SAFETY: the string is terminated; a lazy unmount waits for open files by itself.
        unsafe { libc::umount2(self.path.as_ptr(), libc::MNT_DETACH) };
    }
}

#[test]
fn refused_then_resumed() {
    let place = tempfile::tempdir().expect("temp dir");
    let Some(_disk) = SmallDisk::mount(place.path()) else {
        eprintln!("skipped: mounting a small file system needs root");
        return;
    };
    let mut broker = TestBroker::start_with(|config| config.data_dir = place.path().join("data"));
    let mut client = broker.client();
    assert_eq!(client.call("REGISTER t"), "OK");
    let filler = place.path().join("filler");
    std::fs::write(&filler, vec![1; 16 << 20]).expect("there is space still");
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
    std::fs::remove_file(&filler).expect("removes");
    eventually("writes resume", || client.call(body(acked)) == "OK");
    broker.restart();
    let records = broker.client().fetch_all("t", 0);
    assert!(records.len() as u32 > acked);
    for (n, (_, record)) in records.iter().take(acked as usize).enumerate() {
        assert_eq!(record[..8], *format!("{n:08}").as_bytes());
    }
    broker.stop();
}
