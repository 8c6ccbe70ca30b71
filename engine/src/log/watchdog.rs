//! Looks after segments that this node leads and whose records are not committed.

use std::sync::Arc;
use std::time::Duration;

use super::rollover;
use crate::broker::Broker;

/// How often it looks.
const INTERVAL: Duration = Duration::from_millis(50);
/// Records that wait this long to be committed, while the lease runs, have the segment recovered.
const STUCK_AFTER: Duration = Duration::from_millis(1000);

/// Runs until the broker stops.
pub async fn run(broker: Arc<Broker>) {
    let stopped = broker.stopped();
    tokio::pin!(stopped);
    let give_up_after = Duration::from_millis(broker.config.write_wait_ms);
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = &mut stopped => return,
        }
        let lease = broker.lease.is_valid();
        for (segment, leading) in broker.led.all() {
            if lease {
                leading.lease_renewed(&segment);
            }
            let Some(waiting) = leading.waiting() else { continue };
            if waiting >= give_up_after {
                segment.give_up();
            }
            if lease
                && waiting >= STUCK_AFTER
                && let Some(topic) = broker.topics.by_id(leading.at.uid.topic_id)
            {
                tracing::warn!(segment = %leading.at.uid, "records are not committed in time; the segment is to be recovered");
                rollover::start(&broker, &topic, &segment, None);
            }
        }
    }
}
