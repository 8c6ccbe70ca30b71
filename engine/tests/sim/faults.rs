//! What goes wrong, and when: drawn from the seed.

use std::rc::Rc;
use std::time::Duration;

use turmoil::Sim;
use walrus_engine::sim::{promises, trace};

use crate::cluster::{CLIENTS, Host};

/// What messages of a link take that was slow for a while.
const LATENCY_AFTER: Duration = Duration::from_millis(2);

/// Numbers of its own, so that the schedule does not depend on what nodes and clients draw.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Dice(seed ^ 0x5851_f42d_4c95_7f2d)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % end
    }

    fn ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// How a link is disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// Messages wait until the link is mended, as if they had been sent again.
    Held,
    /// Messages are lost, and with them the connections: both ends wait for what never comes.
    Lost,
    /// Messages in this direction are lost.
    LostOneWay,
}

/// What ends, and when.
struct Ongoing {
    until: Duration,
    what: What,
}

enum What {
    Down(Rc<Host>),
    Cut(String, String, Cut),
}

/// The schedule of one run.
pub struct Faults {
    dice: Dice,
    hosts: Vec<Rc<Host>>,
    ongoing: Vec<Ongoing>,
    next: Duration,
    /// Whom to cut off for the second time, and when.
    second_cut: Option<(Duration, Rc<Host>)>,
    /// No more than so many at a time.
    ongoing_max: usize,
    /// Machines that may lose their power: one less than a write quorum, where that loses records.
    may_lose_power: Vec<u64>,
}

impl Faults {
    pub fn new(mut dice: Dice, hosts: Vec<Rc<Host>>, all_may_lose_power: bool) -> Self {
        let one = 1 + dice.below(hosts.len() as u64);
        let may_lose_power = if all_may_lose_power { hosts.iter().map(|host| host.id).collect() } else { vec![one] };
        let ongoing_max = 2 + dice.below(3) as usize;
        Faults { dice, hosts, ongoing: Vec::new(), next: Duration::ZERO, second_cut: None, ongoing_max, may_lose_power }
    }

    /// Ends what is over, and begins something new when it is time.
    pub fn step(&mut self, sim: &mut Sim<'_>, now: Duration) {
        self.end(sim, now);
        self.crash_after_promise(sim, now);
        self.second_cuts(sim, now);
        if now < self.next || self.ongoing.len() >= self.ongoing_max {
            return;
        }
        // Short pauses are more frequent than long ones: faults that meet are what matters.
        let pause = if self.dice.below(3) == 0 { self.dice.ms(300, 1500) } else { self.dice.ms(10, 300) };
        self.next = now + pause;
        self.begin(sim, now);
    }

    /// Ends everything.
    pub fn heal(&mut self, sim: &mut Sim<'_>) {
        trace::note("faults", "everything is mended");
        if let Some((_, victim)) = self.second_cut.take() {
            self.set_latency(sim, &victim, LATENCY_AFTER);
        }
        self.end(sim, Duration::MAX);
    }

    fn end(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let (over, rest) = std::mem::take(&mut self.ongoing).into_iter().partition(|ongoing| ongoing.until <= now);
        self.ongoing = rest;
        for Ongoing { what, .. } in over {
            match what {
                What::Down(host) => {
                    if host.up.get() {
                        host.crash(sim, false);
                    }
                    host.restart(sim);
                }
                What::Cut(a, b, cut) => {
                    trace::note("network", format!("{a} - {b}: mended"));
                    match cut {
                        Cut::Held => sim.release(a.as_str(), b.as_str()),
                        Cut::Lost => sim.repair(a.as_str(), b.as_str()),
                        Cut::LostOneWay => sim.repair_oneway(a.as_str(), b.as_str()),
                    }
                }
            }
        }
    }

    fn begin(&mut self, sim: &mut Sim<'_>, now: Duration) {
        match self.dice.below(100) {
            0..22 => self.crash(sim, now, false),
            22..32 => self.crash(sim, now, true),
            32..36 => self.stop_in_order(now),
            36..59 => self.isolate(sim, now),
            59..84 => self.stutter(sim, now),
            84..97 => {
                let (a, b) = self.pair();
                self.cut(sim, now, a, b);
            }
            _ => {
                for host in self.hosts.clone() {
                    self.crash_one(sim, now, &host, false);
                }
            }
        }
    }

    /// Often one that matters: it leads a topic, or the metadata.
    fn victim(&mut self) -> Rc<Host> {
        let kind = self.dice.below(5);
        let matters = |host: &&Rc<Host>| {
            host.probe().is_some_and(|probe| match kind {
                0 | 1 => !probe.writable().is_empty(),
                2 => probe.leads_raft(),
                _ => false,
            })
        };
        let drawn = self.dice.below(self.hosts.len() as u64) as usize;
        self.hosts.iter().find(matters).unwrap_or(&self.hosts[drawn]).clone()
    }

    fn crash(&mut self, sim: &mut Sim<'_>, now: Duration, power_lost: bool) {
        let host = self.victim();
        let power_lost = power_lost && self.may_lose_power.contains(&host.id);
        self.crash_one(sim, now, &host, power_lost);
    }

