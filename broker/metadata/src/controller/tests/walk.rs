//! A random walk over everything that can happen to a controller, with the invariants after each step.

use super::bench::*;
use crate::controller::*;
use crate::features::Level;
use crate::rpc::*;
use leasehold_types::*;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;

struct Walk {
    bench: Bench,
    rng: StdRng,
    brokers: i32,
    /// Processes that are running and registered.
    running: BTreeSet<i32>,
    next_incarnation: i64,
    topics: Vec<(String, TopicId)>,
    /// Requests that leaders sent and that may arrive late or twice.
    late: Vec<AlterPartition>,
}

impl Walk {
    fn new(seed: u64) -> Self {
        Self::on(seed, Bench::with)
    }

    fn on(seed: u64, bench: fn(i32, Settings) -> Bench) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let brokers = rng.random_range(3..=5);
        let settings = Settings {
            preferred_leader_delay_ms: 2_000,
            preferred_leader_check_ms: 500,
            unclean_recovery_timeout_ms: 20_000,
            max_draining: 2,
            leader_spread_ms: 2_000,
            balance_settle_ms: 1_000,
            balance_patience_ms: 5_000,
            ..settings()
        };
        let mut bench = bench(brokers, settings);
        let mut topics = Vec::new();
        for (index, (partitions, factor, min)) in
            [(3, 3, 2), (2, 2, 2), (2, 3, 1), (1, 1, 2), (1, 3, 3)]
                .into_iter()
                .enumerate()
        {
            let name = format!("topic-{index}");
            let mut topic = NewTopic::with_defaults(&name);
            (topic.partitions, topic.replication_factor) = (partitions, factor);
            topic
                .configs
                .insert("min.insync.replicas".to_owned(), Some(format!("{min}")));
            topics.push((name, topic.id));
            bench.admin(AdminRequest::CreateTopics {
                topics: vec![topic],
                validate_only: false,
            });
        }
        Self {
            bench,
            rng,
            brokers,
            running: (0..brokers).collect(),
            next_incarnation: 1000,
            topics,
            late: Vec::new(),
        }
    }

    fn any_broker(&mut self) -> i32 {
        self.rng.random_range(0..self.brokers)
    }

    fn some_brokers(&mut self, n: usize) -> Vec<i32> {
        let all: Vec<i32> = (0..self.brokers).collect();
        all.choose_multiple(&mut self.rng, n).copied().collect()
    }

    fn partition(&mut self) -> Option<(String, TopicId, i32)> {
        let (name, id) = self.topics.choose(&mut self.rng)?.clone();
        let count = self.bench.image.topic(&id)?.partitions.len() as i32;
        Some((name, id, self.rng.random_range(0..count)))
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..30 => self.time(),
            30..34 => self.stop(),
            34..46 => self.start(),
            46..70 => self.alter(),
            70..73 => self.repeat(),
            73..75 => self.shut_down(),
            75..77 => self.break_a_log(),
            77..84 => self.configure(),
            84..92 => self.reassign(),
            92..94 => self.resize(),
            94..96 => self.cordon(),
            96..98 => self.elect(),
            _ => self.change_controller(),
        }
    }

    fn time(&mut self) {
        self.bench.now = self.bench.now.plus(self.rng.random_range(1..300));
        for id in self.running.clone() {
            if self.rng.random_ratio(9, 10) {
                let ends = self.bench.image.wanted_log_ends(b(id));
                self.bench.poll_with(id, |poll| {
                    let end = |(topic, partition)| LogEnd {
                        topic,
                        partition,
                        last_epoch: LeaderEpoch(id),
                        end_offset: Offset(7),
                    };
                    poll.state.log_ends = ends.into_iter().map(end).collect();
                });
                if self.bench.controller_is_over() {
                    return self.change_controller();
                }
            }
        }
        self.bench.step(Input::Tick);
        if self.bench.controller_is_over() {
            self.change_controller();
        }
    }

    fn stop(&mut self) {
        let id = self.any_broker();
        if self.running.remove(&id) && self.rng.random_bool(0.5) {
            self.bench.evidence(id);
            if self.bench.controller_is_over() {
                self.change_controller();
            }
        }
    }

    fn start(&mut self) {
        let id = self.any_broker();
        if self.running.contains(&id) {
            return;
        }
        self.next_incarnation += 1;
        let (before, now) = (self.bench.incarnation(id).0, self.next_incarnation);
        let report = match self.rng.random_range(0..10) {
            0 => lossy(before, now),
            1 => RestartReport::default(),
            _ => intact(before, now),
        };
        self.bench.register(id, now, report);
        if matches!(self.bench.answer(), Response::Registered { .. }) {
            self.running.insert(id);
        }
    }

    fn alter(&mut self) {
        let Some((_, id, number)) = self.partition() else {
            return;
        };
        let p = self.bench.p(id, number);
        let Some(leader) = p.leader else { return };
        let mut isr: Vec<i32> = p.isr.iter().map(|b| b.0).collect();
        match self.rng.random_range(0..10) {
            0..2 => isr.retain(|&b| b == leader.0 || self.rng.random_bool(0.5)),
            2..9 => isr.extend(
                p.replicas
                    .iter()
                    .map(|b| b.0)
                    .filter(|b| !p.isr.contains(&BrokerId(*b))),
            ),
            _ => isr = self.some_brokers(2),
        }
        let request = self.bench.proposal(id, number, &isr);
        if self.rng.random_bool(0.3) {
            self.late.push(request.clone());
        }
        if self.rng.random_bool(0.9) {
            self.bench.alter(request);
        }
    }

    /// A late copy must change nothing if what it was judged by is over.
    fn repeat(&mut self) {
        if self.late.is_empty() {
            return;
        }
        let index = self.rng.random_range(0..self.late.len());
        let request = self.late.swap_remove(index);
        let proposal = request.proposals[0].clone();
        let Some(before) = self
            .bench
            .image
            .partition(&proposal.topic, proposal.partition)
            .cloned()
        else {
            return;
        };
        let gone = proposal
            .isr
            .iter()
            .any(|(id, inc)| self.bench.incarnation(id.0) != *inc);
        let code = self.bench.alter(request);
        if gone || before.partition_epoch != proposal.partition_epoch {
            let mut named: Vec<BrokerId> = proposal.isr.iter().map(|(id, _)| *id).collect();
            let mut committed = before.isr.clone();
            named.sort();
            committed.sort();
            assert!(
                code != 0 || (!gone && named == committed),
                "{proposal:?} was granted on {before:?}"
            );
        }
    }

    fn shut_down(&mut self) {
        let id = self.any_broker();
        if self.running.contains(&id) {
            self.bench.shut_down(id);
            if self.rng.random_bool(0.7) {
                assert!(self.bench.image.may_stop(b(id)));
                self.bench.goodbye(id);
                self.running.remove(&id);
            }
        }
    }

    /// A log fails while its broker goes on.
    fn break_a_log(&mut self) {
        let Some((_, id, number)) = self.partition() else {
            return;
        };
        let on = self.any_broker();
        if self.running.contains(&on) {
            self.bench
                .poll_with(on, |poll| poll.state.offline = vec![(id, number)]);
            let p = self.bench.p(id, number);
            let over = self.bench.controller_is_over();
            if self.bench.image.metadata_level() < Level::ADMINISTERED {
                assert!(!p.is_offline(b(on)) && (over || !self.bench.image.is_live(b(on))));
                if over {
                    self.change_controller();
                }
                return;
            }
            // A drain that had chosen this broker forgets it, and may choose it anew for its other directories.
            let anew = p.draining && p.adding.contains(&b(on));
            assert!(
                p.is_offline(b(on)) == p.replicas.contains(&b(on)) || anew || over,
                "{on}: {p:?}; {:?}",
                self.bench.image.broker(b(on))
            );
            if over {
                self.change_controller();
            }
        }
    }

    fn configure(&mut self) {
        let Some((name, ..)) = self.partition() else {
            return;
        };
        let outcome = match self.rng.random_range(0..4) {
            0 => self
                .bench
                .config(&name, "unclean.leader.election.enable", Some("true")),
            1 => self
                .bench
                .config(&name, "unclean.leader.election.enable", None),
            _ => {
                let min = self.rng.random_range(1..=3).to_string();
                self.bench.config(&name, "min.insync.replicas", Some(&min))
            }
        };
        assert!(outcome.is_ok(), "{outcome:?}");
    }

    fn reassign(&mut self) {
        let Some((name, _, number)) = self.partition() else {
            return;
        };
        if self.rng.random_bool(0.2) {
            self.bench.reassign(&name, number, None);
            return;
        }
        let n = self.rng.random_range(1..=3);
        let target = self.some_brokers(n);
        self.bench.reassign(&name, number, Some(&target));
    }

    fn resize(&mut self) {
        let Some((name, ..)) = self.partition() else {
            return;
        };
        let factor = self.rng.random_range(1..=3);
        self.bench.admin(AdminRequest::SetReplicationFactor {
            topics: vec![(name, factor)],
        });
    }

    fn cordon(&mut self) {
        let n = self.rng.random_range(0..=1);
        let brokers = ids(&self.some_brokers(n));
        self.bench.admin(AdminRequest::Cordon { brokers });
    }

    fn elect(&mut self) {
        let Some((name, _, number)) = self.partition() else {
            return;
        };
        let kind = if self.rng.random_bool(0.8) {
            ElectionKind::Preferred
        } else {
            ElectionKind::Unclean
        };
        self.bench.admin(AdminRequest::ElectLeaders {
            kind,
            partitions: Some(vec![(name, number)]),
        });
    }

    /// Another controller takes over at what is committed.
    fn change_controller(&mut self) {
        self.bench.take_over();
    }
}

