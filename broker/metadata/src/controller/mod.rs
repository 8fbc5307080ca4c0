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
//!   does not count against sessions);
//! - put the records of all steps since the last [`Controller::seal`] into one entry, whose seq is
//!   [`Controller::next_seq`]; call `seal` when it takes such a batch, `committed` when that is known to
//!   be applied; an expansion of an ISR may wait for company (`Output::can_wait`), all else goes at once;
//! - check every poll's position against the committed image ([`crate::image::Image::locate`]) before it
//!   hands it in, and send [`Input::Freeze`] when a point off the table was confirmed.

mod types;

pub use types::*;

use crate::image::Image;
use leasehold_types::{BrokerId, Seq};
use std::collections::BTreeSet;

/// One term of one controller. Dropped when a commit fails or the role is lost.
pub struct Controller {
    image: Image,
}

impl Controller {
    /// Takes over at `image`, which ends with this controller's own claim.
    pub fn new(image: Image, settings: Settings, now: Millis) -> Self {
        let _ = (settings, now);
        Self { image }
    }

    /// Says that an earlier term resigned because it saw the majority lost, and which brokers those
    /// were: on that evidence it does not resign again.
    pub fn after_standing_back(self, lost: BTreeSet<BrokerId>) -> Self {
        let _ = lost;
        self
    }

    /// The speculative image: committed entries and what `step` decided since.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The seq of the entry that must carry the records returned from now on.
    pub fn next_seq(&self) -> Seq {
        self.image.position.seq.next()
    }

    /// The driver takes the records returned so far as one entry; returns its seq.
    pub fn seal(&mut self) -> Seq {
        todo!()
    }

    /// All entries up to `seq` are known to be applied.
    pub fn committed(&mut self, seq: Seq) {
        let _ = seq;
        todo!()
    }

    /// When `step(Input::Tick, ..)` is due at the latest.
    pub fn next_deadline(&self) -> Millis {
        todo!()
    }

    /// Decides.
    pub fn step(&mut self, input: Input, now: Millis) -> Output {
        let _ = (input, now);
        todo!()
    }
}
