//! `put -` and `append -`: one record a line from stdin, pipelined.

use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::time::{Duration, Instant};

use walrus_engine::client::{ClientConfig, ClientError, Outcome, Pipeline, PipelineConfig, RecordBatch};
use walrus_engine::protocol::ErrorCode;

use crate::output::{per_second, thousands};

/// One read of stdin takes this much at most; all its records are sent before the next.
const READ_BYTES: usize = 1 << 20;

/// Records that one `APPEND` holds at most.
const BATCH_RECORDS: u64 = 4_096;

/// Bytes that one `APPEND` holds at most, unless one record alone has more.
const BATCH_BYTES: usize = 256 << 10;

/// Which verb stores the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// One request a record.
    Put,
    /// One request for many records.
    Append,
}

/// Why not all lines were stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BulkError {
    /// The connection failed.
    #[error("{source} (up to line {stored} everything was stored)")]
    Client {
        /// Lines that were acknowledged.
        stored: u64,
        /// What happened.
        source: ClientError,
    },
    /// The broker refused a line.
    #[error("line {line}: {code}: {text} ({stored} lines are known to be stored; nothing after this read was sent)")]
    Refused {
        /// Number of the (first) line, from 1.
        line: u64,
        /// The broker's code.
        code: ErrorCode,
        /// The broker's text.
        text: String,
        /// Lines that were acknowledged, before and after it.
        stored: u64,
    },
    /// stdin failed.
    #[error("reading stdin: {0}")]
    Stdin(io::Error),
}

impl BulkError {
    pub(crate) fn code(&self) -> Option<ErrorCode> {
        match self {
            BulkError::Client { source, .. } => source.code(),
            BulkError::Refused { code, .. } => Some(*code),
            BulkError::Stdin(_) => None,
        }
    }
}

/// Sends each line of `input` as a record and returns how many were stored.
///
/// Everything that a read brought is sent and acknowledged before the next read: a slow pipe has
/// its lines stored as they come, and a fast one still fills the pipeline.
pub(crate) fn send_lines(config: &ClientConfig, verb: Verb, topic: &str, input: impl Read) -> Result<u64, BulkError> {
    let mut sending = Sending::start(config, verb, topic)?;
    let mut input = BufReader::with_capacity(READ_BYTES, input);
    let mut cut_line = Vec::new();
    loop {
        let chunk = input.fill_buf().map_err(BulkError::Stdin)?;
        if chunk.is_empty() {
            break;
        }
        let chunk_bytes = chunk.len();
        let mut lines = chunk.split_inclusive(|&byte| byte == b'\n');
        if !cut_line.is_empty() {
            cut_line.extend_from_slice(lines.next().unwrap_or_default());
            if let [line @ .., b'\n'] = cut_line.as_slice() {
                sending.push(line)?;
                cut_line.clear();
            }
        }
        for line in lines {
            match line {
                [line @ .., b'\n'] => sending.push(line)?,
                cut => cut_line.extend_from_slice(cut),
            }
        }
        input.consume(chunk_bytes);
        sending.settle()?;
    }
    if !cut_line.is_empty() {
        sending.push(&cut_line)?;
    }
    sending.settle()?;
    sending.progress.clear();
    Ok(sending.stored)
}

/// Lines on their way.
struct Sending<'a> {
    pipeline: Pipeline,
    verb: Verb,
    topic: &'a str,
    addr: String,
    timeout: Duration,
    /// The batch that is being collected (`Append` only): bytes of its lines, and their ends.
    batch: RecordBatch,
    /// Lines of each request that is not answered yet, in order (`Append` only).
    request_lines: std::collections::VecDeque<u64>,
    answered: u64,
    stored: u64,
    refusal: Option<(u64, ErrorCode, String)>,
    progress: Progress,
}

