use super::*;
use crate::group::store::loaded::Loaded;
use std::collections::{HashSet, VecDeque};

const SETTINGS: Settings = Settings {
    limits: Limits {
        max_size: 100,
        initial_rebalance_delay_ms: 0,
        new_member_join_timeout_ms: 300_000,
        max_pending: 10,
    },
    consumer: ConsumerSettings::DEFAULT,
    offset_metadata_max: 8,
    offsets_retention_ms: 10_000,
    offsets_check_interval_ms: 1_000,
    write_timeout_ms: 5_000,
};

/// A shard over a log in memory: a write is "stored" when the test says so.
pub(super) struct World {
    pub(super) shard: Shard,
    now: Now,
    log: Vec<WriteRecord>,
    pub(super) writes: VecDeque<Write>,
    pub(super) replies: HashMap<Token, Reply>,
    next: u64,
}

impl World {
    pub(super) fn new() -> Self {
        Self::load(Vec::new())
    }

    fn load(log: Vec<WriteRecord>) -> Self {
        let mut loaded = Loaded::default();
        for (key, value) in &log {
            loaded.apply(Some(key), value.as_deref());
        }
        Self {
            log,
            ..Self::of(loaded)
        }
    }

    pub(super) fn of(loaded: Loaded) -> Self {
        let image = Image::genesis(leasehold_types::ClusterId("c".into()));
        Self::within(image, loaded)
    }

    /// What was stored is loaded while the metadata are `image`.
    pub(super) fn reload(&self, image: Image) -> Self {
        let mut loaded = Loaded::default();
        for (key, value) in &self.log {
            loaded.apply(Some(key), value.as_deref());
        }
        Self::within(image, loaded)
    }

    fn within(image: Image, loaded: Loaded) -> Self {
        let now = Now {
            mono: 0,
            wall: 1_000_000,
        };
        let mut out = Output::default();
        let image = Arc::new(image);
        let (groups, open) = loaded.into_parts();
        let shard = Shard::new(SETTINGS, image, groups, open, now, &mut out);
        let mut world = Self {
            shard,
            now,
            log: Vec::new(),
            writes: VecDeque::new(),
            replies: HashMap::default(),
            next: 0,
        };
        world.take(out);
        world
    }

    fn take(&mut self, out: Output) {
        self.writes.extend(out.writes);
        self.replies.extend(out.replies);
    }

    pub(super) fn call<R>(&mut self, call: impl FnOnce(&mut Shard, Now, &mut Output) -> R) -> R {
        let mut out = Output::default();
        let result = call(&mut self.shard, self.now, &mut out);
        self.take(out);
        result
    }

    pub(super) fn token(&mut self) -> Token {
        self.next += 1;
        Token(self.next)
    }

    pub(super) fn store_all(&mut self) {
        while let Some(write) = self.writes.pop_front() {
            let at = Offset(self.log.len() as i64);
            self.log.extend(write.records);
            self.call(|shard, now, out| {
                shard.stored_at(write.id, at);
                shard.written(write.id, None, now, out);
            });
        }
    }

    pub(super) fn fail_next(&mut self, error: ErrorCode) {
        let write = self.writes.pop_front().unwrap();
        self.call(|shard, now, out| shard.written(write.id, Some(error), now, out));
    }

