//! `uniform`: everyone the same number of partitions, as far as subscriptions allow, and as many as
//! possible of those that they had before.
//!
//! Where all members subscribe to the same topics, shares differ by one at most, and no partition moves
//! that need not. Where they do not, no single move of a partition could make two members more even.

use super::{Question, Shares, Subscriber};
use leasehold_types::TopicId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

type Partition = (TopicId, i32);

pub(super) fn assign(question: &Question) -> Shares {
    let mut members = question.members.values();
    let Some(first) = members.next() else {
        return Shares::new();
    };
    let same = members.all(|member| member.topics == first.topics);
    let mut shares: BTreeMap<&Arc<str>, BTreeSet<Partition>> = kept(question);
    if same {
        let free = free(question, &first.topics, &shares);
        even_out(&mut shares, free);
    } else {
        fill(question, &mut shares);
        settle(question, &mut shares);
    }
    let named = |(id, partitions): (&Arc<str>, BTreeSet<Partition>)| {
        let mut share = super::Partitions::new();
        for (topic, partition) in partitions {
            share.entry(topic).or_default().insert(partition);
        }
        (id.clone(), share)
    };
    shares.into_iter().map(named).collect()
}

/// What everyone had and may keep. A partition that two claim (no assignment of ours, but a log could
/// say so) stays with the first.
fn kept(question: &Question) -> BTreeMap<&Arc<str>, BTreeSet<Partition>> {
    let mut taken = BTreeSet::new();
    let mut shares = BTreeMap::new();
    for (id, member) in &question.members {
        let before = member.before.iter();
        let before = before.flat_map(|(topic, all)| all.iter().map(|p| (*topic, *p)));
        let wanted = before.filter(|(topic, p)| question.wants(member, topic, *p));
        shares.insert(id, wanted.filter(|p| taken.insert(*p)).collect());
    }
    shares
}

fn free(
    question: &Question,
    topics: &BTreeSet<TopicId>,
    shares: &BTreeMap<&Arc<str>, BTreeSet<Partition>>,
) -> Vec<Partition> {
    let taken: BTreeSet<&Partition> = shares.values().flatten().collect();
    let all = topics
        .iter()
        .flat_map(|topic| (0..question.partitions(topic)).map(|p| (*topic, p)));
    all.filter(|partition| !taken.contains(partition)).collect()
}

/// Members with the same subscription: those who have most keep one more than the others, if it does
/// not divide; what is above that goes to those who have too little.
fn even_out(shares: &mut BTreeMap<&Arc<str>, BTreeSet<Partition>>, mut free: Vec<Partition>) {
    let total = free.len() + shares.values().map(BTreeSet::len).sum::<usize>();
    let (each, mut extra) = (total / shares.len(), total % shares.len());
    let mut quotas = BTreeMap::new();
    let mut by_size: Vec<&Arc<str>> = shares.keys().copied().collect();
    by_size.sort_by_key(|id| std::cmp::Reverse(shares[*id].len()));
    for id in by_size {
        let more = usize::from(extra > 0);
        extra -= more;
        quotas.insert(id, each + more);
    }
    for (id, share) in shares.iter_mut() {
        while share.len() > quotas[id] {
            free.extend(share.pop_last());
        }
    }
    free.sort_unstable();
    let mut free = free.into_iter();
    // One at a time, so that the partitions of a topic spread over those who wait.
    let mut short: Vec<&Arc<str>> = shares.keys().copied().collect();
    while !short.is_empty() {
        short.retain(|id| {
            let Some(share) = shares.get_mut(*id) else {
                return false;
            };
            if share.len() < quotas[*id] {
                share.extend(free.next());
            }
            share.len() < quotas[*id]
        });
    }
}

/// Gives what nobody has to whoever has least of those who want it.
fn fill(question: &Question, shares: &mut BTreeMap<&Arc<str>, BTreeSet<Partition>>) {
    let mut wanted: BTreeMap<TopicId, Vec<&Arc<str>>> = BTreeMap::new();
    for (id, member) in &question.members {
        for topic in &member.topics {
            wanted.entry(*topic).or_default().push(id);
        }
    }
    let topics: BTreeSet<TopicId> = wanted.keys().copied().collect();
    let mut free = free(question, &topics, shares);
    // Those that few want go first: who wants more has more to choose from.
    free.sort_by_key(|(topic, partition)| (wanted[topic].len(), *topic, *partition));
    for partition in free {
        let least = wanted[&partition.0]
            .iter()
            .min_by_key(|id| shares[**id].len());
        if let Some(share) = least.and_then(|id| shares.get_mut(*id)) {
            share.insert(partition);
        }
    }
}

/// Moves single partitions from who has more to who has at least two less, as long as there are any.
/// Each move lowers the sum of the squares, so it ends.
fn settle(question: &Question, shares: &mut BTreeMap<&Arc<str>, BTreeSet<Partition>>) {
    loop {
        let mut order: Vec<(&Arc<str>, &Subscriber)> = question.members.iter().collect();
        order.sort_by_key(|(id, _)| shares[*id].len());
        let mut moved = false;
        for (to, member) in order {
            let least = shares[to].len();
            let richer = shares
                .iter()
                .filter(|(_, share)| share.len() > least + 1)
                .max_by_key(|(_, share)| {
                    let any = share.iter().any(|(t, p)| question.wants(member, t, *p));
                    if any { share.len() } else { 0 }
                })
                .map(|(id, _)| *id);
            let Some(from) = richer else { continue };
            let found = shares[from]
                .iter()
                .rfind(|(topic, p)| question.wants(member, topic, *p))
                .copied();
            if let Some(partition) = found {
                if let Some(share) = shares.get_mut(from) {
                    share.remove(&partition);
                }
                if let Some(share) = shares.get_mut(to) {
                    share.insert(partition);
                }
                moved = true;
            }
        }
        if !moved {
            return;
        }
    }
}
