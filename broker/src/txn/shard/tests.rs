use super::*;
use crate::coordinator::write::WriteRecord;
use crate::txn::state::State;
use crate::txn::store::Loaded;
use std::collections::VecDeque;

const SETTINGS: Settings = Settings {
    max_timeout_ms: 60_000,
    abort_interval_ms: 1_000,
    expiration_ms: 100_000,
    expiration_interval_ms: 10_000,
    write_timeout_ms: 5_000,
};

/// A shard over a log in memory: a write is "stored" when the test says so.
struct World {
    shard: Shard,
    now: Now,
    log: Vec<WriteRecord>,
    writes: VecDeque<Write>,
    replies: HashMap<Token, Reply>,
    endings: Vec<Ending>,
    next: u64,
}

impl World {
    fn new() -> Self {
        let now = Now {
            mono: 0,
            wall: 1_000_000,
        };
        Self::load(Vec::new(), now)
    }

    fn load(log: Vec<WriteRecord>, now: Now) -> Self {
        let mut loaded = Loaded::default();
        for (key, value) in &log {
            loaded.apply(Some(key), value.as_deref());
        }
        assert_eq!(loaded.skipped, 0);
        let mut out = Output::default();
        let shard = Shard::new(SETTINGS, loaded.transactions, now, &mut out);
        let mut world = Self {
            shard,
            now,
            log,
            writes: VecDeque::new(),
            replies: HashMap::default(),
            endings: Vec::new(),
            next: 0,
        };
        world.take(out);
        world
    }

    fn take(&mut self, out: Output) {
        self.writes.extend(out.writes);
        self.replies.extend(out.replies);
        self.endings.extend(out.endings);
    }

    fn call<R>(&mut self, call: impl FnOnce(&mut Shard, Token, Now, &mut Output) -> R) -> Token {
        self.next += 1;
        let token = Token(self.next);
        let mut out = Output::default();
        call(&mut self.shard, token, self.now, &mut out);
        self.take(out);
        token
    }

    fn store_all(&mut self) {
        while let Some(write) = self.writes.pop_front() {
            self.log.extend(write.records);
            self.call(|shard, _, now, out| shard.written(write.id, None, now, out));
        }
    }

    fn fail_next(&mut self, error: ErrorCode) {
        let write = self.writes.pop_front().unwrap();
        self.call(|shard, _, now, out| shard.written(write.id, Some(error), now, out));
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 100 {
            self.now.mono += 100;
            self.now.wall += 100;
            self.call(|shard, _, now, out| shard.tick(now, out));
        }
    }

    fn init(&mut self) -> Token {
        let request = InitRequest {
            transactional_id: "id".to_owned(),
            timeout_ms: 10_000,
            expected: None,
        };
        self.call(|shard, token, now, out| {
            shard.init(&request, Some(ProducerId(7)), token, now, out);
        })
    }

    fn add(&mut self, epoch: i16) -> Token {
        let request = adding(epoch);
        self.call(|shard, token, now, out| shard.add(&request, token, now, out))
    }

    fn end(&mut self, epoch: i16, commit: bool) -> Token {
        let request = EndRequest {
            transactional_id: "id".to_owned(),
            producer: producer(epoch),
            commit,
            bump: false,
        };
        self.call(|shard, token, now, out| shard.end(&request, None, token, now, out))
    }

    /// EndTxn of version 2.
    fn end_and_bump(&mut self, epoch: i16, commit: bool, fresh: Option<i64>) -> Token {
        let request = EndRequest {
            transactional_id: "id".to_owned(),
            producer: producer(epoch),
            commit,
            bump: true,
        };
        let fresh = fresh.map(ProducerId);
        self.call(|shard, token, now, out| shard.end(&request, fresh, token, now, out))
    }

    /// Producer 7 at epoch 0, with partition 3 of "t" in its transaction.
    fn ongoing() -> Self {
        let mut world = Self::new();
        let token = world.init();
        world.store_all();
        let done = Reply::Init(InitAnswer::Done(producer(0)));
        assert_eq!(world.replies[&token], done);
        let token = world.add(0);
        world.store_all();
        assert_eq!(world.replies[&token], Reply::Changed(ErrorCode::None));
        world
    }

