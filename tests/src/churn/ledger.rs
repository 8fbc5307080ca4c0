//! Who held which partition from when to when, and what was read by whom.
//!
//! Promise: pure. Times are those of the members' own clock, which is one for the whole machine; a member holds a
//! partition from the callback that gives it until the callback that takes it has committed, or until its process is
//! gone.

use std::collections::{BTreeMap, BTreeSet};

/// A time of the machine's monotonic clock, in nanoseconds.
pub type Nanos = u64;

/// What a member tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// These partitions are its own from now on.
    Given(Nanos, Vec<i32>),
    /// It works on these no more, and has committed what it read of them.
    Taken(Nanos, Vec<i32>),
    /// The group went on without it before it heard of that.
    Lost(Nanos, Vec<i32>),
    /// It has worked on the record of that offset.
    Read(i32, i64),
    /// A commit that was refused while partitions were taken.
    Refused(String),
}

impl Told {
    /// As it stands in a line of the member's output.
    pub fn line(&self) -> String {
        let list = |mark, at: &Nanos, partitions: &[i32]| {
            let all: String = partitions.iter().map(|p| format!(" {p}")).collect();
            format!("{mark} {at}{all}\n")
        };
        match self {
            Self::Given(at, partitions) => list("given", at, partitions),
            Self::Taken(at, partitions) => list("taken", at, partitions),
            Self::Lost(at, partitions) => list("lost", at, partitions),
            Self::Read(partition, offset) => format!("read {partition} {offset}\n"),
            Self::Refused(why) => format!("refused {}\n", why.replace('\n', " ")),
        }
    }

    /// The reverse; nothing for a line that was cut off.
    pub fn parse(line: &str) -> Option<Self> {
        let (mark, rest) = line.strip_suffix('\n')?.split_once(' ')?;
        if mark == "refused" {
            return Some(Self::Refused(rest.to_owned()));
        }
        let (first, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let all =
            || -> Option<Vec<i32>> { rest.split_whitespace().map(|p| p.parse().ok()).collect() };
        Some(match mark {
            "given" => Self::Given(first.parse().ok()?, all()?),
            "taken" => Self::Taken(first.parse().ok()?, all()?),
            "lost" => Self::Lost(first.parse().ok()?, all()?),
            "read" => Self::Read(first.parse().ok()?, rest.parse().ok()?),
            _ => return None,
        })
    }
}

/// A time for which a member held a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tenure {
    member: usize,
    from: Nanos,
    to: Option<Nanos>,
    /// The group had given it to somebody else before the member knew.
    lost: bool,
}

/// Everything that the members of one group told.
#[derive(Debug, Default)]
pub struct Ledger {
    tenures: BTreeMap<i32, Vec<Tenure>>,
    read: BTreeMap<i32, BTreeMap<i64, u32>>,
    /// The last change of hands.
    pub changed: Nanos,
    /// Commits that were refused while partitions were taken.
    pub refused: Vec<String>,
}

impl Ledger {
    pub fn note(&mut self, member: usize, told: Told) {
        match told {
            Told::Given(at, partitions) => {
                self.changed = self.changed.max(at);
                for partition in partitions {
                    self.tenures.entry(partition).or_default().push(Tenure {
                        member,
                        from: at,
                        to: None,
                        lost: false,
                    });
                }
            }
            Told::Taken(at, partitions) => self.end(member, at, Some(&partitions), false),
            Told::Lost(at, partitions) => self.end(member, at, Some(&partitions), true),
            Told::Read(partition, offset) => {
                let offsets = self.read.entry(partition).or_default();
                *offsets.entry(offset).or_default() += 1;
            }
            Told::Refused(why) => self.refused.push(why),
        }
    }

    /// The process of this member is gone.
    pub fn gone(&mut self, member: usize, at: Nanos) {
        self.end(member, at, None, false);
    }

    fn end(&mut self, member: usize, at: Nanos, which: Option<&[i32]>, lost: bool) {
        let ours = |tenure: &&mut Tenure| tenure.member == member && tenure.to.is_none();
        for (partition, tenures) in &mut self.tenures {
            if which.is_some_and(|which| !which.contains(partition)) {
                continue;
            }
            for tenure in tenures.iter_mut().filter(ours) {
                (tenure.to, tenure.lost) = (Some(at), lost);
                self.changed = self.changed.max(at);
            }
        }
    }

    /// How many partitions each member holds, and how many are nobody's or more than one's.
    pub fn shares(&self, partitions: i32) -> (BTreeMap<usize, usize>, usize) {
        let mut shares = BTreeMap::new();
        let mut odd = 0;
        for partition in 0..partitions {
            let tenures = self.tenures.get(&partition).into_iter().flatten();
            let holders: Vec<usize> = tenures
                .filter(|tenure| tenure.to.is_none())
                .map(|tenure| tenure.member)
                .collect();
            odd += usize::from(holders.len() != 1);
            for member in holders {
                *shares.entry(member).or_default() += 1;
            }
        }
        (shares, odd)
    }