    pub(super) fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 100 {
            self.now.mono += 100;
            self.now.wall += 100;
            self.call(|shard, now, out| shard.tick(now, out));
        }
    }

    pub(super) fn commit_request(offsets: &[(&str, i32, i64)]) -> CommitRequest {
        let topic = |(name, partition, offset): &(&str, i32, i64)| CommitTopic {
            name: (*name).to_owned(),
            partitions: vec![CommitPartition {
                partition: *partition,
                offset: *offset,
                leader_epoch: 3,
                metadata: None,
            }],
        };
        CommitRequest {
            api_version: 8,
            group_id: "g".to_owned(),
            generation: -1,
            retention_ms: -1,
            topics: offsets.iter().map(topic).collect(),
            ..CommitRequest::default()
        }
    }

    fn send_commit(&mut self, request: &CommitRequest) -> (Taken, Option<Token>) {
        let token = self.token();
        self.call(|shard, now, out| shard.commit(request, token, now, out))
    }

    fn commit(&mut self, offsets: &[(&str, i32, i64)]) {
        let (_, token) = self.send_commit(&Self::commit_request(offsets));
        self.store_all();
        assert_eq!(
            self.replies[&token.unwrap()],
            Reply::Commit(ErrorCode::None)
        );
    }

    /// The committed offset of the group "g"; -1 for none.
    fn offset(&self, topic: &str, partition: i32) -> i64 {
        let response = self.shard.fetch(&FetchRequest {
            group_id: "g".to_owned(),
            topics: Some(vec![(topic.to_owned(), vec![partition])]),
            require_stable: true,
            member_id: None,
            member_epoch: -1,
        });
        response.topics[0].1[0].offset
    }

    fn all(&self) -> FetchResponse {
        self.shard.fetch(&FetchRequest {
            group_id: "g".to_owned(),
            ..FetchRequest::default()
        })
    }

    fn send_delete(&mut self) -> Result<Token, ErrorCode> {
        let token = self.token();
        self.call(|shard, now, out| shard.delete("g", token, now, out))?;
        Ok(token)
    }

    /// One member, stable; its id.
    fn member(&mut self) -> String {
        let join = JoinRequest {
            api_version: 3,
            group_id: "g".to_owned(),
            session_timeout_ms: 6_000,
            rebalance_timeout_ms: 6_000,
            protocol_type: "consumer".to_owned(),
            protocols: vec![Protocol {
                name: "range".to_owned(),
                metadata: vec![0, 1, 0, 0, 0, 1, 0, 1, b't'].into(),
            }],
            ..JoinRequest::default()
        };
        let token = self.token();
        self.call(|shard, now, out| shard.join(&join, "member".into(), token, now, out));
        self.call(|shard, now, out| shard.tick(now, out));
        let Reply::Group(Answer::Join(joined)) = &self.replies[&token] else {
            panic!()
        };
        let sync = SyncRequest {
            group_id: "g".to_owned(),
            generation: joined.generation,
            member_id: joined.member_id.clone(),
            ..SyncRequest::default()
        };
        let token = self.token();
        self.call(|shard, now, out| shard.sync(&sync, token, now, out));
        self.store_all();
        sync.member_id
    }

    fn state(&self) -> &'static str {
        self.shard.describe("g", 5).state
    }
}

#[test]
fn a_commit_is_answered_and_visible_only_once_it_is_stored() {
    let mut world = World::new();
    let (_, token) = world.send_commit(&World::commit_request(&[("t", 0, 7)]));
    let token = token.unwrap();
    assert!(!world.replies.contains_key(&token));
    assert_eq!(world.offset("t", 0), -1);
    world.store_all();
    assert_eq!(world.replies[&token], Reply::Commit(ErrorCode::None));
    assert_eq!(world.offset("t", 0), 7);
    let all = world.all();
    assert_eq!(all.topics.len(), 1);
    assert_eq!(all.topics[0].1[0].leader_epoch, 3);
}

#[test]
fn errors_of_the_log_reach_committers_as_kafka_maps_them() {
    for (log, client) in [
        (
            ErrorCode::NotEnoughReplicas,
            ErrorCode::CoordinatorNotAvailable,
        ),
        (
            ErrorCode::RequestTimedOut,
            ErrorCode::CoordinatorNotAvailable,
        ),
        (ErrorCode::NotLeaderOrFollower, ErrorCode::NotCoordinator),
        (ErrorCode::KafkaStorageError, ErrorCode::NotCoordinator),
        (
            ErrorCode::MessageTooLarge,
            ErrorCode::InvalidCommitOffsetSize,
        ),
    ] {
        let mut world = World::new();
        let (_, token) = world.send_commit(&World::commit_request(&[("t", 0, 7)]));
        world.fail_next(log);
        assert_eq!(
            world.replies[&token.unwrap()],
            Reply::Commit(client),
            "{log}"
        );
        assert_eq!(world.offset("t", 0), -1);
        assert_eq!(world.shard.counts().groups, 0, "nothing is left of it");
    }
}

#[test]
fn a_commit_that_takes_too_long_is_refused_but_counts_when_it_is_stored_after_all() {
    let mut world = World::new();
    let (_, token) = world.send_commit(&World::commit_request(&[("t", 0, 7)]));
    world.pass(5_000);
    let refused = Reply::Commit(ErrorCode::CoordinatorNotAvailable);
    assert_eq!(world.replies.remove(&token.unwrap()), Some(refused));
    world.store_all();
    assert!(
        !world.replies.contains_key(&token.unwrap()),
        "not answered twice"
    );
    assert_eq!(world.offset("t", 0), 7);
}

#[test]
fn one_partitions_metadata_that_is_too_large_does_not_keep_the_others_from_being_committed() {
    let mut world = World::new();
    let mut request = World::commit_request(&[("t", 0, 1), ("t", 1, 2)]);
    request.topics[0].partitions[0].metadata = Some("123456789".to_owned());
    request.topics[1].partitions[0].metadata = Some("12345678".to_owned());
    let (taken, token) = world.send_commit(&request);
    world.store_all();
    assert_eq!(
        world.replies[&token.unwrap()],
        Reply::Commit(ErrorCode::None)
    );
    let response = Reply::spread(taken, ErrorCode::None);
    assert_eq!(
        response.topics[0].1,
        [(0, ErrorCode::OffsetMetadataTooLarge)]
    );
    assert_eq!(response.topics[1].1, [(1, ErrorCode::None)]);
    assert_eq!((world.offset("t", 0), world.offset("t", 1)), (-1, 2));
}

