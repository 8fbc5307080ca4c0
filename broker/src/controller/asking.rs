//! How questions reach a term: what becomes an input of the controller, and what is refused before.
//!
//! [M] A poll's position is checked against the committed line of claims before anything that its
//! broker says is believed; what lies off it is confirmed by a second quorum read, and then everything
//! freezes.

use super::handle::Question;
use super::term::{End, Term};
use leasehold_metadata::controller::{Effect, Input, ReplyTo};
use leasehold_metadata::image::Position;
use leasehold_metadata::rpc::{News, Outcome, Poll, PollAnswer, Request, Response, codes};
use leasehold_metadata::store::{HeadObject, NONCE, StoreError};
use leasehold_types::BrokerId;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio::time::Instant;

/// A quorum read of the head, and the position because of which it is made.
pub(super) type Confirming =
    Pin<Box<dyn Future<Output = (Result<Option<HeadObject>, StoreError>, Doubtful)> + Send>>;

/// A position off our line, to be confirmed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doubtful {
    broker: BrokerId,
    position: Position,
}

impl Term<'_> {
    pub(super) fn ask(&mut self, question: Question) {
        let Question {
            request,
            arrived,
            reply,
        } = question;
        self.next_token += 1;
        let to = ReplyTo(self.next_token);
        self.replies.insert(to, reply);
        // Those who gave up need no entry in the table.
        if self.next_token.is_multiple_of(1_024) {
            self.replies.retain(|_, reply| !reply.is_closed());
        }
        if let (Some(why), false) = (self.frozen.clone(), matches!(request, Request::Poll(_))) {
            return self.refuse_as_frozen(to, &why);
        }
        let input = match request {
            Request::Register(registration) => Input::Register { to, registration },
            Request::Poll(poll) => return self.poll(to, poll),
            Request::AlterPartition(request) => Input::AlterPartition { to, request },
            Request::Goodbye {
                broker,
                incarnation,
            } => Input::Goodbye {
                to,
                broker,
                incarnation,
            },
            Request::AllocateProducerIds {
                broker,
                incarnation,
            } => Input::AllocateProducerIds {
                to,
                broker,
                incarnation,
            },
            Request::Admin {
                request,
                timeout_ms,
            } => {
                let waited = u64::try_from(arrived.elapsed().as_millis()).unwrap_or(u64::MAX);
                let deadline = self.now().plus(timeout_ms.saturating_sub(waited));
                Input::Admin {
                    to,
                    request,
                    deadline,
                }
            }
            // Answered by anyone; only a frozen controller is asked, and has refused above.
            Request::WhoIsController => {
                return self.reply(to, Response::Controller(None));
            }
        };
        self.step(input);
    }

    /// [M] The position first: a broker that is on no line that leads here must not be believed.
    fn poll(&mut self, to: ReplyTo, poll: Poll) {
        if let Some(position) = poll.position
            && !self.image.leads_through(&position)
        {
            let why = format!("{position} is not on this controller's line of claims");
            let outcome = Outcome::refused(codes::INVALID_UPDATE_VERSION, why);
            self.reply(to, Response::Error(outcome));
            self.doubt(poll.broker, position);
            return;
        }
        let (broker, position) = (poll.broker, poll.position);
        let output = self.controller.step(Input::Poll { to, poll }, self.now());
        let refused = output
            .effects
            .iter()
            .any(|e| matches!(e, Effect::Reply { to: t, .. } if *t == to));
        self.gather(output);
        if !refused {
            let replaced = self.polls.add(broker, to, position, Instant::now());
            if let Some(old) = replaced {
                // Its broker has sent another: let the old one go, with nothing in it.
                let answer = PollAnswer {
                    committed: self.image.position,
                    news: News::Entries(Vec::new()),
                    may_stop: false,
                    frozen: self.frozen.clone(),
                };
                self.reply(old, Response::Poll(answer));
            }
        }
    }

    /// Reads the head once more, by quorum, before anything is concluded from a foreign position.
    fn doubt(&mut self, broker: BrokerId, position: Position) {
        if self.confirming.is_some() || self.frozen.is_some() {
            return;
        }
        let store = Arc::clone(&self.store);
        let doubtful = Doubtful { broker, position };
        self.confirming = Some(Box::pin(async move { (store.read_head().await, doubtful) }));
    }

    pub(super) fn judge(
        &mut self,
        confirmed: (Result<Option<HeadObject>, StoreError>, Doubtful),
    ) -> Result<(), End> {
        let (read, doubtful) = confirmed;
        let Ok(head) = read else {
            // Not confirmed. The broker polls again.
            return Ok(());
        };
        let nonce = head.as_ref().and_then(|h| h.data.get(NONCE));
        let busy = !self.is_idle();
        if nonce != Some(&self.nonce) {
            if busy {
                // Perhaps our own write: its outcome will tell. The broker polls again.
                return Ok(());
            }
            return Err(End::Lost("the head is another's".to_owned()));
        }
        if self.image.leads_through(&doubtful.position) {
            return Ok(());
        }
        let reason = format!(
            "broker {} durably holds {}, which this controller's metadata (at {}) never passed \
             through: the head was restored from an older copy, or the broker's disk is another's",
            doubtful.broker, doubtful.position, self.image.position
        );
        self.freeze(reason);
        Ok(())
    }

    pub(super) fn refuse_as_frozen(&mut self, to: ReplyTo, why: &str) {
        let outcome = Outcome::refused(codes::POLICY_VIOLATION, format!("frozen: {why}"));
        self.reply(to, Response::Error(outcome));
    }
}
