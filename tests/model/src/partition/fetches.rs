//! Followers copy: a fetch goes through, loses its answer, or leaves a copy that comes late.

use super::Partition;
use super::moves::{Out, push, step};
use super::replica::{Call, Said};
use super::state::*;

impl Partition {
    pub(super) fn fetch(&mut self, s: &State, b: u8, out: Out<'_>) {
        let Some((to, epoch)) = self.facts(s, b).follows else {
            return;
        };
        let node = s.node(b);
        let fetch = Fetch {
            to,
            from: b,
            life: node.life,
            epoch,
            offset: node.log.end(),
            last: node.log.last_epoch(),
        };
        let mut n = *s;
        let answer = self.serve(&mut n, fetch);
        if n != *s {
            push(
                out,
                step("a fetch arrives, and its answer is lost, from", b, to),
                n,
            );
        }
        if let Some(answer) = answer {
            self.follow(&mut n, b, answer);
            if n != *s {
                push(out, step("a fetch goes through from", b, to), n);
            }
        }
        if s.late.is_none() && s.used.late < self.bounds.late {
            let mut n = *s;
            n.late = Some(fetch);
            n.used.late += 1;
            push(out, step("a copy of a fetch is held up, from", b, to), n);
        }
    }

    /// What the broker that a fetch reached says to it.
    pub(super) fn serve(&mut self, n: &mut State, fetch: Fetch) -> Option<Served> {
        let Fetch {
            to,
            from,
            life,
            epoch,
            ..
        } = fetch;
        if n.node(to).phase != Phase::Up {
            return None;
        }
        let served = self.facts(n, to).leads;
        if self.call(n, to, Call::Admit { from, life, epoch }) != Said::Admitted {
            if served.is_some_and(|served| served < epoch) {
                let node = n.node_mut(to);
                node.heard = node.heard.max(epoch);
            }
            return None;
        }
        let log = n.node(to).log;
        if fetch.offset > 0 {
            let (agreed, end) = log.end_of(fetch.last);
            if agreed < fetch.last || end < fetch.offset {
                return Some(Served::Diverges(agreed, end));
            }
        }
        let offset = fetch.offset;
        let count = Call::Count {
            from,
            life,
            epoch,
            offset,
        };
        self.call(n, to, count);
        let next = log.records().get(usize::from(offset)).copied();
        let high_watermark = match n.broken {
            0 => self.facts(n, to).high_watermark,
            _ => 0,
        };
        Some(Served::Data(next, high_watermark))
    }

    fn follow(&mut self, n: &mut State, b: u8, served: Served) {
        if n.broken != 0 {
            return;
        }
        match served {
            Served::Diverges(agreed, their_end) => {
                let log = &mut n.node_mut(b).log;
                let own_end = log.end_of(agreed).1;
                let gone = log.cut(own_end.min(their_end));
                let end = log.end();
                for (held, value) in n.held.iter_mut().zip(1..) {
                    if gone & bit(value) != 0 {
                        *held &= !bit(b);
                    }
                }
                self.call(n, b, Call::Truncated { end });
            }
            Served::Data(record, high_watermark) => {
                if let Some(record) = record.filter(|_| !n.node(b).log.is_full()) {
                    n.node_mut(b).log.push(record);
                    n.held[usize::from(record.value()) - 1] |= bit(b);
                }
                let end = n.node(b).log.end();
                let followed = Call::Followed {
                    end,
                    high_watermark,
                };
                self.call(n, b, followed);
            }
        }
    }
}

/// A leader's answer to a fetch.
pub(super) enum Served {
    /// The greatest epoch not above the follower's last, and where it ends.
    Diverges(Option<u8>, u8),
    /// The next record, if there is one, and the high watermark.
    Data(Option<Record>, u8),
}
