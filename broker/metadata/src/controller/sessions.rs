//! Sessions: who is alive, as far as this controller can tell.
//!
//! A session is kept by polls and ends by silence, by a position that does not move, by evidence, or by a
//! goodbye; its end fences the broker. Time in which the controller itself did not run does not count.

use super::{At, Controller, Event, Millis, ReplyTo, Settings};
use crate::features::Level;
use crate::image::Listeners;
use crate::records::{BrokerChange, Record};
use crate::rpc::{Poll, Response, codes};
use leasehold_types::seams::taken_out;
use leasehold_types::{BrokerId, Incarnation, LeaderEpoch, Offset, Seq};
use std::collections::{BTreeMap, BTreeSet};

/// Counts the time in which this controller ran. Steps are due often; whatever lies between two of them
/// beyond a bound, the process was stopped, and nobody could have been heard.
pub(super) struct RunClock {
    last: Millis,
    run: u64,
    longest_gap: u64,
}

impl RunClock {
    pub fn new(now: Millis, settings: &Settings) -> Self {
        Self {
            last: now,
            run: 0,
            longest_gap: (settings.session_timeout_ms / 6).max(1),
        }
    }

    pub fn advance(&mut self, now: Millis) {
        self.run += now.since(self.last).min(self.longest_gap);
        self.last = self.last.max(now);
    }

    /// Milliseconds run so far.
    pub fn run(&self) -> u64 {
        self.run
    }
}

/// What is known of one broker that is believed alive.
pub(super) struct Session {
    pub incarnation: Incarnation,
    /// Whether it was heard by this very controller.
    pub seen: bool,
    /// When it was last heard (run clock).
    last_poll: u64,
    position: Option<Seq>,
    /// Since when its position has been behind without moving (run clock).
    behind_since: Option<u64>,
    /// What it must have applied before it is unfenced.
    must_reach: Seq,
    /// Since when it is unfenced (run clock).
    pub unfenced_at: u64,
    /// Ends of its logs, where they were asked for.
    pub log_ends: BTreeMap<At, (LeaderEpoch, Offset)>,
}

impl Session {
    /// A session that an earlier controller had, as far as the image tells.
    pub fn presumed(incarnation: Incarnation, committed: Seq) -> Self {
        Self::begun(incarnation, committed, 0, false)
    }

    pub fn begun(incarnation: Incarnation, committed: Seq, run: u64, seen: bool) -> Self {
        Self {
            incarnation,
            seen,
            last_poll: run,
            position: None,
            behind_since: None,
            must_reach: committed,
            unfenced_at: run,
            log_ends: BTreeMap::new(),
        }
    }

    fn hear(&mut self, position: Option<Seq>, committed: Seq, run: u64) {
        self.seen = true;
        self.last_poll = run;
        let moved = position > self.position;
        self.position = position;
        if position >= Some(committed) {
            self.behind_since = None;
        } else if moved || self.behind_since.is_none() {
            self.behind_since = Some(run);
        }
    }

    /// Why this session is over, if it is.
    fn verdict(&self, run: u64, timeout: u64) -> Option<String> {
        if run.saturating_sub(self.last_poll) >= timeout {
            return Some(format!("not heard for {timeout} ms"));
        }
        let since = self.behind_since?;
        (run.saturating_sub(since) >= timeout).then(|| {
            format!(
                "its metadata has not moved for {timeout} ms, from {:?}",
                self.position
            )
        })
    }
}

impl Controller {
    /// When `step(Input::Tick, ..)` is due at the latest.
    pub fn next_deadline(&self) -> Millis {
        let run = self.clock.run();
        let timeout = self.settings.session_timeout_ms;
        let mut wait = (timeout / 12).max(1);
        for session in self.sessions.values() {
            let first = session
                .behind_since
                .map_or(session.last_poll, |b| b.min(session.last_poll));
            wait = wait.min((first + timeout).saturating_sub(run).max(1));
        }
        if self.drain_wanted || self.balance.wanted {
            wait = wait.min(50);
        }
        if let Some(at) = self.pace.waits_until() {
            wait = wait.min(at.saturating_sub(run).max(1));
        }
        self.clock.last.plus(wait)
    }

