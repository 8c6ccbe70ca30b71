//! Servers that outlive one run: those that need minutes of load before they are fast (a JVM).
//!
//! They are started once for all runs with the same settings, warmed once, and idle while other
//! systems run. All others are started for each run.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use walrus_drivers::{Server, Setup, System};

use crate::child::{RunError, Worker};
use crate::wire::{Event, Job, Load, Spec};

/// Idle servers cost memory; more than this many are not kept.
const KEPT_MAX: usize = 2;
/// Three windows of the warm-up must agree within this share.
const AGREE: f64 = 0.05;
/// How long a worker may take to open or to remove topics.
const PATIENCE: Duration = Duration::from_mins(3);

/// How long servers are warmed.
#[derive(Debug, Clone, Copy)]
pub struct WarmUp {
    /// Length of a window in seconds; 0: no warm-up.
    pub window_s: f64,
    /// Longest warm-up in seconds.
    pub s_max: f64,
}

/// A running server with its data directory.
pub struct Running {
    /// Which setups can share it.
    pub key: String,
    /// The server itself.
    pub server: Box<dyn Server>,
    /// Its data.
    pub data_dir: PathBuf,
    /// What it has had before its first run.
    pub warmed: Warmed,
}

/// How a server was warmed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Warmed {
    /// Seconds at full load.
    pub seconds: f64,
    /// The longest time was over before three windows agreed.
    pub is_cut: bool,
}

/// The servers that are kept, the one used last at the end.
pub struct Fleet {
    dir: PathBuf,
    kept: Vec<Running>,
    warm_up: WarmUp,
    started: u32,
    runs: u32,
}

impl Fleet {
    /// Keeps data below `dir`.
    pub fn new(dir: &Path, warm_up: WarmUp) -> Fleet {
        Fleet { dir: dir.to_owned(), kept: Vec::new(), warm_up, started: 0, runs: 0 }
    }

    /// Names that no run before had.
    pub fn fresh_topics(&mut self, topics: u32) -> Vec<String> {
        self.runs += 1;
        (0..topics).map(|topic| format!("bench-{}-{topic}", self.runs)).collect()
    }

    /// The kept server for this setup, or a new, warmed one. Sets `data_dir` and `endpoint`.
    /// `None`: the endpoint of the setup names a server that is not ours.
    pub fn take(&mut self, system: &dyn System, setup: &mut Setup, load: &Load) -> Result<Option<Running>, RunError> {
        let key = system.server_key(setup);
        if let Some(index) = self.kept.iter().position(|running| running.key == key) {
            let running = self.kept.remove(index);
            setup.data_dir.clone_from(&running.data_dir);
            setup.endpoint = Some(running.server.endpoint().to_owned());
            return Ok(Some(running));
        }
        self.started += 1;
        setup.data_dir = self.dir.join(format!("server-{}", self.started));
        // What a server that did not start has left behind.
        if setup.data_dir.exists() {
            std::fs::remove_dir_all(&setup.data_dir)?;
        }
        std::fs::create_dir_all(&setup.data_dir)?;
        let Some(server) = system.start(setup)? else { return Ok(None) };
        setup.endpoint = Some(server.endpoint().to_owned());
        let data_dir = setup.data_dir.clone();
        let mut running = Running { key, server, data_dir, warmed: Warmed::default() };
        if self.warm_up.window_s > 0.0 {
            running.warmed = self.warm(system, setup, load)?;
        }
        Ok(Some(running))
    }

    /// Takes a server back after a run: its topics are removed. A server that was killed in the
    /// run, or that cannot remove topics, is stopped.
    pub fn give_back(
        &mut self,
        running: Running,
        setup: &Setup,
        system: &dyn System,
        is_cold: bool,
    ) -> Result<(), RunError> {
        if is_cold || remove_topics(system, setup).is_err() {
            return retire(running);
        }
        self.kept.push(running);
        if self.kept.len() > KEPT_MAX {
            return retire(self.kept.remove(0));
        }
        Ok(())
    }

    /// Stops what is kept, and removes its data.
    pub fn end(self) -> Result<(), RunError> {
        self.kept.into_iter().try_for_each(retire)
    }

