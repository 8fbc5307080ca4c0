//! Random clusters and random courses of events, held against the promises of [`super::decide`].
//!
//! The model is a cluster of pods, brokers and partitions in which anything may happen at any time but the
//! restarts, which only the decision brings about: pods stop and come back in their own time, replicas
//! catch up one by one, brokers fail by themselves, specifications change, some of them to ones that do
//! not start.

use super::super::facts::tests::add_topic;
use super::tests::{POLICY, led_by};
use super::*;
use leasehold_types::{BrokerId, TopicId};
use proptest::prelude::*;
use std::sync::Arc;

/// A pod's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Ready; for long if so.
    Serves(bool),
    Stops,
    Starts,
    /// Cannot start.
    Stuck,
}

#[derive(Clone, Debug)]
struct Pod {
    life: Life,
    /// The generation of the specification that it was made from.
    made_from: usize,
    asked: bool,
}

#[derive(Clone, Debug)]
struct World {
    pods: Vec<Pod>,
    image: Image,
    topics: Vec<TopicId>,
    /// Which generations of the specification do not start.
    bad: Vec<bool>,
    /// How many racks go as one; none: each broker for itself.
    racks: usize,
}

/// What happens.
#[derive(Clone, Debug)]
enum Event {
    /// Something goes on with a broker: a stop ends, a start ends, it settles, a replica catches up.
    Progress(usize),
    /// It ends by itself and starts again in place.
    Crash(usize),
    /// The specification changes; false: to one that does not start.
    Change(bool),
    Ask(usize),
    /// The decision is carried out.
    Decide,
}

fn id(broker: usize) -> BrokerId {
    BrokerId(i32::try_from(broker).unwrap())
}

impl World {
    fn new(brokers: usize, racks: usize, partitions: &[(Vec<usize>, bool)]) -> Self {
        let names: Vec<String> = (0..brokers).map(|b| b.to_string()).collect();
        let mut image = led_by(0, &names.join(" "));
        for broker in (0..brokers).filter(|_| racks > 0) {
            let mut changed = (*image.brokers[&id(broker)]).clone();
            changed.rack = Some((broker % racks).to_string());
            image.brokers.insert(id(broker), Arc::new(changed));
        }
        let mut topics = Vec::new();
        for (number, (replicas, strict)) in partitions.iter().enumerate() {
            let all: String = replicas.iter().map(|r| r.to_string()).collect();
            let text = format!("{all}/{all}/{}", replicas[0]);
            let topic = add_topic(&mut image, &format!("t{number}"), &[&text]);
            if *strict {
                // The strictest that still bears a restart.
                let min = replicas.len().saturating_sub(1).max(1).to_string();
                let mut changed = (*image.topics[&topic]).clone();
                changed.configs.insert("min.insync.replicas".into(), min);
                image.topics.insert(topic, Arc::new(changed));
            }
            topics.push(topic);
        }
        let pod = Pod {
            life: Life::Serves(true),
            made_from: 0,
            asked: false,
        };
        Self {
            pods: vec![pod; brokers],
            image,
            topics,
            bad: vec![false],
            racks,
        }
    }

    fn wanted(&self) -> usize {
        self.bad.len() - 1
    }

    fn facts(&self) -> Vec<PodFacts> {
        let fact = |(ordinal, pod): (usize, &Pod)| PodFacts {
            name: format!("pod-{ordinal}"),
            uid: ordinal.to_string(),
            ordinal: id(ordinal).0,
            revision: Some(pod.made_from.to_string()),
            asked: pod.asked,
            terminating: pod.life == Life::Stops,
            ready_for: match pod.life {
                Life::Serves(long) => Some(Duration::from_secs(if long { 60 } else { 0 })),
                _ => None,
            },
            trouble: (pod.life == Life::Stuck).then(|| "it cannot".to_owned()),
        };
        self.pods.iter().enumerate().map(fact).collect()
    }

    fn decide(&self) -> Roll {
        let pods = self.facts();
        let wanted = self.wanted().to_string();
        decide(&Facts {
            pods: &pods,
            wanted: &wanted,
            template_is_current: true,
            brokers: id(self.pods.len()).0,
            image: Some(&self.image),
            under_way: true,
            policy: Policy {
                unit: match self.racks {
                    0 => RollingUnit::Broker,
                    _ => RollingUnit::Rack,
                },
                ..POLICY
            },
        })
    }

