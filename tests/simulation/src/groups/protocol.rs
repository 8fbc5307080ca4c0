//! What consumers say to each other through their coordinator: subscriptions, assignments, and the two ways in
//! which a leader shares out partitions. By Kafka's documentation of the consumer protocol, not by the product's code.

use crate::core::Core;
use bytes::Bytes;
use leasehold_broker::group::types::{JoinMember, Protocol};

/// The protocols that members know.
pub const RANGE: &str = "range";
pub const TURNS: &str = "turns";

/// A partition.
pub type Part = (String, i32);

fn put_str(out: &mut Vec<u8>, text: &str) {
    out.extend(u16::try_from(text.len()).unwrap_or(0).to_be_bytes());
    out.extend(text.as_bytes());
}

/// What a member says when it joins: the topics that it wants.
pub fn subscription(topics: &[&str]) -> Bytes {
    let mut out = vec![0, 0];
    out.extend(u32::try_from(topics.len()).unwrap_or(0).to_be_bytes());
    topics.iter().for_each(|topic| put_str(&mut out, topic));
    out.extend((-1_i32).to_be_bytes());
    out.into()
}

/// The protocols of a member, in its order.
pub fn protocols(names: &[&str], topics: &[&str]) -> Vec<Protocol> {
    let one = |name: &&str| Protocol {
        name: (*name).to_owned(),
        metadata: subscription(topics),
    };
    names.iter().map(one).collect()
}

/// What a member is given.
pub fn assignment(share: &[Part]) -> Bytes {
    let mut out = vec![0, 0];
    out.extend(u32::try_from(share.len()).unwrap_or(0).to_be_bytes());
    for (topic, partition) in share {
        put_str(&mut out, topic);
        out.extend(1_u32.to_be_bytes());
        out.extend(partition.to_be_bytes());
    }
    out.extend((-1_i32).to_be_bytes());
    out.into()
}

/// Takes an assignment apart; nothing where there is none.
pub fn share(bytes: &[u8]) -> Vec<Part> {
    let mut read = Reader(bytes.get(2..).unwrap_or_default());
    let mut share = Vec::new();
    for _ in 0..read.int().unwrap_or(0) {
        let (Some(topic), Some(count)) = (read.text(), read.int()) else {
            break;
        };
        for _ in 0..count {
            share.extend(read.int().map(|partition| (topic.clone(), partition)));
        }
    }
    share
}

/// Reads Kafka's old field types from the front of what is left.
pub struct Reader<'a>(pub &'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    /// An int16.
    pub fn short(&mut self) -> Option<i16> {
        self.take().map(i16::from_be_bytes)
    }

    /// An int32.
    pub fn int(&mut self) -> Option<i32> {
        self.take().map(i32::from_be_bytes)
    }

    /// An int64.
    pub fn long(&mut self) -> Option<i64> {
        self.take().map(i64::from_be_bytes)
    }

    /// A string.
    pub fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.short()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }
}

/// All partitions of `topics`, as the records have them.
pub fn partitions(core: &Core, topics: &[&str]) -> Vec<Part> {
    let mut all = Vec::new();
    for (id, partition) in core.check.parts.keys() {
        let Some(topic) = core.check.topics.get(id) else {
            continue;
        };
        if topics.contains(&topic.name.as_str()) {
            all.push((topic.name.clone(), i32::try_from(*partition).unwrap_or(-1)));
        }
    }
    all.sort_unstable();
    all
}

/// Shares `parts` out among `members`: in blocks, or in turns.
pub fn share_out(protocol: &str, members: &[JoinMember], parts: &[Part]) -> Vec<(String, Bytes)> {
    let count = members.len().max(1);
    let owner = |n: usize| match protocol {
        TURNS => n % count,
        _ => n * count / parts.len().max(1),
    };
    let share_of = |m: usize| -> Vec<Part> {
        let mine = (0..parts.len()).filter(|&n| owner(n) == m);
        mine.map(|n| parts[n].clone()).collect()
    };
    let shares = (0..)
        .zip(members)
        .map(|(m, member)| (member.member_id.clone(), assignment(&share_of(m))));
    shares.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_goes_to_one_member_and_an_assignment_reads_as_it_was_written() {
        let member = |n: usize| JoinMember {
            member_id: n.to_string(),
            instance_id: None,
            metadata: Bytes::new(),
        };
        let parts: Vec<Part> = (0..5).map(|n| ("t".to_owned(), n)).collect();
        for protocol in [RANGE, TURNS] {
            for count in 1..8 {
                let members: Vec<_> = (0..count).map(member).collect();
                let shares = share_out(protocol, &members, &parts);
                let mut all: Vec<Part> =
                    shares.iter().flat_map(|(_, bytes)| share(bytes)).collect();
                all.sort();
                assert_eq!((shares.len(), &all), (count, &parts));
            }
        }
        assert_eq!(share(b""), []);
    }
}