    fn state(&self) -> &'static str {
        self.shard.describe("id").state
    }

    fn mark(&mut self) {
        for ending in std::mem::take(&mut self.endings) {
            self.call(|shard, _, now, out| {
                shard.ended(&ending.transactional_id, ending.producer, now, out);
            });
        }
    }
}

fn producer(epoch: i16) -> Producer {
    Producer {
        id: ProducerId(7),
        epoch,
    }
}

fn adding(epoch: i16) -> AddRequest {
    AddRequest {
        transactional_id: "id".to_owned(),
        producer: producer(epoch),
        partitions: Partitions::from([("t".to_owned(), [3].into())]),
    }
}

#[test]
fn an_end_is_answered_and_its_markers_sent_only_once_it_is_stored() {
    let mut world = World::ongoing();
    let token = world.end(0, true);
    assert!(!world.replies.contains_key(&token) && world.endings.is_empty());
    world.store_all();
    let done = Reply::Ended(EndAnswer::Done(producer(0)));
    assert_eq!(world.replies[&token], done);
    assert_eq!(world.endings.len(), 1);
    let ending = &world.endings[0];
    assert!(ending.commit);
    assert_eq!(
        (ending.producer, &ending.partitions),
        (producer(0), &adding(0).partitions)
    );
    assert_eq!(world.state(), "PrepareCommit");
    world.mark();
    world.store_all();
    assert_eq!(world.state(), "CompleteCommit");
}

#[test]
fn an_end_that_is_not_stored_sends_no_marker_and_can_be_asked_for_again() {
    let mut world = World::ongoing();
    let token = world.end(0, true);
    world.fail_next(ErrorCode::NotEnoughReplicas);
    assert_eq!(
        world.replies[&token],
        not_ended(ErrorCode::CoordinatorNotAvailable)
    );
    assert!(world.endings.is_empty());
    assert_eq!(world.state(), "Ongoing");
    // And it still times out.
    world.pass(12_000);
    assert_eq!(world.writes.len(), 1);
}

#[test]
fn the_next_shard_carries_a_stored_end_to_its_markers() {
    for commit in [true, false] {
        let mut world = World::ongoing();
        world.end(0, commit);
        world.store_all();
        let mut heir = World::load(world.log, world.now);
        assert_eq!(heir.endings, world.endings);
        assert_eq!(heir.endings[0].commit, commit);
        assert!(!heir.endings[0].bumped, "of version 1");
        heir.mark();
        heir.store_all();
        assert!(heir.state().starts_with("Complete"));
        // What is complete is not ended again.
        assert!(World::load(heir.log, heir.now).endings.is_empty());
    }
}

#[test]
fn a_completion_that_the_log_refuses_is_tried_again() {
    let mut world = World::ongoing();
    world.end(0, false);
    world.store_all();
    world.mark();
    world.fail_next(ErrorCode::NotEnoughReplicas);
    assert_eq!(world.state(), "PrepareAbort");
    world.pass(200);
    world.store_all();
    assert_eq!(world.state(), "CompleteAbort");
}

#[test]
fn a_transaction_times_out_at_the_first_look_behind_its_deadline_also_under_the_next_shard() {
    let mut world = World::ongoing();
    world.pass(9_900);
    assert!(world.writes.is_empty());
    let mut heir = World::load(world.log.clone(), world.now);
    for world in [&mut world, &mut heir] {
        world.pass(1_200);
        assert_eq!(world.writes.len(), 1);
        world.store_all();
        assert_eq!(world.state(), "PrepareAbort");
        assert_eq!(world.endings[0].producer, producer(1));
        assert!(!world.endings[0].commit);
        let late = world.end(0, true);
        assert_eq!(world.replies[&late], not_ended(ErrorCode::ProducerFenced));
    }
}

#[test]
fn a_new_producer_is_told_to_wait_until_the_old_ones_transaction_is_aborted() {
    let mut world = World::ongoing();
    let wait = Reply::Init(InitAnswer::Refused(ErrorCode::ConcurrentTransactions));
    let token = world.init();
    world.store_all();
    assert_eq!(world.replies[&token], wait);
    let token = world.init();
    assert_eq!(world.replies[&token], wait);
    world.mark();
    world.store_all();
    let token = world.init();
    world.store_all();
    let done = Reply::Init(InitAnswer::Done(producer(2)));
    assert_eq!(world.replies[&token], done);
}

