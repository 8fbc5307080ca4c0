use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const FRESH: ProducerId = ProducerId(900);

fn producer(id: i64, epoch: i16) -> Producer {
    Producer {
        id: ProducerId(id),
        epoch,
    }
}

fn partitions(of: &[(&str, i32)]) -> Partitions {
    let mut all = Partitions::new();
    for (topic, partition) in of {
        all.entry((*topic).to_owned())
            .or_default()
            .insert(*partition);
    }
    all
}

fn store(transaction: &mut Transaction, next: Metadata) {
    transaction.storing(next);
    transaction.stored();
}

fn at_epoch(transaction: &mut Transaction, epoch: i16) {
    let mut next = transaction.metadata().clone();
    next.epoch = epoch;
    store(transaction, next);
}

/// After its first InitProducerId: producer 7 at epoch 0.
fn initialised() -> Transaction {
    let mut transaction = Transaction::new(ProducerId(7), 60_000, 1_000);
    init(&mut transaction, None).unwrap();
    transaction
}

fn init(transaction: &mut Transaction, expected: Option<Producer>) -> Result<Producer, ErrorCode> {
    match transaction.init(60_000, expected, Some(FRESH), 2_000) {
        InitVerdict::Store(next) => {
            store(transaction, next);
            let metadata = transaction.metadata();
            Ok(producer(metadata.producer.0, metadata.epoch))
        }
        InitVerdict::Fence(next) => {
            store(transaction, next);
            Err(ErrorCode::ConcurrentTransactions)
        }
        InitVerdict::Refused(error) => Err(error),
        InitVerdict::NeedsProducerId => panic!("it has one"),
    }
}

fn ongoing() -> Transaction {
    let mut transaction = initialised();
    let added = transaction.add(producer(7, 0), &partitions(&[("t", 0)]), 3_000);
    let Verdict::Store(next) = added else {
        panic!("{added:?}")
    };
    store(&mut transaction, next);
    transaction
}

fn end(transaction: &mut Transaction, by: Producer, commit: bool) -> Verdict {
    let verdict = transaction.end(by, commit, 4_000);
    if let Verdict::Store(next) = &verdict {
        store(transaction, next.clone());
    }
    verdict
}

fn complete(transaction: &mut Transaction) {
    let next = transaction.complete(5_000).unwrap();
    store(transaction, next);
}

#[test]
fn a_transaction_goes_from_its_first_partition_to_its_completion() {
    let mut transaction = ongoing();
    let metadata = transaction.metadata();
    assert_eq!(metadata.state, State::Ongoing);
    assert_eq!((metadata.started, metadata.updated), (3_000, 3_000));
    assert_eq!(transaction.deadline(), Some(63_000));
    let again = transaction.add(producer(7, 0), &partitions(&[("t", 0)]), 3_500);
    assert_eq!(again, Verdict::Already);

    end(&mut transaction, producer(7, 0), true);
    assert_eq!(transaction.metadata().state, State::PrepareCommit);
    assert_eq!(transaction.metadata().partitions, partitions(&[("t", 0)]));
    assert_eq!(transaction.deadline(), None);
    // A repeat, while the markers are under way, and after.
    let wait = Verdict::Refused(ErrorCode::ConcurrentTransactions);
    assert_eq!(end(&mut transaction, producer(7, 0), true), wait);
    complete(&mut transaction);
    assert_eq!(transaction.metadata().state, State::CompleteCommit);
    assert!(transaction.metadata().partitions.is_empty());
    assert_eq!(
        end(&mut transaction, producer(7, 0), true),
        Verdict::Already
    );
    let other = Verdict::Refused(ErrorCode::InvalidTxnState);
    assert_eq!(end(&mut transaction, producer(7, 0), false), other);

    // The next one begins anew.
    let added = transaction.add(producer(7, 0), &partitions(&[("u", 1)]), 9_000);
    let Verdict::Store(next) = added else {
        panic!("{added:?}")
    };
    assert_eq!(
        (next.started, next.partitions),
        (9_000, partitions(&[("u", 1)]))
    );
}

#[test]
fn a_committed_transaction_is_not_aborted_nor_the_other_way_round() {
    for commit in [true, false] {
        let mut transaction = ongoing();
        end(&mut transaction, producer(7, 0), commit);
        let other = Verdict::Refused(ErrorCode::InvalidTxnState);
        assert_eq!(end(&mut transaction, producer(7, 0), !commit), other);
        assert_eq!(transaction.time_out(i64::MAX), None);
    }
}

#[test]
fn the_end_of_nothing_is_refused() {
    let mut transaction = initialised();
    let refused = Verdict::Refused(ErrorCode::InvalidTxnState);
    assert_eq!(end(&mut transaction, producer(7, 0), true), refused);
}

