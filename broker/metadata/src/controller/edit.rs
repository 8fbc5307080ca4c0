//! One partition's next state: the rules of replication that the controller owes, in one place.
//!
//! An [`Edit`] starts from the present state; callers say what they want, and `finish` adds what must follow:
//! the eligible leader replicas (ELR), the epochs, the end of a reassignment. Whatever a caller does, a
//! change raises the partition epoch by one, and the leader epoch by one if the leader changes or a
//! replica is taken away.

use crate::image::{Image, Partition, Topic};
use crate::records::PartitionChange;
use leasehold_types::BrokerId;
use leasehold_types::seams::taken_out;

/// A partition being changed, seen in `image`, whose brokers are up to date already.
pub(super) struct Edit<'a> {
    pub image: &'a Image,
    pub topic: &'a Topic,
    pub old: &'a Partition,
    pub new: Partition,
    /// Left ISR or ELR because they may have lost data.
    lost: Vec<BrokerId>,
    /// The leader was elected without having every committed record for certain.
    pub unclean: bool,
    /// Raise the partition epoch even if nothing changed.
    pub touch: bool,
    /// A move of the controller's own may end now, which raises the leader epoch.
    pub may_complete: bool,
}

impl<'a> Edit<'a> {
    pub fn new(image: &'a Image, topic: &'a Topic, old: &'a Partition) -> Self {
        Self {
            image,
            topic,
            old,
            new: old.clone(),
            lost: Vec::new(),
            unclean: false,
            touch: false,
            may_complete: true,
        }
    }

    fn min_for(&self, replication_factor: usize) -> usize {
        self.image.min_isr(self.topic).min(replication_factor)
    }

    /// Takes brokers that are fenced, and those whose log failed, out of the ISR. If that is every member it
    /// stays as it is: they are the candidates. Such a leader leads no more.
    pub fn drop_fenced(&mut self) {
        if taken_out("fenced-leave-the-isr") {
            return;
        }
        let serves = |&b: &BrokerId| self.image.serves(&self.new, b);
        let live: Vec<BrokerId> = self.new.isr.iter().copied().filter(serves).collect();
        let leads = self.new.leader.filter(serves);
        if !live.is_empty() {
            self.new.isr = live;
        }
        self.new.leader = leads;
    }

    /// Takes a replica out of service: its log failed, or must not be begun anew.
    pub fn retire(&mut self, broker: BrokerId) {
        if !self.new.offline.contains(&broker) {
            self.new.offline.push(broker);
        }
    }

    /// Ends what [`Self::retire`] began; tells whether there was something to end.
    pub fn recall(&mut self, broker: BrokerId) -> bool {
        let before = self.new.offline.len();
        self.new.offline.retain(|&b| b != broker);
        self.new.offline.len() < before
    }

    /// Takes out a broker that may have lost what it once confirmed, even as the last member of the
    /// ISR: if no one else is left, the longest log is found among all.
    pub fn lose(&mut self, broker: BrokerId) {
        let held = self.new.isr.contains(&broker) || self.new.elr.contains(&broker);
        if self.new.isr == [broker] && taken_out("the-last-member-is-judged-too") {
            return;
        }
        self.new.isr.retain(|&b| b != broker);
        self.new.elr.retain(|&b| b != broker);
        if held {
            self.lost.push(broker);
            if !self.new.lossy.contains(&broker) {
                self.new.lossy.push(broker);
            }
        }
        if self.new.leader == Some(broker) {
            self.new.leader = None;
        }
    }

    /// Finds a leader if there is none: the first eligible of the ISR in assignment order, else of the ELR,
    /// else, where the topic allows it, of all replicas.
    pub fn elect(&mut self) {
        if self.new.leader.is_some() {
            return;
        }
        let isr = if taken_out("leader-from-the-isr") {
            &self.new.replicas
        } else {
            &self.new.isr
        };
        if let Some(leader) = self.first(isr, |_| false) {
            self.new.leader = Some(leader);
            self.drop_fenced();
        } else if let Some(leader) = self.first(&self.new.elr, |_| false) {
            self.new.leader = Some(leader);
            self.new.isr = vec![leader];
        } else if self.image.unclean_election_allowed(self.topic)
            && let Some(leader) = self.first(&self.new.replicas, |_| false)
        {
            self.elect_unclean(leader);
        }
    }

