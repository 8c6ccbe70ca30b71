//! What a node says to another, said by a test: late, out of turn, or by somebody who was deposed.

use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::{Buf, BufMut, BytesMut};
use serde_json::Value;
use walrus_engine::log::forward::put_group;
use walrus_engine::log::messages::{Message, Purpose, next_message};
use walrus_engine::metadata::state::SegmentAt;
use walrus_engine::store::Take;
use walrus_engine::types::SegmentUid;

use crate::support::{Cluster, PATIENCE};

/// The node that the test is; no cluster here has it.
const NODE: u64 = 99;
const DATA: u32 = 2;
const WRITE: u8 = 1;
/// In the reply to a write.
const NOTHING_LEFT: u8 = 0;
const MOVED: u8 = 1;

/// A data connection to a node.
pub struct Peer {
    stream: TcpStream,
    input: BytesMut,
}

/// What became of a forwarded record.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    Stored,
    Moved,
}

impl Peer {
    /// Says hello to a node as run `run` of another one.
    pub fn connect(cluster: &Cluster, node: u64, run: u64, purpose: Purpose) -> Self {
        let address = cluster.peer_address(node);
        // The first answer tells which cluster it is.
        let (_, cluster_id) = greet(&address, 1, run);
        let (stream, _) = greet(&address, cluster_id, run);
        let mut peer = Peer { stream, input: BytesMut::new() };
        peer.stream.write_all(&[purpose as u8]).unwrap();
        peer
    }

    /// Passes a record on.
    pub fn write(&mut self, generation: u64, topic: &str, at: SegmentAt, record: &[u8]) -> Fate {
        let mut body = vec![WRITE];
        // No metadata index to wait for.
        body.put_u64_le(0);
        body.put_u64_le(generation);
        put_group(&mut body, topic, at, Take::UpToLimit, &[record]);
        self.stream.write_all(&(body.len() as u32).to_le_bytes()).unwrap();
        self.stream.write_all(&body).unwrap();
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).unwrap();
        let mut reply = vec![0; u32::from_le_bytes(length) as usize];
        self.stream.read_exact(&mut reply).unwrap();
        let mut reply = &reply[1 + 8..];
        match (reply.get_u32_le(), reply.get_u8()) {
            (1, NOTHING_LEFT) => Fate::Stored,
            (0, MOVED) => Fate::Moved,
            other => panic!("an outcome that nobody expects: {other:?}"),
        }
    }

    /// Sends a message of a replication stream.
    pub fn send(&mut self, message: &Message) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.stream.write_all(&bytes).unwrap();
    }

    /// The next message of the other side.
    pub fn receive(&mut self) -> Message {
        loop {
            if let Some(message) = next_message(&mut self.input).unwrap() {
                return message;
            }
            let mut piece = [0; 4096];
            let bytes = self.stream.read(&mut piece).unwrap();
            assert!(bytes > 0, "the node has closed the stream");
            self.input.extend_from_slice(&piece[..bytes]);
        }
    }
}

/// Connects; returns the stream after the answer, and the cluster id in it.
fn greet(address: &str, cluster_id: u128, run: u64) -> (TcpStream, u128) {
    let mut hello = b"WALRPEER".to_vec();
    hello.put_u32_le(2);
    hello.put_u32_le(DATA);
    hello.put_u128_le(cluster_id);
    // To whoever listens there, from nowhere.
    [NODE, run, 0].into_iter().for_each(|number| hello.put_u64_le(number));
    hello.put_u32_le(0);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&hello).unwrap();
    let mut answer = [0; 48];
    stream.read_exact(&mut answer).unwrap();
    (stream, (&answer[16..]).get_u128_le())
}

/// The last segment of a topic and its epoch, as a node has it.
pub fn last_at(cluster: &Cluster, node: u64, topic: &str) -> SegmentAt {
    let state: Value = cluster.state(node, topic);
    let number = |name: &str| state[name].as_u64().unwrap();
    let uid = SegmentUid { topic_id: number("topic_id"), number: number("current_segment") };
    SegmentAt { uid, epoch: number("epoch") }
}
