//! What stands against taking a broker away; pure.

use super::{Facts, PodFacts, Roll};
use leasehold_crds::RollingUnit;
use leasehold_metadata::image::{Image, Partition, Topic};
use leasehold_types::BrokerId;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a partition makes of the loss of one more replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survives {
    /// It goes on.
    Yes,
    /// Not by its own shape: it needs every one of its replicas, and has them.
    NeedsAll,
    /// It lacks some already.
    No,
}

/// Whether acks=all goes on for a partition without `away` (or without any one more in sync, if `None`).
pub fn survives(
    image: &Image,
    topic: &Topic,
    partition: &Partition,
    away: Option<BrokerId>,
) -> Survives {
    let needed = image.effective_min_isr(topic, partition);
    let there = |b: &&BrokerId| image.serves(partition, **b);
    let in_sync = partition.isr.iter().filter(there).count();
    let counts = match away {
        Some(broker) => partition.isr.contains(&broker),
        None => true,
    };
    let left = match away {
        Some(broker) => {
            let others = partition.isr.iter().filter(|b| **b != broker);
            others.filter(there).count()
        }
        None => in_sync.saturating_sub(1),
    };
    if !counts || left >= needed {
        Survives::Yes
    } else if needed >= partition.replication_factor() && in_sync >= needed {
        Survives::NeedsAll
    } else {
        Survives::No
    }
}

/// Partitions of one kind: how many, and the name of one.
#[derive(Clone, Debug, Default)]
struct Named {
    count: usize,
    example: String,
}

impl Named {
    fn add(&mut self, topic: &Topic, number: usize) {
        if self.count == 0 {
            self.example = format!("{}-{number}", topic.name);
        }
        self.count += 1;
    }
}

/// How one broker's replicas are.
#[derive(Clone, Debug, Default)]
struct Standing {
    /// They do not come back by themselves.
    failed: Named,
    /// They are catching up.
    behind: Named,
    /// Partitions that cannot do without this one.
    needed: Named,
}

/// Where several may go, one that was told to does not count any more, though the metadata still has it.
fn without_absent<'a>(facts: &Facts<'_>, image: &'a Image) -> Cow<'a, Image> {
    let mut left = Cow::Borrowed(image);
    if facts.policy.unit == RollingUnit::Broker {
        return left;
    }
    for (id, broker) in &image.brokers {
        let mut pods = facts.pods.iter().filter(|pod| pod.ordinal == id.0);
        if !pods.any(|pod| !pod.terminating && pod.ready_for.is_some()) {
            let mut absent = (**broker).clone();
            absent.fenced = true;
            left.to_mut().brokers.insert(*id, Arc::new(absent));
        }
    }
    left
}

/// The questions that stand before a restart.
pub(super) struct Gates<'a> {
    facts: &'a Facts<'a>,
    image: &'a Image,
    /// The same, without those who are about to be away as far as pods tell.
    left: Cow<'a, Image>,
    standings: BTreeMap<i32, Standing>,
}

impl<'a> Gates<'a> {
    /// Looks at every partition once.
    pub fn new(facts: &'a Facts<'a>, image: &'a Image) -> Self {
        let mut gates = Self {
            facts,
            image,
            left: without_absent(facts, image),
            standings: BTreeMap::new(),
        };
        for topic in image.topics.values() {
            for (number, partition) in topic.partitions.iter().enumerate() {
                gates.look(topic, number, partition);
            }
        }
        gates
    }

    fn look(&mut self, topic: &Topic, number: usize, p: &Partition) {
        for &broker in &p.replicas {
            let moving = p.adding.contains(&broker) || p.removing.contains(&broker);
            let needed = match survives(&self.left, topic, p, Some(broker)) {
                Survives::Yes => false,
                Survives::NeedsAll => !self.facts.policy.may_interrupt,
                Survives::No => true,
            };
            let standing = self.standings.entry(broker.0).or_default();
            if p.is_offline(broker) {
                standing.failed.add(topic, number);
            } else if !moving && !p.isr.contains(&broker) {
                standing.behind.add(topic, number);
            }
            if needed {
                standing.needed.add(topic, number);
            }
        }
    }

    /// Whether a broker is fenced, or was never registered.
    pub fn serves_nothing(&self, ordinal: i32) -> bool {
        !self.image.is_live(BrokerId(ordinal))
    }

    /// Why this broker, whose pod is ready, may not be restarted now.
    pub fn hindrance(&self, ordinal: i32) -> Option<Roll> {
        let others = (0..self.facts.brokers).filter(|other| *other != ordinal);
        for other in others {
            match self.missing(other) {
                Some(Roll::Waiting(_)) if self.are_mates(ordinal, other) => {}
                Some(why) => return Some(why),
                None => {}
            }
        }
        // Itself: what a restart mends does not stand against it.
        if let Some(why) = self.unsettled(ordinal).or_else(|| self.behind(ordinal)) {
            return Some(why);
        }
        let shortage = self.shortage(ordinal)?;
        if self.rack_has_begun(ordinal) {
            let why = format!("others of broker {ordinal}'s rack to be back: partitions need it");
            return Some(Roll::Waiting(why));
        }
        Some(shortage)
    }

