//! Groups that change their protocol while members go on, by way of the shard that holds them.

use super::testing::{joining, share, topic_id};
use crate::group::shard::{Output, Reply, Settings, Shard, WriteRecord};
use crate::group::state::{Answer, Limits, Now, Token};
use crate::group::store::loaded::Loaded;
use crate::group::store::protocol::{NamedPartitions, decode_assignment};
use crate::group::types::*;
use bytes::Bytes;
use leasehold_metadata::image::{Image, Partition, Topic};
use leasehold_types::ClusterId;
use leasehold_wire::ErrorCode;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

const SETTINGS: Settings = Settings {
    limits: Limits {
        max_size: 10,
        initial_rebalance_delay_ms: 0,
        new_member_join_timeout_ms: 300_000,
        max_pending: 10,
    },
    consumer: super::testing::SETTINGS,
    offset_metadata_max: 100,
    offsets_retention_ms: 1_000_000,
    offsets_check_interval_ms: 100_000,
    write_timeout_ms: 5_000,
};

struct Scene {
    shard: Shard,
    now: Now,
    log: Vec<WriteRecord>,
    replies: HashMap<Token, Reply>,
    next: u64,
}

fn image() -> Arc<Image> {
    let mut image = Image::genesis(ClusterId("c".into()));
    let topic = Topic {
        id: topic_id("t"),
        name: "t".to_owned(),
        internal: false,
        partitions: (0..4).map(|_| Arc::new(Partition::default())).collect(),
        configs: BTreeMap::new(),
    };
    image.names.insert(topic.name.clone(), topic.id);
    image.topics.insert(topic.id, Arc::new(topic));
    Arc::new(image)
}

/// A subscription to `t` of somebody who has `owned` of it.
fn subscription(owned: &[i32]) -> Bytes {
    let mut bytes = vec![
        0, 1, 0, 0, 0, 1, 0, 1, b't', 255, 255, 255, 255, 0, 0, 0, 1, 0, 1, b't',
    ];
    bytes.extend_from_slice(&(owned.len() as i32).to_be_bytes());
    for partition in owned {
        bytes.extend_from_slice(&partition.to_be_bytes());
    }
    bytes.into()
}

fn assignment(of: &[i32]) -> Bytes {
    let named = NamedPartitions::from([("t".to_owned(), of.iter().copied().collect())]);
    let bytes = crate::group::store::protocol::encode_assignment(&named, 1);
    bytes.unwrap().into()
}

fn classic_join(member: &str, owned: &[i32]) -> JoinRequest {
    JoinRequest {
        api_version: 3,
        group_id: "g".to_owned(),
        session_timeout_ms: 6_000,
        rebalance_timeout_ms: 7_000,
        member_id: member.to_owned(),
        protocol_type: "consumer".to_owned(),
        protocols: vec![Protocol {
            name: "cooperative-sticky".to_owned(),
            metadata: subscription(owned),
        }],
        ..JoinRequest::default()
    }
}

impl Scene {
    fn new() -> Self {
        Self::load(Vec::new())
    }

    fn load(log: Vec<WriteRecord>) -> Self {
        let mut loaded = Loaded::default();
        for (key, value) in &log {
            loaded.apply(Some(key), value.as_deref());
        }
        assert_eq!(loaded.counts().1, 0);
        let now = Now {
            mono: 0,
            wall: 1_000,
        };
        let mut out = Output::default();
        let (groups, open) = loaded.into_parts();
        let shard = Shard::new(SETTINGS, image(), groups, open, now, &mut out);
        let mut scene = Self {
            shard,
            now,
            log,
            replies: HashMap::new(),
            next: 0,
        };
        scene.take(out, None);
        scene
    }

    /// Stores what is to be stored, or refuses all of it.
    fn take(&mut self, mut out: Output, refused: Option<ErrorCode>) {
        loop {
            self.replies.extend(out.replies.drain(..));
            let writes = std::mem::take(&mut out.writes);
            if writes.is_empty() {
                return;
            }
            for write in writes {
                if refused.is_none() {
                    self.log.extend(write.records);
                }
                self.shard.written(write.id, refused, self.now, &mut out);
            }
        }
    }

    fn call<R>(
        &mut self,
        call: impl FnOnce(&mut Shard, Token, Now, &mut Output) -> R,
    ) -> (Token, R) {
        self.call_with(None, call)
    }

