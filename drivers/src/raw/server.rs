//! The networked ceiling: a process that takes the frames of the Walrus protocol, copies them to a
//! file per connection, looks at nothing but their lengths, and answers each with `OK`.
//!
//! One blocking thread a connection: read what the socket has, write it, answer the frames that
//! are complete in one reply. In the synced tier each write goes straight to a file that was
//! written before (`O_DIRECT` and `RWF_DSYNC`): to the device, and nothing but data.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use walrus_engine::net::unpace_loopback;

use super::RING_BYTES;
use super::buffer::Buffer;
use super::files::{Layout, LogFile};
use super::writeback::Writeback;
use super::writer::{Flush, Mode, write_blocking};
use crate::process::Launch;
use crate::server_process::ServerProcess;
use crate::settings::Settings;
use crate::walrus::ClientSession;
use crate::{Deployment, DriverError, Server, Session, Setup, System, Tier, Tools};

/// Subcommand of the harness that runs [`run`].
pub const SUBCOMMAND: &str = "raw-server";

/// What the server needs to know; the harness's subcommand takes the same names as flags.
#[derive(Debug, Clone)]
pub struct RawServerConfig {
    /// Existing directory for the files.
    pub data_dir: std::path::PathBuf,
    /// Port on the loopback interface.
    pub port: u16,
    /// Flush each write before it is answered.
    pub synced: bool,
    /// Bytes that one read takes at most.
    pub read_bytes: usize,
}

/// Serves until the process is ended.
pub fn run(config: &RawServerConfig) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", config.port))?;
    unpace_loopback(&listener, listener.local_addr()?.ip());
    let writeback = Arc::new(Writeback::default());
    for number in 0_u64.. {
        let (stream, _) = listener.accept()?;
        let (config, writeback) = (config.clone(), Arc::clone(&writeback));
        std::thread::spawn(move || {
            let path = config.data_dir.join(format!("connection-{number}"));
            if let Err(error) = serve(stream, &path, &config, &writeback) {
                eprintln!("connection {number}: {error}");
            }
        });
    }
    Ok(())
}

fn serve(mut stream: TcpStream, path: &Path, config: &RawServerConfig, writeback: &Arc<Writeback>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (layout, flush) =
        if config.synced { (Layout::Ring { bytes: RING_BYTES }, Flush::Dsync) } else { (Layout::Append, Flush::None) };
    let mode = Mode { flush, direct: config.synced, uring: false, depth: 1 };
    let file = LogFile::create(path, mode.direct, layout, writeback)?;
    let mut input = Buffer::new(config.read_bytes.clamp(4096, RING_BYTES as usize));
    let mut frames = FrameCounter::default();
    let mut replies: Vec<u8> = Vec::new();
    loop {
        input.clear();
        if input.read_from(&mut stream)? == 0 {
            return Ok(());
        }
        let iovec = input.iovec(mode.direct);
        let start = file.reserve(iovec.iov_len as u64);
        write_blocking(&file, &[iovec], iovec.iov_len, start, mode)?;
        let complete = frames.take(input.bytes()) as usize;
        if replies.len() < complete * OK_FRAME.len() {
            replies = OK_FRAME.repeat(complete);
        }
        stream.write_all(&replies[..complete * OK_FRAME.len()])?;
    }
}

/// `[u32 LE length 2]OK`.
const OK_FRAME: [u8; 6] = *b"\x02\0\0\0OK";

/// Counts the frames that end in a stream of bytes that arrives in arbitrary pieces.
#[derive(Debug, Default)]
struct FrameCounter {
    /// Bytes of the current frame's body that are still to come.
    body_left: usize,
    prefix: [u8; 4],
    prefix_bytes: usize,
}

impl FrameCounter {
    fn take(&mut self, mut bytes: &[u8]) -> u64 {
        let mut complete = 0;
        while !bytes.is_empty() {
            if self.body_left > 0 {
                let taken = self.body_left.min(bytes.len());
                self.body_left -= taken;
                bytes = &bytes[taken..];
                complete += u64::from(self.body_left == 0);
                continue;
            }
            let taken = (self.prefix.len() - self.prefix_bytes).min(bytes.len());
            self.prefix[self.prefix_bytes..][..taken].copy_from_slice(&bytes[..taken]);
            self.prefix_bytes += taken;
            bytes = &bytes[taken..];
            if self.prefix_bytes == self.prefix.len() {
                self.body_left = u32::from_le_bytes(self.prefix) as usize;
                self.prefix_bytes = 0;
                complete += u64::from(self.body_left == 0);
            }
        }
        complete
    }
}

/// The ceiling of a networked system, driven by our client.
#[derive(Debug, Default)]
pub struct RawNetworked;

impl System for RawNetworked {
    fn name(&self) -> &'static str {
        "raw"
    }

    fn deployment(&self) -> Deployment {
        Deployment::Networked
    }

    fn version(&self, _tools: &Tools) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    fn check(&self, tools: &Tools) -> Result<(), DriverError> {
        harness(tools).map(|_: &Path| ())
    }

    fn start(&self, setup: &Setup) -> Result<Option<Box<dyn Server>>, DriverError> {
        let harness = harness(&setup.tools)?;
        let read_bytes = Settings::any(setup).size("read_bytes", 1 << 20)?;
        let server = ServerProcess::start(|port| {
            let launch = Launch::new(harness, setup.data_dir.join("server.log"))
                .arg(SUBCOMMAND)
                .arg("--data-dir")
                .arg(&setup.data_dir)
                .arg("--port")
                .arg(port.to_string())
                .arg("--read-bytes")
                .arg(read_bytes.to_string());
            if setup.tier == Tier::Synced { launch.arg("--synced") } else { launch }
        })?;
        Ok(Some(Box::new(server)))
    }

    fn open(&self, setup: &Setup) -> Result<Box<dyn Session>, DriverError> {
        let mut setup = setup.clone();
        setup.settings.remove("read_bytes");
        Ok(Box::new(ClientSession::open(&setup)?))
    }
}

fn harness(tools: &Tools) -> Result<&Path, DriverError> {
    tools.harness_bin.as_deref().ok_or_else(|| DriverError::Unavailable {
        cause: "the path of the harness, which contains the raw server, is not known".into(),
        remedy: "start the run with the harness's own binary".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_however_they_are_cut() {
        let mut stream = Vec::new();
        for body_bytes in [5_u32, 0, 300, 1] {
            stream.extend_from_slice(&body_bytes.to_le_bytes());
            stream.extend(vec![7; body_bytes as usize]);
        }
        for cut in 1..stream.len() {
            let mut counter = FrameCounter::default();
            let complete: u64 = stream.chunks(cut).map(|piece| counter.take(piece)).sum();
            assert_eq!(complete, 4, "in pieces of {cut}");
        }
    }
}
