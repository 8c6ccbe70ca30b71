//! Several brokers on loopback that form one cluster.

use std::time::{Duration, Instant};

use walrus_engine::client::{Client, ClientConfig};

use super::server;
use crate::ports::free_ports;
use crate::process::{ChildProcess, Launch};
use crate::server_process::spawn;
use crate::{DriverError, Server, Setup};

/// Longest wait until all nodes are one healthy cluster.
const HEALTHY_TIMEOUT: Duration = Duration::from_mins(1);
/// Longest wait for one answer while it is formed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Raft ids hold a generation above the node id.
const NODE_ID_MASK: u64 = 0xffff;

/// The running nodes and what is needed to start them again.
pub(super) struct Cluster {
    nodes: Vec<Node>,
    endpoint: String,
    /// A leader that is to be killed has to lead Raft, too.
    wants_raft_leader: bool,
}

struct Node {
    launch: Launch,
    /// `None` once it was killed alone.
    child: Option<ChildProcess>,
    endpoint: String,
}

impl Cluster {
    /// Starts the first node, which begins the cluster, then those that join it.
    pub(super) fn start(setup: &Setup) -> Result<Cluster, DriverError> {
        let free = free_ports(2 * setup.nodes as usize)?;
        let ports: Vec<(u16, u16)> = free.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        let mut nodes = Vec::new();
        for (node_id, (client_port, peer_port)) in (1..).zip(&ports) {
            let others = ports.iter().filter(|(_, port)| port != peer_port);
            let join: Vec<String> = others.map(|(_, port)| format!("127.0.0.1:{port}")).collect();
            let launch = server::launch(setup, node_id)?
                .arg("--client-port")
                .arg(client_port.to_string())
                .arg("--raft-port")
                .arg(peer_port.to_string());
            let endpoint = format!("127.0.0.1:{client_port}");
            let joining = launch.clone().arg("--join").arg(join.join(","));
            let child = spawn(if node_id == 1 { &launch } else { &joining }, &endpoint)?;
            // At a restart, every node joins the others.
            nodes.push(Node { launch: joining, child: Some(child), endpoint });
        }
        let endpoints: Vec<&str> = nodes.iter().map(|node| node.endpoint.as_str()).collect();
        let wants_raft_leader = setup.variant.iter().any(|word| word == "raft");
        let cluster = Cluster { endpoint: endpoints.join(","), nodes, wants_raft_leader };
        cluster.wait_healthy()?;
        Ok(cluster)
    }

    fn wait_healthy(&self) -> Result<(), DriverError> {
        let deadline = Instant::now() + HEALTHY_TIMEOUT;
        while !self.nodes.iter().all(|node| node.is_healthy(self.nodes.len())) {
            if Instant::now() > deadline {
                return Err(DriverError::System(format!("no healthy cluster after {HEALTHY_TIMEOUT:?}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Cluster {
    /// Id of the node that leads the topic, as any node says; for `raft`, of the one that leads Raft.
    fn leader_of(&self, topic: &str) -> Option<u64> {
        let id = if self.wants_raft_leader {
            let told = |node: &Node| node.ask(|client| Some(client.metrics().ok()?.to_owned()));
            self.nodes.iter().find_map(|node| told(node)?["current_leader"].as_u64())
        } else {
            let told = |node: &Node| node.ask(|client| Some(client.state(topic).ok()?.to_owned()));
            self.nodes.iter().find_map(|node| told(node)?["leader_node"].as_u64())
        };
        id.map(|id| id & NODE_ID_MASK)
    }
}

impl Node {
    /// Is it ready, and does it count so many voters?
    fn is_healthy(&self, voters: usize) -> bool {
        let Some(metrics) = self.ask(|client| Some(client.metrics().ok()?.to_owned())) else { return false };
        let configs = &metrics["membership_config"]["membership"]["configs"];
        metrics["walrus"]["ready"] == true
            && configs.as_array().is_some_and(|configs| configs.len() == 1)
            && configs[0].as_array().is_some_and(|ids| ids.len() == voters)
    }

    fn ask(&self, question: impl FnOnce(&mut Client) -> Option<String>) -> Option<serde_json::Value> {
        let config = ClientConfig {
            connect_timeout: ANSWER_TIMEOUT,
            request_timeout: ANSWER_TIMEOUT,
            ..ClientConfig::new(&*self.endpoint)
        };
        let mut client = Client::with_config(config).ok()?;
        serde_json::from_str(&question(&mut client)?).ok()
    }
}

impl Server for Cluster {
    fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn pids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(|node| Some(node.child.as_ref()?.pid())).collect()
    }

    fn kill_leader_of(&mut self, topic: &str) -> Result<(), DriverError> {
        let node = self.leader_of(topic).and_then(|leader| self.nodes.get_mut(leader.checked_sub(1)? as usize));
        let child = node.and_then(|node| node.child.take());
        child.map_or_else(|| Err(DriverError::System(format!("nobody leads {topic}"))), |mut child| child.kill())
    }

    fn kill(&mut self) -> Result<(), DriverError> {
        self.nodes.iter_mut().filter_map(|node| node.child.take()).try_for_each(|mut child| child.kill())
    }

    fn restart(&mut self) -> Result<(), DriverError> {
        // All at once: none of them is ready without a majority.
        for node in self.nodes.iter_mut().filter(|node| node.child.is_none()) {
            node.child = Some(node.launch.spawn()?);
        }
        self.wait_healthy()
    }

    fn stop(&mut self) -> Result<(), DriverError> {
        self.nodes
            .iter_mut()
            .filter_map(|node| node.child.take())
            .try_for_each(|mut child| child.stop(ChildProcess::STOP_GRACE))
    }
}
