//! Asking the product's replica: its role, what it counts as committed, whom it lets join.

use super::controller::{broker, life, small, topic};
use super::product::Product;
use super::state::NONE;
use crate::pool::fingerprint;
use crate::search::attempt;
use leasehold_broker::replica::image_view::view_of;
use leasehold_broker::replica::isr;
use leasehold_broker::replica::proposal::{IsrHint, IsrRequest};
use leasehold_broker::replica::state::{Change, Replica, Role};
use leasehold_types::{LeaderEpoch, Offset};
use std::sync::Arc;
use std::time::Duration;

/// A question to a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// A process begins with a log that ends there; asked of no replica.
    Open { me: u8, end: u8, last: Option<u8> },
    /// A newer image is published; if it elects this broker, its epoch is prepared at once.
    Observe { image: u32 },
    /// It appended as leader; `waiter` waits for the acknowledgement (0: nobody).
    Append { epoch: u8, end: u8, waiter: u8 },
    /// May this follower fetch?
    Admit { from: u8, life: u8, epoch: u8 },
    /// An admitted follower, whose log agrees, fetched from there.
    Count {
        from: u8,
        life: u8,
        epoch: u8,
        offset: u8,
    },
    /// Its leader's answer was appended.
    Followed { end: u8, high_watermark: u8 },
    /// Its log was cut.
    Truncated { end: u8 },
    /// Is there an ISR to ask for? `shrink`: those who are behind have been so for too long.
    Propose { shrink: bool },
    /// The controller answered with this code, or (`None`) nobody did in time.
    Answered { request: u32, code: Option<i16> },
}

/// The replica after that, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// [`NONE`] if it panicked.
    pub replica: u32,
    /// Records whose producers are told that they are committed (a bit per value).
    pub acknowledged: u8,
    pub said: Said,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Nothing,
    Admitted,
    Refused,
    Ask(u32),
}

/// An ISR request and who sent it.
#[derive(Clone, Debug, Hash)]
pub struct Request {
    pub from: u8,
    pub life: u8,
    pub request: IsrRequest,
}

/// What must be known of a replica often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaFacts {
    /// Serves the partition in this epoch.
    pub leads: Option<u8>,
    /// Copies this broker in this epoch.
    pub follows: Option<(u8, u8)>,
    pub high_watermark: u8,
    /// Whether it promises acks=all.
    pub enough: bool,
    /// The maximal ISR, a bit per broker.
    pub maximal: u8,
    pub proposes: bool,
}

fn facts(replica: &Replica<u8>) -> ReplicaFacts {
    let leader = replica.leader();
    ReplicaFacts {
        leads: leader.map(|l| small(l.epoch().0)),
        follows: match replica.role() {
            Role::Following {
                leader: Some(leader),
                epoch,
            } => Some((small(leader.0), small(epoch.0))),
            _ => None,
        },
        high_watermark: small(replica.high_watermark().0),
        enough: leader.is_some_and(|l| l.has_min_isr()),
        maximal: leader.map_or(0, |l| l.maximal_isr().fold(0, |all, id| all | 1 << id.0)),
        proposes: leader.is_some_and(|l| l.proposal().is_some()),
    }
}

fn offset(n: u8) -> Offset {
    Offset(i64::from(n))
}

fn epoch(n: u8) -> LeaderEpoch {
    LeaderEpoch(i32::from(n))
}

impl Product {
    /// What comes of asking `replica`, which is that of broker `me` in its life `life`.
    pub fn call(&mut self, replica: u32, (me, life): (u8, u8), call: Call) -> Outcome {
        if let Some(known) = self.outcomes.get(&(replica, life, call)) {
            return *known;
        }
        let mut one = match call {
            Call::Open { me, .. } => Replica::new(broker(me), Offset(0), Offset(0)),
            _ => self.replicas.value(replica).clone(),
        };
        let outcome = match attempt(|| self.put(&mut one, (me, life), call)) {
            Some((acknowledged, said)) => Outcome {
                replica: self.replicas.id(fingerprint(&one), one, facts),
                acknowledged,
                said,
            },
            None => Outcome {
                replica: NONE,
                acknowledged: 0,
                said: Said::Nothing,
            },
        };
        self.outcomes.insert((replica, life, call), outcome);
        outcome
    }

