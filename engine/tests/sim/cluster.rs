//! Three machines with a node each, on turmoil's network.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use turmoil::Sim;
use walrus_engine::config::Config;
use walrus_engine::node::{Machine, Node};
use walrus_engine::sim::probe::Probe;
use walrus_engine::sim::{promises, trace};
use walrus_engine::store::disk::Disk;

use crate::client::PORT;
use crate::clock::SimClock;
use crate::disk::SimDisk;

/// Host of all clients.
pub const CLIENTS: &str = "clients";

/// One machine.
pub struct Host {
    pub id: u64,
    root: PathBuf,
    /// How often its node's data were carried over to another directory.
    turns: Cell<u64>,
    disk: Arc<SimDisk>,
    clock: SimClock,
    probe: RefCell<Option<Probe>>,
    stopping: Notify,
    pub up: Cell<bool>,
}

impl Host {
    pub fn new(id: u64, root: PathBuf, rate: f64) -> Rc<Self> {
        Rc::new(Host {
            id,
            root,
            turns: Cell::new(0),
            disk: Arc::new(SimDisk::new(id)),
            clock: SimClock { rate },
            probe: RefCell::new(None),
            stopping: Notify::new(),
            up: Cell::new(true),
        })
    }

    /// Its name in the network.
    pub fn name(&self) -> String {
        format!("n{}", self.id)
    }

    /// A look into the node, once it runs.
    pub fn probe(&self) -> Option<Probe> {
        self.probe.borrow().clone()
    }

    /// What tells its disk from others.
    pub fn disk_address(&self) -> usize {
        let disk: Arc<dyn Disk> = Arc::<SimDisk>::clone(&self.disk);
        promises::address(&disk)
    }

    fn dir(&self) -> PathBuf {
        self.root.join(format!("n{}.{}", self.id, self.turns.get()))
    }

    fn config(&self) -> Config {
        Config {
            node_id: self.id,
            data_dir: self.dir(),
            client_host: "0.0.0.0".into(),
            client_port: PORT,
            client_advertise_host: Some(self.name()),
            raft_host: "0.0.0.0".into(),
            raft_port: 6000,
            raft_advertise_host: Some(self.name()),
            join: if self.id == 1 { Vec::new() } else { vec!["n1:6000".into()] },
            flush_interval_ms: 700,
            ..Config::default()
        }
    }

    /// The process: runs until it is told to stop, and for ever after does nothing.
    async fn run(self: Rc<Self>) -> turmoil::Result {
        trace::note(self.name(), "the process starts");
        let machine = Machine { clock: Arc::new(self.clock), disk: Arc::<SimDisk>::clone(&self.disk) };
        let node = Node::start_on(self.config(), machine).await?;
        self.probe.replace(Some(node.probe()));
        self.stopping.notified().await;
        node.stop().await;
        trace::note(self.name(), "the node has stopped in order");
        std::future::pending().await
    }

    /// Plugs it into the network.
    pub fn add_to(self: &Rc<Self>, sim: &mut Sim<'_>) {
        let host = Rc::clone(self);
        sim.host(self.name(), move || Rc::clone(&host).run());
    }

    /// Has the node stop in order. It is up until [`Host::crash`].
    pub fn stop(&self) {
        trace::note(self.name(), "the node is told to stop");
        self.stopping.notify_one();
    }

    /// Ends the process, or the machine, here and now.
    pub fn crash(&self, sim: &mut Sim<'_>, power_lost: bool) {
        trace::note(self.name(), if power_lost { "the machine crashes" } else { "the process crashes" });
        self.up.set(false);
        self.probe.replace(None);
        let old = self.dir();
        self.turns.set(self.turns.get() + 1);
        self.disk.carry_over(&old, &self.dir(), power_lost).expect("files in memory can be copied");
        sim.crash(self.name());
        std::fs::remove_dir_all(old).expect("files in memory can be removed");
    }

    /// Starts the process again.
    pub fn restart(&self, sim: &mut Sim<'_>) {
        self.up.set(true);
        sim.bounce(self.name());
    }
}

/// The simulation's network: what takes a message at least and at most.
pub fn network(seed: u64, tick: Duration, slowest: Duration) -> Sim<'static> {
    turmoil::Builder::new()
        .rng_seed(seed)
        .tick_duration(tick)
        .simulation_duration(Duration::from_secs(3600))
        .min_message_latency(Duration::ZERO)
        .max_message_latency(slowest)
        .tcp_capacity(1024)
        .build()
}