    fn crash_one(&mut self, sim: &mut Sim<'_>, now: Duration, host: &Rc<Host>, power_lost: bool) {
        if !host.up.get() || self.is_going_down(host) {
            return;
        }
        host.crash(sim, power_lost);
        let time = if self.dice.below(3) == 0 { self.dice.ms(500, 3000) } else { self.dice.ms(5, 200) };
        self.ongoing.push(Ongoing { until: now + time, what: What::Down(Rc::clone(host)) });
    }

    fn stop_in_order(&mut self, now: Duration) {
        let host = self.victim();
        if host.up.get() && host.probe().is_some() && !self.is_going_down(&host) {
            host.stop();
            let until = now + self.dice.ms(100, 3000);
            self.ongoing.push(Ongoing { until, what: What::Down(host) });
        }
    }

    fn is_going_down(&self, host: &Host) -> bool {
        self.ongoing.iter().any(|ongoing| matches!(&ongoing.what, What::Down(down) if down.id == host.id))
    }

    /// Two ends of a link, a client's now and then.
    fn pair(&mut self) -> (String, String) {
        let a = self.victim().name();
        let ends: Vec<String> = self.hosts.iter().map(|host| host.name()).filter(|name| *name != a).collect();
        let index = self.dice.below(ends.len() as u64 * 4 + 1) as usize;
        let b = ends.get(index % 4).cloned().unwrap_or_else(|| ends[index % ends.len()].clone());
        if index == ends.len() * 4 { (a, CLIENTS.to_owned()) } else { (a, b) }
    }

    /// Cuts a node off from all others, or all but one.
    fn isolate(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let victim = self.victim();
        let spared = self.dice.below(5);
        let (kind, time) = self.kind_and_time();
        for other in self.hosts.clone() {
            if other.id != victim.id && other.id != spared {
                self.cut_as(sim, now + time, victim.name(), other.name(), kind);
            }
        }
    }

    /// A moment when promises are young is one at which to crash.
    fn crash_after_promise(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let Some(address) = promises::take_newest() else { return };
        if self.dice.below(2) != 0 {
            return;
        }
        let host = self.hosts.iter().find(|host| host.disk_address() == address).cloned();
        if let Some(host) = host.filter(|host| host.up.get() && !self.is_going_down(host)) {
            host.crash(sim, false);
            self.ongoing.push(Ongoing { until: now + self.dice.ms(4, 60), what: What::Down(host) });
        }
    }

    /// All that a leader says and hears comes late for a while, and then not at all for longer than a
    /// lease: what it was told late must not last it longer.
    fn stutter(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let leads_only_topics =
            |host: &&Rc<Host>| host.probe().is_some_and(|probe| !probe.writable().is_empty() && !probe.leads_raft());
        let Some(victim) = self.hosts.iter().find(leads_only_topics).cloned() else { return };
        if self.second_cut.is_some() {
            return;
        }
        let latency = self.dice.ms(90, 145);
        trace::note("network", format!("{}: everything takes {latency:?}", victim.name()));
        self.set_latency(sim, &victim, latency);
        self.second_cut = Some((now + self.dice.ms(400, 1200), victim));
    }

    fn set_latency(&self, sim: &Sim<'_>, victim: &Host, latency: Duration) {
        for other in self.hosts.iter().filter(|other| other.id != victim.id) {
            sim.set_link_latency(victim.name(), other.name(), latency);
        }
    }

    fn second_cuts(&mut self, sim: &mut Sim<'_>, now: Duration) {
        if let Some((_, victim)) = self.second_cut.take_if(|(at, _)| *at <= now) {
            let until = now + self.dice.ms(1200, 2500);
            self.set_latency(sim, &victim, LATENCY_AFTER);
            for other in self.hosts.clone().iter().filter(|other| other.id != victim.id) {
                self.cut_as(sim, until, victim.name(), other.name(), Cut::Held);
            }
        }
    }

    fn cut(&mut self, sim: &mut Sim<'_>, now: Duration, a: String, b: String) {
        let (kind, time) = self.kind_and_time();
        self.cut_as(sim, now + time, a, b, kind);
    }

    fn kind_and_time(&mut self) -> (Cut, Duration) {
        let kind = match self.dice.below(10) {
            0..7 => Cut::Held,
            7 => Cut::Lost,
            _ => Cut::LostOneWay,
        };
        let time = if self.dice.below(2) == 0 { self.dice.ms(20, 350) } else { self.dice.ms(350, 3500) };
        (kind, time)
    }

    fn cut_as(&mut self, sim: &mut Sim<'_>, until: Duration, a: String, b: String, cut: Cut) {
        // One thing at a time on each link: turmoil does not mix them.
        let taken = |ongoing: &Ongoing| matches!(&ongoing.what, What::Cut(x, y, _) if (x == &a && y == &b) || (x == &b && y == &a));
        if self.ongoing.iter().any(taken) {
            return;
        }
        trace::note("network", format!("{a} - {b}: {cut:?}"));
        match cut {
            Cut::Held => sim.hold(a.as_str(), b.as_str()),
            Cut::Lost => sim.partition(a.as_str(), b.as_str()),
            Cut::LostOneWay => sim.partition_oneway(a.as_str(), b.as_str()),
        }
        self.ongoing.push(Ongoing { until, what: What::Cut(a, b, cut) });
    }
}
