//! The brokers' long-polls: who waits for news, from which position, until when.
//!
//! Pure but for the clock that is passed in. Promises: a poll is answered with what is committed and
//! nothing else; at once if there is news, after [`HEARTBEAT`] without; a new poll of a broker lets its
//! former one go.

use leasehold_metadata::controller::ReplyTo;
use leasehold_metadata::image::{Image, Position, Standing};
use leasehold_metadata::records::Entry;
use leasehold_metadata::rpc::{News, PollAnswer};
use leasehold_types::{BrokerId, Seq};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A poll without news is answered after this.
pub(super) const HEARTBEAT: Duration = Duration::from_millis(400);
/// Entries kept for brokers that are a little behind; others get a snapshot.
const KEPT_ENTRIES: usize = 4_096;
/// And as many records in them at most.
const KEPT_RECORDS: usize = 200_000;

struct Waiting {
    to: ReplyTo,
    position: Option<Position>,
    until: Instant,
}

/// The polls that wait, and the news for them.
#[derive(Default)]
pub(super) struct Polls {
    waiting: BTreeMap<BrokerId, Waiting>,
    entries: VecDeque<Arc<Entry>>,
    records: usize,
}

impl Polls {
    /// Takes in a committed entry.
    pub(super) fn committed(&mut self, entry: Arc<Entry>) {
        self.records += entry.records.len();
        self.entries.push_back(entry);
        while self.entries.len() > KEPT_ENTRIES || self.records > KEPT_RECORDS {
            let Some(oldest) = self.entries.pop_front() else {
                return;
            };
            self.records -= oldest.records.len();
        }
    }

    /// A poll came; its position is acceptable. Returns the token of the poll that it replaces.
    pub(super) fn add(
        &mut self,
        broker: BrokerId,
        to: ReplyTo,
        position: Option<Position>,
        now: Instant,
    ) -> Option<ReplyTo> {
        let until = now + HEARTBEAT;
        let waiting = Waiting {
            to,
            position,
            until,
        };
        self.waiting.insert(broker, waiting).map(|old| old.to)
    }

    /// When the next heartbeat is due.
    pub(super) fn next_heartbeat(&self) -> Option<Instant> {
        self.waiting.values().map(|w| w.until).min()
    }

    /// The answers that are due: where there is news, where the time is up, or for `all`.
    pub(super) fn due(
        &mut self,
        image: &Image,
        frozen: Option<&str>,
        now: Instant,
    ) -> Vec<(ReplyTo, PollAnswer)> {
        let mut answers = Vec::new();
        let entries = &self.entries;
        self.waiting.retain(|broker, waiting| {
            let up_to_date = waiting
                .position
                .is_some_and(|p| p.seq >= image.position.seq);
            let may_stop = image.may_stop(*broker);
            if up_to_date && waiting.until > now && !may_stop {
                return true;
            }
            let answer = PollAnswer {
                committed: image.position,
                news: news(image, entries, waiting.position),
                may_stop,
                frozen: frozen.map(str::to_owned),
            };
            answers.push((waiting.to, answer));
            false
        });
        answers
    }
}

