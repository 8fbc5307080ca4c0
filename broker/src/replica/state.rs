//! One replica's role, and how it changes: pure.
//!
//! Promises: a waiting acknowledgement is answered by the leadership that took it or fails with it;
//! a broker leads only after it has prepared its log for that very epoch; who has heard of a newer
//! leader epoch serves no older one again.

use super::acks::AckQueue;
use super::leader::Leader;
use super::view::View;
use leasehold_types::seams::taken_out;
use leasehold_types::{BrokerId, LeaderEpoch, Offset};
use std::sync::Arc;
use std::time::Instant;

/// What this broker is for a partition.
#[derive(Clone, Debug, Hash)]
pub enum Role<T> {
    /// The image has not said yet, or there is no leader that we may believe in.
    Idle,
    /// Elected; the epoch is being written to the log before anything is served.
    Preparing(LeaderEpoch),
    /// Serves the partition in one leader epoch.
    Leading {
        leader: Box<Leader>,
        acks: AckQueue<T>,
    },
    /// Copies the leader, if there is one.
    Following {
        leader: Option<BrokerId>,
        epoch: LeaderEpoch,
    },
    /// Its storage failed; the reason is for people.
    Offline(String),
}

/// One replica of a partition.
#[derive(Clone, Debug, Hash)]
pub struct Replica<T> {
    me: BrokerId,
    view: Option<Arc<View>>,
    role: Role<T>,
    high_watermark: Offset,
    log_end: Offset,
    heard: LeaderEpoch,
}

/// What a transition asks of the shell.
#[derive(Debug)]
pub struct Change<T> {
    /// Acknowledgements whose leadership ended.
    pub failed: Vec<T>,
    /// Acknowledgements whose records are committed.
    pub committed: Vec<T>,
    /// Write this epoch to the log and call [`Replica::begun`].
    pub prepare: Option<LeaderEpoch>,
    /// Readers may see more than before.
    pub moved: bool,
    /// The role or the leader's epoch is another one.
    pub role_changed: bool,
}

impl<T> Default for Change<T> {
    fn default() -> Self {
        Self {
            failed: Vec::new(),
            committed: Vec::new(),
            prepare: None,
            moved: false,
            role_changed: false,
        }
    }
}

impl<T> Replica<T> {
    /// A replica that knows its log but not yet its role.
    pub fn new(me: BrokerId, high_watermark: Offset, log_end: Offset) -> Self {
        Self {
            me,
            view: None,
            role: Role::Idle,
            high_watermark: high_watermark.min(log_end),
            log_end,
            heard: LeaderEpoch::NONE,
        }
    }

    /// Its log is open, ends at `log_end` and has seen `last_epoch`. Below that epoch it neither
    /// leads nor follows: metadata that names an older one was put back to an earlier state.
    pub fn opened(&mut self, high_watermark: Offset, log_end: Offset, last_epoch: LeaderEpoch) {
        self.high_watermark = high_watermark.min(log_end);
        self.log_end = log_end;
        self.heard = self.heard.max(last_epoch);
        if let Role::Following { leader, epoch } = &mut self.role
            && *epoch < self.heard
        {
            *leader = None;
        }
    }

    /// What it is now.
    pub fn role(&self) -> &Role<T> {
        &self.role
    }

    /// The newest word of the image.
    pub fn view(&self) -> Option<&Arc<View>> {
        self.view.as_ref()
    }

    /// The leadership, if this broker serves the partition.
    pub fn leader(&self) -> Option<&Leader> {
        match &self.role {
            Role::Leading { leader, .. } => Some(leader),
            _ => None,
        }
    }

    /// Like [`Self::leader`], to change it.
    pub fn leader_mut(&mut self) -> Option<&mut Leader> {
        match &mut self.role {
            Role::Leading { leader, .. } => Some(leader),
            _ => None,
        }
    }

    /// The first offset that is not known to be committed.
    pub fn high_watermark(&self) -> Offset {
        self.leader()
            .map_or(self.high_watermark, Leader::high_watermark)
    }

    /// The log's end, as far as writes have returned.
    pub fn log_end(&self) -> Offset {
        self.log_end
    }

    /// Acknowledgements that wait.
    pub fn acks_mut(&mut self) -> Option<&mut AckQueue<T>> {
        match &mut self.role {
            Role::Leading { acks, .. } => Some(acks),
            _ => None,
        }
    }