    /// Not serving, or not in every ISR.
    fn is_away(&self, broker: usize) -> bool {
        let of_it = |p: &leasehold_metadata::image::Partition| p.replicas.contains(&id(broker));
        !matches!(self.pods[broker].life, Life::Serves(_))
            || !self.image.is_live(id(broker))
            || self
                .partitions()
                .any(|(_, p)| of_it(p) && !p.isr.contains(&id(broker)))
    }

    fn partitions(
        &self,
    ) -> impl Iterator<
        Item = (
            &leasehold_metadata::image::Topic,
            &leasehold_metadata::image::Partition,
        ),
    > {
        let topics = self.topics.iter().map(|topic| &*self.image.topics[topic]);
        topics.flat_map(|topic| topic.partitions.iter().map(move |p| (topic, &**p)))
    }

    fn edit(
        &mut self,
        topic: TopicId,
        edit: impl FnOnce(&mut leasehold_metadata::image::Partition),
    ) {
        let mut changed = (*self.image.topics[&topic]).clone();
        edit(Arc::make_mut(&mut changed.partitions[0]));
        self.image.topics.insert(topic, Arc::new(changed));
    }

    fn set_fenced(&mut self, broker: usize, fenced: bool) {
        let mut changed = (*self.image.brokers[&id(broker)]).clone();
        changed.fenced = fenced;
        self.image.brokers.insert(id(broker), Arc::new(changed));
    }

    /// It is fenced and leaves every ISR but those of which it is the last.
    fn leave(&mut self, broker: usize) {
        self.set_fenced(broker, true);
        for topic in self.topics.clone() {
            self.edit(topic, |p| {
                if p.isr.len() > 1 {
                    p.isr.retain(|b| *b != id(broker));
                }
            });
        }
    }

    fn start(&mut self, broker: usize) {
        self.pods[broker].life = if self.bad[self.pods[broker].made_from] {
            Life::Stuck
        } else {
            Life::Starts
        };
    }

    /// One step of a broker's way back; false if there is none.
    fn progress(&mut self, broker: usize) -> bool {
        match self.pods[broker].life {
            Life::Stops => {
                // Only now does the metadata know.
                self.leave(broker);
                self.pods[broker].made_from = self.wanted();
                self.pods[broker].asked = false;
                self.start(broker);
            }
            Life::Starts => {
                self.set_fenced(broker, false);
                self.pods[broker].life = Life::Serves(false);
            }
            Life::Serves(long) => {
                let behind = self.topics.iter().copied().find(|topic| {
                    let p = &self.image.topics[topic].partitions[0];
                    p.replicas.contains(&id(broker)) && !p.isr.contains(&id(broker))
                });
                match behind {
                    Some(topic) => self.edit(topic, |p| p.isr.push(id(broker))),
                    None if long => return false,
                    None => self.pods[broker].life = Life::Serves(true),
                }
            }
            Life::Stuck => return false,
        }
        true
    }

    /// Carries a decision out, after holding it against the promises.
    fn obey(&mut self, roll: &Roll) {
        let Roll::Restart(restart) = roll else {
            return;
        };
        let broker: usize = restart.uid.parse().unwrap();
        let all = 0..self.pods.len();
        let old = |pod: &Pod| pod.made_from != self.bad.len() - 1 || pod.asked;
        assert!(old(&self.pods[broker]), "it needs none: {self:?}");
        if matches!(self.pods[broker].life, Life::Serves(_)) {
            for other in all.clone().filter(|other| *other != broker) {
                let goes_with_it = self.racks > 0 && other % self.racks == broker % self.racks;
                assert!(
                    goes_with_it || !self.is_away(other),
                    "{other} is away already: {self:?}"
                );
            }
            for (topic, p) in self.partitions() {
                let there = |b: &&BrokerId| {
                    let pod = usize::try_from(b.0).ok().map(|b| self.pods[b].life);
                    **b != id(broker) && matches!(pod, Some(Life::Serves(_)))
                };
                let left = p.isr.iter().filter(there).count();
                let needed = self.image.effective_min_isr(topic, p);
                let touched = p.isr.contains(&id(broker));
                assert!(
                    !touched || left >= needed,
                    "{} below its minimum",
                    topic.name
                );
            }
            if crate::admin::controller(&self.image) == Some(id(broker)) {
                let others = all.filter(|other| *other != broker);
                let stands = |o: &usize| self.pods[*o].life != Life::Stops;
                let earlier = others.filter(stands).filter(|o| old(&self.pods[*o]));
                let earlier: Vec<usize> = earlier.collect();
                assert!(earlier.is_empty(), "before {earlier:?}: {self:?}");
            }
        }
        self.pods[broker].life = Life::Stops;
    }

