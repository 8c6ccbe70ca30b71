//! The brokers' processes: format, start, wait until it answers, kill, start again, stop.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::types::RDKafkaType;

use super::settings::Settings;
use super::{STOP_GRACE, libs};
use crate::ports::free_ports;
use crate::process::{ChildProcess, Launch, io_error};
use crate::{DriverError, Server, Setup};

/// Brokers and controllers on loopback, both in one process each, as KRaft allows.
pub(super) struct Broker {
    nodes: Vec<Node>,
    endpoint: String,
    settings: Settings,
}

/// One process.
struct Node {
    launch: Launch,
    /// `None` once it was killed alone.
    child: Option<ChildProcess>,
    endpoint: String,
}

/// Ports of one node.
#[derive(Clone, Copy)]
struct Ports {
    client: u16,
    controller: u16,
}

impl Broker {
    /// Formats the setup's data directory and starts the brokers on it. Returns once they answer.
    pub(super) fn start(setup: &Setup) -> Result<Broker, DriverError> {
        let settings = Settings::new(setup)?;
        let first_port = settings.port()?;
        let free = free_ports(2 * setup.nodes as usize)?;
        let ports = free.chunks_exact(2).enumerate().map(|(index, pair)| {
            let client = first_port.map_or(Ok(pair[0]), |port| claim(port + index as u16))?;
            Ok(Ports { client, controller: pair[1] })
        });
        let ports: Vec<Ports> = ports.collect::<Result<_, DriverError>>()?;
        let cluster_id = cluster_id()?;
        let mut nodes = Vec::new();
        for node_id in 1..=ports.len() {
            let launch = prepare(setup, &settings, &ports, node_id, &cluster_id)?;
            let endpoint = format!("127.0.0.1:{}", ports[node_id - 1].client);
            nodes.push(Node { child: Some(launch.spawn()?), launch, endpoint });
        }
        let endpoints: Vec<&str> = nodes.iter().map(|node| node.endpoint.as_str()).collect();
        let mut broker = Broker { endpoint: endpoints.join(","), nodes, settings };
        broker.wait_ready()?;
        Ok(broker)
    }

    /// Ready means: each broker has told a client that all of them are in the cluster.
    fn wait_ready(&mut self) -> Result<(), DriverError> {
        let (count, timeout) = (self.nodes.len(), self.settings.ready_timeout()?);
        for node in &mut self.nodes {
            let client = metadata_client(&self.settings, &node.endpoint)?;
            let Some(child) = &mut node.child else { continue };
            child.wait_ready(timeout, || {
                let metadata = client.fetch_metadata(None, Duration::from_millis(200));
                metadata.is_ok_and(|metadata| metadata.brokers().len() == count)
            })?;
        }
        Ok(())
    }

    /// Id of the broker that leads the first partition of this topic.
    fn leader_of(&self, topic: &str) -> Result<usize, DriverError> {
        let metadata = metadata_client(&self.settings, &self.endpoint)?
            .fetch_metadata(Some(topic), Duration::from_secs(5))
            .map_err(|error| super::kafka_error("asking for the leader", &error))?;
        let leader = metadata.topics().first().and_then(|topic| Some(topic.partitions().first()?.leader()));
        let leader = leader.and_then(|leader| usize::try_from(leader).ok());
        leader.ok_or_else(|| DriverError::System(format!("nobody leads {topic}")))
    }
}

fn metadata_client(settings: &Settings, endpoint: &str) -> Result<Client<DefaultClientContext>, DriverError> {
    let config = settings.client(endpoint);
    let native = config.create_native_config().map_err(|error| super::kafka_error("configuring the client", &error))?;
    Client::new(&config, native, RDKafkaType::RD_KAFKA_PRODUCER, DefaultClientContext)
        .map_err(|error| super::kafka_error("creating the client", &error))
}

