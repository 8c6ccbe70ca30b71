//! One seed, from the founding of the cluster to the verdict.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use turmoil::Sim;
use walrus_engine::sim::{self, bugs, promises, random, trace};
use walrus_engine::types::Tier;

use crate::Options;
use crate::checker::{self, Violation};
use crate::cluster::{CLIENTS, Host, network};
use crate::faults::{Dice, Faults};
use crate::load::{self, Shared};

const NODES: u64 = 3;
const TICK: Duration = Duration::from_millis(2);
/// Longest time until the cluster is there.
const BOOT_MAX: Duration = Duration::from_secs(20);
/// How long things go wrong.
const TROUBLE: Duration = Duration::from_secs(8);
/// Longest time from the end of all faults until everything is answered and readable everywhere.
const CALM_MAX: Duration = Duration::from_secs(90);
/// A run that takes so long runs in circles: it is ended by a signal.
const REAL_SECONDS_MAX: u32 = 60;
/// Notes that are printed with a broken promise.
const NOTES_SHOWN: usize = 80;

/// What differs from seed to seed, beside the faults.
#[derive(Debug)]
struct Plan {
    tier: Tier,
    segment_entries: u64,
    slowest: Duration,
    /// How each clock runs.
    rates: Vec<f64>,
    /// The clocks are as bad as the leases allow, and no worse.
    clocks_in_bounds: bool,
}

impl Plan {
    fn draw(dice: &mut Dice) -> Self {
        let tier = if dice.below(4) == 0 { Tier::Synced } else { Tier::PageCache };
        let segment_entries = [20, 60, 200, 100_000][dice.below(4) as usize];
        let slowest = Duration::from_millis([4, 10, 30][dice.below(3) as usize]);
        // Leases count on clocks that run wrong by at most 1 %. The safety of writes does not.
        let clocks_in_bounds = dice.below(3) != 0;
        let mut rate = || {
            let (small, wrong) = (dice.below(18), dice.below(4));
            if clocks_in_bounds { 0.991 + small as f64 / 1000.0 } else { [0.25, 0.6, 1.0, 3.0][wrong as usize] }
        };
        let rates = (0..NODES).map(|_| rate()).collect();
        Plan { tier, segment_entries, slowest, rates, clocks_in_bounds }
    }
}

/// Runs a seed and says how it went; false if a promise was broken.
pub fn one(seed: u64, options: &Options) -> bool {
    random::seed(seed);
    // SAFETY: a plain system call. Its signal ends this process.
    unsafe { libc::alarm(REAL_SECONDS_MAX) };
    trace::start(options.trace);
    let bug = options.bug.as_ref().and_then(|name| bugs::ALL.iter().find(|(known, _)| known == name));
    if let Some((_, bug)) = bug {
        bugs::switch_on(*bug);
    }
    let files = tempfile::Builder::new().prefix("walrus-sim").tempdir_in(memory()).expect("a directory for files");
    let outcome = Run::new(seed, files.path()).go();
    let (hash, events) = trace::digest();
    match outcome {
        Ok(summary) => {
            println!("seed {seed}: ok, trace {hash:016x} of {events} events, {summary}");
            true
        }
        Err(broken) => {
            report(seed, options, &broken);
            println!("seed {seed}: BROKEN, trace {hash:016x} of {events} events");
            false
        }
    }
}

/// Where files are in memory, if there is such a place.
fn memory() -> PathBuf {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() }
}

fn report(seed: u64, options: &Options, broken: &[String]) {
    println!("seed {seed} breaks a promise:");
    for what in broken.iter().take(20) {
        println!("  {what}");
    }
    let bug = options.bug.as_ref().map_or(String::new(), |bug| format!(" BUG={bug}"));
    println!("again: make sim SEED={seed}{bug}          everything that happens: make sim SEED={seed}{bug} TRACE=1");
    println!("the last things that happened:");
    let notes = trace::notes();
    for note in notes.iter().skip(notes.len().saturating_sub(NOTES_SHOWN)) {
        println!("{note}");
    }
}

struct Run {
    sim: Sim<'static>,
    plan: Plan,
    hosts: Vec<Rc<Host>>,
    shared: Rc<Shared>,
    faults: Faults,
    /// Who leads what, as it was noted last.
    seen: Vec<(bool, Vec<(u64, u64)>)>,
}

impl Run {
    fn new(seed: u64, root: &Path) -> Self {
        let mut dice = Dice::new(seed);
        let plan = Plan::draw(&mut dice);
        trace::note("plan", format!("{plan:?}"));
        let mut sim = network(seed, TICK, plan.slowest);
        let hosts: Vec<Rc<Host>> =
            (1..=NODES).zip(&plan.rates).map(|(id, rate)| Host::new(id, root.to_owned(), *rate)).collect();
        for host in &hosts {
            host.add_to(&mut sim);
        }
        let shared = Rc::new(Shared::default());
        shared.nodes.set(NODES);
        let faults = Faults::new(dice, hosts.clone(), plan.tier == Tier::Synced);
        let seen = vec![(false, Vec::new()); hosts.len()];
        Run { sim, plan, hosts, shared, faults, seen }
    }

