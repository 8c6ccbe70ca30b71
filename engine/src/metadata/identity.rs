//! Which cluster a data directory belongs to, and as whom: `metadata/cluster.json`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::MetadataError;
use super::log_file::{VERSION, sync_parent};

/// The file in the metadata's directory.
pub(super) fn path_in(dir: &Path) -> PathBuf {
    dir.join("cluster.json")
}

/// Writes down that the member at `address` has called this node its own: see [`Identity::claimed_by`].
pub(super) fn give_up(path: &Path, address: &str) -> Result<(), MetadataError> {
    match Identity::read(path)? {
        Some(identity) => Identity { claimed_by: Some(address.to_owned()), ..identity }.write(path),
        None => Ok(()),
    }
}

/// How a directory came to its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Origin {
    /// It is making a cluster of itself; the first entry may not be written yet.
    Founding,
    /// It made the cluster.
    Founder,
    /// It was let in.
    Joined,
}

/// Contents of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    format_version: u32,
    /// 32 hex digits.
    cluster_id: String,
    pub(super) node_id: u64,
    pub(super) generation: u64,
    pub(super) origin: Origin,
    /// A member of another cluster, at this address, has called this node its own: the directory's
    /// cluster was founded by mistake and never serves again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) claimed_by: Option<String>,
}

impl Identity {
    pub(super) fn new(cluster_id: u128, node_id: u64, generation: u64, origin: Origin) -> Self {
        let cluster_id = format!("{cluster_id:032x}");
        Identity { format_version: VERSION, cluster_id, node_id, generation, origin, claimed_by: None }
    }

    /// The same, with another origin.
    pub(super) fn with_origin(self, origin: Origin) -> Self {
        Identity { origin, ..self }
    }

    pub(super) fn cluster_id(&self) -> u128 {
        u128::from_str_radix(&self.cluster_id, 16).unwrap_or(0)
    }

    /// Reads it; `None` for an empty directory.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, MetadataError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(MetadataError::io("read", path, error)),
        };
        let identity: Identity =
            serde_json::from_slice(&bytes).map_err(|error| MetadataError::corrupt(path, &error.to_string()))?;
        if identity.format_version != VERSION {
            let (path, found) = (path.to_owned(), identity.format_version);
            return Err(MetadataError::Version { path, found, wanted: VERSION });
        }
        if identity.cluster_id() == 0 {
            return Err(MetadataError::corrupt(path, "its cluster id is not one"));
        }
        Ok(Some(identity))
    }

    /// Writes it durably.
    pub(super) fn write(&self, path: &Path) -> Result<(), MetadataError> {
        let written = (|| {
            let temporary = path.with_extension("tmp");
            let mut file = File::create(&temporary)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            sync_parent(path)
        })();
        written.map_err(|error| MetadataError::io("write", path, error))
    }
}
