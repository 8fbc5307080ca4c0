//! AlterPartition: a leader's wish for another ISR, checked in Kafka's order.

use super::{At, Controller, ReplyTo};
use crate::image::{Image, Partition, Topic};
use crate::rpc::{AlterPartition, IsrProposal, IsrVerdict, Outcome, Response, codes};
use leasehold_types::BrokerId;
use leasehold_types::seams::taken_out;
use std::collections::BTreeSet;

/// What is to be done with a proposal.
enum Verdict {
    Commit,
    /// A retry of what is committed already.
    Applied,
    Refused(Outcome),
}

impl Controller {
    pub(super) fn alter_partition(&mut self, to: ReplyTo, request: &AlterPartition) {
        let sender = request.broker;
        if self
            .image
            .broker(sender)
            .is_none_or(|b| b.incarnation != request.incarnation)
        {
            let message = format!(
                "broker {sender} is not registered as incarnation {}",
                request.incarnation
            );
            return self.refuse(to, codes::STALE_BROKER_EPOCH, message);
        }
        let mut may_wait = self.out.records.is_empty();
        let mut verdicts = Vec::new();
        for proposal in &request.proposals {
            let outcome = match judge(&self.image, sender, proposal) {
                Verdict::Applied => Outcome::ok(),
                Verdict::Refused(outcome) => outcome,
                Verdict::Commit => {
                    may_wait &= self.commit_isr(sender, proposal);
                    Outcome::ok()
                }
            };
            verdicts.push(IsrVerdict {
                topic: proposal.topic,
                partition: proposal.partition,
                outcome,
            });
        }
        self.reply(to, Response::AlterPartition(verdicts));
        self.out.can_wait = may_wait;
    }

    /// Commits a proposal that was judged. True if that may wait for company: it only adds to an
    /// ISR with which producers are served already.
    fn commit_isr(&mut self, leader: BrokerId, proposal: &IsrProposal) -> bool {
        let at: At = (proposal.topic, proposal.partition);
        let isr: Vec<BrokerId> = proposal.isr.iter().map(|(id, _)| *id).collect();
        let mut may_wait = false;
        let why = format!("its leader {leader} proposed another ISR");
        let draining = self.index.draining.contains(&at);
        let balancing = self.index.balancing.contains(&at);
        self.change(at, &why, |edit| {
            let old = edit.old;
            let enough = edit.image.effective_min_isr(edit.topic, old);
            let grows = old.isr.iter().all(|b| isr.contains(b)) && isr.len() > old.isr.len();
            may_wait = grows && old.isr.len() >= enough && !old.is_reassigning();
            edit.touch = true;
            edit.new.isr = isr;
            if edit.image.broker(leader).is_some_and(|b| b.shutting_down) {
                may_wait = false;
                edit.release(leader);
            }
        });
        // A move that ended makes room for the next.
        self.drain_wanted |= draining && !self.index.draining.contains(&at);
        self.balance.wanted |= balancing && !self.index.balancing.contains(&at);
        may_wait
    }
}

fn judge(image: &Image, sender: BrokerId, proposal: &IsrProposal) -> Verdict {
    let Some(topic) = image.topic(&proposal.topic) else {
        let message = format!("topic {} does not exist", proposal.topic);
        return Verdict::Refused(Outcome::refused(codes::UNKNOWN_TOPIC_ID, message));
    };
    let Some(partition) = topic.partition(proposal.partition) else {
        let message = format!(
            "topic {} has no partition {}",
            topic.name, proposal.partition
        );
        return Verdict::Refused(Outcome::refused(codes::UNKNOWN_TOPIC_OR_PARTITION, message));
    };
    match check(image, topic, partition, sender, proposal) {
        Ok(true) => Verdict::Applied,
        Ok(false) => Verdict::Commit,
        Err((code, message)) => Verdict::Refused(Outcome::refused(code, message)),
    }
}

/// The checks, in their order; `Ok(true)` for an identical state that is committed already.
fn check(
    image: &Image,
    topic: &Topic,
    p: &Partition,
    sender: BrokerId,
    proposal: &IsrProposal,
) -> Result<bool, (i16, String)> {
    let name = format!("{}-{}", topic.name, proposal.partition);
    let (le, pe) = (proposal.leader_epoch, proposal.partition_epoch);
    if le > p.leader_epoch || pe > p.partition_epoch {
        let message = format!(
            "{name}: epochs ({le}, {pe}) are ahead of this controller's ({}, {}): it has been replaced",
            p.leader_epoch, p.partition_epoch
        );
        return Err((codes::NOT_CONTROLLER, message));
    }
    if le < p.leader_epoch {
        let message = format!(
            "{name}: leader epoch {le} is over, {} is in force",
            p.leader_epoch
        );
        return Err((codes::FENCED_LEADER_EPOCH, message));
    }
    if p.leader != Some(sender) {
        let message = format!("{name}: broker {sender} is not its leader");
        return Err((codes::INVALID_REQUEST, message));
    }
    let ids: BTreeSet<BrokerId> = proposal.isr.iter().map(|(id, _)| *id).collect();
    let right_incarnations = proposal.isr.iter().all(|(id, incarnation)| {
        image
            .broker(*id)
            .is_some_and(|b| b.incarnation == *incarnation)
    });
    let committed: BTreeSet<BrokerId> = p.isr.iter().copied().collect();
    if pe < p.partition_epoch && !taken_out("isr-partition-epoch") {
        if ids == committed && ids.len() == proposal.isr.len() && right_incarnations {
            return Ok(true);
        }
        let message = format!(
            "{name}: partition epoch {pe} is over, {} is in force",
            p.partition_epoch
        );
        return Err((codes::INVALID_UPDATE_VERSION, message));
    }
    let subset = ids.iter().all(|id| p.replicas.contains(id));
    if !subset || ids.len() != proposal.isr.len() || !ids.contains(&sender) {
        let message = format!(
            "{name}: an ISR holds its leader and, once each, replicas of {:?}",
            p.replicas
        );
        return Err((codes::INVALID_REQUEST, message));
    }
    for (id, incarnation) in &proposal.isr {
        if p.is_offline(*id) {
            let message = format!(
                "{name}: the log of broker {id} failed; it is out until that broker restarts"
            );
            return Err((codes::INELIGIBLE_REPLICA, message));
        }
        let fit = image.broker(*id).is_some_and(|b| {
            // Who is about to end may stay (it is being moved off), but not join.
            let joins_to_leave = b.shutting_down && !committed.contains(id);
            (b.incarnation == *incarnation || taken_out("isr-member-incarnation"))
                && (!b.fenced || taken_out("isr-member-unfenced"))
                && !joins_to_leave
        });
        if !fit {
            let message = format!(
                "{name}: broker {id} is fenced, shutting down, or not incarnation {incarnation}"
            );
            return Err((codes::INELIGIBLE_REPLICA, message));
        }
    }
    Ok(false)
}
