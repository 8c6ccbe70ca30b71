//! A producer for a cluster: a connection to each node that it needs, and another node when one fails.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use walrus_engine::client::{Client, ClientConfig, ClientError, Outcome, Pipeline, PipelineConfig};

use super::client::failed;
use crate::{Ack, DriverError, Producer};

/// A node that is gone must not hold the others back.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);
/// Rounds over all nodes before the producer gives up, and the pause after each.
const ROUNDS: u32 = 600;
const ROUND_PAUSE: Duration = Duration::from_millis(50);
/// Longest wait for what is in flight at a node before a topic leaves it.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest look at one connection while others have requests in flight, too.
const SHORT_WAIT: Duration = Duration::from_millis(1);

/// Whom records are sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// One node, whoever leads: it passes them on.
    Any,
    /// The node that leads the topic, as `STATE` says.
    Leader,
}

/// Sends `PUT`s. A topic goes to another node only once everything of it that was in flight is
/// settled, so that nothing overtakes what was sent before. What was in flight on a connection that fails is reported as not acknowledged, and
/// never sent again.
pub(super) struct RoutedProducer<'s> {
    nodes: Vec<ClientConfig>,
    config: PipelineConfig,
    topics: &'s [String],
    route: Route,
    /// Node that a topic's records go to; `None`: to be found out.
    target: Vec<Option<usize>>,
    /// Topics whose node has refused a record: another one may lead now.
    doubted: Vec<bool>,
    lanes: Vec<Lane>,
    /// Where to look next.
    next: usize,
    /// Settled outside of a poll.
    settled: Vec<Ack>,
}

/// The connection to one node.
#[derive(Default)]
struct Lane {
    pipeline: Option<Pipeline>,
    /// Tickets in flight, in order, as runs `(first, count)`.
    in_flight: VecDeque<(u64, u64)>,
}

impl<'s> RoutedProducer<'s> {
    pub(super) fn new(
        nodes: &[ClientConfig],
        config: PipelineConfig,
        topics: &'s [String],
        route: Route,
        id: u32,
    ) -> Self {
        let nodes = nodes.iter().map(|node| ClientConfig { connect_timeout: CONNECT_TIMEOUT, ..node.clone() });
        let nodes: Vec<ClientConfig> = nodes.collect();
        RoutedProducer {
            lanes: nodes.iter().map(|_| Lane::default()).collect(),
            target: vec![None; topics.len()],
            doubted: vec![false; topics.len()],
            next: id as usize % nodes.len(),
            nodes,
            config,
            topics,
            route,
            settled: Vec::new(),
        }
    }

    /// The lane for this topic, connected.
    fn lane(&mut self, topic: usize) -> Result<usize, DriverError> {
        if std::mem::take(&mut self.doubted[topic])
            && let Some(node) = self.target[topic].take()
        {
            self.settle_all(node);
        }
        for round in 0..ROUNDS * self.nodes.len() as u32 {
            let node = match self.target[topic] {
                Some(node) => node,
                None => self.find(topic),
            };
            self.target[topic] = Some(node);
            if self.lanes[node].pipeline.is_some() {
                return Ok(node);
            }
            match Pipeline::connect(&self.nodes[node], self.config) {
                Ok(pipeline) => {
                    self.lanes[node].pipeline = Some(pipeline);
                    return Ok(node);
                }
                Err(_) => self.target[topic] = None,
            }
            self.next = (self.next + 1) % self.nodes.len();
            if (round + 1).is_multiple_of(self.nodes.len() as u32) {
                std::thread::sleep(ROUND_PAUSE);
            }
        }
        Err(DriverError::System("no node of the cluster takes a connection".into()))
    }

    /// Whom to send this topic's records to.
    fn find(&self, topic: usize) -> usize {
        let asked = &self.nodes[self.next];
        let leader = || {
            let state: serde_json::Value =
                serde_json::from_str(Client::with_config(asked.clone()).ok()?.state(&self.topics[topic]).ok()?).ok()?;
            let leader = (state["leader_node"].as_u64()?).checked_sub(1)? as usize;
            (leader < self.nodes.len()).then_some(leader)
        };
        if self.route == Route::Leader { leader().unwrap_or(self.next) } else { self.next }
    }

    /// Waits until nothing is in flight at this node.
    fn settle_all(&mut self, node: usize) {
        let mut acks = std::mem::take(&mut self.settled);
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        while !self.lanes[node].in_flight.is_empty() {
            if Instant::now() > deadline || self.lanes[node].exchange(ROUND_PAUSE, &mut acks).is_err() {
                self.give_up(node, &mut acks);
            }
        }
        self.settled = acks;
    }

    /// After a failure: what was in flight there is lost to us, and topics look for another node.
    fn give_up(&mut self, node: usize, acks: &mut Vec<Ack>) {
        let lane = &mut self.lanes[node];
        lane.pipeline = None;
        acks.extend(lane.in_flight.drain(..).map(|(first_ticket, count)| Ack { first_ticket, count, ok: false }));
        self.target.iter_mut().filter(|target| **target == Some(node)).for_each(|target| *target = None);
        self.next = (node + 1) % self.nodes.len();
    }

