//! The same broker through Kafka's own Java client: one source file, run by the `java` launcher.

use super::{KafkaSession, libs, start_broker};
use crate::process::io_error;
use crate::{Deployment, DriverError, Server, Session, Setup, System, Tools};

/// Rides in the binary, so that a copied binary needs no checkout.
const WORKER_SOURCE: &str = include_str!("../../kafka/KafkaWorker.java");

/// The system `kafka-java`: Java's client writes; reading back goes through librdkafka as for
/// every other row of Kafka.
#[derive(Debug, Clone, Copy, Default)]
pub struct KafkaJava;

impl System for KafkaJava {
    fn name(&self) -> &'static str {
        "kafka-java"
    }

    fn deployment(&self) -> Deployment {
        Deployment::Networked
    }

    fn version(&self, _tools: &Tools) -> String {
        format!("{}, kafka-clients {}", libs::broker_version(), libs::KAFKA_VERSION)
    }

    fn check(&self, tools: &Tools) -> Result<(), DriverError> {
        libs::check(tools)?;
        libs::check_compiler()
    }

    fn start(&self, setup: &Setup) -> Result<Option<Box<dyn Server>>, DriverError> {
        start_broker(setup)
    }

    fn open(&self, setup: &Setup) -> Result<Box<dyn Session>, DriverError> {
        Ok(Box::new(KafkaSession::open(setup)?))
    }

    fn worker_command(&self, setup: &Setup) -> Result<Option<Vec<String>>, DriverError> {
        let source = setup.data_dir.join("KafkaWorker.java");
        std::fs::create_dir_all(&setup.data_dir)
            .and_then(|()| std::fs::write(&source, WORKER_SOURCE))
            .map_err(|error| io_error(&format!("writing {}", source.display()), error))?;
        let heap_mb = super::settings::Settings::new(setup)?.client_heap_mb()?;
        let class_path = libs::class_path(&setup.tools)?;
        Ok(Some(vec![
            libs::java()?.display().to_string(),
            format!("-Xms{heap_mb}m"),
            format!("-Xmx{heap_mb}m"),
            libs::QUIET_FLAG.into(),
            "-cp".into(),
            class_path.to_string_lossy().into_owned(),
            source.display().to_string(),
        ]))
    }

    fn needs_warmup(&self) -> bool {
        true
    }

    fn server_key(&self, setup: &Setup) -> String {
        super::server_key(setup)
    }
}
