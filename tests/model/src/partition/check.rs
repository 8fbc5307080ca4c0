//! What must hold. A broken promise begins with its number in the design, as in tests/simulation.

use super::Partition;
use super::controller::ImageFacts;
use super::state::{BROKERS, Phase, State, bit};

/// What a single step can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Broken {
    Nothing,
    TwoAppenders,
    LeaderEpoch,
    PartitionEpoch,
    Leader,
    LeaderFrom,
    Set,
    Joined,
    Unfenced,
    Keepers,
    FewHolders,
    Misfit,
    Panicked,
}

const TEXTS: [&str; 13] = [
    "",
    "I4 two processes append in one leader epoch",
    "I5 another leader without another leader epoch",
    "I5 a change without another partition epoch",
    "I6 the leader is outside of the ISR, or fenced",
    "I6 a leader from outside of ISR and ELR",
    "I6 ISR or ELR outside of the replicas",
    "I6 a fenced broker joins the ISR",
    "I6 a broker is unfenced that has not applied what fenced it",
    "I8 fewer than the minimum are known to have every committed record, or to have lost some",
    "I10 a record is acknowledged on fewer replicas than the minimum",
    "I6 a decision does not fit the image",
    "panic: in the product",
];

/// What one committed change breaks, if anything.
pub fn change(old: &ImageFacts, new: &ImageFacts, min: u8) -> Broken {
    let changed = (old.leader, old.isr, old.elr, old.replicas, old.leader_epoch)
        != (new.leader, new.isr, new.elr, new.replicas, new.leader_epoch);
    let led = new.leader.map_or(0, bit);
    // A process that was registered anew has led nothing before.
    let another = old.leader != new.leader
        || new
            .leader
            .is_some_and(|l| old.lives[usize::from(l)] != new.lives[usize::from(l)]);
    if another && new.leader_epoch <= old.leader_epoch || new.leader_epoch < old.leader_epoch {
        Broken::LeaderEpoch
    } else if changed && new.partition_epoch <= old.partition_epoch {
        Broken::PartitionEpoch
    } else if led & !(new.isr & new.unfenced) != 0 {
        Broken::Leader
    } else if old.leader != new.leader && led & !(old.isr | old.elr) != 0 && !new.recovering {
        Broken::LeaderFrom
    } else if (new.isr | new.elr) & !new.replicas != 0 {
        Broken::Set
    } else if new.isr & !old.isr & !new.unfenced != 0 {
        Broken::Joined
    } else if !new.recovering && (new.isr | new.elr | new.lossy).count_ones() < u32::from(min) {
        Broken::Keepers
    } else {
        Broken::Nothing
    }
}

impl Partition {
    pub(super) fn check(&self, s: &State) -> Option<String> {
        if s.broken != 0 {
            return Some(TEXTS[usize::from(s.broken)].to_owned());
        }
        self.spliced(s)
            .or_else(|| self.served_on(s))
            .or_else(|| (!s.forgiven).then(|| self.lost(s)).flatten())
    }

    /// I9: where two logs hold a record of one epoch at one place, they agree up to there.
    fn spliced(&self, s: &State) -> Option<String> {
        for a in 0..BROKERS {
            for b in 0..a {
                let (one, other) = (s.nodes[a].log, s.nodes[b].log);
                let (one, other) = (one.records(), other.records());
                let mut both = one.iter().zip(other);
                let shared = both.rposition(|(x, y)| x.epoch() == y.epoch());
                if shared.is_some_and(|n| one[..=n] != other[..=n]) {
                    return Some(format!("I9 the logs of {a} and {b} are spliced"));
                }
            }
        }
        None
    }

    /// Whoever was told of a newer leader epoch serves no older one.
    fn served_on(&self, s: &State) -> Option<String> {
        s.nodes.iter().find_map(|node| {
            let leads = self.facts_of(node)?.leads?;
            (leads < node.heard).then(|| {
                format!(
                    "S1 epoch {leads} is served on, though epoch {} was heard of",
                    node.heard
                )
            })
        })
    }

    fn lost(&self, s: &State) -> Option<String> {
        let now = *self.product.images.facts(s.newest());
        for (id, node) in (0..).zip(&s.nodes).take(self.bounds.brokers) {
            let missing = (1..=s.used.values)
                .find(|v| (s.acknowledged | s.committed) & bit(*v) != 0 && !node.log.has(*v));
            let leads = self
                .facts_of(node)
                .filter(|f| f.leads == Some(now.leader_epoch) && now.leader == Some(id));
            if leads.is_some()
                && let Some(value) = missing
            {
                return Some(format!(
                    "I8 record {value} was committed, and is not in the log of the leader, {id}"
                ));
            }
            // Whoever lost something is judged when it registers.
            if now.isr & bit(id) != 0
                && !node.damaged
                && let Some(value) = missing
            {
                return Some(format!(
                    "I7 record {value} was committed, and {id}, of the ISR, does not have it"
                ));
            }
            if leads.is_some_and(|f| now.isr & !f.maximal != 0) {
                return Some(format!(
                    "I7 the leader {id} does not reckon with all of the committed ISR"
                ));
            }
        }
        None
    }

    fn facts_of(&self, node: &super::state::Node) -> Option<&super::replica::ReplicaFacts> {
        (node.phase == Phase::Up).then(|| self.product.replicas.facts(node.replica))
    }
}
