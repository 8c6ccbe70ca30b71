//! From the profile's table to the settings of broker, JVM and clients.
//!
//! | key | meaning | default |
//! |---|---|---|
//! | `broker.*` | line of `server.properties` | as Kafka ships it |
//! | `producer.*`, `consumer.*`, `client.*` | librdkafka's own name, `client.*` for both (`kafka-java`: `producer.*` by the Java client's names) | the client's |
//! | `heap_mb` | heap of the broker, fixed (`-Xms` = `-Xmx`) | 1024, as Kafka ships it |
//! | `jvm` | list of flags instead of those that Kafka ships | see [`SHIPPED_JVM_FLAGS`] |
//! | `instances` | librdkafka producers that share the work; 0: one for each producer | 0 |
//! | `port` | the broker's port; 0: any free one | 0 |
//! | `client_heap_mb`, `client_warmup_s` | `kafka-java` only: heap of the client's JVM, and how long it writes to a scratch topic before the clock starts | 512, 4 |
//! | `ready_timeout_s` | longest wait until the broker answers | 120 |
//!
//! Dots may be written as nested tables: `broker.num.io.threads = 4` and
//! `"broker.num.io.threads" = 4` are the same.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::{DriverError, Setup, Tier};

/// Largest record that broker and clients let through: 1 MiB records need more than Kafka's
/// default of 1,048,588 bytes a batch.
const MESSAGE_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// The flags of Kafka's own start script (`kafka-run-class.sh`).
const SHIPPED_JVM_FLAGS: [&str; 5] = [
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-XX:MaxInlineLevel=15",
];

/// What the shipped `config/server.properties` sets: a newcomer gets these.
const SHIPPED_PROPERTIES: [(&str, &str); 7] = [
    ("num.network.threads", "3"),
    ("num.io.threads", "8"),
    ("socket.send.buffer.bytes", "102400"),
    ("socket.receive.buffer.bytes", "102400"),
    ("socket.request.max.bytes", "104857600"),
    ("log.segment.bytes", "1073741824"),
    ("log.retention.hours", "168"),
];

/// Settings of the driver itself that are numbers.
const OWN_KEYS: [&str; 6] = ["heap_mb", "instances", "port", "ready_timeout_s", "client_heap_mb", "client_warmup_s"];

/// The settings of one run, flattened and checked.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    values: BTreeMap<String, String>,
    jvm: Vec<String>,
    tier: Tier,
    nodes: u32,
    idempotent: bool,
    /// One record in flight, and not as a newcomer would have it: lingering would only hurt.
    no_linger: bool,
}

impl Settings {
    /// Reads the table of the setup. Fails on a key that nothing would read: a typing error in a
    /// profile must not pass for a measurement.
    pub(super) fn new(setup: &Setup) -> Result<Settings, DriverError> {
        let mut values = BTreeMap::new();
        let mut jvm: Vec<String> = SHIPPED_JVM_FLAGS.map(String::from).to_vec();
        let mut table = setup.settings.clone();
        if let Some(flags) = table.remove("jvm") {
            jvm = flags.try_into().map_err(|_| bad_setting("jvm", "a list of strings"))?;
        }
        flatten("", &table, &mut values);
        let prefixes = ["broker.", "producer.", "consumer.", "client."];
        for key in values.keys() {
            if !OWN_KEYS.contains(&key.as_str()) && !prefixes.iter().any(|p| key.starts_with(p)) {
                let known = format!("one of jvm, {}, {}*", OWN_KEYS.join(", "), prefixes.join("*, "));
                return Err(bad_setting(key, &known));
            }
        }
        let has_word = |word: &str| setup.variant.iter().any(|w| w == word);
        Ok(Settings {
            values,
            jvm,
            tier: setup.tier,
            nodes: setup.nodes,
            idempotent: has_word("idempotent"),
            no_linger: setup.one_in_flight && !has_word("vanilla"),
        })
    }

    /// Heap and collector of the broker's JVM.
    pub(super) fn jvm_flags(&self) -> Result<Vec<String>, DriverError> {
        let heap_mb = self.number("heap_mb", 1024)?;
        let mut flags = vec![format!("-Xms{heap_mb}m"), format!("-Xmx{heap_mb}m")];
        flags.extend(self.jvm.iter().cloned());
        Ok(flags)
    }

    /// Heap of the Java client.
    pub(super) fn client_heap_mb(&self) -> Result<u64, DriverError> {
        self.number("client_heap_mb", 512)
    }

    /// librdkafka instances that the producers share; one for each if the profile says 0.
    pub(super) fn instances(&self, producers: u32) -> Result<usize, DriverError> {
        let asked = self.number("instances", 0)? as usize;
        let each = producers.max(1) as usize;
        Ok(if asked == 0 { each } else { asked.min(each) })
    }

    /// The port that the profile asks for, if any.
    pub(super) fn port(&self) -> Result<Option<u16>, DriverError> {
        let port = self.number("port", 0)?;
        let port = u16::try_from(port).map_err(|_| bad_setting("port", "a port number"))?;
        Ok((port != 0).then_some(port))
    }

    /// Longest wait until the broker answers.
    pub(super) fn ready_timeout(&self) -> Result<Duration, DriverError> {
        self.number("ready_timeout_s", 120).map(Duration::from_secs)
    }

