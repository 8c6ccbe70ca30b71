//! A file system of 48 MiB that can be filled. Needs root.

use std::ffi::CString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Mounted until it is dropped.
pub struct SmallDisk {
    at: PathBuf,
    path: CString,
}

impl SmallDisk {
    /// Mounts one; `None`, and a line that says why, if this process may not.
    pub fn mount(at: &Path) -> Option<Self> {
        let path = CString::new(at.as_os_str().as_bytes()).expect("a path has no zero bytes");
        // SAFETY: all four strings are terminated and live over the call.
        let mounted =
            unsafe { libc::mount(c"tmpfs".as_ptr(), path.as_ptr(), c"tmpfs".as_ptr(), 0, c"size=48m".as_ptr().cast()) };
        if mounted != 0 {
            println!("skipped: mounting a small file system needs root");
            return None;
        }
        Some(SmallDisk { at: at.to_owned(), path })
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }

    /// Takes `bytes` of its space, or all that there is.
    pub fn fill(&self, bytes: usize) {
        let mut file = std::fs::File::options().create(true).append(true).open(self.filler()).expect("a file");
        let piece = [1; 4096];
        // The disk is full when the last piece does not fit.
        let _ = (0..bytes / piece.len()).try_for_each(|_| file.write_all(&piece));
    }

    /// Gives that space back.
    pub fn make_space(&self) {
        std::fs::remove_file(self.filler()).expect("it was filled");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // SAFETY: the string is terminated; a lazy unmount waits for open files by itself.
        unsafe { libc::umount2(self.path.as_ptr(), libc::MNT_DETACH) };
    }
}
