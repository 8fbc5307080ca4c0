//! What can happen to the head and its candidates, and what must hold.

use super::writer::{Told, What};
use super::{CANDIDATES, Heads, NONE, SAID, Sent, State};
use crate::search::Step;
use leasehold_metadata::head::Head;
use leasehold_metadata::store::{HeadObject, NONCE};
use leasehold_types::seams::taken_out;

type Out<'a> = &'a mut Vec<(Step, State)>;

const TEXTS: [&str; 6] = [
    "",
    "I1 a head write does not continue the head",
    "I2 an epoch is claimed twice",
    "I3 an epoch falls",
    "panic: in the product",
    "I15 a candidate that read the head does not claim it",
];

fn step(what: &'static str, who: usize) -> Step {
    let who = who as u8;
    let detail = 0;
    Step { what, who, detail }
}

impl Heads {
    pub(super) fn moves(&mut self, s: &State, out: Out<'_>) {
        if s.broken != 0 {
            return;
        }
        for c in 0..CANDIDATES {
            if s.begun[c] < self.bounds.lives {
                let mut n = *s;
                n.begun[c] += 1;
                let born = self.born(c as u8, n.begun[c]);
                n.net.iter_mut().for_each(|sent| {
                    sent.awaited &= usize::from(sent.from) != c;
                });
                self.becomes(&mut n, c, born);
                push(out, step("a new process of", c), n);
            }
            if s.lives[c] == NONE {
                continue;
            }
            let told = self.lives.value(s.lives[c]).told.len();
            let what = self.lives.facts(s.lives[c]).what;
            match what {
                What::Read => {
                    self.tells(s, c, Told::Head(s.head), "the head is read by", out);
                    if told > 0 {
                        self.tells(s, c, Told::Late, "no time is left to", out);
                    }
                }
                What::Patch(_) => {
                    if s.doubts < self.bounds.doubts {
                        let mut n = *s;
                        n.doubts += 1;
                        self.tells(&n, c, Told::Doubt, "no answer comes to", out);
                    }
                    self.tells(s, c, Told::Late, "no time is left to", out);
                }
                What::Record if s.records < self.bounds.records => {
                    let mut n = *s;
                    n.records += 1;
                    self.tells(&n, c, Told::Commit, "a record for", out);
                }
                _ => {}
            }
        }
        for place in 0..s.net.len() {
            if s.net[place].patch != NONE {
                self.arrive(s, place, out);
            }
        }
    }

    fn tells(&mut self, s: &State, c: usize, told: Told, what: &'static str, out: Out<'_>) {
        let mut n = *s;
        for sent in &mut n.net {
            sent.awaited &= usize::from(sent.from) != c;
        }
        let next = self.tell(s.lives[c], told);
        self.becomes(&mut n, c, next);
        push(out, step(what, c), n);
    }

    /// Candidate `c` has come so far; a head write that it sends is on its way.
    fn becomes(&mut self, n: &mut State, c: usize, life: u32) {
        n.lives[c] = life;
        let wants = *self.lives.facts(life);
        if let Some((patch, Some(applied))) = wants.said
            && !n.said.contains(&(patch, applied))
            && let Some(free) = n.said.iter_mut().find(|said| said.0 == NONE)
        {
            *free = (patch, applied);
        }
        match wants.what {
            What::Patch(patch) => {
                let free = n.net.iter_mut().find(|sent| sent.patch == NONE);
                if let Some(free) = free.filter(|_| n.sends < self.bounds.sends) {
                    n.sends += 1;
                    *free = Sent {
                        patch,
                        from: c as u8,
                        life: n.begun[c],
                        awaited: true,
                    };
                }
            }
            What::Panicked => n.broken = 4,
            What::Over if self.lives.value(life).told.len() == 1 => n.broken = 5,
            _ => {}
        }
    }

