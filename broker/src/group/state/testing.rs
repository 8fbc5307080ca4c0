//! A group with a clock, a timer queue and a store that a test holds in its hands.

use super::*;
use crate::group::timer::TimerQueue;
use crate::group::types::*;
use bytes::Bytes;
use leasehold_wire::ErrorCode;
use std::collections::{HashMap, VecDeque};

pub const LIMITS: Limits = Limits {
    max_size: 10,
    initial_rebalance_delay_ms: 3_000,
    new_member_join_timeout_ms: 300_000,
    max_pending: 5,
};

pub const SESSION: i32 = 10_000;
pub const REBALANCE: i32 = 60_000;

/// See the module.
pub struct World {
    pub group: Group,
    pub limits: Limits,
    pub now: Now,
    pub timers: TimerQueue<GroupTimer>,
    pub answers: HashMap<Token, Answer>,
    /// Writes whose outcome the test decides, unless `store_at_once`.
    pub writes: VecDeque<(crate::group::store::records::GroupValue, Then)>,
    pub store_at_once: bool,
    next: u64,
}

/// A join in words.
#[derive(Clone)]
pub struct Joining {
    pub request: JoinRequest,
}

pub fn joining(member_id: &str) -> Joining {
    Joining {
        request: JoinRequest {
            api_version: 9,
            group_id: "g".to_owned(),
            session_timeout_ms: SESSION,
            rebalance_timeout_ms: REBALANCE,
            member_id: member_id.to_owned(),
            instance_id: None,
            protocol_type: "consumer".to_owned(),
            protocols: vec![protocol("range")],
            reason: None,
            client_id: "client".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
        },
    }
}

impl Joining {
    pub fn version(mut self, version: i16) -> Self {
        self.request.api_version = version;
        self
    }

    pub fn instance(mut self, instance: &str) -> Self {
        self.request.instance_id = Some(instance.to_owned());
        self
    }

    pub fn protocols(mut self, names: &[&str]) -> Self {
        self.request.protocols = names.iter().map(|name| protocol(name)).collect();
        self
    }

    pub fn metadata(mut self, metadata: &'static [u8]) -> Self {
        self.request.protocols[0].metadata = Bytes::from_static(metadata);
        self
    }

    pub fn protocol_type(mut self, protocol_type: &str) -> Self {
        self.request.protocol_type = protocol_type.to_owned();
        self
    }
}

pub fn protocol(name: &str) -> Protocol {
    Protocol {
        name: name.to_owned(),
        metadata: Bytes::from_static(&[0, 1, 0, 0, 0, 1, 0, 1, b't']),
    }
}

impl World {
    pub fn new() -> Self {
        let now = Now {
            mono: 1_000,
            wall: 1_700_000_000_000,
        };
        Self::with(Group::new("g".into(), now), now)
    }