    /// Whether every partition is one's, no more than one apart between any two of these members.
    pub fn settled(&self, partitions: i32, members: &BTreeSet<usize>) -> Result<(), String> {
        let (shares, odd) = self.shares(partitions);
        let share = |member| shares.get(member).copied().unwrap_or(0);
        let (least, most) = (
            members.iter().map(share).min().unwrap_or(0),
            members.iter().map(share).max().unwrap_or(0),
        );
        let strangers = shares.keys().filter(|m| !members.contains(m)).count();
        if odd == 0 && strangers == 0 && most - least <= 1 {
            return Ok(());
        }
        Err(format!(
            "{odd} of {partitions} partitions without exactly one owner, {strangers} owners that have left, shares of {least} to {most}"
        ))
    }

    /// Partitions that were two members' at once though neither had been expelled.
    pub fn overlaps(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (partition, tenures) in &self.tenures {
            let mut sorted = tenures.clone();
            sorted.sort_by_key(|tenure| tenure.from);
            for (n, first) in sorted.iter().enumerate() {
                let end = first.to.unwrap_or(Nanos::MAX);
                let meanwhile = sorted[n + 1..].iter().take_while(|next| next.from < end);
                for next in meanwhile.filter(|_| !first.lost) {
                    let both = (end.min(next.to.unwrap_or(Nanos::MAX)) - next.from) / 1_000;
                    faults.push(format!(
                        "partition {partition} was member {}'s and {}'s at once for {both} us",
                        first.member, next.member
                    ));
                }
            }
        }
        faults
    }

    /// How often a member had been expelled before it knew.
    pub fn expelled(&self) -> usize {
        let tenures = self.tenures.values().flatten();
        let lost: BTreeSet<(usize, Option<Nanos>)> = tenures
            .filter(|tenure| tenure.lost)
            .map(|tenure| (tenure.member, tenure.to))
            .collect();
        lost.len()
    }

    /// Of these offsets by partition, those that nobody has read.
    pub fn unread(&self, partition: i32, offsets: impl Iterator<Item = i64>) -> Vec<i64> {
        let read = self.read.get(&partition);
        let missing = |offset: &i64| read.is_none_or(|read| !read.contains_key(offset));
        offsets.filter(missing).collect()
    }

    /// How many records were read more than once.
    pub fn repeated(&self) -> usize {
        let times = self.read.values().flat_map(BTreeMap::values);
        times.filter(|times| **times > 1).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(told: &[(usize, &str)]) -> Ledger {
        let mut ledger = Ledger::default();
        for (member, line) in told {
            let told = Told::parse(&format!("{line}\n")).expect("a line");
            assert_eq!(told.line(), format!("{line}\n"));
            ledger.note(*member, told);
        }
        ledger
    }

    #[test]
    fn a_partition_of_two_members_at_once_is_found_and_one_that_is_handed_over_is_none() {
        let told = [(1, "given 10 0 1"), (1, "taken 20 0"), (2, "given 21 0")];
        assert!(ledger(&told).overlaps().is_empty());
        let told = [(1, "given 10 0"), (2, "given 15 0"), (1, "taken 20 0")];
        assert_eq!(ledger(&told).overlaps().len(), 1);
        let told = [(1, "given 10 0"), (2, "given 15 0"), (1, "lost 20 0")];
        assert!(ledger(&told).overlaps().is_empty());
        assert_eq!(ledger(&told).expelled(), 1);
    }

    #[test]
    fn what_a_dead_member_held_is_nobodys() {
        let mut ledger = ledger(&[(1, "given 10 0 1"), (2, "given 10 2 3")]);
        let members = BTreeSet::from([1, 2]);
        assert_eq!(ledger.settled(4, &members), Ok(()));
        ledger.gone(1, 30);
        ledger.note(2, Told::Given(40, vec![0, 1]));
        assert!(ledger.overlaps().is_empty());
        assert_eq!(ledger.settled(4, &BTreeSet::from([2])), Ok(()));
        assert!(ledger.settled(4, &BTreeSet::from([2, 3])).is_err());
        assert_eq!(ledger.changed, 40);
    }

    #[test]
    fn what_nobody_has_read_is_lost() {
        let ledger = ledger(&[(1, "read 0 5"), (2, "read 0 5"), (2, "read 0 7")]);
        assert_eq!(ledger.unread(0, [5, 6, 7].into_iter()), [6]);
        assert_eq!(ledger.unread(1, [0].into_iter()), [0]);
        assert_eq!(ledger.repeated(), 1);
    }

    #[test]
    fn a_line_that_was_cut_off_tells_nothing() {
        assert_eq!(Told::parse("read 0 1"), None);
        assert_eq!(Told::parse("read 0 12\n"), Some(Told::Read(0, 12)));
    }
}