fn news(image: &Image, entries: &VecDeque<Arc<Entry>>, position: Option<Position>) -> News {
    let snapshot = || News::Snapshot {
        position: image.position,
        records: image.to_records(),
    };
    let Some(position) = position else {
        return snapshot();
    };
    if position.seq >= image.position.seq {
        return News::Entries(Vec::new());
    }
    let next = position.seq.next();
    let first = entries.front().map_or(Seq(u64::MAX), |e| e.seq);
    let too_old = image.locate(&position) == Standing::TooOld;
    match usize::try_from(next.0.wrapping_sub(first.0)) {
        Ok(skip) if first <= next && !too_old => {
            News::Entries(entries.iter().skip(skip).map(|e| (**e).clone()).collect())
        }
        _ => snapshot(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold_metadata::image::{Claim, ClaimId};
    use leasehold_metadata::records::Record;
    use leasehold_types::{ClusterId, ControllerEpoch, Incarnation};

    /// An image at `last`, and the entries that led to it.
    fn line(last: u64) -> (Image, Vec<Arc<Entry>>) {
        let mut image = Image::genesis(ClusterId("c".into()));
        let claim = Record::Claim(Claim {
            epoch: ControllerEpoch(1),
            claim_id: ClaimId(1),
            first_seq: Seq(1),
            broker: BrokerId(0),
            incarnation: Incarnation(1),
        });
        let entries = (1..=last).map(|seq| {
            let entry = Entry {
                seq: Seq(seq),
                epoch: ControllerEpoch(1),
                nonce: String::new(),
                records: vec![if seq == 1 {
                    claim.clone()
                } else {
                    Record::NoOp
                }],
            };
            image.apply(&entry).unwrap();
            Arc::new(entry)
        });
        let entries = entries.collect();
        (image, entries)
    }

    fn at(image: &Image, seq: u64) -> Option<Position> {
        Some(Position {
            seq: Seq(seq),
            ..image.position
        })
    }

    const ONE: BrokerId = BrokerId(1);

    #[test]
    fn a_poll_waits_for_news_or_a_heartbeat_and_then_gets_what_follows_its_position() {
        let (image, entries) = line(3);
        let mut polls = Polls::default();
        for entry in &entries {
            polls.committed(Arc::clone(entry));
        }
        let now = Instant::now();
        polls.add(ONE, ReplyTo(1), at(&image, 3), now);
        assert!(polls.due(&image, None, now).is_empty());
        let later = now + HEARTBEAT;
        assert_eq!(polls.next_heartbeat(), Some(later));
        let answers = polls.due(&image, None, later);
        assert!(matches!(&answers[..], [(ReplyTo(1), a)] if a.news == News::Entries(vec![])));
        polls.add(ONE, ReplyTo(2), at(&image, 1), now);
        let answers = polls.due(&image, None, now);
        let [(ReplyTo(2), answer)] = &answers[..] else {
            panic!("{answers:?}");
        };
        let News::Entries(news) = &answer.news else {
            panic!("{:?}", answer.news);
        };
        let seqs: Vec<u64> = news.iter().map(|e| e.seq.0).collect();
        assert_eq!((seqs, answer.committed), (vec![2, 3], image.position));
    }

    #[test]
    fn who_is_new_or_too_far_behind_gets_everything() {
        let (image, entries) = line(5);
        let mut polls = Polls::default();
        for entry in &entries[3..] {
            polls.committed(Arc::clone(entry));
        }
        let now = Instant::now();
        for position in [None, at(&image, 2)] {
            polls.add(ONE, ReplyTo(1), position, now);
            let answers = polls.due(&image, None, now);
            assert!(matches!(&answers[..], [(_, a)] if matches!(a.news, News::Snapshot { .. })));
        }
        polls.add(ONE, ReplyTo(1), at(&image, 3), now);
        let answers = polls.due(&image, None, now);
        assert!(
            matches!(&answers[..], [(_, a)] if matches!(&a.news, News::Entries(e) if e.len() == 2))
        );
    }

    #[test]
    fn a_new_poll_replaces_the_one_before_it() {
        let (image, _) = line(1);
        let mut polls = Polls::default();
        let now = Instant::now();
        assert_eq!(polls.add(ONE, ReplyTo(1), at(&image, 1), now), None);
        let replaced = polls.add(ONE, ReplyTo(2), at(&image, 1), now);
        assert_eq!(replaced, Some(ReplyTo(1)));
    }

    #[test]
    fn what_is_kept_for_those_behind_is_bounded() {
        let mut polls = Polls::default();
        for entry in line(KEPT_ENTRIES as u64 + 10).1 {
            polls.committed(entry);
        }
        assert_eq!(polls.entries.len(), KEPT_ENTRIES);
        assert_eq!(polls.records, KEPT_ENTRIES);
    }
}