    pub fn with(group: Group, now: Now) -> Self {
        Self {
            group,
            limits: LIMITS,
            now,
            timers: TimerQueue::default(),
            answers: HashMap::new(),
            writes: VecDeque::new(),
            store_at_once: true,
            next: 0,
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub fn call<R>(&mut self, call: impl FnOnce(&mut Group, &Limits, Now, &mut Effects) -> R) -> R {
        let mut fx = Effects::default();
        let result = call(&mut self.group, &self.limits, self.now, &mut fx);
        self.take(fx);
        while self.store_at_once && !self.writes.is_empty() {
            self.store(Ok(()));
        }
        result
    }

    fn take(&mut self, fx: Effects) {
        for op in fx.timers {
            match op {
                TimerOp::Set(timer, at) => self.timers.set(timer, at),
                TimerOp::Cancel(timer) => self.timers.cancel(&timer),
            }
        }
        for (token, answer) in fx.answers {
            let twice = self.answers.insert(token, answer);
            assert!(twice.is_none(), "{token:?} was answered twice");
        }
        self.writes.extend(fx.writes);
    }

    /// The oldest write ends so.
    pub fn store(&mut self, result: Result<(), ErrorCode>) {
        let (_, then) = self.writes.pop_front().expect("nothing to store");
        let mut fx = Effects::default();
        self.group
            .written(then, result, &self.limits, self.now, &mut fx);
        self.take(fx);
    }

    pub fn pass(&mut self, ms: u64) {
        let end = self.now.mono + ms;
        while let Some(at) = self.timers.next_deadline().filter(|at| *at <= end) {
            let step = at.max(self.now.mono) - self.now.mono;
            self.now.mono += step;
            self.now.wall += step as i64;
            let timer = self.timers.pop_due(self.now.mono).expect("it is due");
            self.call(|group, limits, now, fx| group.due(timer, limits, now, fx));
        }
        self.now.wall += (end - self.now.mono) as i64;
        self.now.mono = end;
    }

    /// Sends a join; its answer, if there is one already.
    pub fn send_join(&mut self, joining: Joining) -> Token {
        let number = self.number();
        let token = Token(number);
        let fresh = format!(
            "{}-{number}",
            joining.request.instance_id.as_deref().unwrap_or("m")
        );
        self.call(|group, limits, now, fx| {
            group.join(&joining.request, fresh.into(), token, limits, now, fx);
        });
        token
    }

    pub fn joined(&self, token: Token) -> Option<&JoinResponse> {
        match self.answers.get(&token)? {
            Answer::Join(response) => Some(response),
            Answer::Sync(_) => panic!("{token:?} is a sync"),
        }
    }

    pub fn join_answer(&self, token: Token) -> &JoinResponse {
        self.joined(token)
            .unwrap_or_else(|| panic!("{token:?} is still parked"))
    }

    /// A dynamic member joins as clients do since v4: twice.
    pub fn enter(&mut self) -> (String, Token) {
        let first = self.send_join(joining(""));
        let answer = self.join_answer(first).clone();
        assert_eq!(answer.error, ErrorCode::MemberIdRequired);
        let token = self.send_join(joining(&answer.member_id));
        (answer.member_id, token)
    }

    pub fn send_sync(&mut self, member_id: &str, assignments: &[(&str, &'static [u8])]) -> Token {
        let request = SyncRequest {
            api_version: 5,
            group_id: "g".to_owned(),
            generation: self.group.generation(),
            member_id: member_id.to_owned(),
            instance_id: None,
            protocol_type: self.group.protocol_type().map(str::to_owned),
            protocol_name: self.group.protocol().map(str::to_owned),
            assignments: assignments
                .iter()
                .map(|(id, share)| ((*id).to_owned(), Bytes::from_static(share)))
                .collect(),
        };
        self.sync_with(request)
    }

    pub fn sync_with(&mut self, request: SyncRequest) -> Token {
        let token = Token(self.number());
        self.call(|group, _, now, fx| group.sync(&request, token, now, fx));
        token
    }

    pub fn synced(&self, token: Token) -> Option<&SyncResponse> {
        match self.answers.get(&token)? {
            Answer::Sync(response) => Some(response),
            Answer::Join(_) => panic!("{token:?} is a join"),
        }
    }

    pub fn sync_answer(&self, token: Token) -> &SyncResponse {
        self.synced(token)
            .unwrap_or_else(|| panic!("{token:?} is still parked"))
    }

    pub fn heartbeat(&mut self, member_id: &str) -> ErrorCode {
        self.heartbeat_at(member_id, self.group.generation(), None)
    }

    pub fn heartbeat_at(
        &mut self,
        member_id: &str,
        generation: i32,
        instance: Option<&str>,
    ) -> ErrorCode {
        let request = HeartbeatRequest {
            group_id: "g".to_owned(),
            generation,
            member_id: member_id.to_owned(),
            instance_id: instance.map(str::to_owned),
        };
        self.call(|group, _, now, fx| group.heartbeat(&request, now, fx))
    }

    pub fn leave(&mut self, member_id: &str, instance: Option<&str>) -> ErrorCode {
        let request = LeaveRequest {
            group_id: "g".to_owned(),
            members: vec![LeavingMember {
                member_id: member_id.to_owned(),
                instance_id: instance.map(str::to_owned),
                reason: None,
            }],
        };
        self.call(|group, limits, now, fx| group.leave(&request, limits, now, fx))
            .single_error()
    }

    pub fn check_commit(&mut self, member_id: &str, generation: i32) -> ErrorCode {
        let request = CommitRequest {
            api_version: 9,
            group_id: "g".to_owned(),
            generation,
            member_id: member_id.to_owned(),
            ..CommitRequest::default()
        };
        self.call(|group, _, now, fx| group.check_commit(&request, now, fx))
            .err()
            .unwrap_or(ErrorCode::None)
    }

    /// Syncs everyone after a completed join; the leader gives each member its own id as share.
    pub fn sync_all(&mut self) -> HashMap<String, Token> {
        let leader = self.group.leader().expect("a leader").to_owned();
        let ids: Vec<String> = self.group.members().map(|m| m.id.to_string()).collect();
        let mut tokens = HashMap::new();
        for id in ids.iter().filter(|id| **id != leader) {
            tokens.insert(id.clone(), self.send_sync(id, &[]));
        }
        let shares: Vec<(String, Bytes)> = ids
            .iter()
            .map(|id| (id.clone(), Bytes::from(id.clone().into_bytes())))
            .collect();
        let request = SyncRequest {
            api_version: 5,
            group_id: "g".to_owned(),
            generation: self.group.generation(),
            member_id: leader.clone(),
            instance_id: None,
            protocol_type: self.group.protocol_type().map(str::to_owned),
            protocol_name: self.group.protocol().map(str::to_owned),
            assignments: shares,
        };
        tokens.insert(leader, self.sync_with(request));
        tokens
    }

    /// A stable group of that many dynamic members, in their order.
    pub fn stable(members: usize) -> (Self, Vec<String>) {
        let mut world = Self::new();
        let ids: Vec<String> = (0..members).map(|_| world.enter().0).collect();
        world.pass(LIMITS.initial_rebalance_delay_ms * 3);
        world.sync_all();
        assert_eq!(world.group.state(), State::Stable);
        (world, ids)
    }
}
