//! The controller's decisions: a pure state machine.
//!
//! `step` takes an input and the time, and returns records to commit and effects. It does no I/O,
//! reads no clock and draws no random number. It runs on a speculative image: records are applied
//! to it at once, and if their commit fails the driver drops the whole controller. **Every effect,
//! refusals included, is released only after all records returned up to then are known to be
//! committed.**
//!
//! The driver's duties:
//! - call `step(Input::Tick, now)` at `next_deadline()` at the latest (time in which it did not run
//!   does not count against sessions), and answer a poll within a third of the session timeout;
//! - put the records of all steps since the last [`Controller::seal`] into one entry, whose seq is
//!   [`Controller::next_seq`]; call `seal` when it takes such a batch (not if there are no records), and
//!   `committed` when that is known to be applied; expansions of ISRs may wait for company
//!   (`Output::can_wait`), all else goes at once;
//! - begin to write a batch before the earliest `Output::write_before` in it, or give the role up: an
//!   administrator's wish is never applied after its deadline;
//! - check every poll's position against the committed image ([`crate::image::Image::locate`]) before it
//!   hands it in, and send [`Input::Freeze`] when a point off the table was confirmed.

mod admin;
mod balance;
mod brokers;
mod config;
mod drain;
mod edit;
mod features;
mod index;
mod isr;
mod leaders;
mod named;
mod pace;
mod quotas;
mod reassign;
mod restart;
mod sessions;
mod step;
#[cfg(test)]
mod tests;
mod topics;
mod types;

pub use named::NAMED;
pub use topics::{OFFSETS_TOPIC, TRANSACTIONS_TOPIC};
pub use types::*;

use crate::image::Image;
use crate::rpc::{Outcome, Response};
use balance::Balance;
use edit::Edit;
use index::{At, Index};
use leasehold_types::{BrokerId, Incarnation, Seq};
use pace::Pace;
use sessions::{RunClock, Session};
use std::collections::{BTreeMap, BTreeSet};

/// One term of one controller. Dropped when a commit fails or the role is lost.
pub struct Controller {
    /// Committed entries, and what was decided since.
    image: Image,
    settings: Settings,
    index: Index,
    /// What the present step has decided so far.
    out: Output,
    /// The seq of the entry that will carry what is decided now.
    next_seq: Seq,
    /// The last entry known to be applied.
    committed: Seq,
    clock: RunClock,
    sessions: BTreeMap<BrokerId, Session>,
    /// Incarnations that said goodbye: a late poll of theirs is not a sign of life.
    gone: BTreeMap<BrokerId, Incarnation>,
    /// Brokers whose sessions ended by timeout or evidence, and when (run clock).
    lost: BTreeMap<BrokerId, u64>,
    /// Brokers on whose loss an earlier term resigned already.
    forgiven: BTreeSet<BrokerId>,
    /// Since when the longest log of a partition is being looked for (run clock).
    unsure_since: BTreeMap<At, u64>,
    /// Replicas ahead of the metadata that were complained about already.
    complained: BTreeSet<(BrokerId, At)>,
    /// When slow housekeeping is due (run clock).
    housekeeping_due: u64,
    preferred_due: u64,
    drain_wanted: bool,
    balance: Balance,
    pace: Pace,
    started: bool,
    frozen: Option<String>,
    resigned: bool,
}

impl Controller {
    /// Takes over at `image`, which ends with this controller's own claim. Every unfenced broker has a
    /// full session timeout to be heard of.
    pub fn new(image: Image, settings: Settings, now: Millis) -> Self {
        let clock = RunClock::new(now, &settings);
        let sessions = image
            .brokers
            .values()
            .filter(|b| !b.fenced)
            .map(|b| (b.id, Session::presumed(b.incarnation, image.position.seq)))
            .collect();
        Self {
            index: Index::of(&image),
            out: Output::default(),
            next_seq: image.position.seq.next(),
            committed: image.position.seq,
            sessions,
            gone: BTreeMap::new(),
            lost: BTreeMap::new(),
            forgiven: BTreeSet::new(),
            unsure_since: BTreeMap::new(),
            complained: BTreeSet::new(),
            housekeeping_due: 0,
            preferred_due: 0,
            drain_wanted: true,
            balance: Balance::default(),
            pace: Pace::default(),
            started: false,
            frozen: None,
            resigned: false,
            clock,
            settings,
            image,
        }
    }

    /// Says that an earlier term resigned because it saw the majority lost, and which brokers those
    /// were: on that evidence it does not resign again.
    pub fn after_standing_back(mut self, lost: BTreeSet<BrokerId>) -> Self {
        self.forgiven = lost;
        self
    }

    /// The speculative image: committed entries and what `step` decided since. Its position is that of
    /// the last sealed entry.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Why nothing is decided at present; `None` in good times.
    pub fn frozen(&self) -> Option<&str> {
        self.frozen.as_deref()
    }

    /// Brokers with a live session, and the incarnation that holds it.
    pub fn sessions(&self) -> impl Iterator<Item = (BrokerId, Incarnation)> {
        self.sessions.iter().map(|(id, s)| (*id, s.incarnation))
    }

    /// The seq of the entry that must carry the records returned from now on.
    pub fn next_seq(&self) -> Seq {
        self.next_seq
    }

    /// The driver takes the records returned so far as one entry; returns its seq.
    pub fn seal(&mut self) -> Seq {
        let sealed = self.next_seq;
        self.image.position.seq = sealed;
        self.next_seq = sealed.next();
        sealed
    }

    /// All entries up to `seq` are known to be applied.
    pub fn committed(&mut self, seq: Seq) {
        self.committed = self.committed.max(seq);
    }

    fn reply(&mut self, to: ReplyTo, response: Response) {
        self.out.effects.push(Effect::Reply { to, response });
    }

    fn refuse(&mut self, to: ReplyTo, code: i16, message: impl Into<String>) {
        self.reply(to, Response::Error(Outcome::refused(code, message)));
    }

    fn event(&mut self, event: Event) {
        self.out.effects.push(Effect::Event(event));
    }
}