    /// Full load until three windows agree, or the longest time has passed.
    fn warm(&self, system: &dyn System, setup: &Setup, load: &Load) -> Result<Warmed, RunError> {
        let mut setup = setup.clone();
        setup.topics = (0..setup.topics.len().min(10)).map(|topic| format!("warm-{topic}")).collect();
        setup.one_in_flight = false;
        setup.in_flight_bytes = setup.in_flight_bytes.max(4 << 20);
        let load = Load {
            seconds: Some(self.warm_up.s_max),
            payload_bytes: None,
            rate_per_s: None,
            tail: false,
            kill_at_s: None,
            ..load.clone()
        };
        let command = system.worker_command(&setup)?;
        let spec = spec(system, &setup, Job::Load(load));
        let mut worker = Worker::spawn(&spec, command)?;
        while !matches!(worker.hear(PATIENCE, "it opened the system")?, Event::Ready) {}
        let started = Instant::now();
        worker.say("go")?;
        let window = Duration::from_secs_f64(self.warm_up.window_s);
        let (mut samples, mut is_cut) = (vec![(0, 0)], true);
        while let Event::Sample { t_ms, records, .. } = worker.hear(PATIENCE, "it warmed the server")? {
            samples.push((t_ms, records));
            if is_steady(&samples, window) {
                is_cut = false;
                break;
            }
        }
        let warmed = Warmed { seconds: started.elapsed().as_secs_f64(), is_cut };
        drop(worker);
        remove_topics(system, &setup)?;
        Ok(warmed)
    }
}

/// Do the last three windows of these (ms, records) samples agree?
fn is_steady(samples: &[(u64, u64)], window: Duration) -> bool {
    let window_ms = window.as_millis() as u64;
    let Some(&(end_ms, _)) = samples.last() else { return false };
    let Some(start_ms) = end_ms.checked_sub(3 * window_ms) else { return false };
    let records_at = |ms: u64| {
        let after = samples.partition_point(|&(t_ms, _)| t_ms < ms);
        samples[after.min(samples.len() - 1)].1
    };
    let rates: Vec<f64> = (0..3)
        .map(|window| {
            let from = start_ms + window * window_ms;
            records_at(from + window_ms).saturating_sub(records_at(from)) as f64
        })
        .collect();
    let low = rates.iter().copied().fold(f64::MAX, f64::min);
    let high = rates.iter().copied().fold(0.0, f64::max);
    low > 0.0 && high <= low * (1.0 + AGREE)
}

/// Removes the topics of the setup from the running server.
pub fn remove_topics(system: &dyn System, setup: &Setup) -> Result<(), RunError> {
    let worker = Worker::spawn(&spec(system, setup, Job::Remove), None)?;
    worker.hear(PATIENCE, "it removed topics")?;
    worker.quit()
}

fn spec(system: &dyn System, setup: &Setup, job: Job) -> Spec {
    Spec { system: system.name().to_owned(), deployment: system.deployment(), setup: setup.clone(), job }
}

/// Stops a server and removes its data.
pub fn retire(mut running: Running) -> Result<(), RunError> {
    running.server.stop()?;
    drop(running.server);
    std::fs::remove_dir_all(&running.data_dir)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_means_three_windows_that_agree() {
        let samples = |rates: &[u64]| -> Vec<(u64, u64)> {
            let mut sum = 0;
            let tail = rates.iter().enumerate().map(|(i, rate)| {
                sum += rate;
                (500 * (i as u64 + 1), sum)
            });
            std::iter::once((0, 0)).chain(tail.collect::<Vec<_>>()).collect()
        };
        assert!(is_steady(&samples(&[10, 50, 100, 100, 102]), Duration::from_millis(500)));
        assert!(!is_steady(&samples(&[10, 50, 100, 110, 121]), Duration::from_millis(500)));
        assert!(!is_steady(&samples(&[100, 100]), Duration::from_millis(500)));
        assert!(!is_steady(&samples(&[0, 0, 0, 0]), Duration::from_millis(500)));
    }
}