#[test]
fn a_generation_of_a_group_that_does_not_exist_is_refused_by_the_words_of_the_version() {
    let mut world = World::new();
    let mut request = World::commit_request(&[("t", 0, 1)]);
    request.generation = 3;
    for (version, error) in [
        (8, ErrorCode::IllegalGeneration),
        (9, ErrorCode::GroupIdNotFound),
    ] {
        request.api_version = version;
        let (taken, token) = world.send_commit(&request);
        assert_eq!(taken[0].1, [(0, error)]);
        assert!(token.is_none());
    }
    assert_eq!(world.shard.counts().groups, 0);
}

#[test]
fn a_coordinator_that_moves_loads_offsets_and_members_from_the_log() {
    let mut world = World::new();
    let member = world.member();
    let mut request = World::commit_request(&[("t", 0, 41), ("t", 0, 42), ("u", 3, 5)]);
    request.generation = 1;
    request.member_id = member.clone();
    world.send_commit(&request);
    world.store_all();

    let mut moved = World::load(world.log);
    assert_eq!((moved.offset("t", 0), moved.offset("u", 3)), (42, 5));
    assert_eq!(moved.state(), "Stable");
    let beat = HeartbeatRequest {
        group_id: "g".to_owned(),
        generation: 1,
        member_id: member,
        instance_id: None,
    };
    let error = moved.call(|shard, now, out| shard.heartbeat(&beat, now, out));
    assert_eq!(error, ErrorCode::None);
    moved.pass(6_000);
    moved.store_all();
    assert_eq!(
        moved.state(),
        "Empty",
        "a member that does not come along is given up"
    );
    assert_eq!(moved.offset("t", 0), 42, "its offsets stay");
}

#[test]
fn only_an_empty_group_is_deleted_and_nothing_of_it_comes_back_from_the_log() {
    let mut world = World::new();
    let member = world.member();
    assert_eq!(world.send_delete(), Err(ErrorCode::NonEmptyGroup));
    let leave = LeaveRequest {
        group_id: "g".to_owned(),
        members: vec![LeavingMember {
            member_id: member,
            ..LeavingMember::default()
        }],
    };
    world.call(|shard, now, out| shard.leave(&leave, now, out));
    world.store_all();
    world.commit(&[("t", 0, 7)]);
    // A commit that is still on its way is deleted, too.
    world.send_commit(&World::commit_request(&[("late", 0, 1)]));
    let token = world.send_delete().unwrap();
    let (taken, _) = world.send_commit(&World::commit_request(&[("t", 1, 1)]));
    assert_eq!(
        taken[0].1,
        [(1, ErrorCode::CoordinatorNotAvailable)],
        "it is being deleted"
    );
    world.store_all();
    assert_eq!(world.replies[&token], Reply::Delete(ErrorCode::None));
    assert_eq!(world.send_delete(), Err(ErrorCode::GroupIdNotFound));
    assert_eq!(world.shard.describe("g", 5).state, "Dead");
    assert_eq!(World::load(world.log).shard.counts(), Counts::default());
}

#[test]
fn a_group_whose_deletion_could_not_be_stored_in_full_is_still_there() {
    // Either write may be refused: the offsets' tombstones, or the group's own.
    for refused in [0, 1] {
        let mut world = World::new();
        world.commit(&[("t", 0, 7)]);
        let token = world.send_delete().unwrap();
        if refused == 1 {
            let write = world.writes.pop_front().unwrap();
            world.call(|shard, now, out| shard.written(write.id, None, now, out));
        }
        world.fail_next(ErrorCode::NotEnoughReplicas);
        world.store_all();
        let answer = &world.replies[&token];
        assert_eq!(*answer, Reply::Delete(ErrorCode::CoordinatorNotAvailable));
        assert_eq!(world.offset("t", 0), if refused == 0 { 7 } else { -1 });
        world.commit(&[("t", 0, 8)]);
        let token = world.send_delete().unwrap();
        world.store_all();
        assert_eq!(world.replies[&token], Reply::Delete(ErrorCode::None));
    }
}