    /// Takes what a newer image says.
    pub fn observe(&mut self, view: Arc<View>, now: Instant) -> Change<T> {
        let mut change = Change::default();
        if self.view.as_ref().is_some_and(|known| {
            view.leader_epoch < known.leader_epoch || view.partition_epoch < known.partition_epoch
        }) {
            return change;
        }
        self.view = Some(view.clone());
        if matches!(self.role, Role::Offline(_)) {
            return change;
        }
        let epoch = view.leader_epoch;
        if view.leader != Some(self.me) {
            let same = matches!(&self.role, Role::Following { leader, epoch: e }
                if *leader == view.leader && *e == epoch);
            if !same {
                let leader = view.leader.filter(|_| epoch >= self.heard);
                self.take_role(Role::Following { leader, epoch }, &mut change);
            }
            return change;
        }
        match &mut self.role {
            Role::Leading { leader, acks } if leader.epoch() == epoch => {
                change.moved = leader.observe(view, now);
                change.committed = acks.committed(leader.high_watermark());
            }
            Role::Preparing(preparing) if *preparing == epoch => {}
            _ if epoch < self.heard => {}
            _ => {
                self.take_role(Role::Preparing(epoch), &mut change);
                change.prepare = Some(epoch);
            }
        }
        change
    }

    /// The log has the epoch's start on disk, and ends at `log_end`: leads, unless the image moved on.
    pub fn begun(
        &mut self,
        epoch: LeaderEpoch,
        (start, log_end): (Offset, Offset),
        now: Instant,
    ) -> bool {
        let Some(view) = self.view.clone() else {
            return false;
        };
        if !matches!(self.role, Role::Preparing(preparing) if preparing == epoch) {
            return false;
        }
        self.log_end = log_end;
        let bounds = (start, log_end);
        let leader = Leader::new(self.me, view, bounds, self.high_watermark, now);
        self.role = Role::Leading {
            leader: Box::new(leader),
            acks: AckQueue::default(),
        };
        true
    }

    /// The leader of `epoch` appended up to `log_end`; `waiter` waits until `last` is committed.
    /// Returns the waiter in `failed` if that leadership is over.
    pub fn appended(
        &mut self,
        epoch: LeaderEpoch,
        log_end: Offset,
        waiter: Option<(Offset, T)>,
    ) -> Change<T> {
        let mut change = Change::default();
        self.log_end = self.log_end.max(log_end);
        match &mut self.role {
            Role::Leading { leader, acks } if leader.epoch() == epoch => {
                if let Some((last, waiter)) = waiter {
                    acks.push(last, waiter);
                }
                change.moved = leader.appended(log_end);
                change.committed = acks.committed(leader.high_watermark());
            }
            _ => change.failed.extend(waiter.map(|(_, waiter)| waiter)),
        }
        change
    }

    /// Runs `count` on the leader of `epoch` and takes the acknowledgements that it set free.
    pub fn with_leader(
        &mut self,
        epoch: LeaderEpoch,
        count: impl FnOnce(&mut Leader) -> bool,
    ) -> Change<T> {
        let mut change = Change::default();
        if let Role::Leading { leader, acks } = &mut self.role
            && (leader.epoch() == epoch || taken_out("fetch-of-an-older-epoch"))
        {
            change.moved = count(leader);
            change.committed = acks.committed(leader.high_watermark());
        }
        change
    }

    /// Someone follows a newer epoch than ours: stop serving until the image catches up.
    pub fn heard(&mut self, epoch: LeaderEpoch) -> Change<T> {
        let mut change = Change::default();
        self.heard = self.heard.max(epoch);
        let ours = match &self.role {
            Role::Leading { leader, .. } => leader.epoch(),
            Role::Preparing(ours) => *ours,
            _ => return change,
        };
        if epoch > ours && !taken_out("a-newer-epoch-ends-serving") {
            self.take_role(Role::Idle, &mut change);
        }
        change
    }

    /// The follower's log ends at `log_end`, and its leader's high watermark is `high_watermark`.
    pub fn followed(&mut self, log_end: Offset, high_watermark: Offset) {
        self.log_end = log_end;
        self.high_watermark = self.high_watermark.max(high_watermark).min(log_end);
    }

    /// The log was cut to end at `log_end`.
    pub fn truncated(&mut self, log_end: Offset) {
        self.log_end = log_end;
        self.high_watermark = self.high_watermark.min(log_end);
    }

    /// The log was emptied and begins anew at `start`, below which the leader has nothing either:
    /// all of that is committed or gone.
    pub fn reset(&mut self, start: Offset) {
        self.log_end = start;
        self.high_watermark = start;
    }

    /// Storage failed, or the log refuses the image's epoch.
    pub fn fail(&mut self, reason: String) -> Change<T> {
        let mut change = Change::default();
        self.take_role(Role::Offline(reason), &mut change);
        change
    }

    /// This process or this replica is done with the partition.
    pub fn resign(&mut self) -> Change<T> {
        let mut change = Change::default();
        self.take_role(Role::Idle, &mut change);
        change
    }

    fn take_role(&mut self, role: Role<T>, change: &mut Change<T>) {
        if let Role::Leading { leader, acks } = &mut self.role {
            self.high_watermark = leader.high_watermark();
            change.failed = acks.drain();
        }
        self.role = role;
        change.role_changed = true;
    }
}