    /// Makes `leader` lead although committed records may be missing from its log.
    pub fn elect_unclean(&mut self, leader: BrokerId) {
        self.new.leader = Some(leader);
        self.new.isr = vec![leader];
        self.new.recovering = true;
        self.unclean = true;
    }

    /// Hands leadership to the first eligible member of the ISR other than those in `avoid`. False if
    /// there is none; then all stays as it is.
    pub fn move_leader_off(&mut self, avoid: impl Fn(BrokerId) -> bool) -> bool {
        let next = self.first(&self.new.isr, avoid);
        if let Some(next) = next {
            self.new.leader = Some(next);
        }
        next.is_some()
    }

    /// The first in assignment order that is in `among` and may lead; a broker that is being drained only
    /// if there is no other.
    fn first(&self, among: &[BrokerId], avoid: impl Fn(BrokerId) -> bool) -> Option<BrokerId> {
        let cordoned = |b: BrokerId| self.image.broker(b).is_some_and(|b| b.cordoned);
        let fit =
            |b: BrokerId| among.contains(&b) && self.image.may_lead(&self.new, b) && !avoid(b);
        let all = self.new.replicas.iter().copied().filter(|&b| fit(b));
        all.min_by_key(|&b| cordoned(b))
    }

    /// Takes a broker that is about to end out of leadership and ISR, if another can carry on.
    pub fn release(&mut self, broker: BrokerId) {
        let other = |&b: &BrokerId| b != broker && self.image.may_lead(&self.new, b);
        if !self.new.isr.contains(&broker) || !self.new.isr.iter().any(other) {
            return;
        }
        if self.new.leader == Some(broker) && !self.move_leader_off(|b| b == broker) {
            return;
        }
        self.new.isr.retain(|&b| b != broker);
    }

    /// Begins a reassignment to `target`, or changes the one under way. The former replicas stay until
    /// all new ones are in sync.
    pub fn set_target(&mut self, target: &[BrokerId], draining: bool) {
        let original: Vec<BrokerId> = without(&self.new.replicas, &self.new.adding);
        let mut replicas = target.to_vec();
        replicas.extend(without(&self.new.replicas, target));
        self.new.removing = without(&replicas, target);
        self.new.adding = without(&replicas, &original);
        self.new.replicas = replicas;
        self.new.draining = draining;
        self.new.balancing = false;
    }

    /// Calls off the reassignment under way. A move of the controller's own put each newcomer in the place of
    /// the one that it stands in for, so that one gets its place back, and with it its turn to lead.
    pub fn cancel_reassignment(&mut self) {
        let p = &self.new;
        let original = without(&p.replicas, &p.adding);
        let mut back = original.clone();
        if p.draining || p.balancing {
            let mut leaving = original.iter().filter(|b| p.removing.contains(b));
            let target = without(&p.replicas, &p.removing);
            let place = |b: &BrokerId| {
                if p.adding.contains(b) {
                    leaving.next().copied()
                } else {
                    Some(*b)
                }
            };
            back = target.iter().filter_map(place).collect();
            back.extend(without(&original, &back));
        }
        self.set_target(&back, false);
    }