    fn call_with<R>(
        &mut self,
        refused: Option<ErrorCode>,
        call: impl FnOnce(&mut Shard, Token, Now, &mut Output) -> R,
    ) -> (Token, R) {
        self.next += 1;
        let token = Token(self.next);
        let mut out = Output::default();
        let result = call(&mut self.shard, token, self.now, &mut out);
        self.take(out, refused);
        (token, result)
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono += ms;
        self.call(|shard, _, now, out| shard.tick(now, out));
    }

    fn send_join(&mut self, request: &JoinRequest, fresh: &str) -> Token {
        let fresh: Arc<str> = fresh.into();
        self.call(|shard, token, now, out| shard.join(request, fresh, token, now, out))
            .0
    }

    fn joined(&self, token: Token) -> JoinResponse {
        match &self.replies[&token] {
            Reply::Group(Answer::Join(response)) => response.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn beat(&mut self, request: ConsumerHeartbeatRequest) -> ConsumerHeartbeatResponse {
        self.beat_with(None, request)
    }

    fn beat_with(
        &mut self,
        refused: Option<ErrorCode>,
        request: ConsumerHeartbeatRequest,
    ) -> ConsumerHeartbeatResponse {
        let (token, ()) = self.call_with(refused, |shard, token, now, out| {
            shard.consumer_heartbeat(request, "fresh".into(), token, now, out);
        });
        match self.replies.remove(&token) {
            Some(Reply::ConsumerHeartbeat(response)) => response,
            other => panic!("{other:?}"),
        }
    }

    fn sync(
        &mut self,
        member: &str,
        generation: i32,
        assignments: &[(&str, &[i32])],
    ) -> SyncResponse {
        let request = SyncRequest {
            api_version: 3,
            group_id: "g".to_owned(),
            generation,
            member_id: member.to_owned(),
            assignments: assignments
                .iter()
                .map(|(id, of)| ((*id).to_owned(), assignment(of)))
                .collect(),
            ..SyncRequest::default()
        };
        let (token, ()) = self.call(|shard, token, now, out| shard.sync(&request, token, now, out));
        match self.replies.remove(&token) {
            Some(Reply::Group(Answer::Sync(response))) => response,
            other => panic!("{other:?}"),
        }
    }

    fn classic_beat(&mut self, member: &str, generation: i32) -> ErrorCode {
        let request = HeartbeatRequest {
            group_id: "g".to_owned(),
            generation,
            member_id: member.to_owned(),
            instance_id: None,
        };
        self.call(|shard, _, now, out| shard.heartbeat(&request, now, out))
            .1
    }

    /// A stable classic group of one member, "c", which has everything; its generation.
    fn classic(&mut self) -> i32 {
        let token = self.send_join(&classic_join("", &[]), "c");
        self.pass(0);
        let generation = self.joined(token).generation;
        let synced = self.sync("c", generation, &[("c", &[0, 1, 2, 3])]);
        assert_eq!(synced.error, ErrorCode::None);
        generation
    }

    fn list(&self) -> ListedGroup {
        self.shard.list(&ListRequest::default()).remove(0)
    }
}

fn given(sync: &SyncResponse) -> Vec<i32> {
    let named = decode_assignment(&sync.assignment).unwrap();
    named.values().flatten().copied().collect()
}

#[test]
fn a_classic_group_is_upgraded_when_a_member_of_the_newer_protocol_comes_and_downgraded_when_it_leaves()
 {
    let mut scene = Scene::new();
    let generation = scene.classic();
    let newer = scene.beat(joining("n", &["t"]));
    assert_eq!(newer.error, ErrorCode::None);
    assert_eq!(
        newer.assignment,
        Some(Default::default()),
        "the classic member has it still"
    );
    assert_eq!(scene.list().group_type, "consumer");
    // It is asked to join, gives up its surplus, and joins again to say so.
    assert_eq!(
        scene.classic_beat("c", generation),
        ErrorCode::RebalanceInProgress
    );
    let token = scene.send_join(&classic_join("c", &[0, 1, 2, 3]), "x");
    assert_eq!(scene.joined(token).generation, generation);
    let kept = given(&scene.sync("c", generation, &[]));
    assert_eq!(kept.len(), 2);
    assert_eq!(
        scene.classic_beat("c", generation),
        ErrorCode::RebalanceInProgress
    );
    let token = scene.send_join(&classic_join("c", &kept), "x");
    let epoch = scene.joined(token).generation;
    assert_eq!(epoch, newer.member_epoch);
    assert_eq!(given(&scene.sync("c", epoch, &[])), kept);
    assert_eq!(scene.classic_beat("c", epoch), ErrorCode::None);
    let mut beating = super::testing::beating("n", epoch);
    let got = scene.beat(beating.clone()).assignment.expect("the rest");
    assert_eq!(got[&topic_id("t")].len(), 2);
    assert!(kept.iter().all(|p| !got[&topic_id("t")].contains(p)));
    // The log tells the same to the next coordinator.
    let mut heir = Scene::load(scene.log.clone());
    assert_eq!(heir.list().group_type, "consumer");
    assert_eq!(heir.classic_beat("c", epoch), ErrorCode::None);

    beating.member_epoch = -1;
    assert_eq!(scene.beat(beating).error, ErrorCode::None);
    assert_eq!(scene.list().group_type, "classic");
    assert_eq!(
        scene.classic_beat("c", epoch + 1),
        ErrorCode::RebalanceInProgress
    );
    let token = scene.send_join(&classic_join("c", &kept), "x");
    let joined = scene.joined(token);
    assert_eq!((joined.error, &*joined.leader), (ErrorCode::None, "c"));
    let heir = Scene::load(scene.log.clone());
    assert_eq!(heir.list().group_type, "classic");
}

#[test]
fn an_upgrade_that_cannot_be_stored_leaves_the_classic_group_and_its_members() {
    let mut scene = Scene::new();
    let generation = scene.classic();
    let refused = scene.beat_with(Some(ErrorCode::NotEnoughReplicas), joining("n", &["t"]));
    assert_eq!(refused.error, ErrorCode::CoordinatorNotAvailable);
    assert_eq!(scene.list().group_type, "classic");
    assert_eq!(
        scene.classic_beat("c", generation),
        ErrorCode::RebalanceInProgress
    );
    let token = scene.send_join(&classic_join("c", &[]), "x");
    assert_eq!(scene.joined(token).error, ErrorCode::None);
}

#[test]
fn a_group_that_may_not_migrate_refuses_the_newer_protocol_while_it_has_members() {
    let mut scene = Scene::new();
    let mut request = classic_join("", &[]);
    request.protocol_type = "connect".to_owned();
    scene.send_join(&request, "c");
    scene.pass(0);
    let refused = scene.beat(joining("n", &["t"]));
    assert_eq!(refused.error, ErrorCode::GroupIdNotFound);
    assert_eq!(scene.list().group_type, "classic");
}

#[test]
fn an_empty_group_changes_its_protocol_with_whoever_comes_and_keeps_its_offsets() {
    let mut scene = Scene::new();
    scene.beat(joining("n", &["t"]));
    let commit = CommitRequest {
        api_version: 9,
        group_id: "g".to_owned(),
        generation: 1,
        member_id: "n".to_owned(),
        retention_ms: -1,
        topics: vec![CommitTopic {
            name: "t".to_owned(),
            partitions: vec![CommitPartition {
                partition: 0,
                offset: 5,
                leader_epoch: -1,
                metadata: None,
            }],
        }],
        ..CommitRequest::default()
    };
    scene.call(|shard, token, now, out| shard.commit(&commit, token, now, out));
    let mut stale = commit.clone();
    stale.generation = 9;
    let (_, (taken, _)) =
        scene.call(|shard, token, now, out| shard.commit(&stale, token, now, out));
    assert_eq!(taken[0].1[0].1, ErrorCode::StaleMemberEpoch);
    scene.beat(super::testing::beating("n", -1));
    let token = scene.send_join(&classic_join("", &[]), "c");
    scene.pass(0);
    assert_eq!(scene.joined(token).error, ErrorCode::None);
    let generation = scene.joined(token).generation;
    scene.sync("c", generation, &[("c", &[0])]);
    let heir = Scene::load(scene.log.clone());
    assert_eq!(heir.list().group_type, "classic");
    let fetched = heir.shard.fetch(&FetchRequest {
        group_id: "g".to_owned(),
        topics: Some(vec![("t".to_owned(), vec![0])]),
        require_stable: false,
        member_id: None,
        member_epoch: -1,
    });
    assert_eq!(fetched.topics[0].1[0].offset, 5);
}

#[test]
fn a_classic_member_that_does_not_join_in_time_is_out_and_its_partitions_are_free() {
    let mut scene = Scene::new();
    let generation = scene.classic();
    let newer = scene.beat(joining("n", &["t"]));
    assert_eq!(
        scene.classic_beat("c", generation),
        ErrorCode::RebalanceInProgress
    );
    scene.pass(5_000);
    assert_eq!(
        scene.classic_beat("c", generation),
        ErrorCode::RebalanceInProgress
    );
    scene.pass(2_000);
    assert_eq!(
        scene.classic_beat("c", generation),
        ErrorCode::UnknownMemberId
    );
    let beating = super::testing::beating("n", newer.member_epoch);
    assert_eq!(
        scene.beat(beating).assignment,
        Some(share(&[("t", &[0, 1, 2, 3])]))
    );
}

#[test]
fn offsets_of_a_topic_that_is_consumed_are_not_taken_back_and_others_are() {
    let mut scene = Scene::new();
    scene.beat(joining("n", &["t"]));
    let commit = |topic: &str| CommitRequest {
        api_version: 9,
        group_id: "g".to_owned(),
        generation: 1,
        member_id: "n".to_owned(),
        retention_ms: -1,
        topics: vec![CommitTopic {
            name: topic.to_owned(),
            partitions: vec![CommitPartition {
                partition: 0,
                offset: 5,
                leader_epoch: -1,
                metadata: None,
            }],
        }],
        ..CommitRequest::default()
    };
    for topic in ["t", "u"] {
        scene.call(|shard, token, now, out| shard.commit(&commit(topic), token, now, out));
    }
    let request = DeleteOffsetsRequest {
        group_id: "g".to_owned(),
        topics: vec![("t".to_owned(), vec![0]), ("u".to_owned(), vec![0, 1])],
    };
    let (token, answer) =
        scene.call(|shard, token, now, out| shard.delete_offsets(&request, token, now, out));
    let (taken, waits) = answer.unwrap();
    assert_eq!(taken[0].1, [(0, ErrorCode::GroupSubscribedToTopic)]);
    assert_eq!(taken[1].1, [(0, ErrorCode::None), (1, ErrorCode::None)]);
    assert_eq!(waits, Some(token));
    assert_eq!(scene.replies[&token], Reply::Commit(ErrorCode::None));
    let heir = Scene::load(scene.log.clone());
    for scene in [&scene, &heir] {
        let fetched = scene.shard.fetch(&FetchRequest {
            group_id: "g".to_owned(),
            topics: None,
            require_stable: false,
            member_id: None,
            member_epoch: -1,
        });
        let left: Vec<&str> = fetched.topics.iter().map(|(name, _)| &**name).collect();
        assert_eq!(left, ["t"]);
    }
    let unknown = DeleteOffsetsRequest::default();
    let (_, answer) =
        scene.call(|shard, token, now, out| shard.delete_offsets(&unknown, token, now, out));
    assert_eq!(answer.unwrap_err(), ErrorCode::GroupIdNotFound);
}

#[test]
fn what_comes_while_a_write_is_on_its_way_waits_for_it_and_holds_up_nobody_else() {
    let mut scene = Scene::new();
    let mut out = Output::default();
    let now = scene.now;
    for (member, token) in [("a", 1), ("b", 2)] {
        let request = joining(member, &["t"]);
        let fresh = "fresh".into();
        scene
            .shard
            .consumer_heartbeat(request, fresh, Token(token), now, &mut out);
    }
    assert_eq!((out.writes.len(), out.replies.len()), (1, 0));
    assert_eq!(
        scene.shard.consumer_describe("other", now).error,
        ErrorCode::GroupIdNotFound
    );
    scene.take(out, None);
    for token in [Token(1), Token(2)] {
        let Some(Reply::ConsumerHeartbeat(response)) = scene.replies.get(&token) else {
            panic!("{token:?} is not answered");
        };
        assert_eq!(response.error, ErrorCode::None);
    }
}
