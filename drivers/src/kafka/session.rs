//! The client side of one run: topics, and the clients of producers and consumers.

use std::ffi::CString;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaType;

use super::consumer::{KafkaConsumer, watermarks};
use super::producer::{Instance, KafkaProducer};
use super::settings::Settings;
use super::{ADMIN_DEADLINE, kafka_error};
use crate::{Consumer, DriverError, Producer, Session, Setup};

/// An open connection to a broker, shared by the threads of one worker.
pub(super) struct KafkaSession {
    endpoint: String,
    settings: Settings,
    topics: Vec<String>,
    producers: u32,
    /// Brokers of the cluster, with ids from 1.
    nodes: i32,
    /// librdkafka's producer instances, made at their first use; producer `i` uses `i % len`.
    instances: Mutex<Vec<Option<Arc<Instance>>>>,
}

impl KafkaSession {
    /// Reads the setup; connects to nothing yet.
    pub(super) fn open(setup: &Setup) -> Result<KafkaSession, DriverError> {
        let endpoint = setup
            .endpoint
            .clone()
            .ok_or_else(|| DriverError::System("no address of a Kafka broker in the setup".into()))?;
        let settings = Settings::new(setup)?;
        let instances = settings.instances(setup.producers)?;
        Ok(KafkaSession {
            endpoint,
            settings,
            topics: setup.topics.clone(),
            producers: setup.producers,
            nodes: setup.nodes.cast_signed(),
            instances: Mutex::new(vec![None; instances]),
        })
    }

    /// Waits until every topic of the setup has a leader.
    fn await_leaders(&self, client: &Client<DefaultClientContext>) -> Result<(), DriverError> {
        let deadline = Instant::now() + ADMIN_DEADLINE;
        loop {
            let metadata = client
                .fetch_metadata(None, ADMIN_DEADLINE)
                .map_err(|error| kafka_error("asking for the topics", &error))?;
            let led: std::collections::HashSet<&str> = metadata
                .topics()
                .iter()
                .filter(|topic| topic.partitions().first().is_some_and(|p| p.leader() >= 0))
                .map(rdkafka::metadata::MetadataTopic::name)
                .collect();
            if self.topics.iter().all(|topic| led.contains(topic.as_str())) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(DriverError::System(format!("topics without a leader after {ADMIN_DEADLINE:?}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>, DriverError> {
        let config = self.settings.client(&self.endpoint);
        config.create().map_err(|error| kafka_error("creating the admin client", &error))
    }

    /// Brokers for the replicas of a topic, leader first, for one topic after the other: the same number
    /// of leaders everywhere, which Kafka's own random choice would not give a handful of topics.
    fn replica_sets(&self) -> Vec<Vec<i32>> {
        let (nodes, replicas) = (self.nodes, self.nodes.min(3));
        let set = |first: i32| (0..replicas).map(|next| (first + next) % nodes + 1).collect();
        if nodes > 1 { (0..nodes).map(set).collect() } else { Vec::new() }
    }

    fn instance(&self, id: u32) -> Result<Arc<Instance>, DriverError> {
        let mut instances = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = id as usize % instances.len();
        if let Some(instance) = &instances[slot] {
            return Ok(Arc::clone(instance));
        }
        let made = Instance::new(&self.settings.producer(&self.endpoint), self.producers)?;
        let made = Arc::new(made);
        instances[slot] = Some(Arc::clone(&made));
        Ok(made)
    }
}

impl Session for KafkaSession {
    fn create_topics(&self) -> Result<(), DriverError> {
        let admin = self.admin()?;
        let sets = self.replica_sets();
        let assignments: Vec<[&[i32]; 1]> = sets.iter().map(|set| [&set[..]]).collect();
        let wanted: Vec<NewTopic<'_>> = (self.topics.iter().enumerate())
            .map(|(index, name)| {
                let replication = match assignments.len() {
                    0 => TopicReplication::Fixed(1),
                    sets => TopicReplication::Variable(&assignments[index % sets]),
                };
                NewTopic::new(name, 1, replication)
            })
            .collect();
        let options = AdminOptions::new().operation_timeout(Some(ADMIN_DEADLINE));
        let results =
            block_on(admin.create_topics(&wanted, &options)).map_err(|error| kafka_error("creating topics", &error))?;
        for result in results {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => {
                    return Err(DriverError::System(format!("creating topic {topic}: {code}")));
                }
            }
        }
        self.await_leaders(admin.inner())?;
        // Metadata names a leader a moment before that leader has opened the partition. A batch sent
        // in between is refused and sent again behind later ones: acknowledged, but out of order.
        self.topics.iter().try_for_each(|topic| watermarks(admin.inner(), topic).map(drop))
    }

    fn producer(&self, id: u32) -> Result<Box<dyn Producer + '_>, DriverError> {
        Ok(Box::new(KafkaProducer::new(self.instance(id)?, id, &self.topics)))
    }

    fn remove_topics(&self) -> Result<bool, DriverError> {
        let admin = self.admin()?;
        let names: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        let options = AdminOptions::new().operation_timeout(Some(ADMIN_DEADLINE));
        let results =
            block_on(admin.delete_topics(&names, &options)).map_err(|error| kafka_error("deleting topics", &error))?;
        for result in results {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
                Err((topic, code)) => {
                    return Err(DriverError::System(format!("deleting topic {topic}: {code}")));
                }
            }
        }
        Ok(true)
    }

    fn consumer(&self, topic: usize, at_end: bool) -> Result<Box<dyn Consumer + '_>, DriverError> {
        let config = self.settings.consumer(&self.endpoint);
        Ok(Box::new(KafkaConsumer::new(&config, &self.topics[topic], at_end)?))
    }
}

