//! Child processes that cannot outlive the harness: spawn, wait until ready, stop, kill.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use crate::DriverError;

/// How to start a program; kept so that the same process can be started again.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Program to run.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Environment variables added to the harness's own.
    pub envs: Vec<(OsString, OsString)>,
    /// File that takes stdout and stderr; appended to, so that a restart keeps the story whole.
    pub log: PathBuf,
}

impl Launch {
    /// A program without arguments yet.
    pub fn new(program: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Launch {
        Launch { program: program.into(), args: Vec::new(), envs: Vec::new(), log: log.into() }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Launch {
        self.args.push(arg.into());
        self
    }

    /// Adds one environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Launch {
        self.envs.push((name.into(), value.into()));
        self
    }

    /// Starts the program. It is killed when this process ends, however that happens.
    pub fn spawn(&self) -> Result<ChildProcess, DriverError> {
        let log = open_log(&self.log)?;
        let err_log = log.try_clone().map_err(|source| io_error("duplicating the log handle", source))?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .envs(self.envs.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(err_log);
        die_with_parent(&mut command);
        let child = spawn_from_lasting_thread(command)
            .map_err(|source| io_error(&format!("starting {}", self.program.display()), source))?;
        Ok(ChildProcess { child, log: self.log.clone() })
    }
}

/// A running child. Dropping it stops it: SIGTERM, then SIGKILL.
#[derive(Debug)]
pub struct ChildProcess {
    child: Child,
    log: PathBuf,
}

impl ChildProcess {
    /// Grace that `drop` gives between SIGTERM and SIGKILL.
    pub const STOP_GRACE: Duration = Duration::from_secs(10);

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks `is_ready` every 10 ms until it says yes. Fails with the end of the log when the child
    /// exits first or `timeout` passes.
    pub fn wait_ready(&mut self, timeout: Duration, mut is_ready: impl FnMut() -> bool) -> Result<(), DriverError> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.exited()? {
                return Err(self.failure(&format!("the server ended while starting ({status})")));
            }
            if is_ready() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(self.failure(&format!("the server was not ready after {timeout:?}")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&mut self) -> Result<(), DriverError> {
        if self.exited()?.is_none() {
            self.child.kill().map_err(|source| io_error("killing the server", source))?;
        }
        self.child.wait().map_err(|source| io_error("waiting for the killed server", source))?;
        Ok(())
    }

    /// SIGTERM; SIGKILL once `grace` has passed. Fails when the process had to be killed.
    pub fn stop(&mut self, grace: Duration) -> Result<(), DriverError> {
        if self.exited()?.is_some() {
            return Ok(());
        }
        let pid = libc::pid_t::try_from(self.child.id())
            .map_err(|_| DriverError::System("the process id does not fit pid_t".into()))?;
        // SAFETY: plain system call; the pid is our own child, which was not reaped yet, so it
        // cannot have been given to another process.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let deadline = Instant::now() + grace;
        while self.exited()?.is_none() {
            if Instant::now() >= deadline {
                self.kill()?;
                return Err(self.failure(&format!("the server ignored SIGTERM for {grace:?}")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// The exit status, if the process has ended.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>, DriverError> {
        self.child.try_wait().map_err(|source| io_error("asking for the server's state", source))
    }

    /// An error that carries the last lines of the log.
    fn failure(&self, what: &str) -> DriverError {
        DriverError::Unavailable {
            cause: format!("{what}; its log ends with:\n{}", log_tail(&self.log)),
            remedy: format!("see {}", self.log.display()),
        }
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure; the child dies with this process at the latest.
        let _ = self.stop(Self::STOP_GRACE);
    }
}

/// Shorthand for an I/O error with what was attempted.
pub(crate) fn io_error(what: &str, source: std::io::Error) -> DriverError {
    DriverError::Io { what: what.to_owned(), source }
}

fn open_log(path: &Path) -> Result<File, DriverError> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)
            .map_err(|source| io_error(&format!("creating {}", parent.display()), source))?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|source| io_error(&format!("opening {}", path.display()), source))
}

fn log_tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

fn die_with_parent(command: &mut Command) {
    #[cfg(target_os = "linux")]
    // SAFETY: runs in the forked child before exec; `prctl` and `getppid` are async-signal-safe,
    // and the closure touches no memory of the parent.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    // A group of its own: Ctrl-C reaches the harness, which then stops its children in order.
    command.process_group(0);
}

/// `PR_SET_PDEATHSIG` fires when the *thread* that forked ends, not the process. So one thread,
/// which lives as long as the process, forks all children.
fn spawn_from_lasting_thread(command: Command) -> std::io::Result<Child> {
    type Job = (Command, mpsc::SyncSender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, reply) in jobs {
                let _ = reply.send(command.spawn());
            }
        });
        sender
    });
    let (reply, answer) = mpsc::sync_channel(1);
    let gone = || std::io::Error::other("the thread that starts children is gone");
    spawner.send((command, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn shell(script: &str, dir: &Path) -> Launch {
        Launch::new("/bin/sh", dir.join("log")).arg("-c").arg(script)
    }

    #[test]
    fn a_child_survives_the_thread_that_asked_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let launch = shell("echo up; exec sleep 60", dir.path());
        let mut child = std::thread::spawn(move || launch.spawn().unwrap()).join().unwrap();
        let log = dir.path().join("log");
        child
            .wait_ready(Duration::from_secs(5), || std::fs::read_to_string(&log).is_ok_and(|t| t.contains("up")))
            .unwrap();
        assert!(child.exited().unwrap().is_none());
        child.stop(Duration::from_secs(5)).unwrap();
        assert!(child.exited().unwrap().is_some());
    }

    #[test]
    fn an_early_end_is_reported_with_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = shell("echo no such flag >&2; exit 3", dir.path()).spawn().unwrap();
        let error = child.wait_ready(Duration::from_secs(5), || false).unwrap_err().to_string();
        assert!(error.contains("no such flag"), "{error}");
    }

    #[test]
    fn one_that_ignores_sigterm_is_killed_and_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = shell("trap '' TERM; echo up; while :; do sleep 0.05; done", dir.path()).spawn().unwrap();
        let log = dir.path().join("log");
        child
            .wait_ready(Duration::from_secs(5), || std::fs::read_to_string(&log).is_ok_and(|t| t.contains("up")))
            .unwrap();
        assert!(child.stop(Duration::from_millis(50)).is_err());
        assert!(child.exited().unwrap().is_some());
    }
}
