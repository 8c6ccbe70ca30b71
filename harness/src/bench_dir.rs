//! Where the systems under test put their data.

use std::path::{Path, PathBuf};

/// A directory of ours, removed at the end.
pub(crate) struct BenchDir(pub(crate) PathBuf);

impl BenchDir {
    const PREFIX: &str = "walrus-bench-";

    /// Makes one below `parent`.
    pub(crate) fn make(parent: &Path) -> Result<BenchDir, String> {
        Self::remove_stale(parent);
        let dir = parent.join(format!("{}{}", Self::PREFIX, std::process::id()));
        std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        Ok(BenchDir(dir))
    }

    /// Removes what a run that was killed hard has left: gigabytes that nobody would look for.
    fn remove_stale(parent: &Path) {
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let pid = name.to_str().and_then(|name| name.strip_prefix(Self::PREFIX)?.parse::<u32>().ok());
            let is_dead = pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
            if is_dead && std::fs::remove_dir_all(entry.path()).is_ok() {
                eprintln!("removed {}, left by a run that was killed", entry.path().display());
            }
        }
    }
}

impl Drop for BenchDir {
    fn drop(&mut self) {
        // What cannot be removed is only space, and its name says whose it is.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
