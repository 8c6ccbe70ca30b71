//! All systems that this build knows.

use crate::{Deployment, System};

/// Every system under test, ceilings included. `raw` is there twice, once for each deployment.
/// A driver adds one line here.
pub fn systems() -> Vec<Box<dyn System>> {
    vec![
        Box::new(crate::null::Null),
        #[cfg(target_os = "linux")]
        Box::new(crate::raw::Raw),
        #[cfg(target_os = "linux")]
        Box::new(crate::raw::server::RawNetworked),
        Box::new(crate::walrus::Walrus),
        Box::new(crate::walrus_embedded::WalrusEmbedded),
        Box::new(crate::upstream::Upstream),
        #[cfg(feature = "rocksdb")]
        Box::new(crate::rocksdb::RocksDb),
        #[cfg(not(feature = "rocksdb"))]
        Box::new(crate::not_built::NotBuilt { name: "rocksdb", feature: "rocksdb", deployment: Deployment::Embedded }),
        #[cfg(feature = "kafka")]
        Box::new(crate::kafka::Kafka),
        #[cfg(feature = "kafka")]
        Box::new(crate::kafka::KafkaJava),
        #[cfg(not(feature = "kafka"))]
        Box::new(crate::not_built::NotBuilt { name: "kafka", feature: "kafka", deployment: Deployment::Networked }),
        #[cfg(not(feature = "kafka"))]
        Box::new(crate::not_built::NotBuilt {
            name: "kafka-java",
            feature: "kafka",
            deployment: Deployment::Networked,
        }),
    ]
}

/// The system with this name and deployment.
pub fn find(name: &str, deployment: Deployment) -> Option<Box<dyn System>> {
    systems().into_iter().find(|system| system.name() == name && system.deployment() == deployment)
}
