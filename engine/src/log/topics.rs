//! The topics that this node knows of.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::topic::Topic;
use crate::broker::Broker;
use crate::clock::now_ms;
use crate::error::Refusal;
use crate::metadata::state::{Command, Outcome, Placement, TopicConfig};
use crate::protocol::{ErrorCode, TopicSettings};
use crate::store::Segment;

/// The topics, by name and by id.
#[derive(Default)]
pub struct Topics {
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    by_name: HashMap<Arc<str>, Arc<Topic>>,
    by_id: HashMap<u64, Arc<Topic>>,
}

impl Topics {
    /// The topic of this name.
    pub fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).by_name.get(name).cloned()
    }

    /// The topic with this id.
    pub fn by_id(&self, id: u64) -> Option<Arc<Topic>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).by_id.get(&id).cloned()
    }

    /// All topics, in no order.
    pub fn all(&self) -> Vec<Arc<Topic>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).by_id.values().cloned().collect()
    }

    /// Adds a topic that metadata have.
    pub fn insert(&self, topic: &Arc<Topic>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.by_name.insert(Arc::clone(&topic.name), Arc::clone(topic));
        known.by_id.insert(topic.id, Arc::clone(topic));
    }

    /// Forgets a topic that metadata no longer have.
    pub fn remove(&self, topic: &Topic) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.by_id.remove(&topic.id);
        if known.by_name.get(&topic.name).is_some_and(|found| found.id == topic.id) {
            known.by_name.remove(&topic.name);
        }
    }

    /// Puts this node's copy of a segment that is not sealed into its chain, if it is there.
    pub fn attach(&self, segment: &Segment) {
        let uid = segment.spec().uid;
        let Some(topic) = self.by_id(uid.topic_id) else { return };
        topic.change(|chain| {
            if let Some(last) = chain.links.back_mut()
                && last.number == uid.number
            {
                last.segment.get_or_insert_with(|| segment.clone());
            }
        });
    }
}

/// `REGISTER`: creates a topic, or checks that the existing one has the settings that are named.
pub async fn register(broker: &Broker, name: &str, settings: TopicSettings) -> Result<(), Refusal> {
    if broker.topics.get(name).is_some() {
        return check_settings(broker, name, settings);
    }
    let config = TopicConfig {
        replicas: settings.replicas.unwrap_or(3),
        tier: settings.tier.unwrap_or(broker.config.tier),
        acks: settings.acks.unwrap_or_default(),
        segment_entries: settings.segment_entries.unwrap_or(broker.config.segment_entries),
        segment_bytes: settings.segment_bytes.unwrap_or(broker.config.segment_bytes),
        retention_bytes: settings.retention_bytes,
        retention_ms: settings.retention_ms,
    };
    let placement = Placement::default();
    let command = Command::CreateTopic { name: name.to_owned(), config, placement, at_ms: now_ms() };
    let outcome = broker.metadata.propose(command).await?;
    // Also if someone else was first: their topic may not have come this far yet.
    broker.in_step().await;
    if matches!(outcome, Outcome::Created(_)) { Ok(()) } else { check_settings(broker, name, settings) }
}

fn check_settings(broker: &Broker, name: &str, settings: TopicSettings) -> Result<(), Refusal> {
    let same = broker.metadata.view(|state| {
        let config = &state.topics.get(name)?.config;
        let same = |asked: Option<u64>, is: u64| asked.is_none_or(|asked| asked == is);
        let same_limit = |asked: Option<u64>, is: Option<u64>| asked.is_none() || asked == is;
        Some(
            same(settings.replicas.map(u64::from), config.replicas.into())
                && settings.tier.is_none_or(|tier| tier == config.tier)
                && settings.acks.is_none_or(|acks| acks == config.acks)
                && same(settings.segment_entries, config.segment_entries)
                && same(settings.segment_bytes, config.segment_bytes)
                && same_limit(settings.retention_bytes, config.retention_bytes)
                && same_limit(settings.retention_ms, config.retention_ms),
        )
    });
    match same {
        Some(true) => Ok(()),
        Some(false) => Err(Refusal::new(
            ErrorCode::TopicExists,
            format!("the topic {name} exists with other settings; STATE {name} shows them"),
        )),
        None => Err(Refusal::new(ErrorCode::NotReady, "the topic is being deleted; try again")),
    }
}

/// `DELETE`: removes a topic and its files.
pub async fn delete(broker: &Broker, name: &str) -> Result<(), Refusal> {
    let topic = broker.topics.get(name).ok_or_else(|| Refusal::unknown_topic(name))?;
    let command = Command::DeleteTopic { name: name.to_owned(), id: topic.id };
    if broker.metadata.propose(command).await? == Outcome::Stale {
        return Err(Refusal::unknown_topic(name));
    }
    broker.in_step().await;
    Ok(())
}
