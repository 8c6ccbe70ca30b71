use proptest::prelude::*;

use super::*;

fn at(ms: u64) -> Instant {
    Instant(ms * 1_000_000)
}

/// A granter that leads in term 1 since 0 and is confirmed.
fn leading() -> Granter {
    let mut granter = Granter::default();
    granter.enter(1, at(0));
    granter.confirm(1);
    granter
}

#[test]
fn a_new_leader_waits_as_if_everyone_held_a_lease() {
    let granter = leading();
    assert!(!granter.is_lost(7, at(1009)));
    assert!(granter.is_lost(7, at(1010)));
}

#[test]
fn a_grant_puts_the_loss_off() {
    let mut granter = leading();
    assert!(granter.grant(7, 70, at(500)));
    assert_eq!(granter.live(at(600)), Live::from([(7, 70)]));
    assert!(!granter.is_lost(7, at(1509)) && granter.is_lost(8, at(1509)));
    assert!(granter.is_lost(7, at(1510)) && granter.live(at(1510)).is_empty());
}

#[test]
fn without_a_confirmed_leadership_nothing_is_granted_or_lost() {
    let mut granter = Granter::default();
    assert!(!granter.grant(7, 70, at(0)) && !granter.is_lost(7, at(9999)));
    granter.enter(2, at(0));
    granter.confirm(1);
    assert!(!granter.grant(7, 70, at(0)) && !granter.is_lost(7, at(9999)));
    granter.confirm(2);
    assert!(granter.grant(7, 70, at(0)));
    granter.leave();
    assert!(!granter.grant(7, 70, at(0)) && !granter.is_lost(7, at(9999)));
}

#[test]
fn entering_again_forgets_every_grant_and_waits_again() {
    let mut granter = leading();
    granter.grant(7, 70, at(0));
    granter.enter(1, at(2000));
    granter.confirm(1);
    assert!(granter.live(at(2000)).is_empty() && !granter.is_lost(7, at(3009)) && granter.is_lost(7, at(3010)));
}

#[test]
fn a_node_whose_segments_are_being_given_away_gets_no_lease() {
    let mut granter = leading();
    granter.give_away(&[7]);
    assert!(!granter.grant(7, 70, at(1500)) && granter.grant(8, 80, at(1500)));
    granter.given_away(&[7]);
    assert!(granter.grant(7, 70, at(1500)));
}

#[test]
fn a_lease_counts_until_its_end_and_not_when_it_was_revoked() {
    struct Fixed(Instant);
    impl Clock for Fixed {
        fn now(&self) -> Instant {
            self.0
        }
    }
    let lease = Lease::new(Arc::new(Fixed(at(990))));
    lease.extend(valid_until(at(0)));
    assert!(!lease.is_valid(), "valid while now is *below* the end");
    lease.extend(valid_until(at(1)));
    lease.extend(valid_until(at(0)));
    assert!(lease.is_valid());
    assert_eq!(lease.remaining_ms(), 1);
    lease.revoke();
    lease.extend(valid_until(at(500)));
    assert!(!lease.is_valid());
}

// ---- S9: no two valid leases for one segment in real time, whatever the clocks do ----

/// One step of the world. Times in milliseconds of real time.
#[derive(Debug, Clone)]
enum Step {
    /// Real time goes on; each clock at its own rate, within ρ.
    Pass { ms: u64, rates: [u64; 3] },
    /// Broker 0 or 1 sends a request.
    Ask(usize),
    /// Its oldest request on the way arrives, after a round, at a leader (1 or 2 lead in turn).
    Arrive(usize),
    /// The grant for it arrives.
    Deliver(usize),
    /// A broker applies everything.
    Apply(usize),
    /// The leader looks whether it may give the segment away.
    Look,
    /// The other node becomes Raft leader.
    Elect,
}

/// Clocks of brokers 0 and 1 and of the granters run between 99 % and 101 %.
fn any_step() -> impl Strategy<Value = Step> {
    let rate = 990..=1010u64;
    let broker = 0..2usize;
    prop_oneof![
        6 => (prop_oneof![1..60u64, 300..1100u64], [rate.clone(), rate.clone(), rate])
            .prop_map(|(ms, rates)| Step::Pass { ms, rates }),
        4 => broker.clone().prop_map(Step::Ask),
        5 => broker.clone().prop_map(Step::Arrive),
        5 => broker.clone().prop_map(Step::Deliver),
        5 => broker.prop_map(Step::Apply),
        5 => Just(Step::Look),
        1 => Just(Step::Elect),
    ]
}

