//! A random walk: clients that join, sync, beat, commit, leave, die, restart and send nonsense, in any
//! order and with stores that fail or come late; after every step the promises of the module hold.

use super::testing::*;
use super::*;
use crate::group::types::*;
use leasehold_wire::ErrorCode;
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
enum Step {
    Join {
        client: usize,
        version: i16,
        changed: bool,
    },
    JoinAs {
        stranger: u8,
    },
    Sync {
        client: usize,
        stale: bool,
    },
    Heartbeat {
        client: usize,
    },
    Commit {
        client: usize,
    },
    Leave {
        client: usize,
    },
    Forget {
        client: usize,
    },
    Stored {
        ok: bool,
    },
    Pass {
        ms: u64,
    },
    Move,
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    prop_oneof![
        6 => (client.clone(), prop_oneof![Just(3i16), Just(5), Just(9)], any::<bool>())
            .prop_map(|(client, version, changed)| Step::Join { client, version, changed }),
        1 => any::<u8>().prop_map(|stranger| Step::JoinAs { stranger }),
        6 => (client.clone(), prop::bool::weighted(0.1)).prop_map(|(client, stale)| Step::Sync { client, stale }),
        4 => client.clone().prop_map(|client| Step::Heartbeat { client }),
        2 => client.clone().prop_map(|client| Step::Commit { client }),
        1 => client.clone().prop_map(|client| Step::Leave { client }),
        1 => client.prop_map(|client| Step::Forget { client }),
        4 => prop::bool::weighted(0.8).prop_map(|ok| Step::Stored { ok }),
        4 => prop_oneof![Just(10u64), Just(1_000), Just(3_000), Just(11_000), Just(61_000)]
            .prop_map(|ms| Step::Pass { ms }),
        1 => Just(Step::Move),
    ]
}

const CLIENTS: usize = 5;

/// What a client remembers. Clients 0 and 1 are static.
#[derive(Clone, Debug, Default)]
struct Client {
    member_id: String,
    generation: i32,
    leads: bool,
    parked: Vec<Token>,
}

fn instance(client: usize) -> Option<String> {
    (client < 2).then(|| format!("static-{client}"))
}

struct Walk {
    world: World,
    clients: Vec<Client>,
    /// Every token that was sent and not yet seen answered.
    waiting: BTreeSet<Token>,
    highest: i32,
    stored: Option<crate::group::store::records::GroupValue>,
}

impl Walk {
    fn new() -> Self {
        let mut world = World::new();
        world.store_at_once = false;
        world.limits.max_size = 4;
        world.limits.max_pending = 3;
        Self {
            world,
            clients: vec![Client::default(); CLIENTS],
            waiting: BTreeSet::new(),
            highest: 0,
            stored: None,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Join {
                client,
                version,
                changed,
            } => {
                let mut join = joining(&self.clients[client].member_id).version(version);
                join.request.instance_id = instance(client).filter(|_| version >= 5);
                if changed {
                    join = join.metadata(b"changed").protocols(&["range", "sticky"]);
                }
                let token = self.world.send_join(join);
                self.waiting.insert(token);
                self.clients[client].parked.push(token);
            }
            Step::JoinAs { stranger } => {
                let token = self
                    .world
                    .send_join(joining(&format!("stranger-{stranger}")));
                self.waiting.insert(token);
            }
            Step::Sync { client, stale } => {
                let me = self.clients[client].clone();
                let ids: Vec<String> = self
                    .world
                    .group
                    .members()
                    .map(|m| m.id.to_string())
                    .collect();
                let shares = ids
                    .iter()
                    .map(|id| (id.clone(), bytes::Bytes::from_static(b"share")));
                let token = self.world.sync_with(SyncRequest {
                    api_version: 4,
                    group_id: "g".to_owned(),
                    generation: me.generation - i32::from(stale),
                    member_id: me.member_id,
                    instance_id: instance(client),
                    assignments: if me.leads {
                        shares.collect()
                    } else {
                        Vec::new()
                    },
                    ..SyncRequest::default()
                });
                self.waiting.insert(token);
                self.clients[client].parked.push(token);
            }
            Step::Heartbeat { client } => {
                let me = &self.clients[client];
                let (id, generation) = (me.member_id.clone(), me.generation);
                let error = self
                    .world
                    .heartbeat_at(&id, generation, instance(client).as_deref());
                self.obey(client, error);
            }
            Step::Commit { client } => {
                let me = self.clients[client].clone();
                let error = self.world.check_commit(&me.member_id, me.generation);
                if error.is_ok() && !me.member_id.is_empty() && me.generation > 0 {
                    let group = &self.world.group;
                    assert_eq!(
                        me.generation,
                        group.generation(),
                        "a commit of another generation"
                    );
                    assert_ne!(group.state(), State::CompletingRebalance);
                }
            }
            Step::Leave { client } => {
                let id = std::mem::take(&mut self.clients[client].member_id);
                self.world.leave(&id, instance(client).as_deref());
            }
            Step::Forget { client } => self.clients[client] = Client::default(),
            Step::Stored { ok } => {
                if let Some((value, _)) = self.world.writes.front() {
                    if ok {
                        self.stored = Some(value.clone());
                    }
                    let result = if ok {
                        Ok(())
                    } else {
                        Err(ErrorCode::CoordinatorNotAvailable)
                    };
                    self.world.store(result);
                }
            }
            Step::Pass { ms } => self.world.pass(ms),
            Step::Move => self.move_coordinator(),
        }
        self.hear();
        self.check();
    }