#[test]
fn another_producer_and_another_epoch_are_told_apart() {
    let transaction = ongoing();
    let more = partitions(&[("t", 1)]);
    for (by, error) in [
        (producer(8, 0), ErrorCode::InvalidProducerIdMapping),
        (producer(7, 1), ErrorCode::ProducerFenced),
        (producer(7, -1), ErrorCode::ProducerFenced),
    ] {
        assert_eq!(transaction.add(by, &more, 1), Verdict::Refused(error));
        assert_eq!(transaction.end(by, true, 1), Verdict::Refused(error));
        assert_eq!(transaction.verify(by), Err(error));
    }
}

#[test]
fn a_new_producer_fences_the_old_one_and_aborts_its_transaction_first() {
    let mut transaction = ongoing();
    assert_eq!(
        init(&mut transaction, None),
        Err(ErrorCode::ConcurrentTransactions)
    );
    let metadata = transaction.metadata();
    assert_eq!((metadata.state, metadata.epoch), (State::PrepareAbort, 1));
    assert_eq!(
        init(&mut transaction, None),
        Err(ErrorCode::ConcurrentTransactions)
    );
    complete(&mut transaction);
    // The epoch that fenced is given to nobody.
    assert_eq!(init(&mut transaction, None), Ok(producer(7, 2)));
    let fenced = Verdict::Refused(ErrorCode::ProducerFenced);
    assert_eq!(end(&mut transaction, producer(7, 0), true), fenced);
}

#[test]
fn a_transaction_that_timed_out_is_aborted_under_an_epoch_of_its_own() {
    let mut transaction = ongoing();
    let next = transaction.time_out(70_000).unwrap();
    assert_eq!((next.state, next.epoch), (State::PrepareAbort, 1));
    store(&mut transaction, next);
    let fenced = Verdict::Refused(ErrorCode::ProducerFenced);
    assert_eq!(end(&mut transaction, producer(7, 0), true), fenced);
    complete(&mut transaction);
    // As in Kafka, it is fenced for good: it may begin as a new producer only.
    assert_eq!(
        init(&mut transaction, Some(producer(7, 0))),
        Err(ErrorCode::ProducerFenced)
    );
    assert_eq!(init(&mut transaction, None), Ok(producer(7, 2)));
}

#[test]
fn a_producer_bumps_its_own_epoch_and_may_repeat_that_but_not_after_another_came() {
    let mut transaction = initialised();
    assert_eq!(
        init(&mut transaction, Some(producer(7, 0))),
        Ok(producer(7, 1))
    );
    assert_eq!(
        init(&mut transaction, Some(producer(7, 0))),
        Ok(producer(7, 1))
    );
    assert_eq!(
        init(&mut transaction, Some(producer(9, 1))),
        Err(ErrorCode::ProducerFenced)
    );
    assert_eq!(init(&mut transaction, None), Ok(producer(7, 2)));
    for epoch in [0, 1] {
        assert_eq!(
            init(&mut transaction, Some(producer(7, epoch))),
            Err(ErrorCode::ProducerFenced)
        );
    }
}

#[test]
fn epochs_that_are_used_up_are_followed_by_a_new_producer_id() {
    let mut transaction = initialised();
    let last = i16::MAX - 1;
    at_epoch(&mut transaction, last);
    assert_eq!(
        transaction.init(60_000, None, None, 1),
        InitVerdict::NeedsProducerId
    );
    let expected = Some(producer(7, last));
    assert_eq!(init(&mut transaction, expected), Ok(producer(FRESH.0, 0)));
    // The repeat of a request whose answer was lost.
    assert_eq!(init(&mut transaction, expected), Ok(producer(FRESH.0, 0)));
    assert_eq!(
        init(&mut transaction, Some(producer(7, 3))),
        Err(ErrorCode::ProducerFenced)
    );
}

#[test]
fn the_last_epoch_is_kept_for_fencing() {
    let mut transaction = ongoing();
    at_epoch(&mut transaction, i16::MAX - 1);
    let next = transaction.time_out(70_000).unwrap();
    assert_eq!(next.epoch, i16::MAX);
    store(&mut transaction, next);
    complete(&mut transaction);
    assert_eq!(init(&mut transaction, None), Ok(producer(FRESH.0, 0)));
}

#[test]
fn nothing_else_is_begun_while_a_change_is_on_its_way() {
    let mut transaction = ongoing();
    transaction.storing(transaction.metadata().clone());
    let wait = Verdict::Refused(ErrorCode::ConcurrentTransactions);
    assert_eq!(transaction.end(producer(7, 0), true, 1), wait);
    assert_eq!(
        transaction.add(producer(7, 0), &partitions(&[("t", 9)]), 1),
        wait
    );
    assert_eq!(
        transaction.init(1, None, Some(FRESH), 1),
        InitVerdict::Refused(ErrorCode::ConcurrentTransactions)
    );
    assert_eq!(transaction.time_out(i64::MAX), None);
    transaction.refused();
    assert!(matches!(
        transaction.end(producer(7, 0), true, 1),
        Verdict::Store(_)
    ));
}

