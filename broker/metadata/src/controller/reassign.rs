//! Moving replicas: reassignments on request, and other replication factors.

use super::{At, Controller};
use crate::assign::{self, Candidate};
use crate::image::Partition;
use crate::rpc::{Outcome, Reassignment, codes};
use leasehold_types::BrokerId;
use std::collections::BTreeSet;

impl Controller {
    /// Every registered broker that may get something new, as the assignment sees it. Those that are not
    /// alive are among them only if there are fewer than `factor` others.
    pub(super) fn candidates(&self, factor: usize) -> Vec<Candidate> {
        let open = |b: &&std::sync::Arc<crate::image::Broker>| !b.cordoned;
        let of = |b: &crate::image::Broker| Candidate {
            id: b.id,
            rack: b.rack.clone(),
            can_lead: b.is_eligible(),
            replicas: self.index.replicas(b.id),
            leaders: self.index.leaders(b.id),
        };
        let all: Vec<Candidate> = self
            .image
            .brokers
            .values()
            .filter(open)
            .map(|b| of(b))
            .collect();
        let live: Vec<Candidate> = all.iter().filter(|c| c.can_lead).cloned().collect();
        if live.len() >= factor { live } else { all }
    }

    /// Whether `replicas` can hold a partition.
    pub(super) fn check_replicas(&self, replicas: &[BrokerId]) -> Result<(), String> {
        if replicas.is_empty() {
            return Err("the list of replicas is empty".to_owned());
        }
        let distinct: BTreeSet<_> = replicas.iter().collect();
        if distinct.len() != replicas.len() {
            return Err(format!("{} names a broker twice", list(replicas)));
        }
        for &id in replicas {
            if self.image.broker(id).is_none() {
                return Err(format!("broker {id} is not registered"));
            }
        }
        Ok(())
    }

    pub(super) fn reassign(&mut self, item: &Reassignment, may_resize: bool) -> Outcome {
        let found = self.image.topic_by_name(&item.topic).cloned();
        let partition = found.as_ref().and_then(|t| t.partition(item.partition));
        let (Some(topic), Some(p)) = (&found, partition) else {
            let message = format!("partition {}-{} does not exist", item.topic, item.partition);
            return Outcome::refused(codes::UNKNOWN_TOPIC_OR_PARTITION, message);
        };
        let at: At = (topic.id, item.partition);
        let Some(target) = &item.replicas else {
            if !p.is_reassigning() {
                let message = "no reassignment is in progress";
                return Outcome::refused(codes::NO_REASSIGNMENT_IN_PROGRESS, message);
            }
            self.change(at, "the reassignment was called off", |edit| {
                edit.cancel_reassignment()
            });
            return Outcome::ok();
        };
        let cordoned = |b: &&BrokerId| {
            !p.replicas.contains(b) && self.image.broker(**b).is_some_and(|b| b.cordoned)
        };
        let checked =
            self.check_replicas(target)
                .and_then(|()| match target.iter().find(cordoned) {
                    Some(id) => Err(format!("broker {id} is being drained and gets nothing new")),
                    None if !may_resize && target.len() != p.replication_factor() => Err(format!(
                        "the number of replicas would change from {} to {}",
                        p.replication_factor(),
                        target.len()
                    )),
                    None => Ok(()),
                });
        if let Err(message) = checked {
            let code = codes::INVALID_REPLICA_ASSIGNMENT;
            return Outcome::refused(
                code,
                format!("{}-{}: {message}", item.topic, item.partition),
            );
        }
        self.change(at, "an administrator asked for it", |edit| {
            edit.set_target(target, false)
        });
        Outcome::ok()
    }

    /// Gives every partition of a topic `factor` replicas, changing as little as possible.
    pub(super) fn set_replication_factor(&mut self, name: &str, factor: i16) -> Outcome {
        let Some(topic) = self.image.topic_by_name(name).cloned() else {
            let message = format!("topic {name} does not exist");
            return Outcome::refused(codes::UNKNOWN_TOPIC_OR_PARTITION, message);
        };
        let wanted = match usize::try_from(factor) {
            Ok(wanted) if wanted > 0 => wanted,
            _ => {
                let message = format!("the replication factor must be larger than 0, not {factor}");
                return Outcome::refused(codes::INVALID_REPLICATION_FACTOR, message);
            }
        };
        let there = self.candidates(wanted).len();
        if there < wanted {
            return Outcome::refused(
                codes::INVALID_REPLICATION_FACTOR,
                unreachable(wanted, there),
            );
        }
        for (number, p) in (0..).zip(&topic.partitions) {
            let target = self.resized(p, assign::seed_of(&topic.id) ^ number as u64, wanted);
            let current: Vec<BrokerId> = super::edit::without(&p.replicas, &p.removing);
            if target != current {
                let why = format!("the replication factor becomes {wanted}");
                self.change((topic.id, number), &why, |edit| {
                    edit.set_target(&target, false)
                });
            }
        }
        Outcome::ok()
    }

    /// The best of `candidates` to join `holders`; the holders' racks count although they are not alive.
    pub(super) fn pick(
        &self,
        mut candidates: Vec<Candidate>,
        seed: u64,
        holders: &[BrokerId],
    ) -> Option<BrokerId> {
        for &id in holders {
            if let Some(broker) = self.image.broker(id)
                && !candidates.iter().any(|c| c.id == id)
            {
                candidates.push(Candidate {
                    id,
                    rack: broker.rack.clone(),
                    can_lead: false,
                    replicas: 0,
                    leaders: 0,
                });
            }
        }
        assign::pick(&candidates, seed, holders)
    }

    fn resized(&self, p: &Partition, seed: u64, wanted: usize) -> Vec<BrokerId> {
        let mut target = super::edit::without(&p.replicas, &p.removing);
        while target.len() > wanted {
            let rack = |id: BrokerId| self.image.broker(id).and_then(|b| b.rack.clone());
            let worst = (0..target.len()).max_by_key(|&i| {
                let id = target[i];
                let shared = target
                    .iter()
                    .any(|&o| o != id && rack(o).is_some() && rack(o) == rack(id));
                let (leads, synced) = (p.leader == Some(id), p.isr.contains(&id));
                (!leads, !synced, shared, self.index.replicas(id), i)
            });
            match worst {
                Some(index) => drop(target.remove(index)),
                None => break,
            }
        }
        while target.len() < wanted {
            match self.pick(self.candidates(wanted), seed, &target) {
                Some(next) => target.push(next),
                None => break,
            }
        }
        target
    }
}

pub(super) fn unreachable(factor: usize, there: usize) -> String {
    format!(
        "Unable to replicate the partition {factor} time(s): The target replication factor of {factor} cannot be reached because only {there} broker(s) are registered."
    )
}

pub(super) fn list(brokers: &[BrokerId]) -> String {
    let ids: Vec<String> = brokers.iter().map(|b| b.to_string()).collect();
    ids.join(",")
}
