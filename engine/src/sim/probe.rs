//! What the simulation looks at inside a node, to check what no client could see.

use std::sync::{Arc, Weak};

use crate::broker::Broker;
use crate::log::topic::Writing;

/// A look into a node. Does not keep it alive.
#[derive(Clone)]
pub struct Probe(Weak<Broker>);

impl Probe {
    /// A look into the node of this broker.
    pub(crate) fn new(broker: &Arc<Broker>) -> Self {
        Probe(Arc::downgrade(broker))
    }

    /// Does the node believe that it is the Raft leader?
    pub fn leads_raft(&self) -> bool {
        self.0.upgrade().is_some_and(|broker| broker.metadata.leader() == Some(broker.config.node_id))
    }

    /// Segments that the node would append to now, as (topic, number): it believes that it leads them,
    /// and its lease runs.
    pub fn writable(&self) -> Vec<(u64, u64)> {
        let Some(broker) = self.0.upgrade() else { return Vec::new() };
        if !broker.lease.is_valid() {
            return Vec::new();
        }
        let topics = broker.topics.all();
        let open = topics.iter().filter_map(|topic| {
            let chain = topic.chain();
            matches!(chain.writing, Writing::Open).then(|| (topic.id, chain.last().number))
        });
        open.collect()
    }

    /// Nodes that the node knows as members.
    pub fn members(&self) -> usize {
        self.0.upgrade().map_or(0, |broker| broker.metadata.view(|state| state.nodes.len()))
    }

    /// Whether metadata say of any segment that acknowledged records may be lost.
    pub fn reports_loss(&self) -> bool {
        self.0.upgrade().is_some_and(|broker| {
            broker.metadata.view(|state| {
                state.topics.values().flat_map(|topic| &topic.segments).any(|segment| segment.possible_loss)
            })
        })
    }
}
