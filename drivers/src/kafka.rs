//! Apache Kafka: a real broker in KRaft mode, or a cluster of them, driven through librdkafka.
//!
//! ```text
//! libs.rs      Java, Maven and the broker's jars        settings.rs  profile table → broker, client
//! broker.rs    the broker's process                     session.rs   topics, clients
//! producer.rs  records out, delivery reports in         consumer.rs  records back
//! java.rs      the same broker through Java's client
//! ```
//!
//! Every durability promise is the broker's own: an acknowledgement is a delivery report of
//! librdkafka, which follows the broker's reply with the `acks` of the profile (default `all`).
//! Kafka replies once the record is in the page cache; with `log.flush.interval.messages=1`
//! (the synced tier) once it is flushed.

mod broker;
mod consumer;
mod java;
mod libs;
mod producer;
mod session;
mod settings;

pub use java::KafkaJava;
pub use libs::{KAFKA_VERSION, default_libs_dir, ensure_libs};

use session::KafkaSession;

use crate::{Deployment, DriverError, Server, Session, Setup, System, Tier, Tools};

/// The system `kafka`: its broker, and librdkafka as the client.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kafka;

impl System for Kafka {
    fn name(&self) -> &'static str {
        "kafka"
    }

    fn deployment(&self) -> Deployment {
        Deployment::Networked
    }

    fn version(&self, _tools: &Tools) -> String {
        let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
        format!("{}, librdkafka {librdkafka}", libs::broker_version())
    }

    fn check(&self, tools: &Tools) -> Result<(), DriverError> {
        libs::check(tools)
    }

    /// Starts a broker of our own, unless `setup.endpoint` names one that is already there.
    fn start(&self, setup: &Setup) -> Result<Option<Box<dyn Server>>, DriverError> {
        start_broker(setup)
    }

    fn open(&self, setup: &Setup) -> Result<Box<dyn Session>, DriverError> {
        Ok(Box::new(KafkaSession::open(setup)?))
    }

    fn needs_warmup(&self) -> bool {
        true
    }

    fn server_key(&self, setup: &Setup) -> String {
        server_key(setup)
    }
}

/// Starts the broker that the setup describes; `None` when one is there already.
fn start_broker(setup: &Setup) -> Result<Option<Box<dyn Server>>, DriverError> {
    if setup.tier == Tier::Memory {
        return Err(DriverError::Unavailable {
            cause: "Kafka acknowledges from the page cache at the earliest".into(),
            remedy: "ask for the tier page-cache or synced".into(),
        });
    }
    if setup.endpoint.is_some() {
        return Ok(None);
    }
    Ok(Some(Box::new(broker::Broker::start(setup)?)))
}

/// What decides about the broker's process; both clients, and all their settings, share one.
fn server_key(setup: &Setup) -> String {
    let described = settings::Settings::new(setup).and_then(|settings| {
        Ok(format!("kafka {} {} {}", setup.nodes, settings.jvm_flags()?.join(" "), settings.server_properties(&[])))
    });
    // Settings that are wrong fail at the start, with a better text than a key could have.
    described.unwrap_or_else(|_| format!("{:?} {}", setup.tier, setup.settings))
}

/// Longest wait for one administrative answer of a broker that is up.
const ADMIN_DEADLINE: std::time::Duration = std::time::Duration::from_secs(30);

/// An error of librdkafka with what was attempted.
fn kafka_error(what: &str, error: &rdkafka::error::KafkaError) -> DriverError {
    DriverError::System(format!("{what}: {error}"))
}

/// Grace of a clean stop: the broker flushes its logs first.
const STOP_GRACE: std::time::Duration = std::time::Duration::from_mins(1);
