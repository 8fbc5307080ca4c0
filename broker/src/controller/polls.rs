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
use std::collections::{HashMap, VecDeque};
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
    waiting: HashMap<BrokerId, Waiting>,
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
