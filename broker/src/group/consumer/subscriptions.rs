//! What the members subscribe to: names, regular expressions, and the topics that exist of them.

use super::group::ConsumerGroup;
use super::member::Member;
use super::{Refused, World};
use crate::group::store::consumer::RegexValue;
use leasehold_metadata::image::Image;
use leasehold_types::TopicId;
use leasehold_wire::ErrorCode;
use regex::{Regex, RegexBuilder};
use std::collections::BTreeSet;
use std::sync::Arc;

/// So large may the program be that an expression is compiled to.
const REGEX_SIZE: usize = 256 * 1024;

impl ConsumerGroup {
    /// The names that a member subscribes to, those that its expression matches among them.
    pub(super) fn names_of<'a>(&'a self, member: &'a Member) -> impl Iterator<Item = &'a str> {
        let regex = member.metadata.regex.as_deref();
        let matched = regex.and_then(|regex| self.regexes.get(regex));
        let matched = matched.into_iter().flat_map(|value| &value.topics);
        let names = member.metadata.topics.iter().chain(matched);
        names.map(String::as_str)
    }

    /// The existing topics that a member subscribes to.
    pub(super) fn topics_of(&self, member: &Member, image: &Image) -> BTreeSet<TopicId> {
        let existing = |name| image.topic_by_name(name).map(|topic| topic.id);
        self.names_of(member).filter_map(existing).collect()
    }

    /// Whether a member consumes `topic`.
    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        let mut members = self.members.values();
        members.any(|member| self.names_of(member).any(|name| name == topic))
    }

    /// Resolves what is not resolved yet and drops what nobody uses any more; with `anew` resolves all.
    pub(super) fn resolve_regexes(&mut self, anew: bool, world: &World<'_>) {
        let used: BTreeSet<Arc<str>> = {
            let regexes = self.members.values();
            let regexes = regexes.filter_map(|member| member.metadata.regex.as_deref());
            regexes
                .filter(|regex| !regex.is_empty())
                .map(Arc::from)
                .collect()
        };
        let unused = self.regexes.keys().filter(|regex| !used.contains(*regex));
        for regex in unused.cloned().collect::<Vec<_>>() {
            self.regexes.remove(&regex);
        }
        for regex in used {
            let known = self.regexes.get(&regex);
            if known.is_some() && !anew {
                continue;
            }
            let topics = matching(&regex, world.image);
            if known.is_some_and(|known| known.topics == topics) {
                continue;
            }
            let value = RegexValue {
                topics,
                version: world.image.position.seq.0 as i64,
                timestamp: world.now.wall,
            };
            self.regexes.insert(regex, Arc::new(value));
        }
    }

    /// A number that differs where the topics that the group consumes differ: which there are, and how
    /// many partitions each has. 0 where there are none.
    pub(super) fn metadata_hash(&self, image: &Image) -> i64 {
        let members = self.members.values();
        let names: BTreeSet<&str> = members.flat_map(|m| self.names_of(m)).collect();
        let mut hash = Fnv::default();
        for name in names {
            if let Some(topic) = image.topic_by_name(name) {
                hash.write(name.as_bytes());
                hash.write(topic.id.0.as_bytes());
                hash.write(&(topic.partitions.len() as u64).to_be_bytes());
            }
        }
        hash.0.map_or(0, |hash| hash as i64)
    }

    /// Raises the group's epoch if `changed`, or if the topics are not those of the last epoch.
    pub(super) fn raise_if(&mut self, changed: bool, world: &World<'_>) {
        let hash = self.metadata_hash(world.image);
        // No member is ever at 0: that is the epoch of those who join.
        if changed || hash != self.epoch.metadata_hash || self.epoch.epoch == 0 {
            self.epoch.epoch = self.epoch.epoch.saturating_add(1);
            self.epoch.metadata_hash = hash;
            tracing::info!(group = %self.id, epoch = self.epoch.epoch, "the group's epoch is raised");
        }
    }

    /// Topics were created, grew or were deleted.
    pub fn topics_changed(&mut self, world: &World<'_>) {
        if !self.members.is_empty() {
            self.resolve_regexes(true, world);
            self.raise_if(false, world);
        }
    }
}

/// FNV-1a, because it is to be the same in every release: it is stored.
#[derive(Default)]
struct Fnv(Option<u64>);

impl Fnv {
    fn write(&mut self, bytes: &[u8]) {
        let mut hash = self.0.unwrap_or(0xcbf2_9ce4_8422_2325);
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.0 = Some(hash);
    }
}

/// The expression, to be matched with whole names; linear in their length, as RE2 is.
pub(super) fn compile(regex: &str) -> Result<Regex, Refused> {
    let refused = |error: regex::Error| {
        let message =
            format!("SubscribedTopicRegex `{regex}` is not a valid regular expression: {error}.");
        Refused::new(ErrorCode::InvalidRegularExpression, message)
    };
    // By itself first: otherwise `a)(b` would pass between the brackets.
    RegexBuilder::new(regex)
        .size_limit(REGEX_SIZE)
        .build()
        .map_err(refused)?;
    let whole = format!("^(?:{regex})$");
    RegexBuilder::new(&whole)
        .size_limit(REGEX_SIZE)
        .build()
        .map_err(refused)
}

fn matching(regex: &str, image: &Image) -> BTreeSet<String> {
    match compile(regex) {
        Ok(regex) => {
            let names = image.names.keys().filter(|name| regex.is_match(name));
            names.cloned().collect()
        }
        Err(error) => {
            // Refused where it comes in; a log of another's making may hold one all the same.
            tracing::warn!(
                regex,
                message = error.message,
                "a stored expression is not understood here"
            );
            BTreeSet::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_matches_whole_names_and_must_stand_by_itself() {
        assert!(compile("a|b").unwrap().is_match("b"));
        assert!(!compile("a|b").unwrap().is_match("ab"));
        for bad in ["(", "a)(b", "(?=x)", "a{1000}{1000}"] {
            let error = compile(bad).unwrap_err().error;
            assert_eq!(error, ErrorCode::InvalidRegularExpression, "{bad}");
        }
    }
}
