//! The join phase: how a rebalance begins, how long it waits, and how it ends.

use super::effects::{Effects, GroupTimer, Limits, Now, Then};
use super::group::{Group, InitialDelay, State};
use super::member::Member;
use leasehold_types::seams::taken_out;
use leasehold_wire::ErrorCode;
use std::sync::Arc;

impl Group {
    /// Something about the members changed: begin a rebalance, or end the one that runs.
    pub(super) fn rebalance_or_complete(&mut self, limits: &Limits, now: Now, fx: &mut Effects) {
        match self.state {
            State::Empty | State::CompletingRebalance | State::Stable => {
                self.prepare_rebalance(limits, now, fx);
            }
            State::PreparingRebalance | State::Dead => self.complete_join_if_all_joined(now, fx),
        }
    }

    pub(super) fn prepare_rebalance(&mut self, limits: &Limits, now: Now, fx: &mut Effects) {
        if self.state == State::CompletingRebalance {
            self.drop_assignment(ErrorCode::RebalanceInProgress, now, fx);
        }
        self.pending_sync.clear();
        fx.cancel(GroupTimer::Sync(self.generation));
        let was_empty = self.state == State::Empty;
        self.enter(State::PreparingRebalance, now);
        if was_empty {
            let delay_ms = limits.initial_rebalance_delay_ms;
            self.initial = Some(InitialDelay {
                delay_ms,
                remaining_ms: self.rebalance_timeout_ms().saturating_sub(delay_ms),
                member_added: false,
            });
            fx.set(GroupTimer::Join, now.mono + delay_ms);
        } else if self.all_joined() {
            self.complete_join(now, fx);
        } else {
            fx.set(GroupTimer::Join, now.mono + self.rebalance_timeout_ms());
        }
    }

    /// Ends the join phase early. The first one after Empty is ended by its timer alone.
    pub(super) fn complete_join_if_all_joined(&mut self, now: Now, fx: &mut Effects) {
        if self.state == State::PreparingRebalance && self.initial.is_none() && self.all_joined() {
            self.complete_join(now, fx);
        }
    }

    /// The join timer is due.
    pub(super) fn join_due(&mut self, limits: &Limits, now: Now, fx: &mut Effects) {
        if self.state != State::PreparingRebalance || taken_out("a-rebalance-ends-in-time") {
            return;
        }
        match &mut self.initial {
            Some(initial) if initial.member_added && initial.remaining_ms > 0 => {
                let passed = initial.delay_ms;
                initial.member_added = false;
                initial.delay_ms = limits.initial_rebalance_delay_ms.min(initial.remaining_ms);
                initial.remaining_ms = initial.remaining_ms.saturating_sub(passed);
                fx.set(GroupTimer::Join, now.mono + initial.delay_ms);
            }
            _ => self.complete_join(now, fx),
        }
    }

    /// Ends the join phase: those who did not come are out, the others get a new generation.
    fn complete_join(&mut self, now: Now, fx: &mut Effects) {
        fx.cancel(GroupTimer::Join);
        // Static members keep their place until their session ends.
        let absent = |m: &Member| m.awaiting_join.is_none() && m.instance.is_none();
        for id in self.ids(absent) {
            tracing::info!(group = %self.id, member = %id, "removed: it did not join the rebalance in time");
            self.remove(&id, ErrorCode::UnknownMemberId, fx);
        }
        if !self.members.is_empty() && !self.elect_joined_leader() {
            // Only absent static members: wait for one of them, or for their sessions to end.
            fx.set(
                GroupTimer::Join,
                now.mono + self.rebalance_timeout_ms().max(1),
            );
            return;
        }
        self.initial = None;
        self.generation +=
            i32::from(self.generation < i32::MAX && !taken_out("a-rebalance-is-a-generation"));
        self.protocol = self.select_protocol();
        self.subscribed = self.compute_subscribed();
        self.pending_sync.clear();
        if self.members.is_empty() {
            self.leader = None;
            self.enter(State::Empty, now);
            tracing::info!(group = %self.id, generation = self.generation, "the group is empty");
            fx.writes.push((self.to_value(None), Then::Nothing));
            return;
        }
        self.enter(State::CompletingRebalance, now);
        tracing::info!(
            group = %self.id,
            generation = self.generation,
            members = self.members.len(),
            protocol = self.protocol().unwrap_or_default(),
            leader = self.leader().unwrap_or_default(),
            "the members have joined"
        );
        for id in self.ids(|_| true) {
            let response = self.joined(&id, self.is_leader(&id));
            self.answer_join(&id, response, fx);
            self.renew_session(&id, now, fx);
            if let Some(member) = self.members.get_mut(&id) {
                member.is_new = false;
            }
            self.pending_sync.insert(id);
        }
        let at = now.mono + self.rebalance_timeout_ms();
        fx.set(GroupTimer::Sync(self.generation), at);
    }

    /// Keeps the leader if it joined, else takes the first who did. `false` if nobody did.
    fn elect_joined_leader(&mut self) -> bool {
        let joined = |m: &Member| m.awaiting_join.is_some();
        if self
            .leader()
            .and_then(|leader| self.members.get(leader))
            .is_some_and(joined)
        {
            return true;
        }
        match self.members.values().find(|m| joined(m)) {
            Some(member) => {
                self.leader = Some(member.id.clone());
                true
            }
            None => false,
        }
    }

    pub(super) fn ids(&self, which: impl Fn(&Member) -> bool) -> Vec<Arc<str>> {
        let chosen = self.members.values().filter(|member| which(member));
        chosen.map(|member| member.id.clone()).collect()
    }
}