/// A librdkafka client with its events switched on, but no callbacks.
pub(super) fn client(
    config: &ClientConfig,
    kind: RDKafkaType,
    events: i32,
) -> Result<Client<DefaultClientContext>, DriverError> {
    let native = config.create_native_config().map_err(|error| kafka_error("the profile's client settings", &error))?;
    // SAFETY: the configuration is alive; librdkafka copies the number.
    unsafe { rdkafka::bindings::rd_kafka_conf_set_events(native.ptr(), events) };
    Client::new(config, native, kind, DefaultClientContext)
        .map_err(|error| kafka_error("creating a Kafka client", &error))
}

/// A topic's name as librdkafka wants it.
pub(super) fn c_name(topic: &str) -> Result<CString, DriverError> {
    CString::new(topic).map_err(|_| DriverError::System(format!("topic name {topic:?} holds a zero byte")))
}

/// Runs one future to its end on this thread; the admin client is the only asynchronous part.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::park();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{Setup, Tier, Tools};
    use std::path::Path;

    #[test]
    fn leaders_are_spread_over_all_brokers() {
        let sets = |nodes| {
            let mut setup = setup(Path::new("/nowhere"));
            setup.nodes = nodes;
            setup.endpoint = Some("127.0.0.1:1".into());
            KafkaSession::open(&setup).unwrap_or_else(|error| panic!("{error}")).replica_sets()
        };
        assert_eq!(sets(3), [vec![1, 2, 3], vec![2, 3, 1], vec![3, 1, 2]]);
        assert!(sets(1).is_empty());
    }

    /// One producer, one topic, page-cache tier, nothing set.
    pub(crate) fn setup(data_dir: &Path) -> Setup {
        Setup {
            data_dir: data_dir.to_owned(),
            topics: vec!["events".into()],
            tier: Tier::PageCache,
            producers: 1,
            one_in_flight: false,
            in_flight_bytes: 4 << 20,
            variant: vec!["tuned".into()],
            settings: toml::Table::new(),
            tools: Tools::default(),
            endpoint: None,
            nodes: 1,
        }
    }
}