    /// Whether the two go as one.
    fn are_mates(&self, one: i32, other: i32) -> bool {
        self.facts.policy.unit == RollingUnit::Rack
            && one != other
            && self.rack(one).is_some()
            && self.rack(one) == self.rack(other)
    }

    fn rack(&self, ordinal: i32) -> Option<&str> {
        self.image.broker(BrokerId(ordinal))?.rack.as_deref()
    }

    /// Whether some of those who go with this broker are away.
    pub fn rack_has_begun(&self, ordinal: i32) -> bool {
        let mut all = 0..self.facts.brokers;
        all.any(|other| self.are_mates(ordinal, other) && self.missing(other).is_some())
    }

    /// What sorts brokers rack by rack.
    pub fn turn(&self, ordinal: i32, controller: Option<i32>) -> (u8, Option<String>) {
        let with_controller =
            controller.is_some_and(|c| c == ordinal || self.are_mates(ordinal, c));
        let place = match (self.rack_has_begun(ordinal), with_controller) {
            (true, _) => 0,
            (false, false) => 1,
            (false, true) => 2,
        };
        (place, self.rack(ordinal).map(str::to_owned))
    }

    /// What keeps any of the brokers from being fully there.
    pub fn unfinished(&self) -> Option<Roll> {
        (0..self.facts.brokers).find_map(|ordinal| self.missing(ordinal))
    }

    /// What the roll waits for, when none of the pods to be restarted is ready.
    pub fn not_back(&self) -> Roll {
        let unknown = || Roll::Waiting("the brokers to be ready".to_owned());
        self.unfinished().unwrap_or_else(unknown)
    }

    /// What keeps a broker from being fully there.
    fn missing(&self, ordinal: i32) -> Option<Roll> {
        self.unsettled(ordinal)
            .or_else(|| self.failed(ordinal))
            .or_else(|| self.behind(ordinal))
    }

    fn pod(&self, ordinal: i32) -> Option<&PodFacts> {
        self.facts.pods.iter().find(|pod| pod.ordinal == ordinal)
    }

    /// What is wrong with its pod or its session.
    fn unsettled(&self, ordinal: i32) -> Option<Roll> {
        let Some(pod) = self.pod(ordinal) else {
            return Some(Roll::Waiting(format!("the pod of broker {ordinal}")));
        };
        let name = &pod.name;
        if pod.terminating {
            return Some(Roll::Waiting(format!("{name} to stop")));
        }
        if let Some(trouble) = &pod.trouble {
            return Some(Roll::Stuck(format!("{name} does not start: {trouble}")));
        }
        let Some(ready_for) = pod.ready_for else {
            return Some(Roll::Waiting(format!("{name} to be ready")));
        };
        if !self.image.is_eligible(BrokerId(ordinal)) {
            return Some(Roll::Waiting(format!("{name} to join the cluster")));
        }
        (ready_for < self.facts.policy.settle).then(|| {
            let settle = self.facts.policy.settle.as_secs();
            Roll::Waiting(format!("{name} to have been ready for {settle} s"))
        })
    }

    fn standing(&self, ordinal: i32, of: impl Fn(&Standing) -> &Named) -> Option<&Named> {
        let named = of(self.standings.get(&ordinal)?);
        (named.count > 0).then_some(named)
    }

    fn failed(&self, ordinal: i32) -> Option<Roll> {
        let Named { count, example } = self.standing(ordinal, |s| &s.failed)?;
        Some(Roll::Blocked(format!(
            "{count} of broker {ordinal}'s replicas failed (such as {example}): see its log"
        )))
    }

    fn behind(&self, ordinal: i32) -> Option<Roll> {
        let Named { count, example } = self.standing(ordinal, |s| &s.behind)?;
        Some(Roll::Waiting(format!(
            "broker {ordinal} to be in sync again for {count} partition{} (such as {example})",
            if *count == 1 { "" } else { "s" }
        )))
    }

    /// A partition that cannot do without this broker.
    pub fn shortage(&self, ordinal: i32) -> Option<Roll> {
        let Named { count, example } = self.standing(ordinal, |s| &s.needed)?;
        Some(Roll::Blocked(format!(
            "without broker {ordinal}, {count} partition{} (such as {example}) would have fewer replicas in sync than acks=all needs: give the topic more replicas, lower its min.insync.replicas, or set spec.rolling.whenUnavailable to Proceed",
            if *count == 1 { "" } else { "s" }
        )))
    }
}
