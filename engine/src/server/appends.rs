//! The writing half of a connection: its `PUT`s and `APPEND`s go to the open segments here, or on to
//! the nodes that lead their topics.

use std::sync::Arc;
use std::time::Duration;

use super::connection::{Close, Connection};
use super::scattered::Scattered;
use crate::broker::{Broker, TRY_AGAIN};
use crate::error::Refusal;
use crate::log::acks::Batch;
use crate::log::rollover;
use crate::log::topic::Topic;
use crate::log::topics;
use crate::log::writer::{Blocked, try_append, try_append_list};
use crate::protocol::{ErrorCode, Records, TopicSettings};
use crate::store::Take;

/// Bytes that are read before replies are looked at again, if they are for many topics.
const GATHER_BYTES_MAX: usize = 4 << 20;
/// Appends that are larger than this on average gain little from waiting for more. (A write into the page
/// cache costs some microseconds, whatever its size, and more for each page that it begins.)
const APPEND_BYTES_SMALL: usize = 32 << 10;

/// What was read since replies were last looked at. Whoever looks at replies has what is pending
/// written, with a system call for each topic; so small appends to many topics wait for more.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) bytes: usize,
    pub(super) appends: usize,
}

impl Gathered {
    /// Would the appends so far be written in pieces too small?
    pub(super) fn wants_more(&self) -> bool {
        self.bytes < GATHER_BYTES_MAX && self.bytes < self.appends * APPEND_BYTES_SMALL
    }
}

/// Where the records of a group went.
enum Stored {
    /// All of them were stored, or refused, here.
    Here,
    /// Another node leads the topic; the first `taken` are stored here.
    Elsewhere { taken: usize },
}

impl Connection {
    /// Appends the collected `PUT`s, topic by topic. Those for topics that another node leads are
    /// passed on.
    pub(super) async fn store_writes(&mut self, bytes: &[u8]) -> Result<(), Close> {
        let records = self.writes.len();
        let slices = self.writes.slices(bytes);
        let mut batch = self.acks.puts(records);
        self.gathered.appends += self.writes.groups();
        for group in 0..self.writes.groups() {
            let stored = self.store_group(group, &slices[self.writes.range(group)], &mut batch).await?;
            if let Stored::Elsewhere { taken } = stored {
                Box::pin(self.store_elsewhere(group, taken, &slices, &mut batch)).await?;
                break;
            }
        }
        if self.writes.groups() > 1 || batch.is_split() {
            batch.set_order(self.writes.order(), self.writes.counts());
        }
        self.broker.counters.add_records(batch.stored_here());
        self.acks.push(batch);
        self.writes.finish(slices);
        Ok(())
    }

    async fn store_group(&mut self, group: usize, records: &[&[u8]], batch: &mut Batch) -> Result<Stored, Close> {
        let mut rest = records;
        while !rest.is_empty() {
            let topic = match self.writes.topic(group) {
                Ok(topic) => Arc::clone(topic),
                Err(name) => {
                    let found = Box::pin(find_or_create(&self.broker, name)).await;
                    if let Err(refusal) = found {
                        batch.refused(rest.len() as u32, refusal);
                        return Ok(Stored::Here);
                    }
                    self.writes.look_up_again(&self.broker.topics, group);
                    continue;
                }
            };
            match try_append(&self.broker, &topic, rest, Take::UpToLimit) {
                Ok(accepted) => {
                    rest = &rest[accepted.count as usize..];
                    batch.accepted(&topic, accepted);
                }
                Err(Blocked::Deleted) => self.writes.look_up_again(&self.broker.topics, group),
                Err(Blocked::Elsewhere(_)) => return Ok(Stored::Elsewhere { taken: records.len() - rest.len() }),
                Err(blocked) => {
                    if let Err(refusal) = self.unblock(&topic, blocked).await? {
                        batch.refused(rest.len() as u32, refusal);
                        return Ok(Stored::Here);
                    }
                }
            }
        }
        Ok(Stored::Here)
    }

    /// From `group` on (of which the first `taken` records are stored here), some groups want
    /// another node. What this node leads goes first; the rest is passed on, all nodes at once.
    async fn store_elsewhere(
        &mut self,
        group: usize,
        taken: usize,
        slices: &[&[u8]],
        batch: &mut Batch,
    ) -> Result<(), Close> {
        let mut scattered = Scattered::new(Duration::from_millis(self.broker.config.write_wait_ms));
        for index in group..self.writes.groups() {
            let records = &slices[self.writes.range(index)];
            let records = if index == group { &records[taken..] } else { records };
            scattered.add(self.writes.topic(index).map(Arc::clone).map_err(str::to_owned), records);
        }
        let broker = Arc::clone(&self.broker);
        self.settling(Box::pin(scattered.store(&broker))).await?;
        scattered.into_parts(batch);
        Ok(())
    }

