//! Stands in for a system that this build leaves out, so that it is told of rather than missed.

use crate::{Deployment, DriverError, Server, Session, Setup, System, Tools};

/// A system behind a cargo feature that is off.
#[derive(Debug)]
pub struct NotBuilt {
    /// The system's name.
    pub name: &'static str,
    /// The cargo feature that builds it in.
    pub feature: &'static str,
    /// Where it would run.
    pub deployment: Deployment,
}

impl NotBuilt {
    fn error(&self) -> DriverError {
        DriverError::Unavailable {
            cause: format!("this build has no {}", self.name),
            remedy: format!("build with --features {}", self.feature),
        }
    }
}

impl System for NotBuilt {
    fn name(&self) -> &'static str {
        self.name
    }

    fn deployment(&self) -> Deployment {
        self.deployment
    }

    fn version(&self, _tools: &Tools) -> String {
        "not built in".to_owned()
    }

    fn check(&self, _tools: &Tools) -> Result<(), DriverError> {
        Err(self.error())
    }

    fn start(&self, _setup: &Setup) -> Result<Option<Box<dyn Server>>, DriverError> {
        Err(self.error())
    }

    fn open(&self, _setup: &Setup) -> Result<Box<dyn Session>, DriverError> {
        Err(self.error())
    }
}
