//! The worlds that are searched whole, and for each rule the one in which its absence shows.

use crate::head::{self, Heads};
use crate::partition::{self, Partition};
use crate::search::{Report, search};

/// More states than any world here has: a search that comes so far has got out of hand.
pub const MOST: usize = 30_000_000;

/// What is searched.
#[derive(Clone, Copy, Debug)]
pub enum Small {
    Partition(partition::Bounds),
    Head(head::Bounds),
}

/// A small world with a name.
#[derive(Clone, Copy, Debug)]
pub struct World {
    pub name: &'static str,
    pub small: Small,
}

const fn partition(
    name: &'static str,
    (brokers, min, values): (usize, u8, u8),
    (writes, proposals): (u8, u8),
    [crashes, losses, late, moves, apart]: [u8; 5],
) -> World {
    World {
        name,
        small: Small::Partition(partition::Bounds {
            brokers,
            min,
            values,
            writes,
            proposals,
            crashes,
            losses,
            late,
            moves,
            apart,
        }),
    }
}

const fn head(
    name: &'static str,
    lives: u8,
    [sends, doubts, records]: [u8; 3],
    tail_bytes: usize,
) -> World {
    World {
        name,
        small: Small::Head(head::Bounds {
            lives,
            sends,
            doubts,
            records,
            tail_bytes,
        }),
    }
}

/// All of them.
pub const WORLDS: &[World] = &[
    // Brokers, minimum, records; head writes, proposals; crashes, losses of power, late fetches, moves, and a
    // broker that begins outside of the ISR.
    partition("two", (2, 1, 2), (4, 2), [1, 0, 0, 0, 0]),
    partition("two-lossy", (2, 2, 1), (4, 2), [0, 1, 1, 0, 0]),
    partition("two-lossy-1", (2, 1, 1), (5, 2), [0, 1, 0, 0, 0]),
    partition("two-killed", (2, 2, 1), (5, 1), [1, 1, 0, 0, 0]),
    partition("two-moved", (2, 1, 1), (3, 1), [0, 0, 1, 1, 0]),
    partition("three", (3, 1, 1), (3, 2), [0, 0, 0, 0, 1]),
    partition("three-moved", (3, 2, 1), (2, 0), [0, 0, 1, 1, 0]),
    partition("three-lossy", (3, 2, 1), (3, 1), [0, 1, 0, 0, 0]),
    // Processes per candidate; head writes sent, answers that never come, records; bytes of the tail.
    head("head", 2, [4, 2, 1], 8_192),
    head("head-rolled", 2, [4, 2, 1], 200),
];

/// The world of that name.
pub fn world(name: &str) -> Option<&'static World> {
    WORLDS.iter().find(|world| world.name == name)
}

/// A rule, and the promise that breaks without it, in that world.
#[derive(Clone, Copy, Debug)]
pub struct Mutation {
    pub rule: &'static str,
    pub world: &'static str,
    pub breaks: &'static str,
}

const fn mutation(rule: &'static str, world: &'static str, breaks: &'static str) -> Mutation {
    Mutation {
        rule,
        world,
        breaks,
    }
}

/// Every rule that decides about a partition or the head. Those above them (terms, the Lease) need time, and are
/// the simulation's.
pub const MUTATIONS: &[Mutation] = &[
    mutation("head-tests-nonce", "head", "I1"),
    mutation("claim-raises-epoch", "head", "I15"),
    mutation("refusal-is-doubt", "head", "C1"),
    mutation("doubt-is-resolved", "head", "C2"),
    mutation("unmoved-is-undecided", "head", "C1"),
    mutation("own-nonce-is-looked-for", "head", "C1"),
    mutation("leader-change-raises-epoch", "two", "I6"),
    mutation("leader-from-the-isr", "two", "I6"),
    mutation("fenced-leave-the-isr", "two", "I6"),
    mutation("elr-is-emptied-at-the-minimum", "two", "I7"),
    mutation("elr-is-kept", "two-lossy", "I8"),
    mutation("restart-is-judged", "two-lossy", "I7"),
    mutation("kernel-and-pod-are-compared", "two-lossy", "I7"),
    mutation("the-last-member-is-judged-too", "two-lossy-1", "I7"),
    mutation("registered-fenced", "two", "I5"),
    mutation("isr-partition-epoch", "two", "I7"),
    mutation("isr-member-incarnation", "two-lossy-1", "I7"),
    mutation("isr-member-unfenced", "two-lossy-1", "I6"),
    mutation("unfenced-when-caught-up", "two", "I6"),
    mutation("hw-needs-the-minimum", "two-lossy", "I10"),
    mutation("hw-counts-the-proposal", "two", "I7"),
    mutation("hw-counts-who-is-to-leave", "two", "I7"),
    mutation("hw-needs-every-member", "two", "I7"),
    mutation("fetch-of-an-older-epoch", "three-moved", "I7"),
    mutation("fetch-incarnation", "two-lossy", "I7"),
    mutation("follower-state-is-reset", "two-lossy-1", "I7"),
    mutation("join-at-the-high-watermark", "two", "I7"),
    mutation("join-at-the-epochs-start", "two-killed", "I7"),
    mutation("one-proposal-at-a-time", "three", "I7"),
    mutation("a-retry-is-identical", "two-lossy-1", "I7"),
    mutation("only-a-record-ends-a-proposal", "two", "I7"),
    mutation("a-newer-epoch-ends-serving", "two-moved", "S1"),
];

/// Searches a world, with a rule taken out or with all. Beside the report: what was asked of the product.
pub fn explore(small: Small, without: Option<&str>, most: usize) -> (Report, String) {
    match small {
        Small::Partition(bounds) => {
            let mut model = Partition::new(bounds, without);
            let report = search(&mut model, most);
            let [questions, images, replicas] = model.asked();
            (
                report,
                format!("{questions} questions, {images} images, {replicas} replicas"),
            )
        }
        Small::Head(bounds) => {
            let mut model = Heads::new(bounds, without);
            let report = search(&mut model, most);
            let [lives, heads, writes] = model.asked();
            (
                report,
                format!("{lives} lives of candidates, {heads} heads, {writes} head writes"),
            )
        }
    }
}
