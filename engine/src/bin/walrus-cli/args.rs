//! The arguments, and the help that is made from them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use walrus_engine::client::ClientConfig;

const AFTER_HELP: &str = "\
Examples:
  walrus-cli register logs
  walrus-cli put logs \"hello world\"
  walrus-cli get logs
  journalctl -f | walrus-cli put logs -
  walrus-cli fetch logs --follow --json

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 `get` found no record.";

/// Talks to a Walrus broker. Without a command it opens a shell.
#[derive(Debug, Parser)]
#[command(name = "walrus-cli", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Args {
    /// Any node of the cluster.
    #[arg(long, global = true, env = "WALRUS_ADDR", default_value = "127.0.0.1:9091", value_name = "HOST:PORT")]
    addr: String,
    /// Longest wait for a reply, in milliseconds.
    #[arg(long, global = true, default_value_t = 30_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout_ms: u64,
    /// Print JSON, one object a line.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print records byte for byte, with nothing between them.
    #[arg(long, global = true, conflicts_with = "json")]
    pub(crate) raw: bool,
    /// When to use colours.
    #[arg(long, global = true, value_enum, default_value_t = ColorChoice::Auto, value_name = "WHEN")]
    pub(crate) color: ColorChoice,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

impl Args {
    pub(crate) fn client_config(&self) -> ClientConfig {
        let request_timeout = Duration::from_millis(self.timeout_ms);
        let mut config = ClientConfig::new(self.addr.clone());
        config.connect_timeout = config.connect_timeout.min(request_timeout);
        ClientConfig { request_timeout, ..config }
    }
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// A line of the shell, which has the same commands.
#[derive(Debug, Parser)]
#[command(name = "", no_binary_name = true, disable_help_subcommand = true, disable_version_flag = true)]
pub(crate) struct ShellLine {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do. Each is a verb of the protocol.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a topic; the same again is fine
    Register {
        /// Name of the topic: A-Z a-z 0-9 . _ -
        topic: String,
        /// replicas, tier (page-cache, synced), acks (quorum, all), `segment_entries`, `segment_bytes`, `retention_bytes`, `retention_ms`
        #[arg(value_name = "KEY=VALUE")]
        settings: Vec<String>,
    },
    /// Append one record, or one a line from stdin (`-`)
    Put {
        /// Name of the topic
        topic: String,
        /// The record; several words are joined by spaces; `-` reads stdin, one record a line
        #[arg(required_unless_present = "file", allow_negative_numbers = true)]
        payload: Vec<String>,
        /// Store a file, byte for byte, as one record
        #[arg(long, value_name = "PATH", conflicts_with = "payload")]
        file: Option<PathBuf>,
    },
    /// Read the next record and move the cursor
    Get {
        /// Name of the topic
        topic: String,
        /// Whose cursor; without it, the shared one
        group: Option<String>,
    },
    /// Show a topic's segments, leaders and settings
    State {
        /// Name of the topic
        topic: String,
    },
    /// Show the node's metrics
    Metrics,
    /// Append records as one batch, or lines from stdin (`-`) in large batches
    Append {
        /// Name of the topic
        topic: String,
        /// The records; `-` reads stdin, one record a line
        #[arg(required = true, allow_negative_numbers = true)]
        records: Vec<String>,
    },
    /// Read by offset; moves no cursor
    Fetch {
        /// Name of the topic
        topic: String,
        /// First offset, `first` (the oldest record that is kept), or `last` (behind the newest)
        #[arg(default_value = "first")]
        offset: String,
        /// Records to read at most; without it, all up to the tail
        max_records: Option<u64>,
        /// Go on at the tail: print records as they come, until Ctrl-C
        #[arg(long, short)]
        follow: bool,
    },
    /// Move a group's cursor
    Seek {
        /// Name of the topic
        topic: String,
        /// Whose cursor
        group: String,
        /// An offset, `first`, or `last` (behind the last record)
        to: String,
    },
    /// List the topics
    Topics,
    /// Remove a topic and its data
    Delete {
        /// Name of the topic
        topic: String,
    },
    /// Let a node go for good, once others hold its copies
    Leave {
        /// Its node id
        node_id: u64,
    },
    /// Check that the broker answers, and how fast
    Ping,
}
