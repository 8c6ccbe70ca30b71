//! On which machine a system's settings were tuned: the `[machine]` table of its profile.

use std::path::Path;

use serde::Deserialize;

use crate::proc;
use crate::provenance::Mount;
use crate::settings::{self, SettingsError};

/// What the best settings depend on most.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    cores: u32,
    memory_gib: u64,
    filesystem: String,
}

impl Machine {
    /// This one; systems put their data into `dir`.
    pub fn here(dir: &Path, cores: u32) -> Self {
        let filesystem = Mount::of(dir).map_or_else(String::new, |mount| mount.kind);
        // What the kernel keeps for itself is not in the total.
        let memory_gib = proc::meminfo_bytes("MemTotal").div_ceil(1 << 30);
        Machine { cores, memory_gib, filesystem }
    }

    /// Memory counts as the same within a quarter.
    fn is_like(&self, other: &Machine) -> bool {
        self.cores == other.cores
            && self.filesystem == other.filesystem
            && 4 * self.memory_gib.abs_diff(other.memory_gib) <= self.memory_gib.max(other.memory_gib)
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} cores, {} GiB, {}", self.cores, self.memory_gib, self.filesystem)
    }
}

/// What to say if a system's profile comes from another machine than `here`. Without `[machine]` it depends
/// on none.
pub fn warning(dir: Option<&Path>, system: &str, here: &Machine) -> Result<Option<String>, SettingsError> {
    let Some(table) = settings::read(dir, system)?.remove("machine") else { return Ok(None) };
    let tuned: Machine = table.try_into().map_err(|error: toml::de::Error| SettingsError::Bad {
        path: format!("{system}.toml").into(),
        why: format!("[machine]: {error}"),
    })?;
    Ok((!tuned.is_like(here)).then(|| {
        format!("the settings of {system} were tuned on another machine ({tuned}; here {here}); see `make bench-tune`")
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn settings_from_another_machine_are_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let write = |text: &str| std::fs::write(dir.path().join("x.toml"), text).unwrap();
        let here = Machine { cores: 2, memory_gib: 24, filesystem: "ext4".into() };
        let found = || warning(Some(dir.path()), "x", &here);
        write("[tuned]\na = 1\n");
        assert_eq!(found().unwrap(), None);
        write("[machine]\ncores = 2\nmemory_gib = 20\nfilesystem = \"ext4\"\n");
        assert_eq!(found().unwrap(), None);
        for other in ["cores = 8\nmemory_gib = 24", "cores = 2\nmemory_gib = 64"] {
            write(&format!("[machine]\n{other}\nfilesystem = \"ext4\"\n"));
            assert!(found().unwrap().unwrap().contains("here 2 cores, 24 GiB, ext4"));
        }
        write("[machine]\ncores = 2\n");
        assert!(found().is_err());
    }

    #[test]
    fn every_tuned_profile_names_its_machine() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../drivers/profiles");
        let elsewhere = Machine { cores: 0, memory_gib: 0, filesystem: String::new() };
        for system in ["walrus", "walrus-embedded", "kafka", "kafka-java", "rocksdb", "upstream"] {
            assert!(warning(Some(&dir), system, &elsewhere).unwrap().is_some(), "{system}");
        }
    }
}
