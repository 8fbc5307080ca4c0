//! One step: dispatch, housekeeping, and the one way in which records come about.

use super::edit::has_all_newcomers;
use super::{At, Controller, Edit, Effect, Event, Input, Millis, Output, PartitionName};
use crate::features::METADATA_VERSION;
use crate::image::Partition;
use crate::records::{PartitionChange, Record};
use crate::rpc::codes;
use leasehold_types::BrokerId;
use std::sync::Arc;

impl Controller {
    /// Decides.
    pub fn step(&mut self, input: Input, now: Millis) -> Output {
        self.clock.advance(now);
        self.out = Output {
            can_wait: true,
            ..Output::default()
        };
        if let Input::Freeze { reason } = input {
            self.freeze(reason);
        } else if let Some(reason) = self.frozen.clone() {
            self.refuse_all(input, &format!("the controller is frozen: {reason}"));
        } else if self.resigned {
            self.refuse_all(input, "this controller has resigned");
        } else {
            if !self.started {
                self.started = true;
                self.take_over();
            }
            self.dispatch(input, now);
            self.expire_sessions();
            self.housekeep();
        }
        let mut out = std::mem::take(&mut self.out);
        out.can_wait &= !out.records.is_empty();
        out
    }

    fn dispatch(&mut self, input: Input, now: Millis) {
        match input {
            Input::Tick | Input::Freeze { .. } => {}
            Input::Register { to, registration } => self.register(to, *registration),
            Input::Poll { to, poll } => self.poll(to, poll),
            Input::SessionEvidence {
                broker,
                incarnation,
                evidence,
            } => self.session_evidence(broker, incarnation, &evidence),
            Input::Goodbye {
                to,
                broker,
                incarnation,
            } => self.goodbye(to, broker, incarnation),
            Input::AlterPartition { to, request } => self.alter_partition(to, &request),
            Input::AllocateProducerIds {
                to,
                broker,
                incarnation,
            } => self.allocate_producer_ids(to, broker, incarnation),
            Input::Admin {
                to,
                request,
                deadline,
            } => {
                if now >= deadline {
                    let message = "the request's deadline passed before it could be applied";
                    self.refuse(to, codes::REQUEST_TIMED_OUT, message);
                } else {
                    self.admin(to, request);
                    if !self.out.records.is_empty() {
                        self.out.write_before = Some(deadline);
                    }
                }
            }
        }
    }

    /// What an earlier controller may have left undone, and what this one's file says otherwise.
    fn take_over(&mut self) {
        self.begin_at_the_newest_level();
        #[cfg(feature = "next-release")]
        self.write_what_is_new();
        self.sync_static_configs();
        let leaderless: Vec<At> = self.index.leaderless.iter().copied().collect();
        for at in leaderless {
            self.change(at, "a new controller took over", |edit| edit.elect());
        }
    }

    /// What time alone brings about.
    fn housekeep(&mut self) {
        if self.resigned {
            return;
        }
        let due = self.clock.run() >= self.housekeeping_due;
        if due {
            self.housekeeping_due = self.clock.run() + 1_000;
            self.find_longest_logs();
        }
        let paced = self.pace.is_over(self.clock.run());
        if due || paced {
            self.complete_moves();
        }
        if due || paced || self.drain_wanted {
            self.drain();
        }
        if due || self.balance.wanted {
            self.balance();
        }
        if self.clock.run() >= self.preferred_due {
            self.restore_preferred_leaders();
        }
    }

    fn freeze(&mut self, reason: String) {
        if self.frozen.is_none() {
            self.event(Event::Frozen {
                reason: reason.clone(),
            });
            self.frozen = Some(reason);
        }
    }

    fn refuse_all(&mut self, input: Input, message: &str) {
        match input {
            Input::Register { to, .. }
            | Input::Goodbye { to, .. }
            | Input::AlterPartition { to, .. }
            | Input::AllocateProducerIds { to, .. }
            | Input::Admin { to, .. } => self.refuse(to, codes::REQUEST_TIMED_OUT, message),
            // Polls are answered by the driver, with the reason beside.
            Input::Poll { .. }
            | Input::Tick
            | Input::SessionEvidence { .. }
            | Input::Freeze { .. } => {}
        }
    }

