//! Runs one command against the broker.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use walrus_engine::client::{Client, ClientConfig, ClientError, Reader, ReaderConfig};
use walrus_engine::protocol::{ErrorCode, SeekTo, TopicSettings};

use crate::args::Command;
use crate::bulk::{self, BulkError, Verb};
use crate::output::{Output, paint, per_second, thousands};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The broker refused, or was not reached.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Records from stdin.
    #[error(transparent)]
    Bulk(#[from] BulkError),
    /// The arguments make no sense.
    #[error("{0}")]
    Usage(String),
    /// `get` found nothing.
    #[error("no record")]
    NoRecord,
    /// A file could not be read.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: String,
        /// What the system said.
        error: io::Error,
    },
    /// Output could not be written.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
    /// A script's command failed, and its error was printed already.
    #[error("line {line} failed; the lines after it were not run")]
    Script {
        /// Number of the line, from 1.
        line: usize,
    },
}

impl Failure {
    pub(crate) fn code(&self) -> Option<ErrorCode> {
        match self {
            Failure::Client(error) => error.code(),
            Failure::Bulk(error) => error.code(),
            _ => None,
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Usage(_) => ExitCode::from(2),
            Failure::NoRecord => ExitCode::from(3),
            _ => ExitCode::FAILURE,
        }
    }
}

/// A broker to talk to, and where to print. Connects at the first command.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) config: ClientConfig,
    pub(crate) output: Output,
    /// Ctrl-C was pressed during a command of the shell.
    pub(crate) interrupted: Arc<AtomicBool>,
    client: Option<Client>,
}

impl Session {
    pub(crate) fn new(config: ClientConfig, output: Output) -> Self {
        Session { config, output, interrupted: Arc::default(), client: None }
    }