    pub(super) fn poll(&mut self, to: ReplyTo, poll: Poll) {
        let id = poll.broker;
        let Some(broker) = self.image.broker(id).cloned() else {
            let message = format!("broker {id} is not registered: register first");
            return self.refuse(to, codes::BROKER_ID_NOT_REGISTERED, message);
        };
        if broker.incarnation != poll.incarnation || self.gone.get(&id) == Some(&poll.incarnation) {
            let message = format!(
                "broker {id} is registered as incarnation {}; incarnation {} was replaced or has said goodbye",
                broker.incarnation, poll.incarnation
            );
            return self.refuse(to, codes::STALE_BROKER_EPOCH, message);
        }
        let (run, committed) = (self.clock.run(), self.committed);
        let fresh = Session::begun(poll.incarnation, committed, run, true);
        let session = self.sessions.entry(id).or_insert(fresh);
        let position = poll.position.map(|p| p.seq);
        session.hear(position, committed, run);
        let caught_up = position >= Some(session.must_reach.max(broker.changed_at));
        let reports = !poll.state.log_ends.is_empty();
        if reports {
            let ends = poll.state.log_ends.iter();
            session.log_ends = ends
                .map(|e| ((e.topic, e.partition), (e.last_epoch, e.end_offset)))
                .collect();
        }
        for end in &poll.state.epochs_ahead {
            self.complain(id, (end.topic, end.partition), end.last_epoch);
        }
        // Before it may be unfenced, and lead them.
        self.replicas_failed(id, &poll.state.offline);
        let stays_out =
            !poll.state.offline.is_empty() && self.image.metadata_level() < Level::ADMINISTERED;
        if broker.fenced
            && !broker.shutting_down
            && !stays_out
            && (caught_up || taken_out("unfenced-when-caught-up"))
        {
            self.unfence(id);
        }
        if reports {
            self.find_longest_logs();
        }
        if poll.state.wants_shutdown && !broker.shutting_down {
            self.begin_shutdown(id);
        }
    }

    fn complain(&mut self, broker: BrokerId, at: At, epoch: LeaderEpoch) {
        if self.complained.insert((broker, at)) {
            self.event(Event::Warning {
                message: format!(
                    "broker {broker} holds epoch {epoch} of partition {}-{}, which is ahead of the metadata: was the metadata restored from a copy?",
                    at.0, at.1
                ),
            });
        }
    }

    pub(super) fn session_evidence(
        &mut self,
        broker: BrokerId,
        incarnation: Incarnation,
        evidence: &str,
    ) {
        let live = self
            .sessions
            .get(&broker)
            .is_some_and(|s| s.incarnation == incarnation);
        if live {
            let reason = format!("its connection is gone: {evidence}");
            self.end_sessions(BTreeMap::from([(broker, reason)]));
        }
    }

    /// Fences everyone whose session ran out.
    pub(super) fn expire_sessions(&mut self) {
        let (run, timeout) = (self.clock.run(), self.settings.session_timeout_ms);
        let over: BTreeMap<BrokerId, String> = self
            .sessions
            .iter()
            .filter_map(|(id, session)| Some((*id, session.verdict(run, timeout)?)))
            .collect();
        if !over.is_empty() {
            self.end_sessions(over);
        }
    }

    fn end_sessions(&mut self, over: BTreeMap<BrokerId, String>) {
        if self.resigned {
            return;
        }
        let lost = self.majority_lost(&over);
        if !lost.is_empty() {
            let reason = format!(
                "it would have to fence the majority: {over:?}; perhaps it is the one cut off"
            );
            return self.resign(reason, lost);
        }
        for id in over.keys() {
            self.sessions.remove(id);
            if self.image.is_live(*id) {
                self.lost.insert(*id, self.clock.run());
            }
        }
        self.fence(&over);
    }