    /// A head write arrives; its answer is heard, or gets lost.
    fn arrive(&mut self, s: &State, place: usize, out: Out<'_>) {
        let Sent {
            patch,
            from,
            awaited,
            ..
        } = s.net[place];
        let mut n = *s;
        n.net[place].patch = NONE;
        n.net[place].awaited = false;
        let applied = self.apply(&mut n, patch);
        let c = usize::from(from);
        let what = match applied {
            true => "a head write is applied, of",
            false => "a head write is refused, of",
        };
        if awaited && n.broken == 0 {
            let told = if applied {
                Told::Applied
            } else {
                Told::Refused
            };
            self.tells(&n, c, told, what, out);
        }
        push(out, step(what, c), n);
    }

    /// What a store does with it.
    fn apply(&mut self, n: &mut State, patch: u32) -> bool {
        let write = self.patches.value(patch);
        let mut object: HeadObject = self.heads.value(n.head).clone();
        let expected = object.data.get(NONCE) == Some(&write.tested);
        let holds = object.uid == write.uid && (expected || taken_out("head-tests-nonce"));
        let removed = &write.patch.remove;
        if !holds || removed.iter().any(|key| !object.data.contains_key(key)) {
            return false;
        }
        for key in removed {
            object.data.remove(key);
        }
        object.data.extend(write.patch.set.clone());
        object
            .data
            .insert(NONCE.to_owned(), write.patch.nonce.clone());
        let head = self.head(object);
        n.broken = match (self.heads.facts(n.head), self.heads.facts(head)) {
            (Some(old), Some(new)) => judge(old, new),
            _ => 1,
        };
        n.head = head;
        let mut chain = self.chains.value(n.chain).clone();
        chain.push(patch);
        n.chain = self.chain(chain);
        true
    }

    pub(super) fn check(&self, s: &State) -> Option<String> {
        if s.broken != 0 {
            return Some(TEXTS[usize::from(s.broken)].to_owned());
        }
        let chain = self.chains.value(s.chain);
        let wrong = |said: &&(u32, bool)| said.0 != NONE && chain.contains(&said.0) != said.1;
        let (patch, applied) = s.said.iter().find(wrong)?;
        Some(match applied {
            true => format!("C2 head write {patch} is said to be applied, and is not"),
            false => format!("C1 head write {patch} is said not to be applied, and is"),
        })
    }

    pub(super) fn describe(&self, s: &State) -> String {
        let mut text = match self.heads.facts(s.head) {
            Some(head) => format!("head at {}, epoch {}", head.seq, head.epoch),
            None => "head unreadable".to_owned(),
        };
        text += &format!(", applied {:?}", self.chains.value(s.chain));
        for (c, life) in s.lives.iter().enumerate().filter(|(_, l)| **l != NONE) {
            let wants = self.lives.facts(*life);
            text += &format!(" | {c}.{} wants {:?}", s.begun[c], wants.what);
        }
        for sent in s.net.iter().filter(|sent| sent.patch != NONE) {
            text += &format!(
                " | on its way: {} of {}.{}",
                sent.patch, sent.from, sent.life
            );
        }
        let said: Vec<_> = s.said.iter().filter(|said| said.0 != NONE).collect();
        text + &format!(" | said {said:?}")
    }
}

fn judge(old: &Head, new: &Head) -> u8 {
    let kept = old.tail.iter().all(|(seq, entry)| {
        new.tail.get(seq) == Some(entry)
            || new
                .segments
                .iter()
                .any(|s| s.first <= *seq && *seq <= s.last)
            || new.snapshot.as_ref().is_some_and(|s| *seq <= s.last)
    });
    let rising = |pair: &[leasehold_metadata::image::Claim]| pair[0].epoch < pair[1].epoch;
    if new.seq != old.seq.next() || !kept {
        1
    } else if !new.claims.windows(2).all(rising) {
        2
    } else if new.epoch < old.epoch || new.tail.values().any(|e| e.header.epoch > new.epoch) {
        3
    } else {
        0
    }
}

fn push(out: Out<'_>, step: Step, mut n: State) {
    n.net.sort_unstable();
    n.said[..SAID].sort_unstable();
    out.push((step, n));
}
