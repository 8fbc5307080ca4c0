//! What can happen next, and what comes of it.

use super::Partition;
use super::check::{Broken, change};
use super::controller::{Answer, Ask, Decision, ImageFacts, Start};
use super::replica::{Call, Outcome, ReplicaFacts, Said};
use super::state::*;
use crate::search::Step;

/// Lives that one broker may have at most.
const LIVES: u8 = 5;

type Out<'a> = &'a mut Vec<(Step, State)>;

fn step(what: &'static str, who: u8, detail: u8) -> Step {
    Step { what, who, detail }
}

impl Partition {
    pub(super) fn begin(&mut self) -> State {
        let image = self.product.first_image();
        let mut history = [NONE; VERSIONS];
        history[0] = image;
        let node = |phase| Node {
            phase,
            life: 1,
            view: 0,
            replica: NONE,
            log: Log::default(),
            heard: 0,
            confirmed: 1,
            confirmed_boot: 0,
            attempted: 0,
            boot: 0,
            damaged: false,
        };
        let flight = Flight {
            request: NONE,
            awaited: false,
        };
        let mut s = State {
            history,
            versions: 1,
            nodes: [node(Phase::Down); BROKERS],
            flights: [flight; FLIGHTS],
            late: None,
            used: Used::default(),
            acknowledged: 0,
            committed: 0,
            held: [0; LOG],
            appenders: [0; EPOCHS],
            forgiven: false,
            broken: 0,
        };
        for b in self.ids() {
            s.node_mut(b).phase = Phase::Up;
            self.open(&mut s, b);
        }
        s
    }

    pub(super) fn moves(&mut self, s: &State, out: Out<'_>) {
        if s.broken != 0 {
            return;
        }
        for b in self.ids() {
            match s.node(b).phase {
                Phase::Up => {
                    self.deliver(s, b, out);
                    self.produce(s, b, out);
                    self.fetch(s, b, out);
                    self.propose(s, b, out);
                    self.unfence(s, b, out);
                }
                Phase::Starting => self.register(s, b, out),
                Phase::Down => start(s, b, out),
            }
            self.die(s, b, out);
            self.fence(s, b, out);
        }
        if s.used.moves < self.bounds.moves {
            let mut n = *s;
            n.used.moves += 1;
            self.decided(
                &n,
                Ask::Prefer,
                step("an administrator moves the leadership to", 0, 0),
                out,
            );
        }
        for place in 0..FLIGHTS {
            self.answer(s, place, out);
        }
        if let Some(fetch) = s.late {
            let mut n = *s;
            n.late = None;
            self.serve(&mut n, fetch);
            push(
                out,
                step("a late fetch arrives at", fetch.to, fetch.from),
                n,
            );
        }
    }

    fn ids(&self) -> std::ops::Range<u8> {
        0..self.bounds.brokers as u8
    }

    /// The effective minimum.
    fn min(&self) -> u8 {
        self.bounds.min.min(self.bounds.brokers as u8)
    }

    fn image(&self, image: u32) -> ImageFacts {
        *self.product.images.facts(image)
    }

    fn facts(&self, s: &State, b: u8) -> ReplicaFacts {
        *self.product.replicas.facts(s.node(b).replica)
    }

    /// Asks the replica of `b`, and takes note of what came of it.
    fn call(&mut self, n: &mut State, b: u8, call: Call) -> Said {
        let node = *n.node(b);
        let outcome = self.product.call(node.replica, (b, node.life), call);
        let Outcome {
            replica,
            acknowledged,
            said,
        } = outcome;
        if replica == NONE {
            n.broken = Broken::Panicked as u8;
            return Said::Nothing;
        }
        n.node_mut(b).replica = replica;
        n.acknowledged |= acknowledged;
        let min = self.min();
        let few = |v: u8| n.held[usize::from(v) - 1].count_ones() < u32::from(min);
        if !n.forgiven && (1..=n.used.values).any(|v| acknowledged & bit(v) != 0 && few(v)) {
            n.broken = Broken::FewHolders as u8;
        }
        let facts = self.product.replicas.facts(replica);
        if facts.leads.is_some() {
            let shown = node.log.records().iter();
            for record in shown.take(usize::from(facts.high_watermark)) {
                n.committed |= bit(record.value());
            }
        }
        said
    }

    /// A process of `b` begins to act, on the newest image that it may have.
    fn open(&mut self, n: &mut State, b: u8) {
        let log = n.node(b).log;
        let (end, last) = (log.end(), log.last_epoch());
        self.call(n, b, Call::Open { me: b, end, last });
        let image = n.view(b);
        self.call(n, b, Call::Observe { image });
    }

    /// The next version of the metadata is published to `b`.
    fn deliver(&mut self, s: &State, b: u8, out: Out<'_>) {
        let view = s.node(b).view + 1;
        if view >= s.versions {
            return;
        }
        let mut n = *s;
        n.node_mut(b).view = view;
        let image = n.view(b);
        self.call(&mut n, b, Call::Observe { image });
        push(out, step("metadata reaches", b, 0), n);
    }

