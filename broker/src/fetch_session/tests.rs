//! What fetch sessions promise.

use super::cache::{Cache, Limits};
use super::follower::FollowerSession;
use super::session::{Owner, Session};
use super::*;
use crate::replica::wire_fetch::{FETCH_VERSION, from_request};
use crate::replica::{FetchEntry, FetchParams};
use leasehold_types::{BrokerId, Incarnation, LeaderEpoch, Offset, TopicId};
use leasehold_wire::kafka::messages::fetch_request::{FetchPartition, ForgottenTopic};
use leasehold_wire::kafka::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use uuid::Uuid;

const T: Uuid = Uuid::from_u128(7);
const VERSION: i16 = 17;

fn sessions() -> FetchSessions {
    FetchSessions::new(Limits::with_slots(10))
}

fn request(id: i32, epoch: i32, partitions: &[(i32, i64)]) -> FetchRequest {
    let partitions = partitions.iter().map(|(partition, offset)| {
        FetchPartition::default()
            .with_partition(*partition)
            .with_fetch_offset(*offset)
    });
    let partitions: Vec<_> = partitions.collect();
    let topic = FetchTopic::default()
        .with_topic_id(T)
        .with_partitions(partitions);
    let topics = match topic.partitions.is_empty() {
        true => vec![],
        false => vec![topic],
    };
    FetchRequest::default()
        .with_session_id(id)
        .with_session_epoch(epoch)
        .with_topics(topics)
}

fn row(partition: i32, high_watermark: i64) -> PartitionData {
    PartitionData::default()
        .with_partition_index(partition)
        .with_high_watermark(high_watermark)
        .with_log_start_offset(0)
}

fn response(rows: Vec<PartitionData>) -> FetchResponse {
    let topic = FetchableTopicResponse::default()
        .with_topic_id(T)
        .with_partitions(rows);
    FetchResponse::default().with_responses(vec![topic])
}

/// Numbers of the partitions that the request names, in its order.
fn asked(request: &FetchRequest) -> Vec<(i32, i64)> {
    let rows = request.topics.iter().flat_map(|topic| &topic.partitions);
    rows.map(|p| (p.partition, p.fetch_offset)).collect()
}

fn told(response: &FetchResponse) -> Vec<i32> {
    let rows = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partitions);
    rows.map(|p| p.partition_index).collect()
}

/// Opens a session of partitions 0 to 2, each at offset 5 with the high watermark 5. Gives its id.
fn opened(sessions: &FetchSessions) -> i32 {
    let mut first = request(0, INITIAL_EPOCH, &[(0, 5), (1, 5), (2, 5)]);
    let turn = sessions.begin(&mut first, VERSION).unwrap();
    let mut answer = response((0..3).map(|n| row(n, 5)).collect());
    sessions.finish(turn, &mut answer);
    assert_eq!(told(&answer), [0, 1, 2], "a first answer is whole");
    assert_ne!(answer.session_id, 0);
    answer.session_id
}

/// Serves the next request, which names `partitions`, with `rows`.
fn next(
    sessions: &FetchSessions,
    (id, epoch): (i32, i32),
    partitions: &[(i32, i64)],
    rows: Vec<PartitionData>,
) -> (FetchRequest, FetchResponse) {
    let mut request = request(id, epoch, partitions);
    let turn = sessions.begin(&mut request, VERSION).unwrap();
    let mut answer = response(rows);
    sessions.finish(turn, &mut answer);
    (request, answer)
}

fn plain() -> Vec<PartitionData> {
    (0..3).map(|n| row(n, 5)).collect()
}

#[test]
fn a_session_remembers_what_is_named_once() {
    let sessions = sessions();
    let id = opened(&sessions);
    let (served, answer) = next(&sessions, (id, 1), &[], plain());
    assert_eq!(asked(&served), [(0, 5), (1, 5), (2, 5)]);
    assert_eq!(told(&answer), [0; 0], "nothing is new");
    assert_eq!(answer.session_id, id);
    let (served, answer) = next(&sessions, (id, 2), &[(1, 8), (4, 0)], plain());
    assert_eq!(asked(&served), [(0, 5), (1, 8), (2, 5), (4, 0)]);
    assert_eq!(told(&answer), [1], "who names a partition hears of it");
}

