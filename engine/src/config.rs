//! The broker's settings: one struct, read once from flags and environment, passed by value.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

use crate::store::StoreConfig;
use crate::types::Tier;

/// Of the write buffers, beside the largest frame: what a batch takes beyond its records.
const POOL_SPARE_BYTES: usize = 64 << 10;
/// The largest reply window that may pile up for one connection, and so the least buffer budget.
const BUFFER_BYTES_MIN: usize = 1 << 20;

/// Settings of one broker. `Config::default()` has every default and reads no environment;
/// `Config::parse()` reads the command line and the environment.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "walrus",
    version,
    about = "Walrus: a distributed log. Without --join this is a complete single-node broker.",
    after_help = "Example:\n  walrus --node-id 1 --data-dir ./data\n  walrus-cli register logs && walrus-cli put logs 'hello world' && walrus-cli get logs"
)]
pub struct Config {
    /// This node's number in the cluster, from 1. Default 1.
    #[arg(long, default_value_t = Config::default().node_id)]
    pub node_id: u64,
    /// Directory that holds everything this node stores; made if missing. Default `./data`.
    #[arg(long, default_value = "./data")]
    pub data_dir: PathBuf,
    /// Address that clients connect to. Default 127.0.0.1 (loopback: there is no authentication).
    #[arg(long, default_value_t = Config::default().client_host)]
    pub client_host: String,
    /// Port that clients connect to; 0 takes a free one. Default 9091.
    #[arg(long, default_value_t = Config::default().client_port)]
    pub client_port: u16,
    /// Address under which others reach the client port. Default: the one that it listens on.
    #[arg(long)]
    pub client_advertise_host: Option<String>,
    /// Address for the other nodes of the cluster. Default 127.0.0.1.
    #[arg(long, default_value_t = Config::default().raft_host)]
    pub raft_host: String,
    /// Port for the other nodes of the cluster; 0 takes a free one. Default 6000. A node that is alone
    /// does without if the port is taken.
    #[arg(long, default_value_t = Config::default().raft_port)]
    pub raft_port: u16,
    /// Address under which the other nodes reach this one. Default: `--raft-host`.
    #[arg(long)]
    pub raft_advertise_host: Option<String>,
    /// Nodes of a cluster to join, `host:port` separated by commas. Default: none, a single node.
    #[arg(long, value_delimiter = ',')]
    pub join: Vec<String>,
    /// Address of the admin port. Default 127.0.0.1 (loopback: there is no authentication).
    #[arg(long, default_value_t = Config::default().admin_host)]
    pub admin_host: String,
    /// Port for the status page, `/metrics`, `/healthz` and `/readyz`; 0 takes a free one. Default: none is opened.
    #[arg(long)]
    pub admin_port: Option<u16>,
    /// `PUT` and `APPEND` to an unknown topic create it with the defaults. Default: off.
    #[arg(long)]
    pub auto_create: bool,

    /// Records in a segment of a topic that does not say otherwise. Default 1,000,000.
    #[arg(long = "max-segment-entries", env = "WALRUS_MAX_SEGMENT_ENTRIES", default_value_t = Config::default().segment_entries)]
    pub segment_entries: u64,
    /// Bytes in a segment of a topic that does not say otherwise. Default 1 GiB.
    #[arg(long = "max-segment-bytes", env = "WALRUS_MAX_SEGMENT_BYTES", default_value_t = Config::default().segment_bytes)]
    pub segment_bytes: u64,
    /// Durability tier of a topic that does not say otherwise: `page-cache` or `synced`. Default page-cache.
    #[arg(long = "default-tier", default_value_t = Config::default().tier)]
    pub tier: Tier,
    /// How often retention is looked at, in milliseconds. Default 10,000.
    #[arg(long, env = "WALRUS_MONITOR_CHECK_MS", default_value_t = Config::default().monitor_check_ms)]
    pub monitor_check_ms: u64,
    /// Use the blocking backend even where `io_uring` works. Default: off.
    #[arg(long, env = "WALRUS_DISABLE_IO_URING", value_parser = clap::builder::FalseyValueParser::new())]
    pub disable_io_uring: bool,
    /// Memory for records that are not written yet, in bytes. Default 64 MiB.
    #[arg(long, default_value_t = Config::default().pool_bytes)]
    pub pool_bytes: usize,
    /// How often data of the page-cache tier is flushed to the device, in milliseconds. Default 5,000.
    #[arg(long, default_value_t = Config::default().flush_interval_ms)]
    pub flush_interval_ms: u64,

    /// Longest frame that is accepted, in bytes. Default 8 MiB.
    #[arg(long, default_value_t = Config::default().max_frame_bytes)]
    pub max_frame_bytes: usize,
    /// Bytes read from a connection at once. Default 256 KiB.
    #[arg(long, default_value_t = Config::default().read_buffer_bytes)]
    pub read_buffer_bytes: usize,
    /// Memory for requests of all connections together, in bytes; as much again is for replies, and a quarter
    /// of it for records that cursors have read ahead. Default 128 MiB.
    #[arg(long, default_value_t = Config::default().connection_bytes)]
    pub connection_bytes: usize,
    /// Connections served at once; one more is told `Overloaded`. Default 20,000.
    #[arg(long, default_value_t = Config::default().max_connections)]
    pub max_connections: usize,
    /// A connection without any request for so long is closed, in milliseconds. Default 3,600,000 (an hour).
    #[arg(long, default_value_t = Config::default().idle_timeout_ms)]
    pub idle_timeout_ms: u64,
    /// From a frame's first byte to its last, and for a reply to be taken, in milliseconds. Default 30,000.
    #[arg(long, default_value_t = Config::default().frame_timeout_ms)]
    pub frame_timeout_ms: u64,
    /// How long a write waits for a topic's next segment before `NotReady`, in milliseconds. Default 5,000.
    #[arg(long, default_value_t = Config::default().write_wait_ms)]
    pub write_wait_ms: u64,
    /// Longest wait that a `FETCH` may ask for, in milliseconds. Default 60,000.
    #[arg(long, default_value_t = Config::default().fetch_wait_ms_max)]
    pub fetch_wait_ms_max: u64,

