//! A question on its way, and what became of it.

use super::mail::{Answer, Ask};
use crate::broker::mail::Mail;
use crate::broker::reply::reply;
use crate::core::Core;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

/// A question on its way.
pub(super) struct Pending {
    answer: oneshot::Receiver<Answer>,
    until: u64,
}

/// What became of a question.
pub(super) enum Heard {
    Nothing,
    Answer(Answer),
    /// The connection ended, or patience did.
    Lost,
}

impl Pending {
    /// Asks the broker `to`, over the connection of `client`.
    pub fn ask(core: &mut Core, client: u64, to: usize, ask: Ask, patience: u64) -> Self {
        let (reply, answer) = reply();
        core.post_from(client, to, Mail::Group { ask, reply });
        let until = core.now + patience;
        Self { answer, until }
    }

    fn hear(&mut self, now: u64) -> Heard {
        match self.answer.try_recv() {
            Ok(answer) => Heard::Answer(answer),
            Err(TryRecvError::Empty) if now < self.until => Heard::Nothing,
            Err(_) => Heard::Lost,
        }
    }
}

/// What became of the question in `slot`, which is left empty if it is over.
pub(super) fn hear(slot: &mut Option<Pending>, now: u64) -> Heard {
    let heard = slot
        .as_mut()
        .map_or(Heard::Nothing, |pending| pending.hear(now));
    if !matches!(heard, Heard::Nothing) {
        *slot = None;
    }
    heard
}

/// The same for several: what came, and whether any got lost.
pub(super) fn hear_all(slots: &mut Vec<Pending>, now: u64) -> (Vec<Answer>, bool) {
    let (mut answers, mut lost) = (Vec::new(), false);
    slots.retain_mut(|pending| match pending.hear(now) {
        Heard::Nothing => true,
        Heard::Answer(answer) => {
            answers.push(answer);
            false
        }
        Heard::Lost => {
            lost = true;
            false
        }
    });
    (answers, lost)
}