#[test]
fn only_what_is_idle_expires() {
    assert!(initialised().is_expired(1_000, 3_000));
    assert!(!initialised().is_expired(1_000, 2_999));
    let mut transaction = ongoing();
    assert!(!transaction.is_expired(1_000, i64::MAX));
    end(&mut transaction, producer(7, 0), false);
    assert!(!transaction.is_expired(1_000, i64::MAX));
    complete(&mut transaction);
    assert!(transaction.is_expired(1_000, 6_000));
}

#[derive(Clone, Debug)]
enum Step {
    Init(Option<(i64, i16)>),
    Add(i64, i16, i32),
    End(i64, i16, bool),
    EndAndBump(i64, i16, bool),
    TimeOut,
    Complete,
    Lose,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = prop_oneof![Just(7i64), Just(FRESH.0)];
    let epoch = 0i16..5;
    let step = prop_oneof![
        proptest::option::of((id.clone(), epoch.clone())).prop_map(Step::Init),
        (id.clone(), epoch.clone(), 0i32..4).prop_map(|(i, e, p)| Step::Add(i, e, p)),
        (id.clone(), epoch.clone(), any::<bool>()).prop_map(|(i, e, c)| Step::End(i, e, c)),
        (id, epoch, any::<bool>()).prop_map(|(i, e, c)| Step::EndAndBump(i, e, c)),
        Just(Step::TimeOut),
        Just(Step::Complete),
        Just(Step::Lose),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    /// Whatever comes: epochs of a producer id never fall, a decided end stays, and only the producer
    /// that was told last can change anything.
    #[test]
    fn ends_and_epochs_hold_against_everything(steps in steps()) {
        let mut transaction = initialised();
        let mut lose_next = false;
        for step in steps {
            let before = transaction.metadata().clone();
            let next = match step {
                Step::Init(expected) => {
                    let expected = expected.map(|(id, epoch)| producer(id, epoch));
                    match transaction.init(1, expected, Some(FRESH), 10) {
                        InitVerdict::Store(next) => Some(next),
                        InitVerdict::Fence(next) => Some(next),
                        _ => None,
                    }
                }
                Step::Add(id, epoch, partition) => {
                    let verdict = transaction.add(producer(id, epoch), &partitions(&[("t", partition)]), 10);
                    if !matches!(verdict, Verdict::Refused(_)) {
                        prop_assert_eq!((ProducerId(id), epoch), (before.producer, before.epoch));
                    }
                    match verdict { Verdict::Store(next) => Some(next), _ => None }
                }
                Step::End(id, epoch, commit) => {
                    let verdict = transaction.end(producer(id, epoch), commit, 10);
                    if !matches!(verdict, Verdict::Refused(_)) {
                        prop_assert_eq!((ProducerId(id), epoch), (before.producer, before.epoch));
                    }
                    match verdict { Verdict::Store(next) => Some(next), _ => None }
                }
                Step::EndAndBump(id, epoch, commit) => {
                    let by = producer(id, epoch);
                    let verdict = transaction.end_and_bump(by, commit, Some(FRESH), 10);
                    match verdict {
                        EndVerdict::Store(next) => {
                            prop_assert_eq!(by, producer(before.producer.0, before.epoch));
                            prop_assert_ne!(next.going_on(), by, "it goes on as another");
                            Some(next)
                        }
                        EndVerdict::Already => {
                            prop_assert_ne!(before.going_on(), by);
                            None
                        }
                        _ => None,
                    }
                }
                Step::TimeOut => transaction.time_out(10),
                Step::Complete => transaction.complete(10),
                Step::Lose => { lose_next = true; None }
            };
            let Some(next) = next else { continue };
            transaction.storing(next);
            if std::mem::take(&mut lose_next) {
                transaction.refused();
                prop_assert_eq!(transaction.metadata(), &before);
                continue;
            }
            transaction.stored();
            let after = transaction.metadata();
            if after.producer == before.producer {
                prop_assert!(after.epoch >= before.epoch);
            }
            let allowed: &[State] = match before.state {
                State::Empty | State::CompleteCommit | State::CompleteAbort => {
                    &[State::Empty, State::Ongoing, State::PrepareAbort]
                }
                State::Ongoing => &[State::Ongoing, State::PrepareCommit, State::PrepareAbort],
                State::PrepareCommit => &[State::CompleteCommit],
                State::PrepareAbort => &[State::CompleteAbort],
                State::Dead | State::PrepareEpochFence => &[],
            };
            prop_assert!(allowed.contains(&after.state), "{:?} to {:?}", before.state, after.state);
            if before.state == State::Ongoing {
                let kept: BTreeSet<_> = before.partitions.get("t").into_iter().flatten().collect();
                let now: BTreeSet<_> = after.partitions.get("t").into_iter().flatten().collect();
                prop_assert!(now.is_superset(&kept), "a partition was lost before its marker");
            }
        }
    }
}
