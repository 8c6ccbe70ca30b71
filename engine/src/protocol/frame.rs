//! Frames: `[u32 little-endian: body length][body]`, both ways.
//!
//! ```text
//!   read buffer   │ len │ body ....... │ len │ body ... │ len │ bo
//!   Frames        └─────── yielded ────┴──── yielded ───┘└ missing() bytes to come
//!                 └─────────────── consumed() ──────────┘
//! ```

use bytes::BufMut;

/// Bytes of the length that stands before each body.
pub const PREFIX_BYTES: usize = 4;

/// Largest body that a server takes unless it is told otherwise (`--max-frame-bytes`): 8 MiB.
pub const DEFAULT_MAX_FRAME_BYTES: usize = 8 << 20;

/// A length that no frame may have. What follows it in the stream cannot be trusted: answer
/// with one `ERR` and close the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is 0.
    #[error("a frame must not be empty")]
    Empty,
    /// The length is above the limit.
    #[error("a frame of {body_bytes} bytes is above the limit of {max_bytes} bytes")]
    TooLarge {
        /// Length that the prefix announced.
        body_bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
}

/// Length of the first frame's body, or `None` if its prefix is not complete yet.
///
/// This looks at the prefix only, so a bad length is found before memory is reserved for a body.
#[inline]
pub fn body_bytes(buffer: &[u8], max_frame_bytes: usize) -> Result<Option<usize>, FrameError> {
    let Some(prefix) = buffer.first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    match u32::from_le_bytes(*prefix) as usize {
        0 => Err(FrameError::Empty),
        body_bytes if body_bytes > max_frame_bytes => {
            Err(FrameError::TooLarge { body_bytes, max_bytes: max_frame_bytes })
        }
        body_bytes => Ok(Some(body_bytes)),
    }
}

/// Walks over the complete frames at the front of a read buffer, without copying.
///
/// Ends at the first incomplete frame, or after the first error. Afterwards [`Frames::consumed`]
/// says what may be dropped from the buffer, and [`Frames::missing`] how much to read at least.
#[derive(Debug)]
pub struct Frames<'a> {
    buffer: &'a [u8],
    consumed: usize,
    max_frame_bytes: usize,
    failed: bool,
}

impl<'a> Frames<'a> {
    /// Starts at the front of `buffer`.
    #[inline]
    pub fn new(buffer: &'a [u8], max_frame_bytes: usize) -> Self {
        Frames { buffer, consumed: 0, max_frame_bytes, failed: false }
    }

    /// Bytes of the frames that were yielded so far, prefixes included.
    #[inline]
    pub fn consumed(&self) -> usize {
        self.consumed
    }

    /// Bytes that must be read before the next frame, or at least its prefix, is complete.
    /// 0 when the next frame is complete or has a bad length.
    pub fn missing(&self) -> usize {
        let rest = &self.buffer[self.consumed..];
        match body_bytes(rest, self.max_frame_bytes) {
            Ok(Some(body_bytes)) => (PREFIX_BYTES + body_bytes).saturating_sub(rest.len()),
            Ok(None) => PREFIX_BYTES - rest.len(),
            Err(_) => 0,
        }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<&'a [u8], FrameError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let rest = &self.buffer[self.consumed..];
        match body_bytes(rest, self.max_frame_bytes) {
            Ok(Some(body_bytes)) => {
                let body = rest.get(PREFIX_BYTES..PREFIX_BYTES + body_bytes)?;
                self.consumed += PREFIX_BYTES + body_bytes;
                Some(Ok(body))
            }
            Ok(None) => None,
            Err(error) => {
                self.failed = true;
                Some(Err(error))
            }
        }
    }
}

/// Writes the prefix of a body of `body_bytes` bytes; the caller writes the body.
///
/// # Panics
/// If the body does not fit in the prefix. Callers check against a limit far below it.
#[inline]
pub fn put_prefix(out: &mut impl BufMut, body_bytes: usize) {
    assert!(u32::try_from(body_bytes).is_ok(), "a frame body is at most 4 GiB");
    out.put_u32_le(body_bytes as u32);
}

/// Writes one frame with this body.
pub fn put_frame(out: &mut impl BufMut, body: &[u8]) {
    put_prefix(out, body.len());
    out.put_slice(body);
}