    fn happens(&mut self, event: &Event) {
        let count = self.pods.len();
        match event {
            Event::Progress(broker) => {
                let _moved = self.progress(broker % count);
            }
            Event::Crash(broker) => {
                let broker = broker % count;
                if matches!(self.pods[broker].life, Life::Serves(_)) {
                    self.leave(broker);
                    self.start(broker);
                }
            }
            Event::Change(good) => self.bad.push(!good),
            Event::Ask(broker) => self.pods[broker % count].asked = true,
            Event::Decide => {
                let roll = self.decide();
                self.obey(&roll);
            }
        }
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0usize..8).prop_map(Event::Progress),
        1 => (0usize..8).prop_map(Event::Crash),
        1 => prop::bool::weighted(0.7).prop_map(Event::Change),
        1 => (0usize..8).prop_map(Event::Ask),
        6 => Just(Event::Decide),
    ]
}

/// Partitions of two or three replicas, and whether each asks for as many in sync as it can.
fn partitions(brokers: usize) -> impl Strategy<Value = Vec<(Vec<usize>, bool)>> {
    let replicas = (2usize..=3.min(brokers)).prop_flat_map(move |factor| {
        proptest::sample::subsequence((0..brokers).collect::<Vec<_>>(), factor).prop_shuffle()
    });
    prop::collection::vec((replicas, any::<bool>()), 0..6)
}

proptest! {
    #[test]
    fn one_or_one_rack_at_a_time_never_below_the_minimum_the_controller_last_and_always_to_the_end(
        (brokers, racks, partitions, events) in (2usize..7).prop_flat_map(|brokers| {
            (Just(brokers), 0usize..4, partitions(brokers), prop::collection::vec(event(), 0..80))
        })
    ) {
        let mut world = World::new(brokers, racks, &partitions);
        for event in &events {
            world.happens(event);
        }
        // All is well from now on: a specification that starts, and everybody gets on.
        world.happens(&Event::Change(true));
        let mut steps = 0;
        loop {
            let moved = (0..brokers).filter(|broker| world.progress(*broker)).count() > 0;
            let roll = world.decide();
            if roll == Roll::Done {
                break;
            }
            prop_assert!(moved || matches!(roll, Roll::Restart(_)), "it hangs: {roll:?} {world:?}");
            world.obey(&roll);
            steps += 1;
            prop_assert!(steps < 400, "it does not end: {roll:?} {world:?}");
        }
        prop_assert!(world.pods.iter().all(|pod| pod.made_from == world.wanted() && !pod.asked));
        prop_assert!((0..brokers).all(|broker| !world.is_away(broker)));
    }

    #[test]
    fn a_specification_that_does_not_start_costs_one_broker_or_one_rack(
        (brokers, racks, partitions) in (2usize..7).prop_flat_map(|brokers| {
            (Just(brokers), 0usize..4, partitions(brokers))
        })
    ) {
        let mut world = World::new(brokers, racks, &partitions);
        world.happens(&Event::Change(false));
        for _ in 0..20 {
            world.happens(&Event::Decide);
            for broker in 0..brokers {
                let _moved = world.progress(broker);
            }
        }
        let away: Vec<usize> = (0..brokers).filter(|broker| world.is_away(*broker)).collect();
        if racks == 0 {
            prop_assert_eq!(away.len(), 1);
        } else {
            prop_assert!(away.iter().all(|broker| broker % racks == away[0] % racks));
        }
        prop_assert!(matches!(world.decide(), Roll::Stuck(_)));
    }
}
