//! Levelling: one unit at a time from who has most to who has least, over others where it must be.

use std::collections::{BTreeSet, VecDeque};

/// Something that brokers have more or less of, in units that can be handed from one to another.
pub(super) trait Load {
    /// Brokers that may give and get.
    fn brokers(&self) -> Vec<usize>;
    /// How much `broker` has.
    fn of(&self, broker: usize) -> usize;
    /// The best unit that `from` can hand to `to`, other than `used`.
    fn unit(&self, from: usize, to: usize, used: &[usize]) -> Option<usize>;
    fn hand(&mut self, unit: usize, from: usize, to: usize);
}

/// One broker hands a unit to another.
struct Hop {
    unit: usize,
    from: usize,
    to: usize,
}

/// Takes one unit from a broker to one that has at least two less, by as few hops as possible. How many those
/// were; 0 if no such pair is left. Depends on nothing but `load`, so whoever asks again is told the same.
pub(super) fn improve(load: &mut impl Load) -> usize {
    let mut brokers = load.brokers();
    brokers.sort_by_key(|&b| (load.of(b), b));
    let Some(least) = brokers.first().map(|&b| load.of(b)) else {
        return 0;
    };
    // Who was reached in vain from one that has as much or more reaches no further.
    let mut hopeless: BTreeSet<usize> = BTreeSet::new();
    for &from in brokers.iter().rev() {
        if load.of(from) < least + 2 {
            break;
        }
        if hopeless.contains(&from) {
            continue;
        }
        match chain(load, &brokers, from) {
            Ok(hops) => {
                let count = hops.len();
                for hop in hops {
                    load.hand(hop.unit, hop.from, hop.to);
                }
                return count;
            }
            Err(reached) => hopeless.extend(reached),
        }
    }
    0
}

/// The shortest chain from `from` to a broker with two less, no unit in it twice; else who was reached.
fn chain(load: &impl Load, ascending: &[usize], from: usize) -> Result<Vec<Hop>, BTreeSet<usize>> {
    let mut reached: BTreeSet<usize> = BTreeSet::from([from]);
    // Whoever was reached, from whom (as a place in this list), and with which unit.
    let mut steps: Vec<(usize, Option<(usize, usize)>)> = vec![(from, None)];
    let mut queue: VecDeque<usize> = VecDeque::from([0]);
    while let Some(place) = queue.pop_front() {
        let broker = steps[place].0;
        let used = units_to(&steps, place);
        for &next in ascending {
            if reached.contains(&next) {
                continue;
            }
            let Some(unit) = load.unit(broker, next, &used) else {
                continue;
            };
            reached.insert(next);
            steps.push((next, Some((place, unit))));
            if load.of(next) + 2 <= load.of(from) {
                return Ok(hops_to(&steps, steps.len() - 1));
            }
            queue.push_back(steps.len() - 1);
        }
    }
    Err(reached)
}

fn units_to(steps: &[(usize, Option<(usize, usize)>)], place: usize) -> Vec<usize> {
    hops_to(steps, place).iter().map(|hop| hop.unit).collect()
}

fn hops_to(steps: &[(usize, Option<(usize, usize)>)], mut place: usize) -> Vec<Hop> {
    let mut hops = Vec::new();
    while let (to, Some((before, unit))) = steps[place] {
        let from = steps[before].0;
        hops.push(Hop { unit, from, to });
        place = before;
    }
    hops
}
