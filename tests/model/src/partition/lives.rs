//! Processes begin and end, and the controller fences, hears and registers them; what it decides is committed.

use super::Partition;
use super::check::{Broken, change};
use super::controller::{Answer, Ask, Decision, Start};
use super::moves::{Out, push, step};
use super::state::*;
use crate::search::Step;

/// Lives that one broker may have at most.
const LIVES: u8 = 5;

impl Partition {
    /// `b` is silent, or seems to be.
    pub(super) fn fence(&mut self, s: &State, b: u8, out: Out<'_>) {
        if self.image(s.newest()).unfenced & bit(b) != 0 {
            self.decided(s, Ask::Fence(b), step("the controller fences", b, 0), out);
        }
    }

    /// A fenced `b` is heard again.
    pub(super) fn unfence(&mut self, s: &State, b: u8, out: Out<'_>) {
        let (now, life) = (self.image(s.newest()), s.node(b).life);
        if now.unfenced & bit(b) != 0 || now.lives[usize::from(b)] != life {
            return;
        }
        let applied = self.image(s.view(b)).seq;
        let fit = applied >= now.changed_at[usize::from(b)];
        // A controller that has just taken over asks for all that is committed; an older one only for what
        // was committed when the session began. Let both be.
        let image = if fit { s.newest() } else { s.view(b) };
        let ask = Ask::Poll {
            broker: b,
            life,
            image,
        };
        let before = out.len();
        self.decided(s, ask, step("the controller hears", b, 0), out);
        if let Some((_, n)) = out[before..].first_mut()
            && !fit
            && n.broken == 0
            && self.image(n.newest()).unfenced & bit(b) != 0
        {
            n.broken = Broken::Unfenced as u8;
        }
    }

    pub(super) fn register(&mut self, s: &State, b: u8, out: Out<'_>) {
        let node = *s.node(b);
        let start = Start {
            broker: b,
            life: node.life,
            confirmed: node.confirmed,
            confirmed_boot: node.confirmed_boot,
            attempted: node.attempted,
            boot: node.boot,
        };
        let decision = self.product.decide(s.newest(), Ask::Register(start));
        if decision.answer == Answer::Refused {
            return;
        }
        let mut n = *s;
        if !self.commit(&mut n, decision) {
            return;
        }
        n.node_mut(b).damaged = false;
        if n.newest() != s.newest() {
            push(out, step("registered without hearing of it:", b, 0), n);
        }
        if n.broken == 0 {
            let view = n.versions - 1;
            let node = n.node_mut(b);
            node.phase = Phase::Up;
            node.view = view;
            node.confirmed = node.life;
            node.confirmed_boot = node.boot;
            node.attempted = 0;
            self.open(&mut n, b);
        }
        push(out, step("registered:", b, 0), n);
    }

    pub(super) fn die(&mut self, s: &State, b: u8, out: Out<'_>) {
        let dead = |n: &mut State| {
            let node = n.node_mut(b);
            node.phase = Phase::Down;
            node.view = 0;
            node.replica = NONE;
            node.heard = 0;
        };
        if s.node(b).phase != Phase::Down && s.used.crashes < self.bounds.crashes {
            let mut n = *s;
            n.used.crashes += 1;
            dead(&mut n);
            push(out, step("killed:", b, 0), n);
        }
        if s.used.losses < self.bounds.losses {
            for end in 0..s.node(b).log.end() {
                let mut n = *s;
                n.used.losses += 1;
                let node = n.node_mut(b);
                node.log.cut(end);
                node.boot += 1;
                node.damaged = true;
                dead(&mut n);
                push(out, step("without power:", b, end), n);
            }
        }
    }

    pub(super) fn decided(&mut self, s: &State, ask: Ask, step: Step, out: Out<'_>) {
        let decision = self.product.decide(s.newest(), ask);
        let mut n = *s;
        if self.commit(&mut n, decision) && (n.newest() != s.newest() || n.broken != 0) {
            push(out, step, n);
        }
    }

    /// Commits what was decided. False if that is more than may happen within the bounds.
    pub(super) fn commit(&self, n: &mut State, decision: Decision) -> bool {
        if decision.image == NONE {
            n.broken = match decision.answer {
                Answer::Misfit => Broken::Misfit as u8,
                _ => Broken::Panicked as u8,
            };
            return true;
        }
        if decision.image == n.newest() {
            return true;
        }
        let (old, new) = (self.image(n.newest()), self.image(decision.image));
        let written = new.seq - 1;
        let room = usize::from(n.versions) < VERSIONS && usize::from(new.leader_epoch) < EPOCHS;
        if written > u64::from(self.bounds.writes) || !room {
            return false;
        }
        n.history[usize::from(n.versions)] = decision.image;
        n.versions += 1;
        n.forgiven |= new.recovering;
        n.broken = change(&old, &new, self.min()) as u8;
        true
    }
}

/// A process of `b` begins, and notes that in its `run` file.
pub(super) fn start(s: &State, b: u8, out: Out<'_>) {
    let mut n = *s;
    let node = n.node_mut(b);
    if node.life < LIVES {
        node.life += 1;
        node.attempted |= bit(node.life);
        node.phase = Phase::Starting;
        push(out, step("starts:", b, 0), n);
    }
}