#[test]
fn what_is_forgotten_is_not_served() {
    let sessions = sessions();
    let id = opened(&sessions);
    let mut less = request(id, 1, &[]);
    let gone = ForgottenTopic::default()
        .with_topic_id(T)
        .with_partitions(vec![0, 2, 9]);
    less.forgotten_topics_data = vec![gone.clone()];
    let turn = sessions.begin(&mut less, VERSION).unwrap();
    assert_eq!(asked(&less), [(1, 5)]);
    sessions.finish(turn, &mut response(vec![row(1, 5)]));
    let mut none = request(id, 2, &[]);
    none.forgotten_topics_data = vec![gone.with_partitions(vec![1])];
    let turn = sessions.begin(&mut none, VERSION).unwrap();
    let mut answer = FetchResponse::default();
    sessions.finish(turn, &mut answer);
    assert_eq!((answer.session_id, sessions.size()), (0, (0, 0)));
}

#[test]
fn news_are_records_errors_truncations_and_other_bounds() {
    let sessions = sessions();
    let id = opened(&sessions);
    let mut rows = plain();
    rows[0].high_watermark = 6;
    rows[2].records = Some("some".into());
    let (_, answer) = next(&sessions, (id, 1), &[], rows);
    assert_eq!(told(&answer), [0, 2]);
    let mut rows = plain();
    rows[0].high_watermark = 6;
    rows[0].error_code = ErrorCode::NotLeaderOrFollower.code();
    rows[1].log_start_offset = 3;
    rows[2].diverging_epoch.end_offset = 4;
    let (_, answer) = next(&sessions, (id, 2), &[], rows.clone());
    assert_eq!(told(&answer), [0, 1, 2]);
    let (_, answer) = next(&sessions, (id, 3), &[], rows.clone());
    assert_eq!(
        told(&answer),
        [0, 2],
        "what is wrong is told as long as it is"
    );
    rows[0].error_code = 0;
    rows[2] = row(2, 5);
    let (_, answer) = next(&sessions, (id, 4), &[], rows);
    assert_eq!(told(&answer), [0, 2], "and that it is over");
}

#[test]
fn who_was_served_goes_to_the_end_of_the_queue() {
    let sessions = sessions();
    let id = opened(&sessions);
    let mut rows = plain();
    rows[0].records = Some("some".into());
    next(&sessions, (id, 1), &[], rows);
    let (served, _) = next(&sessions, (id, 2), &[], plain());
    assert_eq!(asked(&served), [(1, 5), (2, 5), (0, 5)]);
}

#[test]
fn a_request_out_of_order_or_of_another_is_refused() {
    let sessions = sessions();
    let id = opened(&sessions);
    let refused = |mut request: FetchRequest, version| sessions.begin(&mut request, version).err();
    let gone = Some(ErrorCode::FetchSessionIdNotFound);
    assert_eq!(refused(request(id ^ 1, 1, &[]), VERSION), gone);
    assert_eq!(refused(request(0, 1, &[]), VERSION), gone);
    let late = Some(ErrorCode::InvalidFetchSessionEpoch);
    assert_eq!(refused(request(id, 2, &[]), VERSION), late);
    let by_name = Some(ErrorCode::FetchSessionTopicIdError);
    assert_eq!(refused(request(id, 1, &[]), 12), by_name);
    let mut follower = request(id, 1, &[]);
    follower.replica_state.replica_id = 3.into();
    assert_eq!(refused(follower, VERSION), gone);
    // None of that disturbed its owner.
    next(&sessions, (id, 1), &[], plain());
}

