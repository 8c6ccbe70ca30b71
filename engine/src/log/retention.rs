//! Retention: removing the oldest sealed segments of a topic by size and by age.

use std::sync::Arc;
use std::time::Duration;

use super::rollover;
use super::topic::{Topic, Writing};
use crate::broker::Broker;
use crate::clock::now_ms;
use crate::metadata::state::{Command, Phase, TopicInfo};

/// Looks at every topic from time to time, until the broker stops.
pub async fn run(broker: Arc<Broker>) {
    let stopping = broker.stopping();
    tokio::pin!(stopping);
    let interval = Duration::from_millis(broker.config.monitor_check_ms);
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = &mut stopping => return,
        }
        for topic in broker.topics.all() {
            if topic.config.retention_ms.is_some() || topic.config.retention_bytes.is_some() {
                retain(&broker, &topic, now_ms()).await;
            }
        }
    }
}

/// Only the leader of the open segment looks after the rest.
async fn retain(broker: &Arc<Broker>, topic: &Arc<Topic>, now_ms: u64) {
    let open = {
        let chain = topic.chain();
        chain.last().segment.clone().filter(|_| matches!(chain.writing, Writing::Open))
    };
    let Some(open) = open else { return };
    let open_bytes = open.size_bytes();
    let plan = broker.metadata.view(|state| {
        let (_, info) = state.topic_by_id(topic.id)?;
        Some((expired(info, open_bytes, now_ms), is_old(info, now_ms)))
    });
    let Some((upto, open_is_old)) = plan else { return };
    if let Some(upto) = upto {
        trim(broker, topic, upto).await;
    }
    if open_is_old && open.committed() > 0 {
        // Only sealed segments can go, so an old one is closed even if it is not full.
        rollover::start(broker, topic, &open, None);
    }
}

/// Up to which offset sealed segments have outlived the topic's settings.
fn expired(info: &TopicInfo, open_bytes: u64, now_ms: u64) -> Option<u64> {
    let sealed = info.segments.iter().filter_map(|segment| match segment.phase {
        Phase::Sealed { count, bytes, at_ms } => Some((segment.base_offset + count, bytes, at_ms)),
        Phase::Open | Phase::Sealing { .. } => None,
    });
    let mut kept_bytes: u64 = open_bytes + sealed.clone().map(|(_, bytes, _)| bytes).sum::<u64>();
    let mut upto = None;
    for (end_offset, bytes, at_ms) in sealed {
        let too_old = info.config.retention_ms.is_some_and(|limit| now_ms.saturating_sub(at_ms) > limit);
        let too_large = info.config.retention_bytes.is_some_and(|limit| kept_bytes > limit);
        if !too_old && !too_large {
            break;
        }
        kept_bytes -= bytes;
        upto = Some(end_offset);
    }
    upto
}

fn is_old(info: &TopicInfo, now_ms: u64) -> bool {
    let age_ms = now_ms.saturating_sub(info.last().opened_at_ms);
    info.config.retention_ms.is_some_and(|limit| age_ms > limit)
}

/// The files go once the metadata no longer name the segments.
async fn trim(broker: &Broker, topic: &Topic, upto: u64) {
    if let Err(error) = broker.metadata.propose(Command::Trim { topic_id: topic.id, upto }).await {
        tracing::error!(topic = %topic.name, %error, "retention could not be recorded");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::state::{SegmentInfo, TopicConfig};
    use crate::types::{AckPolicy, Tier};

    fn segment(number: u64, phase: Phase) -> SegmentInfo {
        SegmentInfo {
            number,
            base_offset: (number - 1) * 10,
            epoch: number,
            leader: 1,
            leader_run: 1,
            replicas: Vec::new(),
            write_quorum: 1,
            phase,
            opened_at_ms: 1000 * number,
            possible_loss: false,
        }
    }

    /// Segments 1 and 2 sealed with 10 records and 100 bytes each, at 2,000 and 3,000 ms; 3 open.
    fn topic(retention_bytes: Option<u64>, retention_ms: Option<u64>) -> TopicInfo {
        let sealed = |at_ms| Phase::Sealed { count: 10, bytes: 100, at_ms };
        TopicInfo {
            id: 1,
            config: TopicConfig {
                replicas: 1,
                tier: Tier::PageCache,
                acks: AckPolicy::Quorum,
                segment_entries: 10,
                segment_bytes: 1000,
                retention_bytes,
                retention_ms,
            },
            segments: vec![segment(1, sealed(2000)), segment(2, sealed(3000)), segment(3, Phase::Open)],
            cursors: std::collections::BTreeMap::new(),
            losses: 0,
            changed: 0,
        }
    }

    #[test]
    fn by_size_the_oldest_go_until_the_rest_fits() {
        assert_eq!(expired(&topic(Some(250), None), 50, 9000), None);
        assert_eq!(expired(&topic(Some(249), None), 50, 9000), Some(10));
        assert_eq!(expired(&topic(Some(10), None), 50, 9000), Some(20));
    }

    #[test]
    fn by_age_it_counts_from_the_seal() {
        assert_eq!(expired(&topic(None, Some(5000)), 50, 7000), None);
        assert_eq!(expired(&topic(None, Some(5000)), 50, 7001), Some(10));
        assert!(!is_old(&topic(None, Some(5000)), 8000));
        assert!(is_old(&topic(None, Some(5000)), 8001));
    }
}
