//! A consumer of one partition: reads on from where it is, from whom it takes for the leader; where that is out of
//! range, from where the log begins.
//!
//! What it may be given is the checker's to judge, where it is given; here it is only that nothing is left out, and
//! that what was read does not change.

use crate::batches::Batch;
use crate::broker::mail::{Consumed, Mail};
use crate::broker::reply::reply;
use crate::core::Core;
use crate::disk::{Entry, Key};
use leasehold_wire::ErrorCode;
use std::collections::BTreeMap;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

/// After this long without an answer it asks again.
const PATIENCE: u64 = 600;

/// The consumer.
pub(super) struct Consumer {
    key: Key,
    read: BTreeMap<usize, Entry>,
    /// Where it is; nowhere, if what it wanted is gone.
    next: Option<usize>,
    answer: Option<oneshot::Receiver<Consumed>>,
    asked_at: u64,
}

impl Consumer {
    pub fn new(key: Key) -> Self {
        Self {
            key,
            read: BTreeMap::new(),
            next: Some(0),
            answer: None,
            asked_at: 0,
        }
    }

    /// Asks for more, unless it waits for an answer.
    pub fn fetch(&mut self, core: &mut Core) {
        if self.answer.is_some() && core.now < self.asked_at + PATIENCE {
            return;
        }
        let to = super::leader(core, self.key);
        let (reply, answer) = reply();
        self.answer = Some(answer);
        self.asked_at = core.now;
        let mail = Mail::Consume {
            key: self.key,
            from: self.next,
            reply,
        };
        core.post_from(u64::MAX, to, mail);
    }

    /// Takes what came.
    pub fn hear(&mut self, core: &mut Core) {
        let Some(answer) = &mut self.answer else {
            return;
        };
        let told = match answer.try_recv() {
            Ok(told) => told,
            Err(TryRecvError::Empty) => return,
            Err(TryRecvError::Closed) => Err(ErrorCode::UnknownServerError),
        };
        self.answer = None;
        let data = core.check.data.get(&self.key);
        if data.is_some_and(|data| data.lossy_since.is_some()) {
            // What was lost may have been read.
            return;
        }
        match told {
            Ok((from, batches)) => {
                let mut next = self.next.unwrap_or(from);
                for batch in batches {
                    if !self.take(core, &mut next, batch) {
                        return;
                    }
                }
                self.next = Some(next);
            }
            Err(ErrorCode::OffsetOutOfRange) => self.next = None,
            Err(_) => {}
        }
    }

    /// Takes a batch, from `next` on; whether it could be.
    fn take(&mut self, core: &mut Core, next: &mut usize, batch: Batch) -> bool {
        for (at, value) in batch.records {
            let entry = (batch.epoch, value);
            let known = self.read.insert(at, entry);
            if known.is_some_and(|known| known != entry) {
                core.check.broke(format!(
                    "C7 a consumer of {:?} reads {entry:?} at {at}, and read {known:?} before",
                    self.key
                ));
                return false;
            }
            if !self.skip(core, *next, at) {
                return false;
            }
            *next = (*next).max(at + 1);
        }
        let goes_on = self.skip(core, *next, batch.end);
        *next = (*next).max(batch.end);
        goes_on
    }

    /// Whether nothing need be given of `next..to`.
    fn skip(&self, core: &mut Core, next: usize, to: usize) -> bool {
        let may = core.check.may_skip(self.key, next, to);
        if !may {
            core.check.broke(format!(
                "C7 a consumer of {:?} is given {to} when it asks for {next}",
                self.key
            ));
        }
        may
    }
}