impl Walk {
    /// What needs a newer level than the first, for brokers with one directory.
    fn wish(&mut self) {
        let due = self.rng.random_bool(0.5);
        let request = match self.rng.random_range(0..3) {
            0 => super::features::quota(),
            1 => super::features::config_of(0),
            _ => AdminRequest::SetBalancing {
                balancing: crate::balance::Balancing {
                    due,
                    ..Default::default()
                },
            },
        };
        self.bench.admin(request);
    }
}

#[test]
fn a_random_walk_from_the_first_level_up_writes_only_what_its_level_permits() {
    for seed in 0..60 {
        let walked = std::panic::catch_unwind(|| {
            let mut walk = Walk::on(seed, Bench::at_the_first_level);
            let raised_at = walk.rng.random_range(0..400);
            for at in 0..300 {
                if at == raised_at {
                    let outcome = super::features::raise(&mut walk.bench, Level::NEWEST);
                    assert!(outcome.is_ok(), "{outcome:?}");
                }
                walk.step();
                if walk.rng.random_ratio(1, 10) {
                    walk.wish();
                }
            }
            walk.heal();
        });
        if let Err(panic) = walked {
            eprintln!("it was seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn no_random_walk_breaks_an_invariant() {
    let seeds = match std::env::var("LEASEHOLD_WALK_SEED") {
        Ok(seed) => seed.parse().map_or(0..0, |s: u64| s..s + 1),
        Err(_) => 0..100,
    };
    for seed in seeds {
        let walked = std::panic::catch_unwind(|| {
            let mut walk = Walk::new(seed);
            for _ in 0..300 {
                walk.step();
            }
            walk.heal();
        });
        if let Err(panic) = walked {
            eprintln!("replay with LEASEHOLD_WALK_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

impl Walk {
    fn is_healed(&self) -> bool {
        let brokers = self.bench.image.brokers.values();
        let mut partitions = self.bench.image.topics.values().flat_map(|t| &t.partitions);
        brokers.into_iter().all(|b| b.is_eligible())
            && partitions.all(|p| {
                let settled = p.isr.len() == p.replicas.len() && !p.is_reassigning();
                settled && p.leader == p.replicas.first().copied()
            })
    }

    /// Once every broker is back, every partition has a leader, and every wish is granted.
    fn heal(&mut self) {
        self.bench.admin(AdminRequest::Cordon {
            brokers: Vec::new(),
        });
        for _ in 0..400 {
            if self.is_healed() {
                break;
            }
            for id in 0..self.brokers {
                if !self.running.contains(&id) {
                    self.next_incarnation += 1;
                    let (before, now) = (self.bench.incarnation(id).0, self.next_incarnation);
                    self.bench.register(id, now, intact(before, now));
                    if matches!(self.bench.answer(), Response::Registered { .. }) {
                        self.running.insert(id);
                    }
                }
                // A broker that began to shut down has to restart, and one with a log that failed.
                let image = &self.bench.image;
                let mut partitions = image.topics.values().flat_map(|t| &t.partitions);
                if image.broker(b(id)).is_some_and(|b| b.shutting_down)
                    || partitions.any(|p| p.is_offline(b(id)))
                {
                    self.bench.goodbye(id);
                    self.running.remove(&id);
                }
            }
            self.time();
            for (_, id) in self.topics.clone() {
                let count = self
                    .bench
                    .image
                    .topic(&id)
                    .map_or(0, |t| t.partitions.len() as i32);
                for number in 0..count {
                    let p = self.bench.p(id, number);
                    let all: Vec<i32> = p
                        .replicas
                        .iter()
                        .map(|b| b.0)
                        .filter(|&i| self.bench.image.may_lead(&p, b(i)))
                        .collect();
                    if p.leader.is_some() && all.len() > p.isr.len() {
                        self.bench.propose(id, number, &all);
                    }
                }
            }
        }
        for topic in self.bench.image.topics.values() {
            for p in &topic.partitions {
                assert!(p.leader.is_some(), "{} has a leader: {p:?}", topic.name);
                assert_eq!(
                    p.isr.len(),
                    p.replicas.len(),
                    "{} is in sync: {p:?}",
                    topic.name
                );
                assert!(!p.is_reassigning(), "{} has moved: {p:?}", topic.name);
                assert_eq!(
                    p.leader,
                    p.replicas.first().copied(),
                    "{} has its preferred leader: {p:?}",
                    topic.name
                );
            }
        }
    }
}
