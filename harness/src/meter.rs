//! Counters around the measured part of a run.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::csv::SummaryRow;
use crate::proc::{self, Device, DeviceUse, MachineCpu, ProcessUse};

/// A thread of the client above this share of a core may hold the system back.
const THREAD_BUSY: f64 = 0.9;

/// Counters as they were when the load began.
#[derive(Debug)]
pub struct Meter {
    started: Instant,
    worker_pid: u32,
    server_pids: Option<Vec<u32>>,
    device: Option<Device>,
    worker: ProcessUse,
    server: ProcessUse,
    device_before: DeviceUse,
    machine: MachineCpu,
    threads_before: HashMap<u32, Duration>,
    threads: HashMap<u32, Duration>,
    sampled: Duration,
}

impl Meter {
    /// Reads all counters.
    pub fn start(worker_pid: u32, server_pids: Option<Vec<u32>>, device: Option<Device>) -> Meter {
        proc::reset_rss_peak(worker_pid);
        server_pids.iter().flatten().for_each(|pid| proc::reset_rss_peak(*pid));
        let threads_before = proc::thread_cpu(worker_pid);
        Meter {
            started: Instant::now(),
            worker_pid,
            worker: ProcessUse::read(worker_pid),
            server: server_pids.as_deref().map(ProcessUse::read_all).unwrap_or_default(),
            server_pids,
            device_before: device.as_ref().map(Device::read).unwrap_or_default(),
            device,
            machine: MachineCpu::read(),
            threads: threads_before.clone(),
            threads_before,
            sampled: Duration::ZERO,
        }
    }

    /// Looks at the client's threads (they are gone at the end).
    pub fn sample(&mut self) {
        self.threads.extend(proc::thread_cpu(self.worker_pid));
        self.sampled = self.started.elapsed();
    }

    /// Reads all counters again.
    pub fn read(&self) -> Reading {
        let worker = ProcessUse::read(self.worker_pid);
        let server = self.server_pids.as_deref().map(ProcessUse::read_all);
        let busiest = self
            .threads
            .iter()
            .map(|(tid, cpu)| cpu.saturating_sub(self.threads_before.get(tid).copied().unwrap_or_default()));
        let busiest = busiest.max().unwrap_or_default().as_secs_f64();
        let holder = server.unwrap_or(worker);
        let holder_before = if server.is_some() { self.server } else { self.worker };
        let flushes = self
            .device
            .as_ref()
            .and_then(|device| Some(device.read().flushes?.saturating_sub(self.device_before.flushes?)));
        Reading {
            elapsed: self.started.elapsed(),
            client_cpu: worker.cpu.saturating_sub(self.worker.cpu),
            server_cpu: server.map(|server| server.cpu.saturating_sub(self.server.cpu)),
            written_bytes: holder.write_bytes.saturating_sub(holder_before.write_bytes),
            rss_peak_bytes: holder.rss_peak_bytes,
            device_flushes: flushes,
            steal_pct: MachineCpu::read().steal_pct_since(self.machine),
            busiest_thread: (self.sampled > Duration::from_millis(900)).then(|| busiest / self.sampled.as_secs_f64()),
        }
    }
}

/// What was used between start and end.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    elapsed: Duration,
    client_cpu: Duration,
    server_cpu: Option<Duration>,
    written_bytes: u64,
    rss_peak_bytes: u64,
    device_flushes: Option<u64>,
    steal_pct: f64,
    /// Share of a core that the client's busiest thread used.
    busiest_thread: Option<f64>,
}

impl Reading {
    /// Fills the cost columns of a row whose records and bytes are known.
    pub fn fill(&self, row: &mut SummaryRow, cores: u32) {
        let millions = row.records_acked as f64 / 1e6;
        if millions > 0.0 {
            row.cpu_s_per_million_client = Some(self.client_cpu.as_secs_f64() / millions);
            row.cpu_s_per_million_server = self.server_cpu.map(|cpu| cpu.as_secs_f64() / millions);
        }
        row.disk_bytes_per_payload_byte =
            (row.payload_bytes_total > 0).then(|| self.written_bytes as f64 / row.payload_bytes_total as f64);
        row.peak_rss_mb = Some(self.rss_peak_bytes as f64 / 1e6);
        row.device_flushes = self.device_flushes;
        row.steal_pct = Some(self.steal_pct);
        if self.is_client_bound(cores) {
            row.add_mark("client-bound");
        }
    }

    /// Rule 10: more than half of the machine, or a thread that has no time left. An embedded
    /// system is part of its client, so it has no such bound.
    fn is_client_bound(&self, cores: u32) -> bool {
        let share = self.client_cpu.as_secs_f64() / self.elapsed.as_secs_f64().max(1e-9);
        let over_half = share > f64::from(cores) / 2.0;
        let thread_full = self.busiest_thread.is_some_and(|share| share > THREAD_BUSY);
        self.server_cpu.is_some() && (over_half || thread_full)
    }
}