    /// The connection, made if there is none.
    pub(crate) fn client(&mut self) -> Result<&mut Client, ClientError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => Client::with_config(self.config.clone())?,
        };
        Ok(self.client.insert(client))
    }

    /// Runs one command.
    pub(crate) fn run(&mut self, command: &Command) -> Result<(), Failure> {
        match command {
            Command::Register { topic, settings } => self.register(topic, settings),
            Command::Put { topic, file: Some(path), .. } => {
                let file_error = |error| Failure::File { path: path.display().to_string(), error };
                let payload = std::fs::read(path).map_err(file_error)?;
                self.put(topic, &payload)
            }
            Command::Put { topic, payload, .. } if payload == &["-"] => self.bulk(Verb::Put, topic),
            Command::Put { topic, payload, .. } => self.put(topic, payload.join(" ").as_bytes()),
            Command::Get { topic, group } => self.get(topic, group.as_deref()),
            Command::State { topic } => {
                let state = self.client()?.state(topic)?.to_owned();
                Ok(self.output.document(&state)?)
            }
            Command::Metrics => {
                let metrics = self.client()?.metrics()?.to_owned();
                Ok(self.output.document(&metrics)?)
            }
            Command::Append { topic, records } if records == &["-"] => self.bulk(Verb::Append, topic),
            Command::Append { topic, records } => self.append(topic, records),
            Command::Fetch { topic, offset, max_records, follow } => self.fetch(topic, offset, *max_records, *follow),
            Command::Seek { topic, group, to } => self.seek(topic, group, to),
            Command::Topics => self.topics(),
            Command::Delete { topic } => {
                self.client()?.delete(topic)?;
                Ok(self.output.done(json!({ "topic": topic }), "")?)
            }
            Command::Leave { node_id } => {
                self.client()?.leave(*node_id)?;
                Ok(self.output.done(json!({ "node_id": node_id }), "")?)
            }
            Command::Ping => self.ping(),
        }
    }

    fn register(&mut self, topic: &str, pairs: &[String]) -> Result<(), Failure> {
        let mut settings = TopicSettings::default();
        for pair in pairs {
            settings.set(pair).map_err(|error| Failure::Usage(error.to_string()))?;
        }
        self.client()?.register(topic, settings)?;
        Ok(self.output.done(json!({ "topic": topic }), "")?)
    }

    pub(crate) fn put(&mut self, topic: &str, payload: &[u8]) -> Result<(), Failure> {
        self.client()?.put(topic, payload)?;
        Ok(self.output.done(json!({ "topic": topic }), "")?)
    }

    fn get(&mut self, topic: &str, group: Option<&str>) -> Result<(), Failure> {
        let Some(record) = self.client()?.get(topic, group)?.map(<[u8]>::to_vec) else {
            return Err(Failure::NoRecord);
        };
        let mut out = io::stdout().lock();
        self.output.record(&mut out, None, &record)?;
        Ok(out.flush()?)
    }

    pub(crate) fn append(&mut self, topic: &str, records: &[String]) -> Result<(), Failure> {
        let records = records.iter().map(String::as_bytes);
        let appended = self.client()?.append(topic, records)?;
        let last = appended.first_offset + appended.count.saturating_sub(1);
        let fields = json!({ "topic": topic, "first_offset": appended.first_offset, "count": appended.count });
        Ok(self.output.done(fields, &format!("offsets {}..={last}", appended.first_offset))?)
    }

    fn seek(&mut self, topic: &str, group: &str, to: &str) -> Result<(), Failure> {
        let to = parse_offset(to).ok_or_else(|| bad_offset(to))?;
        self.client()?.seek(topic, group, to)?;
        Ok(self.output.done(json!({ "topic": topic, "group": group }), "")?)
    }

    fn ping(&mut self) -> Result<(), Failure> {
        self.client()?;
        let started = Instant::now();
        self.client()?.ping()?;
        let micros = started.elapsed().as_micros() as u64;
        let talk = format!("{} answered in {}.{:03} ms", self.config.addr, micros / 1_000, micros % 1_000);
        Ok(self.output.done(json!({ "addr": self.config.addr, "round_trip_us": micros }), &talk)?)
    }

    fn topics(&mut self) -> Result<(), Failure> {
        let json = self.client()?.topics()?.to_owned();
        if self.output.is_json() {
            return Ok(self.output.document(&json)?);
        }
        match serde_json::from_str(&json) {
            Ok(Value::Array(topics)) if topics.is_empty() => {
                Ok(self.output.note("no topics yet; `register <topic>` makes one")?)
            }
            Ok(Value::Array(topics)) => Ok(table(&topics, self.output.color_stdout())?),
            _ => Ok(self.output.document(&json)?),
        }
    }

    fn bulk(&mut self, verb: Verb, topic: &str) -> Result<(), Failure> {
        let started = Instant::now();
        let stored = bulk::send_lines(&self.config, verb, topic, io::stdin().lock())?;
        let elapsed = started.elapsed();
        let (seconds, rate) = (elapsed.as_secs_f64(), per_second(stored, elapsed));
        let plural = if stored == 1 { "" } else { "s" };
        let talk = format!("{} record{plural} in {seconds:.1} s ({}/s)", thousands(stored), thousands(rate));
        let fields = json!({ "topic": topic, "count": stored, "seconds": seconds });
        Ok(self.output.done(fields, &talk)?)
    }

    /// Prints records up to the tail, and with `follow` whatever comes after.
    fn fetch(&mut self, topic: &str, offset: &str, max_records: Option<u64>, follow: bool) -> Result<(), Failure> {
        self.interrupted.store(false, Ordering::Relaxed);
        let offset = self.resolve_offset(topic, offset)?;
        let mut left = max_records.unwrap_or(u64::MAX);
        let wait = if follow { Duration::from_millis(250) } else { Duration::ZERO };
        let config = ReaderConfig { offset, max_records: left, wait, ..ReaderConfig::default() };
        let mut reader = Reader::open(self.config.clone(), topic, config)?;
        let mut out = BufWriter::with_capacity(256 << 10, io::stdout().lock());
        while left > 0 && !self.interrupted.load(Ordering::Relaxed) {
            let batch = reader.next_batch()?;
            if batch.records.is_empty() && !follow {
                break;
            }
            let first = batch.first_offset();
            for (index, record) in batch.records.iter().enumerate().take(usize::try_from(left).unwrap_or(usize::MAX)) {
                self.output.record(&mut out, Some(first + index as u64), record)?;
            }
            left = left.saturating_sub(batch.records.len());
            // At the tail people want to see each record at once.
            if follow {
                out.flush()?;
            }
        }
        Ok(out.flush()?)
    }

    /// `first` and `last` are looked up in the topic's state.
    fn resolve_offset(&mut self, topic: &str, offset: &str) -> Result<u64, Failure> {
        let Some(to) = parse_offset(offset) else {
            return Err(bad_offset(offset));
        };
        let field = match to {
            SeekTo::Offset(offset) => return Ok(offset),
            SeekTo::First => "first_offset",
            SeekTo::Last => "next_offset",
        };
        let state: Value = serde_json::from_str(self.client()?.state(topic)?).unwrap_or_default();
        state[field].as_u64().ok_or_else(|| Failure::Usage(format!("the broker's STATE has no {field}; give a number")))
    }
}

fn parse_offset(text: &str) -> Option<SeekTo> {
    match text {
        "first" => Some(SeekTo::First),
        "last" => Some(SeekTo::Last),
        number => number.parse().ok().map(SeekTo::Offset),
    }
}

fn bad_offset(text: &str) -> Failure {
    Failure::Usage(format!("`{text}` is neither an offset nor `first` nor `last`"))
}

/// One line a topic, with the columns that the broker sent.
fn table(topics: &[Value], color: bool) -> io::Result<()> {
    let mut columns: Vec<&String> = topics[0].as_object().map(|first| first.keys().collect()).unwrap_or_default();
    // The name is what people look for.
    columns.sort_by_key(|column| column.as_str() != "topic");
    if columns.is_empty() {
        return topics.iter().try_for_each(|topic| writeln!(io::stdout(), "{}", cell(Some(topic))));
    }
    let rows: Vec<Vec<String>> =
        topics.iter().map(|topic| columns.iter().map(|column| cell(topic.get(*column))).collect()).collect();
    let width = |index: usize| {
        let cells = rows.iter().map(|row| row[index].len());
        cells.chain([columns[index].len()]).max().unwrap_or(0)
    };
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().enumerate().map(|(index, cell)| format!("{cell:<0$}", width(index)));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut out = io::stdout().lock();
    writeln!(out, "{}", paint(color, "1", &line(columns.iter().map(|name| name.as_str()).collect())))?;
    rows.iter().try_for_each(|row| writeln!(out, "{}", line(row.iter().map(String::as_str).collect())))
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
