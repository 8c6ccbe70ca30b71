//! A worker as the harness sees it: spawn, talk, kill.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::wire::{Event, Spec};

/// Set by SIGINT and SIGTERM.
pub static STOP: AtomicBool = AtomicBool::new(false);

/// Why a run did not work out.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,
    /// A driver's or worker's own words: cause and remedy.
    #[error("{0}")]
    System(String),
    /// The worker ended without a word.
    #[error("the worker ended without a result; its messages are above, on stderr")]
    WorkerDied,
    /// Nothing was heard for too long.
    #[error("nothing was heard of the worker for {0:?} while {1}")]
    Silent(Duration, &'static str),
    /// The worker could not be started or talked to.
    #[error("worker: {0}")]
    Io(#[from] std::io::Error),
}

impl From<walrus_drivers::DriverError> for RunError {
    fn from(error: walrus_drivers::DriverError) -> Self {
        RunError::System(error.to_string())
    }
}

/// Fails if the user wants to stop.
pub fn check_stop() -> Result<(), RunError> {
    if STOP.load(Ordering::Relaxed) { Err(RunError::Interrupted) } else { Ok(()) }
}

/// A running worker. Dropping it kills it; it also dies with the harness.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    stdin: Option<ChildStdin>,
    events: Receiver<Event>,
}

impl Worker {
    /// Starts `command` (default: this program's own worker) on the job. Call it from the main
    /// thread: the kernel kills the worker when the *thread* that started it ends.
    pub fn spawn(spec: &Spec, command: Option<Vec<String>>) -> Result<Worker, RunError> {
        let own = || -> Result<Vec<String>, std::io::Error> {
            Ok(vec![std::env::current_exe()?.display().to_string(), "worker".into()])
        };
        let words = command.map_or_else(own, Ok)?;
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
        // A group of its own: Ctrl-C reaches the harness, which then stops its children in order.
        command.process_group(0);
        #[cfg(target_os = "linux")]
        // SAFETY: runs in the forked child before exec; `prctl` is async-signal-safe, and the
        // closure touches no memory of the parent.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut child = command.spawn()?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or(RunError::WorkerDied)?;
        let (sender, events) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                match serde_json::from_str(&line) {
                    Ok(event) => drop(sender.send(event)),
                    Err(error) => eprintln!("worker said something odd ({error}): {line}"),
                }
            }
        });
        let mut worker = Worker { child, stdin, events };
        worker.say(&serde_json::to_string(spec).map_err(std::io::Error::from)?)?;
        Ok(worker)
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends one line.
    pub fn say(&mut self, line: &str) -> Result<(), RunError> {
        let Some(stdin) = &mut self.stdin else { return Err(RunError::WorkerDied) };
        // A worker that failed has closed its end; its reason is among the events.
        match stdin.write_all(format!("{line}\n").as_bytes()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            result => Ok(result?),
        }
    }

    /// Next event; fails after `patience` without one, when the worker failed, or on a stop.
    pub fn hear(&self, patience: Duration, doing: &'static str) -> Result<Event, RunError> {
        let deadline = Instant::now() + patience;
        loop {
            check_stop()?;
            match self.events.recv_timeout(Duration::from_millis(50)) {
                Ok(Event::Failed { error }) => return Err(RunError::System(error)),
                Ok(event) => return Ok(event),
                Err(RecvTimeoutError::Disconnected) => return Err(RunError::WorkerDied),
                Err(RecvTimeoutError::Timeout) if Instant::now() > deadline => {
                    return Err(RunError::Silent(patience, doing));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) -> Result<(), RunError> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Lets it close its system and end by itself; kills it if it does not.
    pub fn quit(mut self) -> Result<(), RunError> {
        self.say("quit")?;
        self.stdin = None;
        let deadline = Instant::now() + Duration::from_mins(1);
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline || check_stop().is_err() {
                return self.kill();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure, and the worker dies with this process at the latest.
        let _ = self.kill();
    }
}
