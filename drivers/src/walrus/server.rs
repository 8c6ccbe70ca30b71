//! The broker's process.

use std::path::Path;

use crate::process::Launch;
use crate::server_process::ServerProcess;
use crate::{DriverError, Setup, Tier, Tools};

/// The binary, if it is there.
pub(super) fn binary(tools: &Tools) -> Result<&Path, DriverError> {
    let found = tools.walrus_bin.as_deref().filter(|binary| binary.is_file());
    found.ok_or_else(|| DriverError::Unavailable {
        cause: "the walrus binary is missing".into(),
        remedy: "build it with `cargo build --release -p walrus-engine`".into(),
    })
}

pub(super) fn start(setup: &Setup) -> Result<ServerProcess, DriverError> {
    if setup.tier == Tier::Memory {
        return Err(DriverError::Unavailable {
            cause: "Walrus never acknowledges from process memory".into(),
            remedy: "run it in the page-cache or the synced tier".into(),
        });
    }
    let binary = binary(&setup.tools)?;
    let flags = flags(setup)?;
    ServerProcess::start(|port| {
        let launch = Launch::new(binary, setup.data_dir.join("server.log"))
            .arg("--node-id")
            .arg("1")
            .arg("--data-dir")
            .arg(setup.data_dir.join("data"))
            .arg("--client-port")
            .arg(port.to_string())
            .arg("--raft-port")
            .arg("0")
            .env("RUST_LOG", "warn");
        flags.iter().fold(launch, Launch::arg)
    })
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