#[test]
fn nobody_waits_longer_than_the_timeout_and_what_is_stored_later_counts() {
    let mut world = World::ongoing();
    let token = world.end(0, true);
    world.pass(5_000);
    let late = not_ended(ErrorCode::CoordinatorNotAvailable);
    assert_eq!(world.replies[&token], late);
    let again = world.end(0, true);
    let wait = not_ended(ErrorCode::ConcurrentTransactions);
    assert_eq!(world.replies[&again], wait);
    world.store_all();
    assert_eq!(world.state(), "PrepareCommit");
    assert_eq!(world.endings.len(), 1);
}

#[test]
fn an_id_is_forgotten_after_its_expiration_and_not_while_it_is_in_use() {
    let mut world = World::ongoing();
    world.end(0, true);
    world.store_all();
    world.pass(150_000);
    assert_eq!(world.shard.len(), 1, "its markers are not written yet");
    world.mark();
    world.store_all();
    world.pass(99_000);
    assert!(world.writes.is_empty());
    world.pass(12_000);
    assert_eq!(world.writes.len(), 1);
    let busy = world.init();
    let wait = Reply::Init(InitAnswer::Refused(ErrorCode::ConcurrentTransactions));
    assert_eq!(world.replies[&busy], wait);
    world.store_all();
    assert!(world.shard.is_empty());
    assert!(World::load(world.log, world.now).shard.is_empty());
}

#[test]
fn an_id_whose_first_write_fails_was_never_there() {
    let mut world = World::new();
    let token = world.init();
    world.fail_next(ErrorCode::NotEnoughReplicas);
    let refused = InitAnswer::Refused(ErrorCode::CoordinatorNotAvailable);
    assert_eq!(world.replies[&token], Reply::Init(refused));
    assert!(world.shard.is_empty());
}

#[test]
fn a_timeout_beyond_the_maximum_is_refused_and_an_id_too_long_for_a_record_too() {
    let mut world = World::new();
    for (id, timeout_ms, error) in [
        ("id", 60_001, ErrorCode::InvalidTransactionTimeout),
        ("id", 0, ErrorCode::InvalidTransactionTimeout),
        (&*"i".repeat(40_000), 1, ErrorCode::InvalidRequest),
    ] {
        let request = InitRequest {
            transactional_id: id.to_owned(),
            timeout_ms,
            expected: None,
        };
        let token = world.call(|shard, token, now, out| {
            shard.init(&request, Some(ProducerId(7)), token, now, out);
        });
        let refused = Reply::Init(InitAnswer::Refused(error));
        assert_eq!(world.replies[&token], refused);
        assert!(world.shard.is_empty());
    }
}

#[test]
fn a_leader_learns_which_partitions_are_in_the_transaction() {
    let mut world = World::ongoing();
    let mut asked = adding(0);
    asked
        .partitions
        .entry("t".to_owned())
        .or_default()
        .insert(4);
    let row = |partition, error| ("t".to_owned(), partition, error);
    assert_eq!(
        world.shard.verify(&asked),
        [
            row(3, ErrorCode::None),
            row(4, ErrorCode::TransactionAbortable)
        ]
    );
    world.end(0, true);
    world.store_all();
    let wait = ErrorCode::ConcurrentTransactions;
    assert_eq!(world.shard.verify(&asked), [row(3, wait), row(4, wait)]);
    asked.transactional_id = "nobody".to_owned();
    let unknown = ErrorCode::InvalidProducerIdMapping;
    assert_eq!(world.shard.verify(&asked)[0], row(3, unknown));
}

