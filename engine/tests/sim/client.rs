//! A client of one node, as simple as can be.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use walrus_engine::net::TcpStream;
use walrus_engine::protocol::Request;

/// Port of the nodes for clients.
pub const PORT: u16 = 9091;
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// No reply within this time: the connection is given up.
const REPLY_TIMEOUT: Duration = Duration::from_secs(4);

/// A connection to one node.
pub struct Client {
    pub node: u64,
    stream: TcpStream,
    input: BytesMut,
}

impl Client {
    pub async fn connect(node: u64) -> io::Result<Self> {
        let address = format!("n{node}:{PORT}");
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(&address)).await??;
        Ok(Client { node, stream, input: BytesMut::new() })
    }

    /// Sends frames.
    pub async fn send(&mut self, frames: &[u8]) -> io::Result<()> {
        timeout(REPLY_TIMEOUT, self.stream.write_all(frames)).await?
    }

    /// The body of the next reply.
    pub async fn reply(&mut self) -> io::Result<Bytes> {
        timeout(REPLY_TIMEOUT, self.read_frame()).await?
    }

    /// One request and its reply.
    pub async fn call(&mut self, request: &Request<'_>) -> io::Result<Bytes> {
        let mut frame = Vec::new();
        request.encode(&mut frame);
        self.send(&frame).await?;
        self.reply().await
    }

    async fn read_frame(&mut self) -> io::Result<Bytes> {
        loop {
            if let Some(prefix) = self.input.first_chunk::<4>() {
                let length = u32::from_le_bytes(*prefix) as usize;
                if self.input.len() >= 4 + length {
                    self.input.advance(4);
                    return Ok(self.input.split_to(length).freeze());
                }
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
