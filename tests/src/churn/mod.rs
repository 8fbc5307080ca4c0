//! One group whose members join, leave and die while records flow: is anything lost, is a partition ever two
//! members' at once, and how long until each change is settled?
//!
//! Each member is a process of its own (librdkafka), so that it can die as processes do. Promise: a figure is given
//! only of a group that came to rest with every partition one member's and the shares even; whatever else was
//! seen is a fault.

pub mod ledger;
pub mod member;
mod party;

use crate::load::Load;
use crate::topics::{self, Viewer};
use anyhow::{Context as _, bail};
use party::Party;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How the group shares its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The classic protocol with `range`: everybody gives up everything at each rebalance.
    Eager,
    /// The classic protocol with `cooperative-sticky`.
    Cooperative,
    /// The newer protocol (KIP-848).
    Consumer,
}

impl Protocol {
    pub const ALL: [Self; 3] = [Self::Eager, Self::Cooperative, Self::Consumer];

    pub fn name(self) -> &'static str {
        match self {
            Self::Eager => "eager",
            Self::Cooperative => "cooperative",
            Self::Consumer => "consumer",
        }
    }

    pub fn parse(name: &str) -> anyhow::Result<Self> {
        let known = Self::ALL.into_iter().find(|p| p.name() == name);
        known.with_context(|| format!("no protocol {name}; known are eager, cooperative, consumer"))
    }
}

/// What brokers are configured with, so that a dead member is missed as soon in the newer protocol as in the classic.
pub const SESSION: [(&str, &str); 2] = [
    ("group.consumer.session.timeout.ms", "6000"),
    ("group.consumer.heartbeat.interval.ms", "1000"),
];

/// How many, and for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The program that is a member: `PROGRAM --member BOOTSTRAP TOPIC GROUP PROTOCOL`.
    pub program: PathBuf,
    pub members: usize,
    pub partitions: i32,
    pub per_second: u32,
    /// How long members come and go without a pause.
    pub restless: Duration,
    /// Between two of these.
    pub pause: Duration,
    /// A group that has been even for so long rests. Longer than the interval between two heartbeats, by which
    /// members hear of a rebalance.
    pub rest: Duration,
    /// A group that is not settled so long after a change has failed.
    pub patience: Duration,
}

/// What came of one group.
#[derive(Debug, Default)]
pub struct Outcome {
    /// From the change until the last partition had its owner.
    pub settled: Vec<(&'static str, Duration)>,
    pub records: usize,
    pub repeated: usize,
    pub expelled: usize,
    pub refused: usize,
    pub faults: Vec<String>,
}

/// Takes one group through it all. Topic and group are called `name`.
pub fn run(
    plan: &Plan,
    bootstrap: &str,
    name: &str,
    protocol: Protocol,
) -> anyhow::Result<Outcome> {
    tokio::runtime::Runtime::new()?.block_on(topics::create(
        bootstrap,
        name,
        plan.partitions,
        3,
        &[],
    ))?;
    Viewer::new(bootstrap).wait_in_sync(name, plan.patience);
    let load = Load::start(bootstrap, name, plan.partitions, plan.per_second, &[]);
    load.wait_flowing(plan.patience);
    let mut party = Party::new(plan, bootstrap, name, protocol);
    let mut outcome = Outcome::default();
    let half = plan.members / 2;
    let some = (plan.members / 5).max(1);
    let mut phase = |party: &mut Party, what, change: &mut dyn FnMut(&mut Party)| {
        let begun = member::now();
        change(party);
        let took = party.settle(begun).context(what)?;
        eprintln!("  {}: {what}: {:.2} s", protocol.name(), took.as_secs_f64());
        outcome.settled.push((what, took));
        anyhow::Ok(())
    };
    phase(&mut party, "half of the members join at once", &mut |p| {
        p.join(half)
    })?;
    phase(&mut party, "the other half joins", &mut |p| {
        p.join(plan.members - half)
    })?;
    phase(&mut party, "one leaves", &mut |p| p.leave(1))?;
    phase(&mut party, "one joins", &mut |p| p.join(1))?;
    phase(&mut party, "a fifth leaves at once", &mut |p| p.leave(some))?;
    phase(&mut party, "as many join", &mut |p| p.join(some))?;
    phase(&mut party, "a fifth dies at once", &mut |p| p.die(some))?;
    phase(&mut party, "as many join again", &mut |p| p.join(some))?;
    let until = Instant::now() + plan.restless;
    let mut turn = 0;
    while Instant::now() < until {
        match turn % 4 {
            0 => party.leave(1),
            2 => party.die(1),
            _ => party.join(1),
        }
        turn += 1;
        std::thread::sleep(plan.pause);
    }
    let odd = usize::from(turn % 2 == 1);
    phase(&mut party, "rest after churn", &mut |p| p.join(odd))?;
    let history = load.stop();
    let acked = |partition: usize| history.acked[partition].iter().map(|acked| acked.offset);
    let read = party.wait_read(&acked, plan.partitions);
    party.leave_all();
    let ledger = party.ledger();
    outcome.records = history.acked_total();
    outcome.repeated = ledger.repeated();
    outcome.expelled = ledger.expelled();
    outcome.refused = ledger.refused.len();
    outcome.faults = ledger.overlaps();
    outcome.faults.extend(read.err());
    if outcome.records == 0 {
        bail!("nothing flowed");
    }
    for (partition, number, why) in history.failed.iter().take(3) {
        let fault = format!("record {number} of partition {partition} was not taken: {why}");
        outcome.faults.push(fault);
    }
    Ok(outcome)
}