    /// Ends a reassignment once all new replicas are in sync and the ISR is large enough without those
    /// that go. Nobody of ISR or ELR goes while the ISR is below the effective minimum.
    fn complete_reassignment(&mut self) {
        if !self.new.is_reassigning() {
            return;
        }
        self.settle_elr();
        let p = &self.new;
        let target = without(&p.replicas, &p.removing);
        let waits_its_turn = (p.draining || p.balancing) && !self.may_complete;
        if !has_all_newcomers(p) || waits_its_turn {
            return;
        }
        let isr = without(&p.isr, &p.removing);
        let safe = |b: &BrokerId| p.isr.contains(b) || p.elr.contains(b);
        if p.removing.iter().any(safe) {
            let enough_now = p.isr.len() >= self.min_for(p.replication_factor());
            let enough_then = !isr.is_empty() && isr.len() >= self.min_for(target.len());
            if !enough_now || !enough_then {
                return;
            }
        }
        let leaves = |b: BrokerId| p.removing.contains(&b);
        if p.leader.is_some_and(leaves) {
            let next = |b: &&BrokerId| isr.contains(b) && self.image.may_lead(p, **b);
            let Some(&next) = target.iter().find(next) else {
                return;
            };
            self.new.leader = Some(next);
        }
        self.new.isr = isr;
        self.new.elr.retain(|b| target.contains(b));
        self.new.replicas = target;
        self.new.adding.clear();
        self.new.removing.clear();
        self.new.draining = false;
        self.new.balancing = false;
    }

    /// Whoever leaves the ISR while that is below the effective minimum still has every committed
    /// record: nothing is committed there any more. Above the minimum that no longer holds.
    fn settle_elr(&mut self) {
        let min = self.min_for(self.new.replication_factor());
        for &broker in &self.old.isr {
            let left = !self.new.isr.contains(&broker) && !self.new.elr.contains(&broker);
            if left && !self.lost.contains(&broker) && !taken_out("elr-is-kept") {
                self.new.elr.push(broker);
            }
        }
        let (isr, replicas) = (&self.new.isr, &self.new.replicas);
        self.new
            .elr
            .retain(|b| !isr.contains(b) && replicas.contains(b));
        if (self.new.isr.len() >= min && !taken_out("elr-is-emptied-at-the-minimum"))
            || self.unclean
        {
            self.new.elr.clear();
        }
    }

    /// The change that this edit amounts to; `None` if it is none.
    pub fn finish(mut self, partition: i32) -> Option<PartitionChange> {
        self.complete_reassignment();
        self.settle_elr();
        // Whoever is in sync again, or the longest of all logs, makes up for what was lost.
        let (isr, replicas) = (&self.new.isr, &self.new.replicas);
        self.new
            .lossy
            .retain(|b| !isr.contains(b) && replicas.contains(b));
        if self.unclean {
            self.new.lossy.clear();
        }
        self.new.offline.retain(|b| replicas.contains(b));
        let min = self.min_for(self.new.replication_factor());
        if self.old.recovering && !self.unclean && self.new.isr.len() >= min {
            self.new.recovering = false;
        }
        let (old, new) = (self.old, self.new);
        if *old == new && !self.touch {
            return None;
        }
        let removed = old.replicas.iter().any(|b| !new.replicas.contains(b));
        let bump =
            (old.leader != new.leader && !taken_out("leader-change-raises-epoch")) || removed;
        fn changed<T: PartialEq>(old: &T, new: T) -> Option<T> {
            (*old != new).then_some(new)
        }
        Some(PartitionChange {
            topic: self.topic.id,
            partition,
            partition_epoch: old.partition_epoch.next(),
            leader_epoch: bump.then(|| old.leader_epoch.next()),
            leader: changed(&old.leader, new.leader),
            isr: changed(&old.isr, new.isr),
            elr: changed(&old.elr, new.elr),
            lossy: changed(&old.lossy, new.lossy),
            offline: changed(&old.offline, new.offline),
            replicas: changed(&old.replicas, new.replicas),
            adding: changed(&old.adding, new.adding),
            removing: changed(&old.removing, new.removing),
            draining: changed(&old.draining, new.draining),
            balancing: changed(&old.balancing, new.balancing),
            recovering: changed(&old.recovering, new.recovering),
        })
    }
}

/// Whether replicas move, and all new ones are in sync.
pub(super) fn has_all_newcomers(p: &Partition) -> bool {
    let awaited = without(&p.adding, &p.removing);
    p.is_reassigning() && awaited.iter().all(|b| p.isr.contains(b))
}

/// The members of `from` that are not in `minus`, in order.
pub(super) fn without(from: &[BrokerId], minus: &[BrokerId]) -> Vec<BrokerId> {
    from.iter()
        .copied()
        .filter(|b| !minus.contains(b))
        .collect()
}