impl<'a> Sending<'a> {
    fn start(config: &ClientConfig, verb: Verb, topic: &'a str) -> Result<Self, BulkError> {
        let pipeline = Pipeline::connect(config, PipelineConfig::default());
        Ok(Sending {
            pipeline: pipeline.map_err(|source| BulkError::Client { stored: 0, source })?,
            verb,
            topic,
            addr: config.addr.clone(),
            timeout: config.request_timeout,
            batch: RecordBatch::default(),
            request_lines: std::collections::VecDeque::new(),
            answered: 0,
            stored: 0,
            refusal: None,
            progress: Progress::new(),
        })
    }

    fn push(&mut self, line: &[u8]) -> Result<(), BulkError> {
        if self.verb == Verb::Put {
            let pushed = self.pipeline.push_put(self.topic, line);
            return self.check(pushed);
        }
        if self.batch.len() == BATCH_RECORDS || self.batch.bytes() + line.len() > BATCH_BYTES {
            self.push_batch()?;
        }
        self.batch.push(line);
        Ok(())
    }

    fn push_batch(&mut self) -> Result<(), BulkError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let pushed = self.pipeline.push_append(self.topic, &self.batch);
        self.request_lines.push_back(self.batch.len());
        self.batch.clear();
        self.check(pushed)
    }

    /// Sends what was collected and waits until all of it is answered.
    fn settle(&mut self) -> Result<(), BulkError> {
        self.push_batch()?;
        let flushed = self.pipeline.flush();
        self.check(flushed)?;
        while self.pipeline.in_flight() > 0 {
            let Sending { pipeline, request_lines, answered, stored, refusal, .. } = self;
            let mut lines_of = |requests: u64| match request_lines.len() {
                0 => requests,
                _ => request_lines.drain(..requests as usize).sum(),
            };
            let received = pipeline.recv_replies(self.timeout, |outcome| match outcome {
                Outcome::Ok(requests) => {
                    let lines = lines_of(requests);
                    *answered += lines;
                    *stored += lines;
                }
                Outcome::Err { code, text } => {
                    refusal.get_or_insert_with(|| (*answered + 1, code, text.into()));
                    *answered += lines_of(1);
                }
            });
            if self.check(received)? == 0 {
                let source = ClientError::TimedOut { addr: self.addr.clone(), after: self.timeout };
                return Err(BulkError::Client { stored: self.stored, source });
            }
            self.progress.show(self.stored);
        }
        self.refused().map_or(Ok(()), |refused| {
            self.progress.clear();
            Err(refused)
        })
    }

    fn check<T>(&mut self, result: Result<T, ClientError>) -> Result<T, BulkError> {
        result.map_err(|source| {
            self.progress.clear();
            // A connection that ends after a refusal mostly ends because of it.
            self.refused().unwrap_or(BulkError::Client { stored: self.stored, source })
        })
    }

    fn refused(&mut self) -> Option<BulkError> {
        let (line, code, text) = self.refusal.take()?;
        Some(BulkError::Refused { line, code, text, stored: self.stored })
    }
}

/// A line on stderr that counts, once the work takes longer than a second and somebody looks.
struct Progress {
    started: Instant,
    shown: Option<Instant>,
    enabled: bool,
}

impl Progress {
    fn new() -> Self {
        // Progress would overwrite what is being typed.
        let enabled = io::stderr().is_terminal() && !io::stdin().is_terminal();
        Progress { started: Instant::now(), shown: None, enabled }
    }

    fn show(&mut self, stored: u64) {
        let now = Instant::now();
        let due = self.shown.map_or(self.started + Duration::from_secs(1), |at| at + Duration::from_millis(200));
        if !self.enabled || now < due {
            return;
        }
        self.shown = Some(now);
        let rate = per_second(stored, now - self.started);
        // A progress line that cannot be written is no reason to stop.
        let _ = write!(io::stderr(), "\r\x1b[K{} records, {}/s", thousands(stored), thousands(rate));
        let _ = io::stderr().flush();
    }

    fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