#[test]
fn filters_of_a_list_narrow_it_down_together() {
    let world = World::ongoing();
    let list = |request: &ListRequest| world.shard.list(request, world.now).len();
    let all = ListRequest {
        longer_than_ms: -1,
        ..ListRequest::default()
    };
    assert_eq!(list(&all), 1);
    let states = |states: &[State]| ListRequest {
        states: states.to_vec(),
        ..all.clone()
    };
    assert_eq!(list(&states(&[State::Ongoing, State::Empty])), 1);
    assert_eq!(list(&states(&[State::Empty])), 0);
    let nothing = ListRequest {
        nothing: true,
        ..all.clone()
    };
    assert_eq!(list(&nothing), 0);
    let producers = |id| ListRequest {
        producers: vec![ProducerId(id)],
        ..all.clone()
    };
    assert_eq!((list(&producers(7)), list(&producers(8))), (1, 0));
    let longer = ListRequest {
        longer_than_ms: 1_000,
        ..all.clone()
    };
    assert_eq!(list(&longer), 0);
}

fn not_ended(error: ErrorCode) -> Reply {
    Reply::Ended(EndAnswer::Refused(error))
}

#[test]
fn in_version_2_the_producer_goes_on_in_the_next_epoch_and_the_markers_have_it() {
    let mut world = World::ongoing();
    let token = world.end_and_bump(0, true, None);
    world.store_all();
    let next = Reply::Ended(EndAnswer::Done(producer(1)));
    assert_eq!(world.replies[&token], next);
    assert_eq!(world.endings[0].producer, producer(1));
    // The next coordinator tells a repeat the same, before and after the markers.
    let mut heir = World::load(world.log, world.now);
    assert_eq!(heir.endings[0].producer, producer(1));
    assert!(world.endings[0].bumped && heir.endings[0].bumped);
    let wait = not_ended(ErrorCode::ConcurrentTransactions);
    let token = heir.end_and_bump(0, true, None);
    assert_eq!(heir.replies[&token], wait);
    heir.mark();
    heir.store_all();
    let mut heir = World::load(heir.log, heir.now);
    let token = heir.end_and_bump(0, true, None);
    assert_eq!(heir.replies[&token], next);
    let other = heir.end_and_bump(0, false, None);
    assert_eq!(heir.replies[&other], not_ended(ErrorCode::InvalidTxnState));
}

#[test]
fn a_producer_whose_epochs_are_used_up_goes_on_under_another_id() {
    let last = i16::MAX - 1;
    let mut world = World::ongoing();
    // Nobody lives to see it otherwise.
    let mut loaded = Loaded::default();
    for (key, value) in &world.log {
        loaded.apply(Some(key), value.as_deref());
    }
    for metadata in loaded.transactions.values_mut() {
        metadata.epoch = last;
    }
    let mut out = Output::default();
    world.shard = Shard::new(SETTINGS, loaded.transactions, world.now, &mut out);
    let token = world.end_and_bump(last, true, None);
    let needs = Reply::Ended(EndAnswer::NeedsProducerId);
    assert_eq!(world.replies[&token], needs);
    let token = world.end_and_bump(last, true, Some(900));
    world.store_all();
    let next = Producer {
        id: ProducerId(900),
        epoch: 0,
    };
    let done = Reply::Ended(EndAnswer::Done(next));
    assert_eq!(world.replies[&token], done);
    assert_eq!(world.endings[0].producer, producer(i16::MAX));
    // It may be quicker than the markers.
    let mut heir = World::load(world.log, world.now);
    let early = AddRequest {
        producer: next,
        ..adding(0)
    };
    let token = heir.call(|shard, token, now, out| shard.add(&early, token, now, out));
    let wait = Reply::Changed(ErrorCode::ConcurrentTransactions);
    assert_eq!(heir.replies[&token], wait);
    heir.mark();
    heir.store_all();
    let mut heir = World::load(heir.log, heir.now);
    let token = heir.end_and_bump(last, true, None);
    assert_eq!(heir.replies[&token], done, "a repeat");
    let token = heir.call(|shard, token, now, out| shard.add(&early, token, now, out));
    heir.store_all();
    assert_eq!(heir.replies[&token], Reply::Changed(ErrorCode::None));
}

#[test]
fn a_producer_that_timed_out_does_not_take_the_abort_for_its_own_end() {
    let mut world = World::ongoing();
    world.pass(11_200);
    world.store_all();
    let fenced = not_ended(ErrorCode::ProducerFenced);
    let early = world.end_and_bump(0, false, None);
    world.mark();
    world.store_all();
    let late = world.end_and_bump(0, false, None);
    assert_eq!(
        (world.replies[&early], world.replies[&late]),
        (fenced, fenced)
    );
}
