//! A server that speaks the Walrus protocol, as a child process.

use std::time::Duration;

use walrus_engine::client::{Client, ClientConfig};

use crate::ports::free_port;
use crate::process::{ChildProcess, Launch};
use crate::{DriverError, Server};

/// A start includes recovery of what an earlier run left.
const READY_TIMEOUT: Duration = Duration::from_mins(2);

/// The running child and what is needed to start it again.
pub(crate) struct ServerProcess {
    launch: Launch,
    child: ChildProcess,
    endpoint: String,
}

impl ServerProcess {
    /// Starts what `launch` says for a free port, and waits until it answers `PING`.
    pub(crate) fn start(launch: impl FnOnce(u16) -> Launch) -> Result<ServerProcess, DriverError> {
        let port = free_port()?;
        let launch = launch(port);
        let endpoint = format!("127.0.0.1:{port}");
        let child = spawn(&launch, &endpoint)?;
        Ok(ServerProcess { launch, child, endpoint })
    }
}

/// Starts a process and waits until it answers `PING` at `endpoint`.
pub(crate) fn spawn(launch: &Launch, endpoint: &str) -> Result<ChildProcess, DriverError> {
    let mut child = launch.spawn()?;
    let mut config = ClientConfig::new(endpoint);
    config.request_timeout = Duration::from_secs(1);
    child.wait_ready(READY_TIMEOUT, || {
        Client::with_config(config.clone()).and_then(|mut client| client.ping()).is_ok()
    })?;
    Ok(child)
}

impl Server for ServerProcess {
    fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn pids(&self) -> Vec<u32> {
        vec![self.child.pid()]
    }

    fn kill(&mut self) -> Result<(), DriverError> {
        self.child.kill()
    }

    fn restart(&mut self) -> Result<(), DriverError> {
        self.child = spawn(&self.launch, &self.endpoint)?;
        Ok(())
    }

    fn stop(&mut self) -> Result<(), DriverError> {
        self.child.stop(ChildProcess::STOP_GRACE)
    }
}