    fn put(&mut self, one: &mut Replica<u8>, sender: (u8, u8), call: Call) -> (u8, Said) {
        match call {
            Call::Open { end, last, .. } => {
                let last = last.map_or(LeaderEpoch::NONE, epoch);
                one.opened(Offset(0), offset(end), last);
                (0, Said::Nothing)
            }
            Call::Observe { image } => (self.observe(one, image), Said::Nothing),
            Call::Append {
                epoch: in_epoch,
                end,
                waiter,
            } => {
                let waiter = (waiter != 0).then_some((offset(end - 1), waiter));
                let change = one.appended(epoch(in_epoch), offset(end), waiter);
                (told(&change), Said::Nothing)
            }
            Call::Admit {
                from,
                life: n,
                epoch: in_epoch,
            } => {
                let refused = one.leader().is_none_or(|leader| {
                    let fetch = (broker(from), life(n), epoch(in_epoch));
                    leader.admit(fetch.0, fetch.1, fetch.2).is_err()
                });
                // As the product's shell does: whoever is told of a newer epoch hears it.
                let newer = one.view().is_some_and(|v| epoch(in_epoch) > v.leader_epoch);
                let change = match refused && newer {
                    true => one.heard(epoch(in_epoch)),
                    false => Change::default(),
                };
                let said = if refused {
                    Said::Refused
                } else {
                    Said::Admitted
                };
                (told(&change), said)
            }
            Call::Count {
                from,
                life: n,
                epoch: in_epoch,
                offset: at,
            } => {
                let now = self.now;
                let change = one.with_leader(epoch(in_epoch), |leader| {
                    leader.fetched(broker(from), life(n), offset(at), now)
                });
                (told(&change), Said::Nothing)
            }
            Call::Followed {
                end,
                high_watermark,
            } => {
                one.followed(offset(end), offset(high_watermark));
                (0, Said::Nothing)
            }
            Call::Truncated { end } => {
                one.truncated(offset(end));
                (0, Said::Nothing)
            }
            Call::Propose { shrink } => (0, self.propose(one, sender, shrink)),
            Call::Answered { request, code } => {
                let sent = &self.requests.value(request).request;
                let hint = code.map_or(IsrHint::Unknown, isr::hint);
                if let Some(leader) = one.leader_mut() {
                    leader.answered(sent, hint, self.now);
                }
                (0, Said::Nothing)
            }
        }
    }

    fn observe(&self, one: &mut Replica<u8>, image: u32) -> u8 {
        let image = self.images.value(image);
        let view = image
            .topic(&topic())
            .and_then(|topic| view_of(image, topic, 0));
        let Some(view) = view else {
            return 0;
        };
        let change = one.observe(Arc::new(view), self.now);
        if let Some(epoch) = change.prepare {
            let end = one.log_end();
            one.begun(epoch, (end, end), self.now);
        }
        told(&change)
    }

    fn propose(&mut self, one: &mut Replica<u8>, (from, life): (u8, u8), shrink: bool) -> Said {
        // Of those who are not at the log's end, all have been behind for too long, or none.
        let lag_max = if shrink {
            Duration::ZERO
        } else {
            Duration::MAX
        };
        let later = self.later;
        let request = one
            .leader_mut()
            .and_then(|leader| leader.next_request(lag_max, later));
        match request {
            Some(request) => {
                let request = Request {
                    from,
                    life,
                    request,
                };
                Said::Ask(self.requests.id(fingerprint(&request), request, |_| ()))
            }
            None => Said::Nothing,
        }
    }
}

/// Whose wait ended well, a bit per value.
fn told(change: &Change<u8>) -> u8 {
    change
        .committed
        .iter()
        .fold(0, |all, value| all | 1 << value)
}