    /// Waits until an append may be tried again.
    #[cold]
    async fn unblock(&mut self, topic: &Arc<Topic>, blocked: Blocked) -> Result<Result<(), Refusal>, Close> {
        match blocked {
            Blocked::Pool => {
                let store = self.broker.store.clone();
                self.settling(Box::pin(async move { store.pool_available().await })).await?;
                Ok(Ok(()))
            }
            Blocked::RollingOver | Blocked::OtherSegment => {
                let limit = Duration::from_millis(self.broker.config.write_wait_ms);
                let waited = self.settling(Box::pin(tokio::time::timeout(limit, topic.wait_writable()))).await?;
                Ok(waited.map_err(|_| rollover::too_slow()))
            }
            Blocked::NoLease => {
                let limit = Duration::from_millis(self.broker.config.write_wait_ms);
                let broker = Arc::clone(&self.broker);
                let led = topic.chain().route();
                let may_go_on = async move {
                    while !broker.lease.is_valid() && topic.chain().route() == led {
                        tokio::time::sleep(TRY_AGAIN).await;
                    }
                };
                let waited = self.settling(Box::pin(tokio::time::timeout(limit, may_go_on))).await?;
                Ok(waited.map_err(|_| rollover::too_slow()))
            }
            // The caller passes it on; nothing is to be waited for.
            Blocked::Elsewhere(_) => Ok(Ok(())),
            Blocked::Deleted => Ok(Err(Refusal::unknown_topic(&topic.name))),
            Blocked::Refused(refusal) => Ok(Err(refusal)),
        }
    }

    /// `APPEND`: one batch, all or none.
    pub(super) async fn append(&mut self, name: &str, records: Records<'_>) -> Result<(), Close> {
        self.gathered.appends += 1;
        loop {
            let Some(topic) = self.broker.topics.get(name) else {
                match find_or_create(&self.broker, name).await {
                    Ok(()) => continue,
                    Err(refusal) => {
                        self.acks.push_refusal(refusal);
                        return Ok(());
                    }
                }
            };
            match try_append_list(&self.broker, &topic, records) {
                Ok(accepted) => {
                    self.broker.counters.add_records(accepted.count);
                    self.acks.push_append(&topic, accepted);
                    return Ok(());
                }
                Err(Blocked::Elsewhere(_)) => return Box::pin(self.append_elsewhere(&topic, records)).await,
                Err(blocked) => {
                    if let Err(refusal) = self.unblock(&topic, blocked).await? {
                        self.acks.push_refusal(refusal);
                        return Ok(());
                    }
                }
            }
        }
    }

    /// An `APPEND` that another node stores, all or none.
    async fn append_elsewhere(&mut self, topic: &Arc<Topic>, records: Records<'_>) -> Result<(), Close> {
        let slices: Vec<&[u8]> = records.iter().collect();
        let mut scattered = Scattered::new(Duration::from_millis(self.broker.config.write_wait_ms));
        scattered.add_whole(topic, &slices);
        let broker = Arc::clone(&self.broker);
        self.settling(Box::pin(scattered.store(&broker))).await?;
        self.broker.counters.add_records(scattered.stored_here());
        match scattered.into_append(&mut self.acks) {
            Ok(()) => {}
            Err(refusal) => self.acks.push_refusal(refusal),
        }
        Ok(())
    }
}

/// A topic that this node does not know may have been made elsewhere just now; with `--auto-create`
/// a write makes it, with the defaults.
pub(super) async fn find_or_create(broker: &Broker, name: &str) -> Result<(), Refusal> {
    match broker.topic(name).await {
        Ok(_) => Ok(()),
        Err(refusal) if refusal.code == ErrorCode::UnknownTopic && broker.config.auto_create => {
            topics::register(broker, name, TopicSettings::default()).await
        }
        Err(refusal) => Err(refusal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_small_appends_wait_for_more_and_not_for_ever() {
        let gathered = |bytes, appends| Gathered { bytes, appends };
        assert!(!gathered(0, 0).wants_more(), "nothing was read: replies come first");
        assert!(gathered(256 << 10, 1000).wants_more(), "a few records for each of many topics");
        assert!(gathered(256 << 10, 10).wants_more(), "a few dozen records for each of some topics");
        assert!(!gathered(256 << 10, 8).wants_more(), "each append is worth a write");
        assert!(!gathered(GATHER_BYTES_MAX, 1_000_000).wants_more(), "replies may not wait for ever");
    }
}
