//! The broker's process, or one node's of a cluster.

use std::path::Path;

use super::cluster::Cluster;
use crate::process::Launch;
use crate::server_process::ServerProcess;
use crate::{DriverError, Server, Setup, Tier, Tools};

/// The binary, if it is there.
pub(super) fn binary(tools: &Tools) -> Result<&Path, DriverError> {
    let found = tools.walrus_bin.as_deref().filter(|binary| binary.is_file());
    found.ok_or_else(|| DriverError::Unavailable {
        cause: "the walrus binary is missing".into(),
        remedy: "build it with `cargo build --release -p walrus-engine`".into(),
    })
}

pub(super) fn start(setup: &Setup) -> Result<Box<dyn Server>, DriverError> {
    if setup.tier == Tier::Memory {
        return Err(DriverError::Unavailable {
            cause: "Walrus never acknowledges from process memory".into(),
            remedy: "run it in the page-cache or the synced tier".into(),
        });
    }
    if setup.nodes > 1 {
        return Ok(Box::new(Cluster::start(setup)?));
    }
    let launch = launch(setup, 1)?;
    Ok(Box::new(ServerProcess::start(|port| {
        // Nobody joins a single node, so any free port will do.
        launch.arg("--client-port").arg(port.to_string()).arg("--raft-port").arg("0")
    })?))
}

/// How a node is started, but for its ports.
pub(super) fn launch(setup: &Setup, node_id: u32) -> Result<Launch, DriverError> {
    let dir = if setup.nodes > 1 { setup.data_dir.join(format!("node{node_id}")) } else { setup.data_dir.clone() };
    let launch = Launch::new(binary(&setup.tools)?, dir.join("server.log"))
        .arg("--node-id")
        .arg(node_id.to_string())
        .arg("--data-dir")
        .arg(dir.join("data"))
        .env("RUST_LOG", "warn");
    Ok(flags(setup)?.iter().fold(launch, Launch::arg))
}

/// The profile's `server` table as flags: `pool_bytes = 1` becomes `--pool-bytes=1`.
fn flags(setup: &Setup) -> Result<Vec<String>, DriverError> {
    let Some(table) = setup.settings.get("server") else {
        return Ok(Vec::new());
    };
    let table = table.as_table().ok_or_else(|| DriverError::Unavailable {
        cause: "setting `server` is not a table of flags".into(),
        remedy: "mend the profile in drivers/profiles".into(),
    })?;
    let flag = |(name, value): (&String, &toml::Value)| {
        let name = name.replace('_', "-");
        match value {
            toml::Value::Boolean(true) => Some(format!("--{name}")),
            toml::Value::Boolean(false) => None,
            toml::Value::String(text) => Some(format!("--{name}={text}")),
            other => Some(format!("--{name}={other}")),
        }
    };
    Ok(table.iter().filter_map(flag).collect())
}