#[test]
fn the_offsets_of_an_abandoned_group_expire_with_it() {
    let mut world = World::new();
    world.commit(&[("t", 0, 7)]);
    world.pass(5_000);
    world.commit(&[("t", 1, 8)]);
    world.pass(6_000);
    world.store_all();
    assert_eq!((world.offset("t", 0), world.offset("t", 1)), (-1, 8));
    world.pass(6_000);
    world.store_all();
    assert_eq!(world.shard.counts(), Counts::default());
    assert_eq!(World::load(world.log).shard.counts(), Counts::default());
}

#[test]
fn offsets_do_not_expire_while_the_group_consumes_their_topic() {
    let mut world = World::new();
    let member = world.member();
    let mut request = World::commit_request(&[("t", 0, 1), ("other", 0, 2)]);
    request.generation = 1;
    request.member_id = member.clone();
    world.send_commit(&request);
    world.store_all();
    let beat = HeartbeatRequest {
        group_id: "g".to_owned(),
        generation: 1,
        member_id: member,
        instance_id: None,
    };
    for _ in 0..20 {
        world.pass(1_000);
        world.call(|shard, now, out| shard.heartbeat(&beat, now, out));
        world.store_all();
    }
    assert_eq!((world.offset("t", 0), world.offset("other", 0)), (1, -1));
    // Emptied, it keeps them for the retention from then on.
    world.pass(8_000);
    world.store_all();
    assert_eq!((world.state(), world.offset("t", 0)), ("Empty", 1));
    world.pass(10_000);
    world.store_all();
    assert_eq!(world.offset("t", 0), -1);
}

#[test]
fn offsets_of_deleted_topics_are_removed_for_good() {
    let mut world = World::new();
    world.commit(&[("t", 0, 7), ("u", 0, 8)]);
    let deleted = HashSet::from(["t".to_owned()]);
    world.call(|shard, now, out| shard.topics_deleted(&deleted, now, out));
    world.store_all();
    assert_eq!((world.offset("t", 0), world.offset("u", 0)), (-1, 8));
    let moved = World::load(world.log);
    assert_eq!((moved.offset("t", 0), moved.offset("u", 0)), (-1, 8));
}

#[test]
fn lists_are_filtered_by_state_and_type_in_any_case() {
    let mut world = World::new();
    world.member();
    let list = |states: &[&str], types: &[&str]| {
        let owned = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        let request = ListRequest {
            states: owned(states),
            types: owned(types),
        };
        world.shard.list(&request).len()
    };
    assert_eq!(list(&[], &[]), 1);
    assert_eq!(list(&["stable", "Empty"], &["Classic"]), 1);
    assert_eq!(list(&["Empty"], &[]), 0);
    assert_eq!(list(&[], &["consumer"]), 0);
}

#[test]
fn a_missing_group_is_dead_before_version_6_and_an_error_since() {
    let world = World::new();
    let old = world.shard.describe("g", 5);
    assert_eq!((old.error, old.state), (ErrorCode::None, "Dead"));
    let new = world.shard.describe("g", 6);
    assert_eq!((new.error, new.state), (ErrorCode::GroupIdNotFound, "Dead"));
    assert!(new.error_message.is_some());
}

#[test]
fn a_group_that_nobody_ever_joined_takes_no_memory() {
    let mut world = World::new();
    let join = JoinRequest {
        api_version: 9,
        group_id: "g".to_owned(),
        session_timeout_ms: 6_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![Protocol {
            name: "range".to_owned(),
            metadata: Default::default(),
        }],
        ..JoinRequest::default()
    };
    let token = world.token();
    world.call(|shard, now, out| shard.join(&join, "m".into(), token, now, out));
    assert_eq!(world.shard.counts().groups, 1);
    world.pass(6_000);
    assert_eq!(world.shard.counts().groups, 0);
}

#[test]
fn a_group_that_cannot_be_written_down_is_refused_and_does_not_stay() {
    let mut world = World::new();
    let long = "x".repeat(40_000);
    let mut request = World::commit_request(&[("t", 0, 1)]);
    request.group_id = long;
    let (taken, token) = world.send_commit(&request);
    assert_eq!(taken[0].1, [(0, ErrorCode::InvalidCommitOffsetSize)]);
    assert!(token.is_none());
    assert_eq!(world.shard.counts().groups, 0);
}

#[test]
fn a_group_with_very_many_offsets_is_deleted_in_writes_that_fit_into_batches() {
    let mut world = World::new();
    let offsets: Vec<_> = (0..2_500).map(|partition| ("t", partition, 1)).collect();
    world.commit(&offsets);
    let token = world.send_delete().unwrap();
    assert!(
        world
            .writes
            .iter()
            .all(|write| write.records.len() <= 1_000)
    );
    world.store_all();
    assert_eq!(world.replies[&token], Reply::Delete(ErrorCode::None));
    assert_eq!(World::load(world.log).shard.counts(), Counts::default());
}
