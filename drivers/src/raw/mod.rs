//! The hardware's ceiling: records are copied into buffers, and the buffers written to as many
//! files as there are topics. No index, no checksum, no reading back; so nothing is verified.
//!
//! ```text
//! producer ─copy─▶ buffer ─full─▶ ┌ writers ≥ producers: written by the producer's own thread
//!                                 └ fewer: handed to a writer thread, which writes all that wait
//!                                   in one go (with one flush)
//! ```
//!
//! Which number of writers, buffer size and system call is fastest differs from machine to machine:
//! the harness tries [`combinations`] and keeps the best. [`server`] is the ceiling of networked
//! systems.

mod buffer;
mod files;
pub mod server;
mod writeback;
mod writer;

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use self::buffer::{Buffer, Filled};
use self::files::{Layout, LogFile};
use self::writeback::Writeback;
use self::writer::{Flush, Mode, Writer};
use crate::process::io_error;
use crate::settings::Settings;
use crate::{Ack, Consumer, Deployment, DriverError, Producer, Server, Session, Setup, System, Tier, Tools};

/// Most buffers that a writer thread puts into one write.
const GROUP_BUFFERS_MAX: usize = 64;

/// Size of a file that is written over and over, in bytes.
const RING_BYTES: u64 = 16 << 20;

/// The ceiling of an embedded system.
#[derive(Debug, Default)]
pub struct Raw;

/// The settings that are worth trying for `tier`, likely winners first. Each is a complete table
/// for [`Setup::settings`].
pub fn combinations(tier: Tier) -> Vec<toml::Table> {
    let files: &[FileUse] = match tier {
        Tier::Memory | Tier::PageCache => &[("none", false, false), ("none", true, false)],
        Tier::Synced => {
            &[("dsync", true, true), ("dsync", true, false), ("dsync", false, false), ("fdatasync", false, false)]
        }
    };
    let mut all = Vec::new();
    for &file in files {
        for buffer_bytes in [1 << 20, 256 << 10, 4 << 20, 64 << 10] {
            for writers in [10, 2, 1] {
                for io in ["pwrite", "io_uring"] {
                    all.push(combination(writers, buffer_bytes, io, file));
                }
            }
        }
    }
    all
}

/// How data get to the device: flush, past the page cache?, over and over into the same file?
type FileUse = (&'static str, bool, bool);

fn combination(writers: i64, buffer_bytes: i64, io: &str, (flush, direct, ring): FileUse) -> toml::Table {
    let mut table = toml::Table::new();
    table.insert("writers".into(), writers.into());
    table.insert("buffer_bytes".into(), buffer_bytes.into());
    table.insert("io".into(), io.into());
    table.insert("flush".into(), flush.into());
    table.insert("direct".into(), direct.into());
    table.insert("ring".into(), ring.into());
    table
}

impl System for Raw {
    fn name(&self) -> &'static str {
        "raw"
    }

    fn deployment(&self) -> Deployment {
        Deployment::Embedded
    }

    fn version(&self, _tools: &Tools) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    fn check(&self, _tools: &Tools) -> Result<(), DriverError> {
        Ok(())
    }

    fn start(&self, _setup: &Setup) -> Result<Option<Box<dyn Server>>, DriverError> {
        Ok(None)
    }

    fn open(&self, setup: &Setup) -> Result<Box<dyn Session>, DriverError> {
        Ok(Box::new(RawSession::open(setup)?))
    }
}

/// What the profile chose.
#[derive(Debug, Clone, Copy)]
struct Options {
    writers: usize,
    buffer_bytes: usize,
    layout: Layout,
    mode: Mode,
}

impl Options {
    fn read(setup: &Setup) -> Result<Options, DriverError> {
        let settings =
            Settings::new(setup, &["writers", "buffer_bytes", "io", "flush", "direct", "ring", "queue_depth"])?;
        let default_flush = if setup.tier == Tier::Synced { "dsync" } else { "none" };
        let flush = match settings.word("flush", default_flush, &["none", "dsync", "fdatasync"])? {
            "dsync" => Flush::Dsync,
            "fdatasync" => Flush::Fdatasync,
            _ => Flush::None,
        };
        if setup.tier == Tier::Synced && flush == Flush::None {
            return Err(DriverError::Unavailable {
                cause: "raw would not flush in the synced tier".into(),
                remedy: "set flush to dsync or fdatasync".into(),
            });
        }
        Ok(Options {
            writers: settings.size("writers", setup.producers as usize)?.max(1),
            buffer_bytes: settings.size("buffer_bytes", 1 << 20)?,
            layout: if settings.flag("ring", false)? { Layout::Ring { bytes: RING_BYTES } } else { Layout::Append },
            mode: Mode {
                flush,
                direct: settings.flag("direct", false)?,
                uring: settings.word("io", "pwrite", &["pwrite", "io_uring"])? == "io_uring",
                depth: settings.size("queue_depth", 4)?,
            },
        })
    }
}

