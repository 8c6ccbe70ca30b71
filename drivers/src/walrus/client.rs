//! The client side: one connection a producer, one a reader.

use std::time::{Duration, Instant};

use walrus_engine::client::{Client, ClientConfig, ClientError, PipelineConfig, Reader, ReaderConfig};
use walrus_engine::protocol::TopicSettings;
use walrus_engine::types::{self, AckPolicy};

use super::CLIENT_SETTINGS;
use super::producer::{Form, PipelineProducer};
use super::routed::{Route, RoutedProducer};
use crate::settings::Settings;
use crate::{Consumer, DriverError, Producer, Session, Setup, Tier};

/// How long the broker holds a `FETCH` at the tail back. Who reads a thousand topics back waits so long at the
/// end of each.
const FETCH_WAIT: Duration = Duration::from_millis(20);

/// The options of the client, read once.
pub(crate) struct ClientSession {
    /// Of each node.
    nodes: Vec<ClientConfig>,
    topics: Vec<String>,
    topic_settings: TopicSettings,
    form: Form,
    route: Route,
    pipeline: PipelineConfig,
    linger: Duration,
    fetch_bytes: u64,
}

impl ClientSession {
    pub(crate) fn open(setup: &Setup) -> Result<ClientSession, DriverError> {
        let known: Vec<&str> = CLIENT_SETTINGS.into_iter().chain(["server"]).collect();
        let settings = Settings::new(setup, &known)?;
        let endpoint =
            setup.endpoint.as_ref().ok_or_else(|| DriverError::System("the setup names no running server".into()))?;
        let tier = match setup.tier {
            Tier::Synced => types::Tier::Synced,
            Tier::PageCache | Tier::Memory => types::Tier::PageCache,
        };
        let has_word = |wanted: &str| setup.variant.iter().any(|word| word == wanted);
        let append_bytes = settings.size("append_bytes", 256 << 10)?;
        let form = if setup.one_in_flight {
            Form::OneInFlight
        } else if has_word("append") {
            Form::Append { batch_bytes: append_bytes, window_bytes: setup.in_flight_bytes }
        } else {
            Form::Put
        };
        let pipeline = PipelineConfig {
            max_write_bytes: settings.size("max_write_bytes", 256 << 10)?,
            ..PipelineConfig::default()
        };
        Ok(ClientSession {
            nodes: endpoint.split(',').map(ClientConfig::new).collect(),
            topics: setup.topics.clone(),
            topic_settings: TopicSettings {
                tier: Some(tier),
                acks: has_word("all").then_some(AckPolicy::All),
                ..TopicSettings::default()
            },
            form,
            route: if has_word("direct") { Route::Leader } else { Route::Any },
            pipeline,
            linger: Duration::from_micros(settings.number("linger_us", 0)?),
            fetch_bytes: settings.number("fetch_bytes", 1 << 20)?,
        })
    }

    fn client(&self) -> Result<Client, DriverError> {
        self.connect_any().map_err(failed)
    }

    /// A connection to the first node that takes one.
    fn connect_any(&self) -> Result<Client, ClientError> {
        let mut answers = self.nodes.iter().map(|node| Client::with_config(node.clone()));
        // There is at least one node: a list is never empty after `split`.
        let first = answers.next().unwrap_or_else(|| Client::connect(""));
        answers.fold(first, Result::or)
    }

    /// First offset that is not yet acknowledged, from `STATE`.
    fn next_offset(&self, topic: &str) -> Result<u64, DriverError> {
        const FIELD: &str = "\"next_offset\":";
        let mut client = self.client()?;
        let state = client.state(topic).map_err(failed)?;
        let digits = state.find(FIELD).map(|at| state[at + FIELD.len()..].trim_start());
        let end = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        digits
            .and_then(|text| text[..end(text)].parse().ok())
            .ok_or_else(|| DriverError::System(format!("STATE {topic} names no next_offset")))
    }
}

impl Session for ClientSession {
    fn create_topics(&self) -> Result<(), DriverError> {
        let mut client = self.client()?;
        self.topics.iter().try_for_each(|topic| client.register(topic, self.topic_settings)).map_err(failed)
    }

    fn producer(&self, id: u32) -> Result<Box<dyn Producer + '_>, DriverError> {
        if self.nodes.len() > 1 {
            return Ok(Box::new(RoutedProducer::new(&self.nodes, self.pipeline, &self.topics, self.route, id)));
        }
        let producer = PipelineProducer::connect(&self.nodes[0], self.pipeline, &self.topics, self.form, self.linger);
        Ok(Box::new(producer.map_err(failed)?))
    }

    fn consumer(&self, topic: usize, at_end: bool) -> Result<Box<dyn Consumer + '_>, DriverError> {
        let client = self.client()?;
        let node = self.nodes.iter().find(|node| node.addr == client.addr()).unwrap_or(&self.nodes[0]).clone();
        let topic = &self.topics[topic];
        let offset = if at_end { self.next_offset(topic)? } else { 0 };
        let config = ReaderConfig { offset, max_bytes: self.fetch_bytes, wait: FETCH_WAIT, ..ReaderConfig::default() };
        Ok(Box::new(OffsetConsumer(Reader::open(node, topic, config).map_err(failed)?)))
    }
}

struct OffsetConsumer(Reader);

impl Consumer for OffsetConsumer {
    fn fetch(&mut self, wait: Duration, sink: &mut dyn FnMut(&[u8])) -> Result<usize, DriverError> {
        let deadline = Instant::now() + wait;
        loop {
            let batch = self.0.next_batch().map_err(failed)?;
            let mut count = 0;
            for record in batch.records {
                sink(record);
                count += 1;
            }
            if count > 0 || Instant::now() >= deadline {
                return Ok(count);
            }
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "fits `map_err`")]
pub(super) fn failed(error: ClientError) -> DriverError {
    DriverError::System(error.to_string())
}