    /// The lines of `server.properties`; `fixed` (ports, directories) beats the profile.
    pub(super) fn server_properties(&self, fixed: &[(&str, String)]) -> String {
        let mut lines: BTreeMap<String, String> =
            SHIPPED_PROPERTIES.iter().map(|&(k, v)| (k.into(), v.into())).collect();
        for internal in ["offsets.topic", "transaction.state.log", "share.coordinator.state.topic"] {
            lines.insert(format!("{internal}.replication.factor"), "1".into());
        }
        for internal in ["transaction.state.log", "share.coordinator.state.topic"] {
            lines.insert(format!("{internal}.min.isr"), "1".into());
        }
        // A topic exists because it was created: a mistyped name must not become one.
        lines.insert("auto.create.topics.enable".into(), "false".into());
        // Deleted topics leave the disk before the next run, not a minute later.
        lines.insert("log.segment.delete.delay.ms".into(), "1000".into());
        lines.insert("message.max.bytes".into(), MESSAGE_BYTES_MAX.to_string());
        if self.nodes > 1 {
            // `acks=all` waits for all replicas in sync; below two of three it refuses.
            lines.insert("min.insync.replicas".into(), "2".into());
        }
        lines.extend(self.with_prefix("broker.").map(|(k, v)| (k.into(), v.into())));
        if self.tier == Tier::Synced {
            lines.insert("log.flush.interval.messages".into(), "1".into());
        }
        lines.extend(fixed.iter().map(|(k, v)| ((*k).to_string(), v.clone())));
        lines.iter().map(|(key, value)| format!("{key}={value}\n")).collect()
    }

    /// Configuration of a producer instance.
    pub(super) fn producer(&self, endpoint: &str) -> ClientConfig {
        let mut config = self.client(endpoint);
        config.set("message.max.bytes", MESSAGE_BYTES_MAX.to_string());
        config.set("compression.type", "none");
        config.extend(self.with_prefix("producer.").map(|(k, v)| (k.into(), v.into())));
        if self.idempotent {
            config.set("enable.idempotence", "true");
            // Sequence numbers keep the order, so that the pipeline may be as deep as Kafka allows.
            config.set("max.in.flight.requests.per.connection", "5");
        }
        if self.no_linger {
            config.set("linger.ms", "0");
        }
        config
    }

    /// Configuration of a consumer: it always checks the CRC of what it reads.
    pub(super) fn consumer(&self, endpoint: &str) -> ClientConfig {
        let mut config = self.client(endpoint);
        config.set("receive.message.max.bytes", "200000000");
        config.extend(self.with_prefix("consumer.").map(|(k, v)| (k.into(), v.into())));
        config.set("check.crcs", "true");
        config
    }

    /// What all clients share.
    pub(super) fn client(&self, endpoint: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", endpoint);
        // A broker that is just starting is asked again soon, not after librdkafka's 10 s.
        config.set("reconnect.backoff.max.ms", "200");
        config.extend(self.with_prefix("client.").map(|(k, v)| (k.into(), v.into())));
        config.set_log_level(RDKafkaLogLevel::Emerg);
        config
    }

    fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.values.iter().filter_map(move |(k, v)| Some((k.strip_prefix(prefix)?, v.as_str())))
    }

    fn number(&self, key: &str, default: u64) -> Result<u64, DriverError> {
        self.values.get(key).map_or(Ok(default), |text| text.parse().map_err(|_| bad_setting(key, "a whole number")))
    }
}

/// Nested tables become dotted keys; values become text, as both Kafka's sides want them.
fn flatten(prefix: &str, table: &toml::Table, into: &mut BTreeMap<String, String>) {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        match value {
            toml::Value::Table(inner) => flatten(&format!("{key}."), inner, into),
            toml::Value::String(text) => _ = into.insert(key, text.clone()),
            other => _ = into.insert(key, other.to_string()),
        }
    }
}

fn bad_setting(key: &str, expected: &str) -> DriverError {
    DriverError::Unavailable {
        cause: format!("the Kafka profile's setting `{key}` is not understood"),
        remedy: format!("it must be {expected}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::session::tests::setup;

    fn settings(text: &str, tier: Tier) -> Result<Settings, DriverError> {
        let mut setup = setup(std::path::Path::new("/nowhere"));
        setup.settings = text.parse().unwrap();
        setup.tier = tier;
        Settings::new(&setup)
    }

    #[test]
    fn dotted_and_quoted_keys_are_the_same() {
        let text = "broker.num.io.threads = 4\n\"broker.num.network.threads\" = 2";
        let properties = settings(text, Tier::PageCache).unwrap().server_properties(&[]);
        assert!(properties.contains("num.io.threads=4\n"), "{properties}");
        assert!(properties.contains("num.network.threads=2\n"), "{properties}");
        assert!(!properties.contains("log.flush.interval.messages"));
    }

    #[test]
    fn the_synced_tier_flushes_every_batch_whatever_the_profile_says() {
        let text = "broker.log.flush.interval.messages = 1000";
        let properties = settings(text, Tier::Synced).unwrap().server_properties(&[]);
        assert!(properties.contains("log.flush.interval.messages=1\n"), "{properties}");
    }

    #[test]
    fn a_mistyped_key_is_refused() {
        let error = settings("heap = 3", Tier::PageCache).unwrap_err().to_string();
        assert!(error.contains("`heap`"), "{error}");
        assert!(settings("heap_mb = \"much\"", Tier::PageCache).unwrap().jvm_flags().is_err());
    }

    #[test]
    fn consumers_check_crcs_even_if_a_profile_forgets() {
        let config = settings("consumer.check.crcs = false", Tier::PageCache).unwrap();
        assert_eq!(config.consumer("127.0.0.1:1").get("check.crcs"), Some("true"));
    }
}