/// A finished buffer, or why its writer gave up.
type Done = Result<Filled, String>;

struct RawSession {
    files: Arc<Vec<LogFile>>,
    options: Options,
    producers: usize,
    send_at_once: bool,
    /// Queues of the writer threads; empty when producers write themselves.
    queues: Vec<Sender<Filled>>,
    /// Where each producer gets its buffers back; taken by [`Session::producer`].
    returns: Vec<Mutex<Option<Receiver<Done>>>>,
    threads: Vec<JoinHandle<()>>,
}

impl RawSession {
    fn open(setup: &Setup) -> Result<RawSession, DriverError> {
        let options = Options::read(setup)?;
        let producers = setup.producers.max(1) as usize;
        let writeback = Arc::new(Writeback::default());
        let create = |index: usize| {
            let path = setup.data_dir.join(format!("raw-{index}"));
            LogFile::create(&path, options.mode.direct, options.layout, &writeback)
        };
        let files = (0..setup.topics.len().max(1))
            .map(create)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| io_error("creating raw's files", source))?;
        let mut session = RawSession {
            files: Arc::new(files),
            options,
            producers,
            send_at_once: setup.one_in_flight,
            queues: Vec::new(),
            returns: Vec::new(),
            threads: Vec::new(),
        };
        if options.writers < producers {
            session.start_writers()?;
        }
        Ok(session)
    }

    fn start_writers(&mut self) -> Result<(), DriverError> {
        let (senders, returns): (Vec<_>, Vec<_>) = (0..self.producers)
            .map(|_| {
                let (sender, receiver) = channel::<Done>();
                (sender, Mutex::new(Some(receiver)))
            })
            .unzip();
        self.returns = returns;
        for _ in 0..self.options.writers {
            let writer = self.writer()?;
            let (queue, work) = channel();
            let senders = senders.clone();
            self.queues.push(queue);
            self.threads.push(std::thread::spawn(move || serve(writer, &work, &senders)));
        }
        Ok(())
    }

    fn writer(&self) -> Result<Writer, DriverError> {
        Writer::new(Arc::clone(&self.files), self.options.mode, self.producers)
            .map_err(|source| io_error("setting io_uring up", source))
    }
}

impl Drop for RawSession {
    fn drop(&mut self) {
        self.queues.clear();
        for thread in self.threads.drain(..) {
            // A writer that panicked has already shown its message.
            let _ = thread.join();
        }
    }
}

impl Session for RawSession {
    fn create_topics(&self) -> Result<(), DriverError> {
        Ok(())
    }

    fn producer(&self, id: u32) -> Result<Box<dyn Producer + '_>, DriverError> {
        let id = id as usize;
        let path = if self.queues.is_empty() {
            Path::Own(Box::new(self.writer()?))
        } else {
            let taken = self.returns[id].lock().unwrap_or_else(PoisonError::into_inner).take();
            let from = taken.ok_or_else(|| DriverError::System(format!("producer {id} runs already")))?;
            Path::Shared { to: self.queues[id % self.queues.len()].clone(), from }
        };
        Ok(Box::new(RawProducer {
            id,
            path,
            buffer_bytes: self.options.buffer_bytes,
            send_at_once: self.send_at_once,
            active: Buffer::new(self.options.buffer_bytes),
            first_ticket: 0,
            next_ticket: 0,
            outstanding: 0,
            spare: Vec::new(),
            done: Vec::new(),
        }))
    }

    fn consumer(&self, _topic: usize, _at_end: bool) -> Result<Box<dyn Consumer + '_>, DriverError> {
        Err(DriverError::Unavailable {
            cause: "raw writes bytes without any framing, so there is nothing to read back".into(),
            remedy: "leave it out of runs that read".into(),
        })
    }
}