    /// Decides a record: the image has it from now on.
    pub(super) fn emit(&mut self, record: Record) {
        let in_force = match &record {
            // It was judged by what every broker supports.
            Record::FeatureLevel { name, level } if name == METADATA_VERSION => *level,
            _ => self.image.metadata_level(),
        };
        if record.needs() > in_force {
            // Only a defect leads here: whoever decides asks for the level first.
            self.event(Event::Warning {
                message: format!(
                    "a decision was dropped, since it needs level {} and {in_force} is in force: {record:?}",
                    record.needs()
                ),
            });
            return;
        }
        let touched = match &record {
            Record::Partition {
                topic, partition, ..
            } => Some((*topic, *partition)),
            Record::PartitionChange(change) => Some((change.topic, change.partition)),
            _ => None,
        };
        if let Record::DeleteTopic { id } = &record
            && let Some(topic) = self.image.topic(id).cloned()
        {
            for (number, partition) in (0..).zip(&topic.partitions) {
                self.index.remove((*id, number), partition);
            }
        }
        let before = touched.and_then(|(t, p)| self.image.partition(&t, p).cloned());
        if let Err(error) = self.image.apply_record(&record, self.next_seq) {
            // Only a defect of this crate leads here; what does not fit is never written.
            self.event(Event::Warning {
                message: format!("a decision was dropped because it does not fit: {error}"),
            });
            return;
        }
        if let Some(at) = touched {
            if let Some(before) = before {
                self.index.remove(at, &before);
            }
            if let Some(after) = self.image.partition(&at.0, at.1) {
                self.index.add(at, after);
            }
        }
        self.out.can_wait = false;
        self.out.records.push(record);
    }

    /// Changes one partition and tells about it. False if nothing changed.
    pub(super) fn change(&mut self, at: At, why: &str, decide: impl FnOnce(&mut Edit<'_>)) -> bool {
        let Some(topic) = self.image.topic(&at.0).cloned() else {
            return false;
        };
        let Some(old) = topic.partition(at.1).cloned() else {
            return false;
        };
        let moves = old.draining || old.balancing;
        let mut edit = Edit::new(&self.image, &topic, &old);
        edit.may_complete = !moves || self.is_paced();
        decide(&mut edit);
        let unclean = edit.unclean;
        let Some(change) = edit.finish(at.1) else {
            return false;
        };
        let name = PartitionName {
            topic: topic.name.clone(),
            id: topic.id,
            partition: at.1,
        };
        drop(topic);
        self.emit(Record::PartitionChange(change.clone()));
        if let Some(new) = self.image.partition(&at.0, at.1).map(Arc::clone) {
            self.tell(name, &old, &new, &change, unclean, why);
            if moves && !new.is_reassigning() {
                self.count_change();
            } else if (new.draining || new.balancing) && has_all_newcomers(&new) {
                self.wait_for_the_pace();
            }
        }
        true
    }

    fn tell(
        &mut self,
        name: PartitionName,
        old: &Partition,
        new: &Partition,
        change: &PartitionChange,
        unclean: bool,
        why: &str,
    ) {
        let (leader_epoch, partition_epoch) = (new.leader_epoch, new.partition_epoch);
        let was = old.is_reassigning();
        let what = match (was, new.is_reassigning()) {
            (false, true) => Some("began"),
            (true, false) => Some("ended"),
            (true, true) if change.replicas.is_some() => Some("changed"),
            _ => None,
        };
        if let Some(what) = what {
            self.event(Event::Reassignment {
                partition: name.clone(),
                replicas: new.replicas.clone(),
                what: format!("{what}: {why}"),
            });
        }
        if change.leader.is_some() {
            self.event(Event::Leader {
                partition: name,
                leader: new.leader,
                leader_epoch,
                partition_epoch,
                isr: new.isr.clone(),
                unclean,
                reason: why.to_owned(),
            });
        } else if change.isr.is_some() || change.elr.is_some() {
            self.event(Event::Isr {
                partition: name,
                isr: new.isr.clone(),
                elr: new.elr.clone(),
                leader_epoch,
                partition_epoch,
            });
        }
    }

    /// Gives up the role for good.
    pub(super) fn resign(&mut self, reason: String, lost: std::collections::BTreeSet<BrokerId>) {
        self.resigned = true;
        self.out.effects.push(Effect::Resign { reason, lost });
    }
}
