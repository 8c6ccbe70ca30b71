//! A cluster with one topic under load: how most scenarios begin and end.

use super::cluster::Cluster;
use super::history::History;
use super::load::Load;

/// Records that show that writes flow.
const ENOUGH: u64 = 1_000;

/// The cluster, the topic, and the clients that work on it.
pub struct UnderLoad {
    pub cluster: Cluster,
    topic: String,
    load: Load,
    /// Loads that leave out a node.
    others: Vec<Load>,
}

impl UnderLoad {
    /// Loads a new topic with these settings, until it has its first records.
    pub fn start(cluster: Cluster, settings: &[&str]) -> Self {
        cluster.register("t", settings);
        Self::start_on(cluster, "t")
    }

    /// The same with a topic that is there.
    pub fn start_on(cluster: Cluster, topic: &str) -> Self {
        let load = Load::start(&cluster, topic);
        let under_load = UnderLoad { cluster, topic: topic.to_owned(), load, others: Vec::new() };
        under_load.flows();
        under_load
    }

    /// Returns once writes have flowed from now on.
    pub fn flows(&self) {
        self.load.wait_acked(ENOUGH);
    }

    /// Returns once writes have flowed at the other nodes. Clients whose requests wait at this node
    /// show nothing, so there are new ones, which never go there.
    pub fn flows_without(&mut self, node: u64) {
        let nodes = self.cluster.addresses().into_iter().filter(|(id, _)| *id != node).collect();
        let load = Load::start_on(nodes, &self.topic);
        load.wait_acked(ENOUGH);
        self.others.push(load);
    }

    /// The leader of the topic, as the first node that runs says.
    pub fn leader(&self) -> u64 {
        self.cluster.leader(self.cluster.running()[0], &self.topic)
    }

    /// Returns once all nodes are one healthy cluster and writes flow.
    pub fn recovers(&mut self) {
        self.cluster.wait_healthy();
        self.flows();
    }

    /// Does this in each turn, and waits until the cluster has recovered from it.
    pub fn in_turn<T>(&mut self, turns: impl IntoIterator<Item = T>, mut fault: impl FnMut(&mut Self, T)) {
        for turn in turns {
            fault(self, turn);
            self.recovers();
        }
    }

    /// Kills a node, and starts it again once the others go on without it.
    pub fn loses_for_a_while(&mut self, victim: u64) {
        self.cluster.node_mut(victim).kill();
        self.flows();
        self.cluster.start_node(victim);
    }

    /// Ends the load and judges what it saw. Returns that.
    pub fn judge(self) -> History {
        let mut history = self.load.finish();
        self.others.into_iter().for_each(|load| history.merge(load.finish()));
        self.cluster.judge(&self.topic, history.clone());
        history
    }
}
