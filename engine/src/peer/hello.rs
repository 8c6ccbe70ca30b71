//! How a connection between nodes begins.
//!
//! ```text
//! hello   ┌──────────┬─────────┬─────────┬────────────┬──────┬─────┬─────┬────────┬─────────┐
//!         │ WALRPEER │ version │ purpose │ cluster id │ from │ run │ to  │ length │ address │
//!         │          │ u32     │ u32     │ u128       │ u64  │ u64 │ u64 │ u32    │ of from │
//!         └──────────┴─────────┴─────────┴────────────┴──────┴─────┴─────┴────────┴─────────┘
//! answer  ┌──────────┬─────────┬─────────┬────────────┬──────┬─────┐
//!         │ WALRPEER │ version │ verdict │ cluster id │ node │ run │
//!         └──────────┴─────────┴─────────┴────────────┴──────┴─────┘
//! ```
//! Little-endian. `cluster id` 0: none yet. `to` 0: whoever listens there. The address is where the
//! sender itself listens, which may be news: addresses may change at a restart.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::net::TcpStream;

const MAGIC: &[u8; 8] = b"WALRPEER";
const VERSION: u32 = 2;
const HELLO_BYTES: usize = 60;
const ANSWER_BYTES: usize = 48;
const ADDRESS_BYTES_MAX: usize = 300;
/// Longest wait for the other side's hello or answer.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Requests and replies of Raft, leases and proposals.
    Control = 1,
    /// Records.
    Data = 2,
    /// A node that has no cluster id yet asks to be let in.
    Join = 3,
}

/// The first message of the side that connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) purpose: Purpose,
    pub(crate) cluster_id: u128,
    pub(crate) from: u64,
    pub(crate) run_id: u64,
    pub(crate) to: u64,
    pub(crate) address: String,
}

/// What the listening side makes of a hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The connection is open.
    Welcome = 0,
    /// The cluster ids differ.
    OtherCluster = 1,
    /// Another node was meant.
    OtherNode = 2,
}

/// The reply to a hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) verdict: Verdict,
    pub(crate) cluster_id: u128,
    pub(crate) node_id: u64,
    pub(crate) run_id: u64,
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn begin(purpose_or_verdict: u32, cluster_id: u128) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&purpose_or_verdict.to_le_bytes());
    bytes.extend_from_slice(&cluster_id.to_le_bytes());
    bytes
}

/// Checks magic and version; returns the number after them and the cluster id.
fn parse_begin(bytes: &[u8]) -> io::Result<(u32, u128)> {
    if bytes[..8] != *MAGIC {
        return Err(invalid("it does not speak the protocol between nodes"));
    }
    if u32_at(bytes, 8) != VERSION {
        return Err(invalid("it speaks another version of the protocol between nodes"));
    }
    let mut cluster_id = [0; 16];
    cluster_id.copy_from_slice(&bytes[16..32]);
    Ok((u32_at(bytes, 12), u128::from_le_bytes(cluster_id)))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

impl Hello {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = begin(self.purpose as u32, self.cluster_id);
        for number in [self.from, self.run_id, self.to] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&(self.address.len() as u32).to_le_bytes());
        bytes.extend_from_slice(self.address.as_bytes());
        bytes
    }

    async fn read(stream: &mut TcpStream) -> io::Result<Self> {
        let mut bytes = [0; HELLO_BYTES];
        stream.read_exact(&mut bytes).await?;
        let (purpose, cluster_id) = parse_begin(&bytes)?;
        let purpose = [Purpose::Control, Purpose::Data, Purpose::Join]
            .into_iter()
            .find(|known| *known as u32 == purpose)
            .ok_or_else(|| invalid("unknown purpose"))?;
        let length = u32_at(&bytes, 56) as usize;
        if length > ADDRESS_BYTES_MAX {
            return Err(invalid("address too long"));
        }
        let mut address = vec![0; length];
        stream.read_exact(&mut address).await?;
        let address = String::from_utf8(address).map_err(|_| invalid("address is not text"))?;
        let (from, run_id, to) = (u64_at(&bytes, 32), u64_at(&bytes, 40), u64_at(&bytes, 48));
        Ok(Hello { purpose, cluster_id, from, run_id, to, address })
    }
}

impl Answer {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = begin(self.verdict as u32, self.cluster_id);
        bytes.extend_from_slice(&self.node_id.to_le_bytes());
        bytes.extend_from_slice(&self.run_id.to_le_bytes());
        bytes
    }

    async fn read(stream: &mut TcpStream) -> io::Result<Self> {
        let mut bytes = [0; ANSWER_BYTES];
        stream.read_exact(&mut bytes).await?;
        let (verdict, cluster_id) = parse_begin(&bytes)?;
        let verdict = [Verdict::Welcome, Verdict::OtherCluster, Verdict::OtherNode]
            .into_iter()
            .find(|known| *known as u32 == verdict)
            .ok_or_else(|| invalid("unknown verdict"))?;
        Ok(Answer { verdict, cluster_id, node_id: u64_at(&bytes, 32), run_id: u64_at(&bytes, 40) })
    }
}

fn late<T>(_: T) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it says nothing")
}

/// Says hello on a new connection and waits for the answer.
pub(crate) async fn greet(stream: &mut TcpStream, hello: &Hello) -> io::Result<Answer> {
    stream.set_nodelay(true)?;
    stream.write_all(&hello.encode()).await?;
    tokio::time::timeout(HELLO_TIMEOUT, Answer::read(stream)).await.map_err(late)?
}

/// Waits for the hello on a connection that was accepted.
pub(crate) async fn receive(stream: &mut TcpStream) -> io::Result<Hello> {
    stream.set_nodelay(true)?;
    tokio::time::timeout(HELLO_TIMEOUT, Hello::read(stream)).await.map_err(late)?
}

/// Answers a hello.
pub(crate) async fn answer(stream: &mut TcpStream, answer: &Answer) -> io::Result<()> {
    stream.write_all(&answer.encode()).await
}