    fn write_out(&mut self, acks: &mut Vec<Ack>) {
        for node in 0..self.lanes.len() {
            let pipeline = self.lanes[node].pipeline.as_mut().filter(|pipeline| pipeline.unsent_bytes() > 0);
            if pipeline.is_some_and(|pipeline| pipeline.flush().is_err()) {
                self.give_up(node, acks);
            }
        }
    }

    /// Takes what has come; waits for it on the only busy lane, or a moment on each.
    fn receive(&mut self, wait: Duration, acks: &mut Vec<Ack>) {
        let busy: Vec<usize> = (0..self.lanes.len()).filter(|node| !self.lanes[*node].in_flight.is_empty()).collect();
        let wait = if busy.len() > 1 { wait.min(SHORT_WAIT) } else { wait };
        for node in busy {
            match self.lanes[node].receive(wait, acks) {
                Ok(false) => {}
                // A refusal: another node may lead now.
                Ok(true) => {
                    let here = self.doubted.iter_mut().zip(&self.target).filter(|(_, target)| **target == Some(node));
                    here.for_each(|(doubted, _)| *doubted = true);
                }
                Err(_) => self.give_up(node, acks),
            }
        }
    }
}

impl Lane {
    /// Writes what waits and takes what has come.
    fn exchange(&mut self, wait: Duration, acks: &mut Vec<Ack>) -> Result<bool, ClientError> {
        self.pipeline.as_mut().map_or(Ok(()), Pipeline::flush)?;
        self.receive(wait, acks)
    }

    /// Says whether something was refused.
    fn receive(&mut self, wait: Duration, acks: &mut Vec<Ack>) -> Result<bool, ClientError> {
        let Lane { pipeline, in_flight } = self;
        let Some(pipeline) = pipeline else { return Ok(false) };
        let mut refused = false;
        pipeline.recv_replies(wait, |outcome| match outcome {
            Outcome::Ok(count) => settle(in_flight, count, true, acks),
            Outcome::Err { .. } => {
                refused = true;
                settle(in_flight, 1, false, acks);
            }
        })?;
        Ok(refused)
    }
}

/// Reports the oldest `requests` tickets.
fn settle(in_flight: &mut VecDeque<(u64, u64)>, mut requests: u64, ok: bool, acks: &mut Vec<Ack>) {
    while requests > 0
        && let Some((first, count)) = in_flight.front_mut()
    {
        let taken = requests.min(*count);
        acks.push(Ack { first_ticket: *first, count: taken, ok });
        (*first, *count) = (*first + taken, *count - taken);
        requests -= taken;
        if *count == 0 {
            in_flight.pop_front();
        }
    }
}

impl Producer for RoutedProducer<'_> {
    fn send(&mut self, topic: usize, ticket: u64, record: &[u8]) -> Result<(), DriverError> {
        loop {
            let node = self.lane(topic)?;
            let lane = &mut self.lanes[node];
            let Some(pipeline) = &mut lane.pipeline else { continue };
            match pipeline.push_put(&self.topics[topic], record) {
                Ok(()) => {}
                Err(error @ ClientError::BadRequest(_)) => return Err(failed(error)),
                // The record was not pushed, but earlier ones could not be written.
                Err(_) => {
                    let mut acks = std::mem::take(&mut self.settled);
                    self.give_up(node, &mut acks);
                    self.settled = acks;
                    continue;
                }
            }
            match lane.in_flight.back_mut() {
                Some((first, count)) if *first + *count == ticket => *count += 1,
                _ => lane.in_flight.push_back((ticket, 1)),
            }
            return Ok(());
        }
    }

    fn poll(&mut self, wait: Duration, acks: &mut Vec<Ack>) -> Result<(), DriverError> {
        let deadline = Instant::now() + wait;
        acks.append(&mut self.settled);
        loop {
            self.write_out(acks);
            let left = deadline.saturating_duration_since(Instant::now());
            self.receive(left, acks);
            if !acks.is_empty() || left.is_zero() {
                return Ok(());
            }
            if self.lanes.iter().all(|lane| lane.in_flight.is_empty()) {
                std::thread::sleep(left);
            }
        }
    }

    fn flush(&mut self) -> Result<(), DriverError> {
        let mut acks = std::mem::take(&mut self.settled);
        self.write_out(&mut acks);
        self.settled = acks;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_settled_in_order_over_runs() {
        let mut in_flight = VecDeque::from([(0, 3), (7, 2)]);
        let mut acks = Vec::new();
        settle(&mut in_flight, 4, true, &mut acks);
        settle(&mut in_flight, 1, false, &mut acks);
        let told: Vec<_> = acks.iter().map(|ack| (ack.first_ticket, ack.count, ack.ok)).collect();
        assert_eq!(told, [(0, 3, true), (7, 1, true), (8, 1, false)]);
        assert!(in_flight.is_empty());
    }
}