/// Formats a node's directory; the command that starts the node.
fn prepare(
    setup: &Setup,
    settings: &Settings,
    ports: &[Ports],
    node_id: usize,
    cluster_id: &str,
) -> Result<Launch, DriverError> {
    let dir = if ports.len() > 1 { setup.data_dir.join(format!("node{node_id}")) } else { setup.data_dir.clone() };
    let properties = write_properties(&dir, settings, ports, node_id)?;
    let mut launch = Launch::new(libs::java()?, dir.join("broker.log"));
    for flag in settings.jvm_flags()? {
        launch = launch.arg(flag);
    }
    launch = launch
        .arg(libs::QUIET_FLAG)
        .arg("-Dorg.slf4j.simpleLogger.showDateTime=true")
        .arg("-cp")
        .arg(libs::class_path(&setup.tools)?);
    format_storage(&launch, &properties, cluster_id)?;
    Ok(launch.arg("kafka.Kafka").arg(&properties))
}

impl Server for Broker {
    fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn pids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(|node| Some(node.child.as_ref()?.pid())).collect()
    }

    fn kill_leader_of(&mut self, topic: &str) -> Result<(), DriverError> {
        let leader = self.leader_of(topic)?;
        let child = self.nodes.get_mut(leader - 1).and_then(|node| node.child.take());
        child.map_or(Ok(()), |mut child| child.kill())
    }

    fn kill(&mut self) -> Result<(), DriverError> {
        self.nodes.iter_mut().filter_map(|node| node.child.take()).try_for_each(|mut child| child.kill())
    }

    fn restart(&mut self) -> Result<(), DriverError> {
        for node in self.nodes.iter_mut().filter(|node| node.child.is_none()) {
            node.child = Some(node.launch.spawn()?);
        }
        self.wait_ready()
    }

    fn stop(&mut self) -> Result<(), DriverError> {
        // The last brokers of a cluster wait for ever: to leave in order they ask a quorum that is gone.
        if self.nodes.len() > 1 {
            return self.kill();
        }
        self.nodes.iter_mut().filter_map(|node| node.child.take()).try_for_each(|mut child| child.stop(STOP_GRACE))
    }
}

/// A port that the profile names must be free.
fn claim(port: u16) -> Result<u16, DriverError> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(port),
        Err(error) => Err(DriverError::Unavailable {
            cause: format!("Kafka's port {port} cannot be used: {error}"),
            remedy: format!("stop what listens there (`ss -ltnp 'sport = :{port}'`), or set another `port`"),
        }),
    }
}

/// Writes a node's `server.properties` into its directory and returns the file's path.
fn write_properties(
    dir: &Path,
    settings: &Settings,
    ports: &[Ports],
    node_id: usize,
) -> Result<std::path::PathBuf, DriverError> {
    std::fs::create_dir_all(dir).map_err(|source| io_error(&format!("creating {}", dir.display()), source))?;
    let Ports { client, controller } = ports[node_id - 1];
    let voters = (1..).zip(ports).map(|(id, ports): (u32, _)| format!("{id}@127.0.0.1:{}", ports.controller));
    let text = settings.server_properties(&[
        ("process.roles", "broker,controller".into()),
        ("node.id", node_id.to_string()),
        ("controller.quorum.voters", voters.collect::<Vec<_>>().join(",")),
        ("controller.listener.names", "CONTROLLER".into()),
        ("listeners", format!("PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller}")),
        ("advertised.listeners", format!("PLAINTEXT://127.0.0.1:{client}")),
        ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT".into()),
        ("log.dirs", dir.join("logs").display().to_string()),
    ]);
    let path = dir.join("server.properties");
    std::fs::write(&path, text).map_err(|source| io_error(&format!("writing {}", path.display()), source))?;
    Ok(path)
}

/// Gives the storage directory its cluster id; without one the broker refuses to start.
fn format_storage(java: &Launch, properties: &Path, cluster_id: &str) -> Result<(), DriverError> {
    let output = Command::new(&java.program)
        .args(&java.args)
        .args(["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c"])
        .arg(properties)
        .output()
        .map_err(|source| io_error("formatting Kafka's storage directory", source))?;
    if output.status.success() {
        return Ok(());
    }
    Err(DriverError::System(format!("Kafka's storage directory could not be formatted: {}", libs::last_lines(&output))))
}

/// 16 random bytes in Kafka's spelling: base64 for URLs, without padding (22 characters).
fn cluster_id() -> Result<String, DriverError> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bytes = [0_u8; 22];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(|source| io_error("drawing a cluster id", source))?;
    // No leading `-`, which the tool would take for a flag; the last character carries 2 bits.
    bytes[0] &= 0b0001_1111;
    bytes[21] &= 0b0011_0000;
    Ok(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 63)])).collect())
}
