//! What can happen next: the parts that brokers play. [`super::fetches`] is how they copy, [`super::lives`] how they
//! begin and end, and what the controller makes of that.

use super::Partition;
use super::check::Broken;
use super::controller::{Answer, Ask, ImageFacts};
use super::lives::start;
use super::replica::{Call, Outcome, ReplicaFacts, Said};
use super::state::*;
use crate::search::Step;

/// The places into which what can happen is put.
pub(super) type Out<'a> = &'a mut Vec<(Step, State)>;

pub(super) fn step(what: &'static str, who: u8, detail: u8) -> Step {
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
    pub(super) fn min(&self) -> u8 {
        self.bounds.min.min(self.bounds.brokers as u8)
    }

    pub(super) fn image(&self, image: u32) -> ImageFacts {
        *self.product.images.facts(image)
    }

    pub(super) fn facts(&self, s: &State, b: u8) -> ReplicaFacts {
        *self.product.replicas.facts(s.node(b).replica)
    }

    /// Asks the replica of `b`, and takes note of what came of it.
    pub(super) fn call(&mut self, n: &mut State, b: u8, call: Call) -> Said {
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
    pub(super) fn open(&mut self, n: &mut State, b: u8) {
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
}

pub(super) fn push(out: Out<'_>, step: Step, mut n: State) {
    n.tidy();
    out.push((step, n));
}