/// A writer thread: takes whatever waits, writes it as one group, hands the buffers back.
fn serve(mut writer: Writer, work: &Receiver<Filled>, senders: &[Sender<Done>]) {
    let mut done = Vec::new();
    loop {
        let mut group: Vec<Filled> = work.try_iter().take(GROUP_BUFFERS_MAX).collect();
        if group.is_empty() && writer.in_flight() == 0 {
            match work.recv() {
                Ok(first) => group.push(first),
                Err(_) => return,
            }
            group.extend(work.try_iter().take(GROUP_BUFFERS_MAX - 1));
        }
        let wait = group.is_empty();
        let submitted = if wait { Ok(()) } else { writer.submit(group) };
        if let Err(error) = submitted.and_then(|()| writer.reap(wait, &mut done)) {
            for sender in senders {
                // Producers that have ended do not need to know.
                let _ = sender.send(Err(error.to_string()));
            }
            return;
        }
        for filled in done.drain(..) {
            let _ = senders[filled.producer].send(Ok(filled));
        }
    }
}

/// How full buffers reach the device.
enum Path {
    Own(Box<Writer>),
    Shared { to: Sender<Filled>, from: Receiver<Done> },
}

struct RawProducer {
    id: usize,
    path: Path,
    buffer_bytes: usize,
    send_at_once: bool,
    active: Buffer,
    /// First ticket in `active`.
    first_ticket: u64,
    next_ticket: u64,
    /// Buffers given away and not yet back.
    outstanding: usize,
    spare: Vec<Buffer>,
    done: Vec<Filled>,
}

impl RawProducer {
    fn submit(&mut self) -> Result<(), DriverError> {
        if self.active.is_empty() {
            return Ok(());
        }
        let fresh = self.spare.pop().unwrap_or_else(|| Buffer::new(self.buffer_bytes));
        let filled = Filled {
            buffer: std::mem::replace(&mut self.active, fresh),
            producer: self.id,
            first_ticket: self.first_ticket,
            count: self.next_ticket - self.first_ticket,
        };
        self.first_ticket = self.next_ticket;
        self.outstanding += 1;
        match &mut self.path {
            Path::Own(writer) => writer.submit(vec![filled]).map_err(|source| io_error("writing a buffer", source)),
            Path::Shared { to, .. } => to.send(filled).map_err(|_| writer_gone()),
        }
    }

    /// Moves finished buffers to `done`, waiting up to `wait` for the first.
    fn collect(&mut self, wait: Duration) -> Result<(), DriverError> {
        match &mut self.path {
            Path::Own(writer) => {
                writer.reap(!wait.is_zero(), &mut self.done).map_err(|source| io_error("writing a buffer", source))
            }
            Path::Shared { from, .. } => {
                if self.outstanding > 0 && !wait.is_zero() {
                    match from.recv_timeout(wait) {
                        Ok(done) => self.done.push(done.map_err(DriverError::System)?),
                        Err(RecvTimeoutError::Timeout) => return Ok(()),
                        Err(RecvTimeoutError::Disconnected) => return Err(writer_gone()),
                    }
                }
                for done in from.try_iter() {
                    self.done.push(done.map_err(DriverError::System)?);
                }
                Ok(())
            }
        }
    }
}

impl Producer for RawProducer {
    fn send(&mut self, _topic: usize, ticket: u64, record: &[u8]) -> Result<(), DriverError> {
        if !self.active.push(record) {
            // As Walrus does with its batches: the ceiling shall not be lower for want of it.
            self.active.end_at_a_block();
            self.submit()?;
            if record.len() > self.active.capacity() {
                self.buffer_bytes = record.len();
                self.active = Buffer::new(record.len());
                self.spare.clear();
            }
            self.active.push(record);
        }
        self.next_ticket = ticket + 1;
        if self.send_at_once { self.submit() } else { Ok(()) }
    }

    fn poll(&mut self, wait: Duration, acks: &mut Vec<Ack>) -> Result<(), DriverError> {
        // Nothing is under way and the caller has to wait: what is half full must do.
        if self.outstanding == 0 && !wait.is_zero() {
            self.submit()?;
        }
        self.collect(wait)?;
        for mut filled in self.done.drain(..) {
            acks.push(Ack { first_ticket: filled.first_ticket, count: filled.count, ok: true });
            self.outstanding -= 1;
            filled.buffer.clear();
            if filled.buffer.capacity() >= self.buffer_bytes {
                self.spare.push(filled.buffer);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DriverError> {
        self.submit()
    }
}

fn writer_gone() -> DriverError {
    DriverError::System("raw's writer thread has ended".into())
}
