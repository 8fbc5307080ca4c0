//! Which records of a refused batch are to blame (KIP-467), and what is said of each.
//!
//! Promises: as in Apache Kafka, all of a batch is judged before it is refused, and one time out of bounds makes the
//! whole refusal INVALID_TIMESTAMP. A batch that unpacks to very many records names no more than the first of them.

use std::fmt;

/// Records that are named of one batch; they are counted beyond that. Some hundred bytes of an answer each, which a
/// compressed batch would ask for with next to none.
pub const MAX_NAMED: usize = 1000;

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blame {
    /// It has no key, and the topic is compacted.
    NoKey,
    /// Its time.
    Time(i64),
}

/// The records of one batch that the topic does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordErrors {
    /// Where in the batch; in order, at most [`MAX_NAMED`].
    named: Vec<(i32, Blame)>,
    total: usize,
    any_time: bool,
    /// Between which times a record may lie.
    within: (i64, i64),
}

impl RecordErrors {
    /// None yet, of a topic whose records lie between these times.
    pub(crate) fn none(oldest: i64, newest: i64) -> Self {
        Self {
            named: Vec::new(),
            total: 0,
            any_time: false,
            within: (oldest, newest),
        }
    }

    pub(crate) fn no_key(&mut self, index: i32) {
        self.blame(index, Blame::NoKey);
    }

    pub(crate) fn time(&mut self, index: i32, time: i64) {
        self.any_time = true;
        self.blame(index, Blame::Time(time));
    }

    fn blame(&mut self, index: i32, blame: Blame) {
        self.total += 1;
        if self.named.len() < MAX_NAMED {
            self.named.push((index, blame));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Whether a record's time is among what is wrong.
    pub fn is_about_time(&self) -> bool {
        self.any_time
    }

    /// Each named record's place in the batch, from 0, and what is wrong with it.
    pub fn rows(&self) -> impl Iterator<Item = (i32, String)> {
        self.named
            .iter()
            .map(|(index, blame)| (*index, self.words(*blame)))
    }

    fn words(&self, blame: Blame) -> String {
        let (oldest, newest) = self.within;
        match blame {
            Blame::NoKey => "a compacted topic takes no record without a key".to_owned(),
            Blame::Time(time) => {
                format!("the timestamp {time} is not within {oldest} to {newest}")
            }
        }
    }
}

impl std::error::Error for RecordErrors {}

impl fmt::Display for RecordErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.any_time {
            true => "invalid timestamp: ",
            false => "invalid record: ",
        };
        write!(f, "{what}{} refused, ", self.total)?;
        match self.rows().next() {
            Some((index, words)) => write!(f, "the first of them record {index}: {words}"),
            None => write!(f, "none of them named"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_first_records_are_named_and_all_are_counted() {
        let mut errors = RecordErrors::none(5, 9);
        assert!(errors.is_empty());
        for index in 0..3000 {
            errors.no_key(index);
        }
        errors.time(3000, 4);
        assert_eq!(errors.rows().count(), MAX_NAMED);
        assert_eq!(errors.rows().last().unwrap().0, MAX_NAMED as i32 - 1);
        assert!(errors.is_about_time(), "though it is not named");
        assert!(errors.to_string().contains("3001"), "{errors}");
    }
}