    /// What is logged: a level (error, warn, info, debug, trace), or one for each part. Default `info,openraft=off`.
    #[arg(long = "log", env = "RUST_LOG", default_value_t = Config::default().log_filter)]
    pub log_filter: String,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            node_id: 1,
            data_dir: PathBuf::from("./data"),
            client_host: "127.0.0.1".into(),
            client_port: 9091,
            client_advertise_host: None,
            raft_host: "127.0.0.1".into(),
            raft_port: 6000,
            raft_advertise_host: None,
            join: Vec::new(),
            admin_host: "127.0.0.1".into(),
            admin_port: None,
            auto_create: false,
            segment_entries: 1_000_000,
            segment_bytes: 1 << 30,
            tier: Tier::PageCache,
            monitor_check_ms: 10_000,
            disable_io_uring: false,
            pool_bytes: 64 << 20,
            flush_interval_ms: 5_000,
            max_frame_bytes: 8 << 20,
            read_buffer_bytes: 256 << 10,
            connection_bytes: 128 << 20,
            max_connections: 20_000,
            idle_timeout_ms: 3_600_000,
            frame_timeout_ms: 30_000,
            write_wait_ms: 5_000,
            fetch_wait_ms_max: 60_000,
            log_filter: "info,openraft=off".into(),
        }
    }
}

/// A setting that cannot work, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{flag}: {problem}")]
pub struct ConfigError {
    /// The flag as it is typed.
    pub flag: &'static str,
    /// What is wrong with its value.
    pub problem: String,
}

impl Config {
    /// Checks what the types cannot: ranges, and settings that must fit each other.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let require = |holds: bool, flag: &'static str, problem: &str| {
            if holds { Ok(()) } else { Err(ConfigError { flag, problem: problem.to_owned() }) }
        };
        require(self.node_id >= 1, "--node-id", "node ids start at 1")?;
        require(self.node_id < 65_536, "--node-id", "node ids are below 65536")?;
        require(self.segment_entries >= 1, "--max-segment-entries", "must be at least 1")?;
        require(self.segment_bytes >= 1, "--max-segment-bytes", "must be at least 1")?;
        require(self.monitor_check_ms >= 1, "--monitor-check-ms", "must be at least 1")?;
        require(self.flush_interval_ms >= 1, "--flush-interval-ms", "must be at least 1")?;
        require(self.max_connections >= 1, "--max-connections", "must be at least 1")?;
        require(self.read_buffer_bytes >= 4096, "--read-buffer-bytes", "must be at least 4096")?;
        require(self.max_frame_bytes >= 1024, "--max-frame-bytes", "must be at least 1024")?;
        require(u32::try_from(self.max_frame_bytes).is_ok(), "--max-frame-bytes", "must be below 4 GiB")?;
        require(
            self.pool_bytes / 2 >= self.max_frame_bytes + POOL_SPARE_BYTES,
            "--pool-bytes",
            "must be at least twice --max-frame-bytes and 128 KiB, or the largest frame could never be stored",
        )?;
        require(
            self.connection_bytes >= BUFFER_BYTES_MIN.max(4 * self.max_frame_bytes),
            "--connection-bytes",
            "must be at least four times --max-frame-bytes, and 1 MiB",
        )?;
        require(self.idle_timeout_ms >= 1, "--idle-timeout-ms", "must be at least 1")?;
        require(self.frame_timeout_ms >= 1, "--frame-timeout-ms", "must be at least 1")
    }

    /// The part that the store wants to know.
    pub fn store_config(&self) -> StoreConfig {
        StoreConfig {
            disable_io_uring: self.disable_io_uring,
            pool_bytes: self.pool_bytes,
            flush_interval_ms: self.flush_interval_ms,
            ..StoreConfig::new(&self.data_dir)
        }
    }

    /// `host:port` for clients, as other nodes and people are told, once the port is open at `bound`.
    pub fn client_address(&self, bound: SocketAddr) -> String {
        self.client_advertise_host.as_ref().map_or_else(|| bound.to_string(), |host| format!("{host}:{}", bound.port()))
    }

    /// `host:port` under which the other nodes reach this one, which listens on `port`.
    pub fn peer_address(&self, port: u16) -> String {
        let host = self.raft_advertise_host.as_ref().unwrap_or(&self.raft_host);
        format!("{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_the_same_on_the_command_line() {
        // Not what the environment of the tests says.
        let typed = Config::parse_from(["walrus", "--log", &Config::default().log_filter]);
        typed.validate().expect("defaults are valid");
        assert_eq!(format!("{typed:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn an_impossible_setting_names_its_flag() {
        let config = Config { pool_bytes: 1 << 20, ..Config::default() };
        assert_eq!(config.validate().expect_err("too small").flag, "--pool-bytes");
    }
}