#[test]
fn a_follower_in_another_incarnation_has_no_session() {
    let sessions = sessions();
    let of = |incarnation, id, epoch| {
        let mut request = request(id, epoch, &[]);
        if epoch == INITIAL_EPOCH {
            request.topics = super::tests::request(0, 0, &[(0, 1)]).topics;
        }
        request.replica_state.replica_id = 3.into();
        request.replica_state.replica_epoch = incarnation;
        request
    };
    let turn = sessions.begin(&mut of(1, 0, 0), VERSION).unwrap();
    let mut answer = response(vec![row(0, 1)]);
    sessions.finish(turn, &mut answer);
    let id = answer.session_id;
    let other = sessions.begin(&mut of(2, id, 1), VERSION).err();
    assert_eq!(other, Some(ErrorCode::FetchSessionIdNotFound));
    // Its next incarnation opens one of its own, and the former one goes.
    let turn = sessions.begin(&mut of(2, 0, 0), VERSION).unwrap();
    sessions.finish(turn, &mut response(vec![row(0, 1)]));
    assert_eq!(sessions.size().0, 1);
    assert!(sessions.begin(&mut of(1, id, 1), VERSION).is_err());
}

#[test]
fn an_answer_that_was_overtaken_is_not_given() {
    let sessions = sessions();
    let id = opened(&sessions);
    let slow = sessions.begin(&mut request(id, 1, &[]), VERSION).unwrap();
    next(&sessions, (id, 2), &[], plain());
    let mut answer = response(plain());
    sessions.finish(slow, &mut answer);
    let late = ErrorCode::InvalidFetchSessionEpoch.code();
    assert_eq!((answer.error_code, told(&answer).len()), (late, 0));
}

#[test]
fn a_session_ends_when_its_owner_says_so() {
    let sessions = sessions();
    let id = opened(&sessions);
    let turn = sessions
        .begin(&mut request(id, FINAL_EPOCH, &[(0, 1)]), VERSION)
        .unwrap();
    let mut answer = response(vec![row(0, 5)]);
    sessions.finish(turn, &mut answer);
    assert_eq!((answer.session_id, told(&answer).len()), (0, 1));
    assert_eq!(sessions.size(), (0, 0));
}

#[test]
fn epochs_wrap_to_one() {
    assert_eq!(next_epoch(1), 2);
    assert_eq!(next_epoch(i32::MAX), 1);
}

/// A consumer's session of that many partitions.
fn sized(partitions: i32) -> Session {
    let mut session = Session::new(Owner::Consumer, true, 1);
    let all: Vec<_> = (0..partitions).map(|n| (n, 0)).collect();
    session.update(&request(0, 0, &all).topics);
    session
}

#[test]
fn a_full_cache_lets_go_of_the_unused_then_of_the_smallest_old_one() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut cache = Cache::new(Limits::with_slots(2));
    let small = cache.open(sized(1), at(0)).unwrap();
    let large = cache.open(sized(5), at(0)).unwrap();
    assert_eq!(cache.open(sized(9), at(100)), None, "both are young");
    cache.used(small, at(100)).unwrap();
    cache.used(large, at(110)).unwrap();
    assert_eq!(cache.open(sized(1), at(121)), None, "it is no bigger");
    let bigger = cache.open(sized(2), at(121)).unwrap();
    assert!(cache.get(small).is_none() && cache.get(large).is_some());
    // Not used for two minutes.
    assert!(cache.open(sized(1), at(231)).is_some());
    assert!(cache.get(large).is_none() && cache.get(bigger).is_some());
    assert_eq!(cache.size(), (2, 3));
}

#[test]
fn without_slots_there_are_no_sessions() {
    let sessions = FetchSessions::new(Limits::with_slots(0));
    let turn = sessions
        .begin(&mut request(0, 0, &[(0, 5)]), VERSION)
        .unwrap();
    let mut answer = response(vec![row(0, 5)]);
    sessions.finish(turn, &mut answer);
    assert_eq!((answer.session_id, told(&answer).len()), (0, 1));
}

#[test]
fn what_all_sessions_remember_is_bounded() {
    let limits = Limits {
        partitions: 4,
        ..Limits::with_slots(10)
    };
    let sessions = FetchSessions::new(limits);
    let id = opened(&sessions);
    let turn = sessions
        .begin(&mut request(0, 0, &[(0, 5), (1, 5)]), VERSION)
        .unwrap();
    let mut answer = response(vec![row(0, 5), row(1, 5)]);
    sessions.finish(turn, &mut answer);
    assert_eq!(answer.session_id, 0);
    // One that grows out of the bound has to begin anew.
    let grown = sessions.begin(&mut request(id, 1, &[(7, 0), (8, 0)]), VERSION);
    assert_eq!(grown.err(), Some(ErrorCode::FetchSessionIdNotFound));
    assert_eq!(sessions.size(), (0, 0));
}

