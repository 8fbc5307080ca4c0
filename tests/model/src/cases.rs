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
    [crashes, losses, late, moves]: [u8; 4],
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
        }),
    }
}

const fn head(
    name: &'static str,
    lives: u8,
    (sends, records): (u8, u8),
    tail_bytes: usize,
) -> World {
    World {
        name,
        small: Small::Head(head::Bounds {
            lives,
            sends,
            records,
            tail_bytes,
        }),
    }
}

/// All of them.
pub const WORLDS: &[World] = &[
    // Brokers, minimum, records; head writes, proposals; crashes, losses of power, late fetches, moves.
    partition("two", (2, 1, 2), (4, 2), [1, 0, 0, 0]),
    partition("two-lossy", (2, 2, 1), (4, 2), [0, 1, 1, 0]),
    partition("two-lossy-1", (2, 1, 1), (5, 1), [0, 1, 0, 0]),
    partition("two-moved", (2, 1, 1), (3, 1), [0, 0, 1, 1]),
    partition("three-moved", (3, 2, 1), (2, 0), [0, 0, 1, 1]),
    partition("three-lossy", (3, 2, 1), (4, 2), [0, 1, 0, 0]),
    // Processes per candidate; head writes sent, records; bytes of the tail.
    head("head", 2, (4, 2), 8_192),
    head("head-rolled", 2, (4, 2), 100),
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

/// Every rule of replication that can be taken out.
pub const MUTATIONS: &[Mutation] = &[
    mutation("leader-change-raises-epoch", "two", "I6"),
    mutation("leader-from-the-isr", "two", "I6"),
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
