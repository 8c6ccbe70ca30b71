//! The topics of this node by name.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::topic::{Topic, Writing, spec};
use crate::broker::{Broker, now_ms};
use crate::error::Refusal;
use crate::metadata::state::{Command, Outcome, Placement, TopicConfig, TopicInfo};
use crate::protocol::{ErrorCode, TopicSettings};
use crate::store::Store;

/// Name → topic.
#[derive(Default)]
pub struct Topics {
    by_name: RwLock<HashMap<Arc<str>, Arc<Topic>>>,
}

impl Topics {
    /// The topic of this name.
    pub fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// All topics, in no order.
    pub fn all(&self) -> Vec<Arc<Topic>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Adds a topic that metadata has, with a fresh handle for its open segment, unless it is there.
    pub fn insert(&self, name: &str, info: &TopicInfo, store: &Store) {
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        if by_name.get(name).is_some_and(|found| found.id >= info.id) {
            return;
        }
        let open = store.create(spec(info.id, &info.config, info.last()));
        let topic = Topic::new(name, info, store, open);
        by_name.insert(Arc::clone(&topic.name), Arc::new(topic));
    }

    fn remove(&self, topic: &Topic) {
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        if by_name.get(&topic.name).is_some_and(|found| found.id == topic.id) {
            by_name.remove(&topic.name);
        }
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
        segment_entries: settings.segment_entries.unwrap_or(broker.config.segment_entries),
        segment_bytes: settings.segment_bytes.unwrap_or(broker.config.segment_bytes),
        retention_bytes: settings.retention_bytes,
        retention_ms: settings.retention_ms,
    };
    let placement = Placement::default();
    let command = Command::CreateTopic { name: name.to_owned(), config, placement, at_ms: now_ms() };
    let outcome = broker.metadata.propose(command).await?;
    // Also if someone else was first: their REGISTER may not have come this far yet.
    open_created(broker, name);
    if matches!(outcome, Outcome::Created(_)) { Ok(()) } else { check_settings(broker, name, settings) }
}

/// Makes a topic that was just created usable on this node. Within the view, so that a `DELETE`
/// comes either before and leaves nothing to open, or after and finds it.
fn open_created(broker: &Broker, name: &str) {
    broker.metadata.view(|state| {
        if let Some(info) = state.topics.get(name) {
            broker.topics.insert(name, info, &broker.store);
        }
    });
}

fn check_settings(broker: &Broker, name: &str, settings: TopicSettings) -> Result<(), Refusal> {
    let same = broker.metadata.view(|state| {
        let config = &state.topics.get(name)?.config;
        let same = |asked: Option<u64>, is: u64| asked.is_none_or(|asked| asked == is);
        let same_limit = |asked: Option<u64>, is: Option<u64>| asked.is_none() || asked == is;
        Some(
            same(settings.replicas.map(u64::from), config.replicas.into())
                && settings.tier.is_none_or(|tier| tier == config.tier)
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
    broker.topics.remove(&topic);
    let segments: Vec<_> = topic.change(|chain| {
        chain.writing = Writing::Deleted;
        chain.links.iter().map(|link| link.segment.clone()).collect()
    });
    for segment in &segments {
        segment.close();
    }
    if let Some(open) = segments.last() {
        // What is being written must not come after the removal. An error changes nothing here.
        let _ = open.wait_watermark(open.next_index()).await;
    }
    let uids: Vec<_> = segments.iter().map(|segment| segment.spec().uid).collect();
    broker.remove_files(&uids);
    Ok(())
}
