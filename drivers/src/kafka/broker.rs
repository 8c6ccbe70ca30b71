//! The broker's process: format, start, wait until it answers, kill, start again, stop.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::types::RDKafkaType;

use super::settings::Settings;
use super::{STOP_GRACE, libs};
use crate::process::{ChildProcess, Launch, free_port, io_error};
use crate::{DriverError, Server, Setup};

/// A broker and controller in one process, as KRaft allows, on loopback.
pub(super) struct Broker {
    launch: Launch,
    child: ChildProcess,
    endpoint: String,
    settings: Settings,
}

impl Broker {
    /// Formats the setup's data directory and starts a broker on it. Returns once it answers.
    pub(super) fn start(setup: &Setup) -> Result<Broker, DriverError> {
        let settings = Settings::new(setup)?;
        let class_path = libs::class_path(&setup.tools)?;
        let port = settings.port()?.map_or_else(free_port, claim)?;
        let properties = write_properties(&setup.data_dir, &settings, port, free_port()?)?;
        let mut launch = Launch::new(libs::java()?, setup.data_dir.join("broker.log"));
        for flag in settings.jvm_flags()? {
            launch = launch.arg(flag);
        }
        launch =
            launch.arg(libs::QUIET_FLAG).arg("-Dorg.slf4j.simpleLogger.showDateTime=true").arg("-cp").arg(&class_path);
        format_storage(&launch, &properties)?;
        launch = launch.arg("kafka.Kafka").arg(&properties);
        let child = launch.spawn()?;
        let endpoint = format!("127.0.0.1:{port}");
        let mut broker = Broker { launch, child, endpoint, settings };
        broker.wait_ready()?;
        Ok(broker)
    }

    /// Ready means: the broker has told a client that it, itself, is in the cluster.
    fn wait_ready(&mut self) -> Result<(), DriverError> {
        let config = self.settings.client(&self.endpoint);
        let native =
            config.create_native_config().map_err(|error| super::kafka_error("configuring the client", &error))?;
        let kind = RDKafkaType::RD_KAFKA_PRODUCER;
        let client = Client::new(&config, native, kind, DefaultClientContext)
            .map_err(|error| super::kafka_error("creating the client", &error))?;
        self.child.wait_ready(self.settings.ready_timeout()?, || {
            client.fetch_metadata(None, Duration::from_millis(200)).is_ok_and(|metadata| !metadata.brokers().is_empty())
        })
    }
}

impl Server for Broker {
    fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn pid(&self) -> u32 {
        self.child.pid()
    }

    fn kill(&mut self) -> Result<(), DriverError> {
        self.child.kill()
    }

    fn restart(&mut self) -> Result<(), DriverError> {
        self.child.kill()?;
        self.child = self.launch.spawn()?;
        self.wait_ready()
    }

    fn stop(&mut self) -> Result<(), DriverError> {
        self.child.stop(STOP_GRACE)
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

/// Writes `server.properties` into the data directory and returns its path.
fn write_properties(
    data_dir: &Path,
    settings: &Settings,
    port: u16,
    controller_port: u16,
) -> Result<std::path::PathBuf, DriverError> {
    std::fs::create_dir_all(data_dir)
        .map_err(|source| io_error(&format!("creating {}", data_dir.display()), source))?;
    let listeners = format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}");
    let text = settings.server_properties(&[
        ("process.roles", "broker,controller".into()),
        ("node.id", "1".into()),
        ("controller.quorum.voters", format!("1@127.0.0.1:{controller_port}")),
        ("controller.listener.names", "CONTROLLER".into()),
        ("listeners", listeners),
        ("advertised.listeners", format!("PLAINTEXT://127.0.0.1:{port}")),
        ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT".into()),
        ("log.dirs", data_dir.join("logs").display().to_string()),
    ]);
    let path = data_dir.join("server.properties");
    std::fs::write(&path, text).map_err(|source| io_error(&format!("writing {}", path.display()), source))?;
    Ok(path)
}

/// Gives the storage directory its cluster id; without one the broker refuses to start.
fn format_storage(java: &Launch, properties: &Path) -> Result<(), DriverError> {
    let output = Command::new(&java.program)
        .args(&java.args)
        .args(["kafka.tools.StorageTool", "format", "-t", &cluster_id()?, "-c"])
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
