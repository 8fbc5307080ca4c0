//! Breadth first through everything that can happen, with 64-bit fingerprints of the states that were seen.
//!
//! Our own, and not the `stateright` crate: there a state is a value that is cloned and hashed whole, while the
//! product's state machines are large and full of `Arc`s and instants. Here a state is a few dozen numbers that
//! name them ([`crate::pool`]), so that each of the product's decisions is computed once per distinct question,
//! and millions of combinations of their answers fit into memory.
//!
//! Promises: either a shortest way to a broken promise, or that there is none within the bounds.

use crate::pool::{Map, fingerprint};
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// What happened: a word, who, and a detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub what: &'static str,
    pub who: u8,
    pub detail: u8,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.what, self.who, self.detail)
    }
}

/// A small world.
pub trait Model {
    type State: Copy + Hash;

    /// How it begins.
    fn first(&mut self) -> Self::State;

    /// Everything that can happen next.
    fn next(&mut self, state: &Self::State, out: &mut Vec<(Step, Self::State)>);

    /// The promise that is broken in this state; it begins with its number.
    fn broken(&self, state: &Self::State) -> Option<String>;

    /// For people.
    fn show(&self, state: &Self::State) -> String;
}

/// A shortest way to a broken promise.
#[derive(Clone, Debug)]
pub struct Found {
    pub broken: String,
    /// One line per step, each with the state that it led to.
    pub steps: Vec<String>,
}

/// Asks the product; `None` if it panicked, which is a broken promise too.
pub fn attempt<T>(question: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(question)).ok()
}

/// What a search came to.
#[derive(Clone, Debug)]
pub struct Report {
    pub states: usize,
    /// The longest of the shortest ways to a state.
    pub depth: usize,
    /// Whether everything within the bounds was seen (if nothing was found).
    pub complete: bool,
    pub seconds: f64,
    pub found: Option<Found>,
}

/// Searches until a promise is broken, all is seen, or `most` states are.
pub fn search<M: Model>(model: &mut M, most: usize) -> Report {
    let begun = Instant::now();
    // Each state's fingerprint, and that of the state from which it was first reached.
    let mut seen: Map<u64, u64> = Map::default();
    let first = model.first();
    let root = fingerprint(&first);
    seen.insert(root, root);
    let report = |seen: &Map<u64, u64>, depth, complete, found| Report {
        states: seen.len(),
        depth,
        complete,
        seconds: begun.elapsed().as_secs_f64(),
        found,
    };
    if let Some(broken) = model.broken(&first) {
        let steps = vec![model.show(&first)];
        return report(&seen, 0, false, Some(Found { broken, steps }));
    }
    let (mut frontier, mut depth, mut out) = (vec![first], 0, Vec::new());
    while !frontier.is_empty() {
        let mut beyond = Vec::new();
        for state in &frontier {
            let from = fingerprint(state);
            out.clear();
            model.next(state, &mut out);
            for (_, next) in &out {
                let Entry::Vacant(place) = seen.entry(fingerprint(next)) else {
                    continue;
                };
                let reached = *place.key();
                place.insert(from);
                if let Some(broken) = model.broken(next) {
                    let steps = way(model, &seen, reached);
                    return report(&seen, depth + 1, false, Some(Found { broken, steps }));
                }
                beyond.push(*next);
            }
            if seen.len() > most {
                return report(&seen, depth, false, None);
            }
        }
        depth += usize::from(!beyond.is_empty());
        frontier = beyond;
    }
    report(&seen, depth, true, None)
}

/// The steps that led to the state with this fingerprint, walked once more.
fn way<M: Model>(model: &mut M, seen: &Map<u64, u64>, mut reached: u64) -> Vec<String> {
    let mut marks = vec![reached];
    while seen[&reached] != reached {
        reached = seen[&reached];
        marks.push(reached);
    }
    marks.reverse();
    let mut state = model.first();
    let mut lines = vec![format!("at first: {}", model.show(&state))];
    let mut out = Vec::new();
    for mark in &marks[1..] {
        out.clear();
        model.next(&state, &mut out);
        let Some((step, next)) = out.iter().find(|(_, next)| fingerprint(next) == *mark) else {
            lines.push("(the way was lost: the model is not a function of its state)".to_owned());
            break;
        };
        state = *next;
        lines.push(format!("{step}: {}", model.show(&state)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two jugs of 3 and 5, and a wish.
    struct Jugs(Option<u8>);

    impl Model for Jugs {
        type State = (u8, u8);

        fn first(&mut self) -> Self::State {
            (0, 0)
        }

        fn next(&mut self, &(a, b): &Self::State, out: &mut Vec<(Step, Self::State)>) {
            let poured = a.min(5 - b);
            let back = b.min(3 - a);
            let after = [
                (3, b),
                (a, 5),
                (0, b),
                (a, 0),
                (a - poured, b + poured),
                (a + back, b - back),
            ];
            for (detail, next) in (0..).zip(after) {
                let (what, who) = ("pour", 0);
                out.push((Step { what, who, detail }, next));
            }
        }

        fn broken(&self, state: &Self::State) -> Option<String> {
            (Some(state.1) == self.0).then(|| format!("there are {}", state.1))
        }

        fn show(&self, state: &Self::State) -> String {
            format!("{state:?}")
        }
    }

    #[test]
    fn a_shortest_way_is_found_and_told() {
        let report = search(&mut Jugs(Some(4)), 1_000);
        let found = report.found.unwrap();
        assert_eq!(
            (found.broken.as_str(), found.steps.len()),
            ("there are 4", 7)
        );
        assert!(found.steps[6].ends_with("(3, 4)"), "{:?}", found.steps);
    }

    #[test]
    fn without_a_broken_promise_everything_is_seen() {
        let report = search(&mut Jugs(None), 1_000);
        assert_eq!((report.states, report.complete), (16, true));
        assert!(!search(&mut Jugs(None), 5).complete);
    }
}