    fn go(mut self) -> Result<String, Vec<String>> {
        let all_in = |run: &Run| run.hosts.iter().all(|host| host.probe().is_some_and(|probe| probe.members() == 3));
        self.run_until(BOOT_MAX, "the nodes are one cluster", false, all_in)?;
        let (shared, tier, entries) = (Rc::clone(&self.shared), self.plan.tier, self.plan.segment_entries);
        self.sim.client(CLIENTS, async move {
            load::run(shared, tier, entries).await;
            Ok(())
        });
        self.run_until(BOOT_MAX, "a record is acknowledged", false, |run| run.shared.history.borrow().acked() > 0)?;
        let end = self.sim.elapsed() + TROUBLE;
        self.run_until(TROUBLE + TICK, "time goes on", true, |run| run.sim.elapsed() >= end)?;
        self.faults.heal(&mut self.sim);
        self.shared.stop.set(true);
        self.run_until(CALM_MAX, "every request is answered", false, |run| run.shared.working.get() == 0)?;
        self.shared.read_all.set(true);
        let read = |run: &Run| run.shared.logs.borrow().len() == NODES as usize;
        self.run_until(CALM_MAX, "every node shows the whole topic", false, read)?;
        self.verdict()
    }

    /// Goes on until something holds. It must, within this time.
    fn run_until(
        &mut self,
        longest: Duration,
        what: &str,
        trouble: bool,
        holds: impl Fn(&Run) -> bool,
    ) -> Result<(), Vec<String>> {
        let deadline = self.sim.elapsed() + longest;
        while !holds(self) {
            if self.sim.elapsed() >= deadline {
                return Err(vec![format!("L: within {longest:?} this should have come true: {what}")]);
            }
            sim::set_elapsed(self.sim.elapsed());
            if trouble {
                let now = self.sim.elapsed();
                self.faults.step(&mut self.sim, now);
            }
            self.sim.step().map_err(|error| vec![format!("a node gave up: {error}")])?;
            sim::set_elapsed(self.sim.elapsed());
            self.look()?;
        }
        Ok(())
    }

    /// What can be seen from inside, after every tick.
    fn look(&mut self) -> Result<(), Vec<String>> {
        if let Some(broken) = promises::broken() {
            return Err(vec![broken]);
        }
        for (host, seen) in self.hosts.iter().zip(&mut self.seen) {
            let probe = host.probe();
            let now = probe.map_or((false, Vec::new()), |probe| (probe.leads_raft(), probe.writable()));
            if now.0 != seen.0 {
                trace::note(host.name(), if now.0 { "leads the metadata" } else { "leads the metadata no more" });
            }
            if now.1 != seen.1 {
                trace::note(host.name(), format!("appends to {:?}", now.1));
            }
            *seen = now;
        }
        self.one_writer()
    }

    /// S4, S9: while all clocks keep to their bounds, no two nodes believe that a topic is theirs.
    fn one_writer(&self) -> Result<(), Vec<String>> {
        if !self.plan.clocks_in_bounds {
            return Ok(());
        }
        let writers: Vec<u64> =
            self.hosts.iter().zip(&self.seen).filter(|(_, seen)| !seen.1.is_empty()).map(|(host, _)| host.id).collect();
        if writers.len() > 1 {
            return Err(vec![format!("S9: nodes {writers:?} hold leases for segments of one topic at the same time")]);
        }
        Ok(())
    }

    fn verdict(self) -> Result<String, Vec<String>> {
        let history = self.shared.history.borrow();
        let mut broken: Vec<String> = checker::check(&history, &self.shared.logs.borrow())
            .into_iter()
            .filter(|violation| self.plan.clocks_in_bounds || !needs_clocks(violation))
            .map(|violation| violation.to_string())
            .collect();
        if self.hosts.iter().filter_map(|host| host.probe()).any(|probe| probe.reports_loss()) {
            broken.push("S11: a loss is reported, and fewer than a write quorum of copies were lost".to_owned());
        }
        if broken.is_empty() {
            let (acked, sent) = (history.acked(), history.sent.len());
            Ok(format!("{acked} of {sent} records acknowledged, {:.1} s", self.sim.elapsed().as_secs_f64()))
        } else {
            Err(broken)
        }
    }
}

/// Does the promise rest on the clocks? (Reading the tail does, writing does not.)
fn needs_clocks(violation: &Violation) -> bool {
    matches!(violation, Violation::Stale { .. } | Violation::Skipped { .. })
}
