//! Reading from the closest replica (KIP-392).
//!
//! A leader whose broker has a `replica.selector.class` names to a consumer that tells its rack a
//! follower in that rack, which is in sync, has what is asked for, and fetched within the session
//! timeout. A follower serves consumers that know how to ask one (Fetch v11 and later) to the high
//! watermark that its leader told it, which only ever lies below what is committed.
//!
//! Promises: nobody reads past a high watermark; a follower whose log was cut during a read does not
//! send what it read; one that cannot reach its leader sends consumers back to it.

use super::manager::ReplicaManager;
use super::partition::{AckWaiter, Partition};
use super::state::{Replica, Role};
use super::types::PartitionKey;
use leasehold_metadata::Image;
use leasehold_types::seams::{self, HashMap};
use leasehold_types::{BrokerId, LeaderEpoch, Offset};
use std::time::{Duration, Instant};

/// Who reads, beyond what [`super::FetchParams`] says.
#[derive(Clone, Debug, Default)]
pub enum Reader {
    /// One that only a leader serves.
    #[default]
    OfLeader,
    /// A consumer that may read from followers, and its rack, if it told.
    Near { rack: Option<String> },
    /// A follower, and the high watermarks that it knows.
    Follower {
        known: HashMap<PartitionKey, Offset>,
    },
}

impl Reader {
    /// Whether a follower may serve it.
    pub fn may_follow(&self) -> bool {
        matches!(self, Self::Near { .. })
    }

    /// The high watermark that it knows already; `None`: it need not hear of another one early.
    pub fn known(&self, key: PartitionKey) -> Option<Offset> {
        match self {
            Self::Follower { known } => known.get(&key).copied(),
            _ => None,
        }
    }
}

/// A replica that could serve a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    pub id: BrokerId,
    pub rack: Option<&'a str>,
    pub log_end: Offset,
    /// When it had all that its leader had.
    pub caught_up_at: Instant,
}

/// Kafka's `RackAwareReplicaSelector`: a follower in the consumer's rack, the one that has most; `None`
/// for the leader.
pub fn rack_aware(
    rack: &str,
    leader_rack: Option<&str>,
    followers: &[Candidate<'_>],
) -> Option<BrokerId> {
    if rack.is_empty() || leader_rack == Some(rack) {
        return None;
    }
    let near = followers.iter().filter(|one| one.rack == Some(rack));
    let best = near.max_by_key(|one| (one.log_end, one.caught_up_at, one.id));
    best.map(|one| one.id)
}

/// What a follower of a partition may show: its leader, the leader's epoch, its own high watermark and
/// log end. `None` if it follows nobody.
pub fn following(state: &Replica<AckWaiter>) -> Option<(BrokerId, LeaderEpoch, Offset, Offset)> {
    match state.role() {
        Role::Following {
            leader: Some(leader),
            epoch,
        } => Some((*leader, *epoch, state.high_watermark(), state.log_end())),
        _ => None,
    }
}

impl ReplicaManager {
    /// Whom a consumer in `rack` shall ask for `offset` of this partition, which is led here; `None`: this
    /// broker.
    pub(super) fn closest(
        &self,
        partition: &Partition,
        rack: Option<&str>,
        offset: Offset,
    ) -> Option<BrokerId> {
        let rack = rack.filter(|rack| !rack.is_empty() && self.settings().closest_replica)?;
        let image = self.last_image()?;
        let recent = seams::now().checked_sub(self.settings().session_timeout);
        partition.look_leader(|leader| {
            let view = leader.view();
            let in_sync = view.isr.iter().filter(|id| **id != self.id());
            let candidates: Vec<Candidate<'_>> = in_sync
                .filter(|id| view.member(**id).is_some_and(|member| member.may_join))
                .filter_map(|id| {
                    let state = leader.follower_state(*id)?;
                    let has = state.log_start <= offset && offset <= state.log_end;
                    let lives = recent.is_none_or(|recent| state.fetched_at >= recent);
                    (has && lives).then_some(Candidate {
                        id: *id,
                        rack: rack_of(&image, *id),
                        log_end: state.log_end,
                        caught_up_at: state.caught_up_at,
                    })
                })
                .collect();
            rack_aware(rack, rack_of(&image, self.id()), &candidates)
        })?
    }

    /// Whether this broker, as a follower, hears from the leader of `partition`.
    pub(super) fn hears_its_leader(&self, partition: &Partition) -> bool {
        let Some((leader, ..)) = partition.look(following) else {
            return false;
        };
        // One failed fetch proves nothing; its leader may be restarting.
        let patience: Duration = self.settings().session_timeout;
        self.suspects()
            .iter()
            .all(|(id, _, since)| *id != leader || since.elapsed() < patience)
    }
}

fn rack_of(image: &Image, id: BrokerId) -> Option<&str> {
    image.broker(id)?.rack.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(
        id: i32,
        rack: &'static str,
        end: i64,
        caught_up_at: Instant,
    ) -> Candidate<'static> {
        Candidate {
            id: BrokerId(id),
            rack: Some(rack),
            log_end: Offset(end),
            caught_up_at,
        }
    }

    #[test]
    fn a_follower_in_the_consumers_rack_is_closest_unless_the_leader_is_there() {
        let now = Instant::now();
        let all = [candidate(1, "a", 9, now), candidate(2, "b", 9, now)];
        assert_eq!(rack_aware("a", Some("c"), &all), Some(BrokerId(1)));
        assert_eq!(rack_aware("b", None, &all), Some(BrokerId(2)));
        assert_eq!(rack_aware("b", Some("b"), &all), None);
        assert_eq!(rack_aware("d", Some("c"), &all), None);
        assert_eq!(rack_aware("", Some("c"), &all), None);
    }

    #[test]
    fn of_several_in_one_rack_the_one_with_most_records_is_chosen() {
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        let one = |a: Candidate<'static>, b| rack_aware("a", None, &[a, b]).unwrap().0;
        assert_eq!(
            one(candidate(1, "a", 9, now), candidate(2, "a", 8, later)),
            1
        );
        assert_eq!(
            one(candidate(1, "a", 9, later), candidate(2, "a", 9, now)),
            1
        );
        assert_eq!(one(candidate(1, "a", 9, now), candidate(2, "a", 9, now)), 2);
    }
}