    fn produce(&mut self, s: &State, b: u8, out: Out<'_>) {
        let facts = self.facts(s, b);
        let Some(epoch) = facts.leads else { return };
        if s.used.values == self.bounds.values || s.node(b).log.is_full() {
            return;
        }
        let mut n = *s;
        n.used.values += 1;
        let value = n.used.values;
        let node = n.node_mut(b);
        node.log.push(Record::new(epoch, value));
        let (end, appender) = (node.log.end(), b << 4 | node.life);
        n.held[usize::from(value) - 1] |= bit(b);
        let first = &mut n.appenders[usize::from(epoch)];
        if *first != 0 && *first != appender {
            n.broken = Broken::TwoAppenders as u8;
        }
        *first = appender;
        // Below the minimum only acks=1 is taken.
        let waiter = if facts.enough { value } else { 0 };
        self.call(&mut n, b, Call::Append { epoch, end, waiter });
        push(out, step("a record is produced to", b, value), n);
    }

    fn fetch(&mut self, s: &State, b: u8, out: Out<'_>) {
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
    fn serve(&mut self, n: &mut State, fetch: Fetch) -> Option<Served> {
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

    fn propose(&mut self, s: &State, b: u8, out: Out<'_>) {
        let leads = self.facts(s, b).leads.is_some();
        let place = s.flights.iter().position(|f| f.request == NONE);
        let Some(place) = place.filter(|_| leads && s.used.proposals < self.bounds.proposals)
        else {
            return;
        };
        let mut before = NONE;
        for shrink in [false, true] {
            let mut n = *s;
            let Said::Ask(request) = self.call(&mut n, b, Call::Propose { shrink }) else {
                continue;
            };
            if request == before {
                continue;
            }
            before = request;
            n.used.proposals += 1;
            n.flights[place] = Flight {
                request,
                awaited: true,
            };
            push(out, step("an ISR is asked for by", b, u8::from(shrink)), n);
        }
    }

    /// The request in that place arrives, or is given up by its sender.
    fn answer(&mut self, s: &State, place: usize, out: Out<'_>) {
        let Flight { request, awaited } = s.flights[place];
        if request == NONE {
            return;
        }
        let sent = self.product.requests.value(request);
        let (from, life) = (sent.from, sent.life);
        let awaited = awaited && s.node(from).phase == Phase::Up && s.node(from).life == life;
        let mut gone = *s;
        gone.flights[place] = Flight {
            request: NONE,
            awaited: false,
        };
        if awaited {
            let mut n = *s;
            n.flights[place].awaited = false;
            let code = None;
            self.call(&mut n, from, Call::Answered { request, code });
            push(
                out,
                step("an ISR request is given up by", from, place as u8),
                n,
            );
        }
        let decision = self.product.decide(s.newest(), Ask::Alter(request));
        let mut n = gone;
        if !self.commit(&mut n, decision) {
            return;
        }
        let code = match decision.answer {
            Answer::Verdict(code) => Some(code),
            _ => None,
        };
        if awaited && n.broken == 0 {
            self.call(&mut n, from, Call::Answered { request, code });
        }
        push(
            out,
            step(
                "an ISR request arrives from",
                from,
                code.unwrap_or(-1) as u8,
            ),
            n,
        );
    }

    /// `b` is silent, or seems to be.
    fn fence(&mut self, s: &State, b: u8, out: Out<'_>) {
        if self.image(s.newest()).unfenced & bit(b) != 0 {
            self.decided(s, Ask::Fence(b), step("the controller fences", b, 0), out);
        }
    }

    /// A fenced `b` is heard again.
    fn unfence(&mut self, s: &State, b: u8, out: Out<'_>) {
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

    fn register(&mut self, s: &State, b: u8, out: Out<'_>) {
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

    fn die(&mut self, s: &State, b: u8, out: Out<'_>) {
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

    fn decided(&mut self, s: &State, ask: Ask, step: Step, out: Out<'_>) {
        let decision = self.product.decide(s.newest(), ask);
        let mut n = *s;
        if self.commit(&mut n, decision) && (n.newest() != s.newest() || n.broken != 0) {
            push(out, step, n);
        }
    }

    /// Commits what was decided. False if that is more than may happen within the bounds.
    fn commit(&self, n: &mut State, decision: Decision) -> bool {
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

/// A leader's answer to a fetch.
enum Served {
    /// The greatest epoch not above the follower's last, and where it ends.
    Diverges(Option<u8>, u8),
    /// The next record, if there is one, and the high watermark.
    Data(Option<Record>, u8),
}

fn start(s: &State, b: u8, out: Out<'_>) {
    let mut n = *s;
    let node = n.node_mut(b);
    if node.life < LIVES {
        node.life += 1;
        node.attempted |= bit(node.life);
        node.phase = Phase::Starting;
        push(out, step("starts:", b, 0), n);
    }
}

fn push(out: Out<'_>, step: Step, mut n: State) {
    n.tidy();
    out.push((step, n));
}