/// What happens between a follower and its leader.
#[derive(Clone, Debug)]
enum Move {
    /// The follower's position in a partition is another.
    Goes(i32, i64),
    /// The follower fetches it no more.
    Leaves(i32),
    /// An answer for it did no good.
    Again(i32),
    /// The leader's high watermark of a partition moves.
    Grows(i32),
    Fetch {
        arrives: bool,
        answered: bool,
    },
    /// The leader's process is another one.
    Restarts,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        3 => (0..6i32, 0..50i64).prop_map(|(n, offset)| Move::Goes(n, offset)),
        1 => (0..6i32).prop_map(Move::Leaves),
        1 => (0..6i32).prop_map(Move::Again),
        3 => (0..6i32).prop_map(Move::Grows),
        4 => Just(Move::Fetch { arrives: true, answered: true }),
        1 => any::<(bool, bool)>().prop_map(|(arrives, answered)| Move::Fetch { arrives, answered }),
        1 => Just(Move::Restarts),
    ];
    prop::collection::vec(one, 1..60)
}

proptest! {
    /// What the leader serves is what the follower would have named itself, and the follower knows every
    /// high watermark, whatever gets lost.
    #[test]
    fn a_leader_and_its_follower_agree_on_all_positions(moves in moves()) {
        let mut leader = sessions();
        let mut follower = FollowerSession::default();
        let mut positions: BTreeMap<i32, i64> = BTreeMap::new();
        let mut marks = [100i64; 6];
        let mut known: BTreeMap<i32, i64> = BTreeMap::new();
        let params = FetchParams {
            replica: Some((BrokerId(3), Incarnation(9))),
            max_wait: Duration::ZERO,
            min_bytes: 1,
            max_bytes: 1000,
            read_committed: false,
        };
        for one in moves {
            match one {
                Move::Goes(n, offset) => drop(positions.insert(n, offset)),
                Move::Leaves(n) => {
                    positions.remove(&n);
                }
                Move::Again(n) => {
                    known.remove(&n);
                    follower.repeat([(TopicId(T), n)]);
                }
                Move::Grows(n) => marks[n as usize] += 1,
                Move::Restarts => leader = sessions(),
                Move::Fetch { arrives, answered } => {
                    let entries: Vec<FetchEntry> = positions.iter().map(|(n, offset)| FetchEntry {
                        topic: TopicId(T),
                        partition: *n,
                        current_leader_epoch: Some(LeaderEpoch(2)),
                        fetch_offset: Offset(*offset),
                        last_fetched_epoch: None,
                        log_start_offset: Some(Offset(0)),
                        max_bytes: 10,
                    }).collect();
                    if entries.is_empty() {
                        continue;
                    }
                    let mut request = follower.request(&params, &entries);
                    if !arrives {
                        continue;
                    }
                    let answer = match leader.begin(&mut request, FETCH_VERSION) {
                        Err(error) => refusal(error),
                        Ok(turn) => {
                            let (_, mut served) = from_request(request).unwrap();
                            served.sort_by_key(|entry| entry.partition);
                            prop_assert_eq!(&served, &entries);
                            let rows = served.iter().map(|e| row(e.partition, marks[e.partition as usize]));
                            let mut answer = response(rows.collect());
                            leader.finish(turn, &mut answer);
                            answer
                        }
                    };
                    if !answered {
                        continue;
                    }
                    let begins_anew = answer.error_code != 0;
                    for result in follower.take(answer).unwrap() {
                        known.insert(result.partition, result.high_watermark.0);
                    }
                    if begins_anew {
                        continue;
                    }
                    for n in positions.keys() {
                        prop_assert_eq!(known.get(n), Some(&marks[*n as usize]));
                    }
                }
            }
        }
    }
}