    /// Not alone in the dark: those lost, if ending `over` would mean to have lost most of the
    /// brokers lately; empty if not, or if an earlier term resigned for the same loss.
    fn majority_lost(&self, over: &BTreeMap<BrokerId, String>) -> BTreeSet<BrokerId> {
        let (run, timeout) = (self.clock.run(), self.settings.session_timeout_ms);
        let recently = |since: u64| run.saturating_sub(since) < timeout;
        let mut population = BTreeSet::new();
        let mut lost = BTreeSet::new();
        for broker in self.image.brokers.values() {
            let id = broker.id;
            let fenced_lately = broker.fenced && self.lost.get(&id).is_some_and(|&s| recently(s));
            // Silent for long, though not yet for long enough to end the session.
            let silent = |s: &Session| run.saturating_sub(s.last_poll) >= timeout * 2 / 3;
            if !broker.fenced || fenced_lately {
                population.insert(id);
                let suspect = over.contains_key(&id) || self.sessions.get(&id).is_some_and(silent);
                if fenced_lately || suspect {
                    lost.insert(id);
                }
            }
        }
        let fences = over.keys().any(|id| self.image.is_live(*id));
        let majority = population.len() > 2 && lost.len() * 2 > population.len();
        if fences && majority && !lost.is_subset(&self.forgiven) {
            return lost;
        }
        BTreeSet::new()
    }

    pub(super) fn goodbye(&mut self, to: ReplyTo, broker: BrokerId, incarnation: Incarnation) {
        match self.image.broker(broker) {
            Some(known) if known.incarnation == incarnation => {
                self.sessions.remove(&broker);
                self.gone.insert(broker, incarnation);
                self.fence(&BTreeMap::from([(broker, "it said goodbye".to_owned())]));
            }
            // Replaced or forgotten: nothing is left to give up.
            _ => {}
        }
        self.reply(to, Response::Goodbye);
    }

    /// Fences brokers together: with every member of an ISR among them, that ISR stays as it is.
    pub(super) fn fence(&mut self, brokers: &BTreeMap<BrokerId, String>) {
        let mut affected: BTreeSet<At> = BTreeSet::new();
        for (id, reason) in brokers {
            let Some(broker) = self.image.broker(*id).cloned() else {
                continue;
            };
            if broker.fenced {
                continue;
            }
            self.change_broker(*id, broker.incarnation, |change| change.fenced = Some(true));
            self.event(Event::Fenced {
                broker: *id,
                incarnation: broker.incarnation,
                reason: reason.clone(),
            });
            affected.extend(self.index.hosted(*id));
        }
        let who: Vec<String> = brokers.keys().map(|id| id.to_string()).collect();
        let why = format!("broker {} was fenced", who.join(", "));
        for at in affected {
            self.change(at, &why, |edit| {
                edit.drop_fenced();
                edit.elect();
            });
        }
        self.drain_wanted = true;
    }

    fn unfence(&mut self, id: BrokerId) {
        let Some(broker) = self.image.broker(id).cloned() else {
            return;
        };
        self.change_broker(id, broker.incarnation, |change| change.fenced = Some(false));
        self.event(Event::Unfenced {
            broker: id,
            incarnation: broker.incarnation,
        });
        let run = self.clock.run();
        if let Some(session) = self.sessions.get_mut(&id) {
            session.unfenced_at = run;
        }
        self.lost.remove(&id);
        let hosted: Vec<At> = self
            .index
            .hosted(id)
            .filter(|at| self.index.leaderless.contains(at))
            .collect();
        for at in hosted {
            self.change(at, &format!("broker {id} is back"), |edit| edit.elect());
        }
        self.find_longest_logs();
        self.drain_wanted = true;
    }

    /// Moves what `id` leads to others, and takes it out of ISRs that can do without it.
    fn begin_shutdown(&mut self, id: BrokerId) {
        let Some(broker) = self.image.broker(id).cloned() else {
            return;
        };
        self.change_broker(id, broker.incarnation, |change| {
            change.shutting_down = Some(true)
        });
        self.event(Event::ShuttingDown {
            broker: id,
            incarnation: broker.incarnation,
        });
        let hosted: Vec<At> = self.index.hosted(id).collect();
        for at in hosted {
            self.change(at, &format!("broker {id} is shutting down"), |edit| {
                edit.release(id)
            });
        }
    }

    pub(super) fn change_broker(
        &mut self,
        broker: BrokerId,
        incarnation: Incarnation,
        set: impl FnOnce(&mut BrokerChange),
    ) {
        let mut change = BrokerChange {
            broker,
            incarnation,
            fenced: None,
            shutting_down: None,
            cordoned: None,
            listeners: Listeners::new(),
        };
        set(&mut change);
        self.emit(Record::BrokerChange(change));
    }
}