    /// Another broker takes over with what was stored; whoever was parked is refused there.
    fn move_coordinator(&mut self) {
        let Some(value) = self.stored.clone() else {
            return;
        };
        self.world.writes.clear();
        self.world.timers = Default::default();
        self.waiting.clear();
        let generation = value.generation;
        self.world.group = Group::from_value("g".into(), value, self.world.now);
        self.highest = generation;
        self.world
            .call(|group, limits, now, fx| group.resume(limits, now, fx));
    }

    fn obey(&mut self, client: usize, error: ErrorCode) {
        if matches!(
            error,
            ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId
        ) {
            self.clients[client].member_id.clear();
        }
    }

    /// Clients take in their answers as Kafka's do.
    fn hear(&mut self) {
        for client in 0..CLIENTS {
            for token in std::mem::take(&mut self.clients[client].parked) {
                match self.world.answers.get(&token).cloned() {
                    None if self.waiting.contains(&token) => {
                        self.clients[client].parked.push(token)
                    }
                    None => {}
                    Some(Answer::Join(answer)) => {
                        let me = &mut self.clients[client];
                        match answer.error {
                            ErrorCode::None => {
                                me.leads = !answer.members.is_empty();
                                me.member_id = answer.member_id;
                                me.generation = answer.generation;
                            }
                            ErrorCode::MemberIdRequired => me.member_id = answer.member_id,
                            error => self.obey(client, error),
                        }
                    }
                    Some(Answer::Sync(answer)) => self.obey(client, answer.error),
                }
            }
        }
        let answered = |token: &Token| !self.world.answers.contains_key(token);
        self.waiting.retain(answered);
    }

    fn check(&mut self) {
        let group = &self.world.group;
        assert!(group.generation() >= self.highest, "the generation fell");
        self.highest = group.generation();
        let parked = group.parked();
        for token in &self.waiting {
            assert!(
                parked.contains(token),
                "{token:?} is waited for, but nobody will answer it"
            );
        }
        assert_eq!(
            group.awaiting_join,
            group
                .members()
                .filter(|m| m.awaiting_join.is_some())
                .count()
        );
        for member in group.members() {
            let timer = GroupTimer::Session(member.id.clone());
            let watched = self.world.timers.contains(&timer);
            let owed = member.awaiting_join.is_some() || member.awaiting_sync.is_some();
            assert!(
                watched || owed,
                "{} can stay for ever: {group:#?}",
                member.id
            );
        }
        match group.state() {
            State::Empty => assert_eq!(group.members().len(), 0),
            State::PreparingRebalance => {
                assert!(
                    self.world.timers.contains(&GroupTimer::Join),
                    "an endless rebalance"
                );
            }
            State::CompletingRebalance | State::Stable => {
                let leader = group.leader().expect("a generation has a leader");
                assert!(
                    group.members().any(|m| &*m.id == leader),
                    "the leader is no member"
                );
                assert!(
                    group
                        .members()
                        .all(|m| m.metadata(group.protocol()) != "".as_bytes())
                );
            }
            State::Dead => panic!("nobody deleted it"),
        }
    }

    /// Nobody does anything any more: everyone is answered and the group runs empty.
    fn calm_down(&mut self) {
        for _ in 0..8 {
            while !self.world.writes.is_empty() {
                self.world.store(Ok(()));
            }
            self.world.pass(400_000);
            self.hear();
        }
        assert!(
            self.waiting.is_empty(),
            "never answered: {:?}",
            self.waiting
        );
        assert_eq!(self.world.group.state(), State::Empty);
        assert_eq!(self.world.group.members().len(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_clients_do_the_promises_hold(steps in prop::collection::vec(step(), 1..120)) {
        let mut walk = Walk::new();
        for step in steps {
            walk.take(step);
        }
        walk.calm_down();
    }
}