/// Microseconds, so that rates of one in a thousand count.
#[derive(Default)]
struct World {
    /// Clocks: broker 0, broker 1, both granters.
    clocks: [u64; 3],
    granter: Granter,
    term: u64,
    /// Owner of the segment after each entry of the (one) log.
    log: Vec<usize>,
    applied: [usize; 2],
    sent: [Vec<Instant>; 2],
    granted: [Vec<(Instant, usize)>; 2],
    waiting: [Vec<(Instant, usize)>; 2],
    until: [Instant; 2],
}

impl World {
    fn new() -> Self {
        let mut world = World { log: vec![0], ..World::default() };
        world.elect();
        world
    }

    fn now(&self, clock: usize) -> Instant {
        Instant(self.clocks[clock])
    }

    fn elect(&mut self) {
        self.term += 1;
        self.granter = Granter::default();
        self.granter.enter(self.term, self.now(2));
        self.granter.confirm(self.term);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Pass { ms, rates } => {
                // In nanoseconds: a millisecond at rate 1000 is a million of them.
                for (clock, rate) in self.clocks.iter_mut().zip(rates) {
                    *clock += ms * rate * 1000;
                }
            }
            Step::Ask(broker) => self.sent[*broker].push(self.now(*broker)),
            Step::Arrive(broker) => {
                if !self.sent[*broker].is_empty() && self.granter.grant(*broker as u64, 1, self.now(2)) {
                    let sent = self.sent[*broker].remove(0);
                    self.granted[*broker].push((sent, self.log.len()));
                }
            }
            Step::Deliver(broker) => {
                if let Some(grant) = self.granted[*broker].pop() {
                    self.waiting[*broker].push(grant);
                }
            }
            Step::Apply(broker) => self.applied[*broker] = self.log.len(),
            Step::Look => {
                let owner = self.log[self.log.len() - 1];
                if self.granter.is_lost(owner as u64, self.now(2)) {
                    self.log.push(1 - owner);
                }
            }
            Step::Elect => self.elect(),
        }
        for broker in 0..2 {
            let applied = self.applied[broker];
            for (sent, index) in std::mem::take(&mut self.waiting[broker]) {
                if index <= applied {
                    self.until[broker] = self.until[broker].max(valid_until(sent));
                } else {
                    self.waiting[broker].push((sent, index));
                }
            }
        }
    }

    /// Has a running lease and a view that shows the segment as its own.
    fn believes(&self, broker: usize) -> bool {
        let view = self.applied[broker].checked_sub(1).map(|last| self.log[last]);
        self.now(broker) < self.until[broker] && view == Some(broker)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn no_two_nodes_believe_at_once_and_who_believes_is_the_owner(steps in prop::collection::vec(any_step(), 0..80)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            prop_assert!(!(world.believes(0) && world.believes(1)), "both believe after {step:?}");
            let owner = world.log[world.log.len() - 1];
            prop_assert!(!world.believes(1 - owner), "not the owner believes after {step:?}");
        }
    }
}

#[test]
fn the_world_of_the_property_has_leases_and_giveaways() {
    let mut world = World::new();
    let pass = |ms| Step::Pass { ms, rates: [1000; 3] };
    for step in [Step::Apply(0), Step::Ask(0), Step::Arrive(0), Step::Deliver(0)] {
        world.step(&step);
    }
    assert!(!world.believes(0) || world.applied[0] == 1);
    world.step(&Step::Apply(0));
    assert!(world.believes(0));
    world.step(&pass(1010));
    world.step(&Step::Look);
    assert_eq!(world.log, [0, 1]);
    for step in [Step::Ask(1), Step::Arrive(1), Step::Deliver(1)] {
        world.step(&step);
    }
    assert!(!world.believes(1), "the grant names an entry that it has not applied");
    world.step(&Step::Apply(1));
    assert!(world.believes(1) && !world.believes(0));
}
