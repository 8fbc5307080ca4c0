//! Creating, growing and deleting topics.

use super::types::InternalTopic;
use super::{Controller, Event};
use crate::assign::{self, Candidate};
use crate::configs;
use crate::image::{Partition, Topic};
use crate::records::Record;
use crate::rpc::{CreatedTopic, DeletedTopic, MorePartitions, NewTopic, Outcome, TopicRef, codes};
use leasehold_types::{BrokerId, LeaderEpoch, PartitionEpoch, TopicId};
use std::collections::{BTreeMap, BTreeSet};

/// Where consumer groups keep their offsets.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// Where transactions keep their state.
pub const TRANSACTIONS_TOPIC: &str = "__transaction_state";
const INTERNAL_TOPICS: &[&str] = &[OFFSETS_TOPIC, TRANSACTIONS_TOPIC];
const MAX_NAME: usize = 249;

type Refusal = (i16, String);
type Assignment = Vec<Vec<BrokerId>>;

impl Controller {
    pub(super) fn create_topics(
        &mut self,
        topics: &[NewTopic],
        validate_only: bool,
    ) -> Vec<CreatedTopic> {
        let mut budget = self.settings.max_partitions_per_request;
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for topic in topics {
            *seen.entry(&topic.name).or_default() += 1;
        }
        let mut created = Vec::new();
        for topic in topics {
            let planned = if seen.get(topic.name.as_str()).is_some_and(|&n| n > 1) {
                let message = format!("topic {} is named twice in the request", topic.name);
                Err((codes::INVALID_REQUEST, message))
            } else {
                self.plan(topic, &mut budget)
            };
            created.push(match planned {
                Ok(plan) => {
                    if !validate_only && !plan.exists {
                        self.create(topic, &plan);
                    }
                    CreatedTopic {
                        name: topic.name.clone(),
                        outcome: Outcome::ok(),
                        id: topic.id,
                        partitions: i32::try_from(plan.partitions).unwrap_or(i32::MAX),
                        replication_factor: i16::try_from(plan.factor).unwrap_or(i16::MAX),
                    }
                }
                Err((code, message)) => CreatedTopic {
                    name: topic.name.clone(),
                    outcome: Outcome::refused(code, message),
                    id: TopicId::default(),
                    partitions: -1,
                    replication_factor: -1,
                },
            });
        }
        created
    }

    fn plan(&self, topic: &NewTopic, budget: &mut usize) -> Result<Plan, Refusal> {
        if let Some(existing) = self.image.topic_by_name(&topic.name) {
            // The first attempt succeeded and its answer was lost.
            if existing.id == topic.id {
                return Ok(Plan {
                    exists: true,
                    partitions: existing.partitions.len(),
                    factor: existing.partitions.first().map_or(0, |p| p.replicas.len()),
                    ..Plan::default()
                });
            }
            let message = format!("Topic '{}' already exists.", topic.name);
            return Err((codes::TOPIC_ALREADY_EXISTS, message));
        }
        if self.image.topic(&topic.id).is_some() {
            return Err((
                codes::INVALID_REQUEST,
                format!("topic id {} is in use", topic.id),
            ));
        }
        self.check_name(&topic.name)?;
        let configs = self.new_configs(topic)?;
        let assignment = if topic.assignments.is_empty() {
            self.assign(topic, budget)?
        } else {
            self.assigned_by_hand(topic, budget)?
        };
        Ok(Plan {
            exists: false,
            partitions: assignment.len(),
            factor: assignment.first().map_or(0, Vec::len),
            assignment,
            configs,
        })
    }

    fn check_name(&self, name: &str) -> Result<(), Refusal> {
        check_legal(name)?;
        // Metric names make no difference between the two.
        let folded = name.replace('.', "_");
        let may_collide = name.contains(['.', '_']);
        let collides = |other: &&String| {
            may_collide && other.len() == folded.len() && other.replace('.', "_") == folded
        };
        match self.image.names.keys().find(collides) {
            Some(other) => Err((
                codes::INVALID_TOPIC_EXCEPTION,
                format!("Topic '{name}' collides with existing topic: {other}"),
            )),
            None => Ok(()),
        }
    }

    fn new_configs(&self, topic: &NewTopic) -> Result<BTreeMap<String, String>, Refusal> {
        let mut values = BTreeMap::new();
        if let Some(internal) = self.internal_topic(&topic.name) {
            // As Kafka creates it.
            let mut set = |key: &str, value: String| values.insert(key.to_owned(), value);
            set("cleanup.policy", "compact".to_owned());
            set("segment.bytes", internal.segment_bytes.to_string());
            if topic.name == TRANSACTIONS_TOPIC {
                set("compression.type", "uncompressed".to_owned());
                set("unclean.leader.election.enable", "false".to_owned());
            } else {
                set("compression.type", "producer".to_owned());
            }
            if let Some(min_isr) = internal.min_isr {
                set(configs::MIN_INSYNC_REPLICAS, min_isr.to_string());
            }
        }
        for (key, value) in &topic.configs {
            let Some(value) = value else {
                let message = format!("Null value not supported for topic configs: {key}");
                return Err((codes::INVALID_CONFIG, message));
            };
            values.insert(key.clone(), value.clone());
        }
        let invalid = |error: configs::ConfigError| (codes::INVALID_CONFIG, error.to_string());
        let values = configs::validate_all(&values).map_err(invalid)?;
        let in_force = |key: &str| match values.get(key) {
            Some(value) => Some(value.as_str()),
            None => self.image.default_config(key).map(|(value, _)| value),
        };
        configs::check_together(in_force).map_err(invalid)?;
        Ok(values)
    }

    fn internal_topic(&self, name: &str) -> Option<&InternalTopic> {
        match name {
            OFFSETS_TOPIC => Some(&self.settings.offsets_topic),
            TRANSACTIONS_TOPIC => Some(&self.settings.transactions_topic),
            _ => None,
        }
    }

    fn assign(&self, topic: &NewTopic, budget: &mut usize) -> Result<Assignment, Refusal> {
        let (default_partitions, default_factor) = match self.internal_topic(&topic.name) {
            Some(internal) => (internal.partitions, internal.replication_factor),
            None => (
                self.settings.default_partitions,
                self.settings.default_replication_factor,
            ),
        };
        let count = match topic.partitions {
            -1 => default_partitions,
            count => count,
        };
        let partitions = usize::try_from(count)
            .ok()
            .filter(|&p| p > 0)
            .ok_or_else(|| {
                let message = format!(
                    "Number of partitions was set to an invalid non-positive value: {count}."
                );
                (codes::INVALID_PARTITIONS, message)
            })?;
        let factor = match topic.replication_factor {
            -1 => default_factor,
            factor => factor,
        };
        let factor = usize::try_from(factor)
            .ok()
            .filter(|&f| f > 0)
            .ok_or_else(|| {
                let message =
                    "Replication factor must be larger than 0, or -1 to use the default value.";
                (codes::INVALID_REPLICATION_FACTOR, message.to_owned())
            })?;
        spend(budget, partitions)?;
        self.place(assign::seed_of(&topic.id), partitions, factor, &[])
    }

    fn place(
        &self,
        seed: u64,
        partitions: usize,
        factor: usize,
        existing: &[Vec<BrokerId>],
    ) -> Result<Assignment, Refusal> {
        let candidates: Vec<Candidate> = self.candidates(factor);
        let there = candidates.len();
        let none_lives = there >= factor && !candidates.iter().any(|c| c.can_lead);
        assign::place(&candidates, seed, partitions, factor, existing).ok_or_else(|| {
            let message = if none_lives {
                "All brokers are currently fenced or being drained.".to_owned()
            } else {
                super::reassign::unreachable(factor, there)
            };
            (codes::INVALID_REPLICATION_FACTOR, message)
        })
    }

    fn assigned_by_hand(
        &self,
        topic: &NewTopic,
        budget: &mut usize,
    ) -> Result<Assignment, Refusal> {
        if topic.partitions != -1 || topic.replication_factor != -1 {
            let message = "A manual partition assignment was specified, but the number of partitions or the replication factor was not set to -1.";
            return Err((codes::INVALID_REQUEST, message.to_owned()));
        }
        spend(budget, topic.assignments.len())?;
        let by_number: BTreeMap<i32, &Vec<BrokerId>> = topic
            .assignments
            .iter()
            .map(|(n, replicas)| (*n, replicas))
            .collect();
        let dense = by_number
            .keys()
            .zip(0..)
            .all(|(number, expected)| *number == expected);
        if by_number.len() != topic.assignments.len() || !dense {
            let message = "partitions should be a consecutive 0-based integer sequence";
            return Err((codes::INVALID_REPLICA_ASSIGNMENT, message.to_owned()));
        }
        let assignment: Assignment = by_number.into_values().cloned().collect();
        let factor = assignment.first().map_or(0, Vec::len);
        self.check_assignment(&assignment, factor, 0)?;
        Ok(assignment)
    }

    /// Whether new partitions, numbered from `first`, can be held by the replicas that a client named.
    fn check_assignment(
        &self,
        assignment: &Assignment,
        factor: usize,
        first: usize,
    ) -> Result<(), Refusal> {
        for (number, replicas) in (first..).zip(assignment) {
            let refused = |why: String| {
                (
                    codes::INVALID_REPLICA_ASSIGNMENT,
                    format!("partition {number}: {why}"),
                )
            };
            self.check_replicas(replicas).map_err(refused)?;
            if replicas.len() != factor {
                let why = format!(
                    "it has {} replicas, the others have {factor}",
                    replicas.len()
                );
                return Err(refused(why));
            }
            let drained = |b: &&BrokerId| self.image.broker(**b).is_some_and(|b| b.cordoned);
            if let Some(id) = replicas.iter().find(drained) {
                return Err(refused(format!(
                    "broker {id} is being drained and gets nothing new"
                )));
            }
            if !replicas.iter().any(|&b| self.image.is_eligible(b)) {
                return Err(refused(
                    "all brokers named are fenced or in controlled shutdown".to_owned(),
                ));
            }
        }
        Ok(())
    }

    fn create(&mut self, topic: &NewTopic, plan: &Plan) {
        self.emit(Record::Topic {
            id: topic.id,
            name: topic.name.clone(),
            internal: INTERNAL_TOPICS.contains(&topic.name.as_str()),
            configs: plan.configs.clone(),
        });
        self.add_partitions(topic.id, 0, &plan.assignment);
        self.event(Event::TopicCreated {
            name: topic.name.clone(),
            id: topic.id,
        });
    }

    /// Adds empty partitions: whoever is alive is in sync.
    fn add_partitions(&mut self, topic: TopicId, first: usize, assignment: &Assignment) {
        for (number, replicas) in (first..).zip(assignment) {
            let isr: Vec<BrokerId> = replicas
                .iter()
                .copied()
                .filter(|&b| self.image.is_eligible(b))
                .collect();
            self.emit(Record::Partition {
                topic,
                partition: i32::try_from(number).unwrap_or(i32::MAX),
                state: Partition {
                    replicas: replicas.clone(),
                    leader: isr.first().copied(),
                    isr,
                    leader_epoch: LeaderEpoch(0),
                    partition_epoch: PartitionEpoch(0),
                    ..Partition::default()
                },
            });
        }
    }

    pub(super) fn delete_topics(&mut self, topics: &[TopicRef]) -> Vec<DeletedTopic> {
        let mut deleted = Vec::new();
        for wanted in topics {
            let (found, mut answer) = match wanted {
                TopicRef::Name(name) => (
                    self.image.topic_by_name(name).cloned(),
                    DeletedTopic {
                        name: Some(name.clone()),
                        id: None,
                        outcome: Outcome::refused(
                            codes::UNKNOWN_TOPIC_OR_PARTITION,
                            format!("topic {name} does not exist"),
                        ),
                    },
                ),
                TopicRef::Id(id) => (
                    self.image.topic(id).cloned(),
                    DeletedTopic {
                        name: None,
                        id: Some(*id),
                        outcome: Outcome::refused(
                            codes::UNKNOWN_TOPIC_ID,
                            format!("topic {id} does not exist"),
                        ),
                    },
                ),
            };
            if let Some(topic) = found {
                (answer.name, answer.id) = (Some(topic.name.clone()), Some(topic.id));
                answer.outcome = self.delete(&topic);
            }
            deleted.push(answer);
        }
        deleted
    }

    fn delete(&mut self, topic: &Topic) -> Outcome {
        if !self.settings.delete_topics {
            let message = "topics cannot be deleted: delete.topic.enable is false";
            return Outcome::refused(codes::TOPIC_DELETION_DISABLED, message);
        }
        self.emit(Record::DeleteTopic { id: topic.id });
        self.event(Event::TopicDeleted {
            name: topic.name.clone(),
            id: topic.id,
        });
        Outcome::ok()
    }

    pub(super) fn create_partitions(
        &mut self,
        topics: &[MorePartitions],
        validate_only: bool,
    ) -> Vec<(String, Outcome)> {
        let mut budget = self.settings.max_partitions_per_request;
        let mut seen = BTreeSet::new();
        let mut outcomes = Vec::new();
        for wanted in topics {
            let outcome = if seen.insert(&wanted.name) {
                self.grow(wanted, validate_only, &mut budget)
            } else {
                let message = format!("topic {} is named twice in the request", wanted.name);
                Err((codes::INVALID_REQUEST, message))
            };
            let outcome = match outcome {
                Ok(()) => Outcome::ok(),
                Err((code, message)) => Outcome::refused(code, message),
            };
            outcomes.push((wanted.name.clone(), outcome));
        }
        outcomes
    }

    fn grow(
        &mut self,
        wanted: &MorePartitions,
        validate_only: bool,
        budget: &mut usize,
    ) -> Result<(), Refusal> {
        let Some(topic) = self.image.topic_by_name(&wanted.name).cloned() else {
            let message = format!("topic {} does not exist", wanted.name);
            return Err((codes::UNKNOWN_TOPIC_OR_PARTITION, message));
        };
        let present = topic.partitions.len();
        let total = usize::try_from(wanted.count).unwrap_or(0);
        let new = total.saturating_sub(present);
        if new == 0 {
            let message = if total == present {
                format!("Topic already has {present} partition(s).")
            } else {
                format!(
                    "The topic {} currently has {present} partition(s); {} would not be an increase.",
                    wanted.name, wanted.count
                )
            };
            return Err((codes::INVALID_PARTITIONS, message));
        }
        spend(budget, new)?;
        let factor = topic
            .partitions
            .first()
            .map_or(1, |p| p.replication_factor());
        let assignment = match &wanted.assignments {
            Some(assignment) => {
                if assignment.len() != new {
                    let message = format!(
                        "{new} additional partition(s) were asked for, but {} assignment(s) given",
                        assignment.len()
                    );
                    return Err((codes::INVALID_REPLICA_ASSIGNMENT, message));
                }
                self.check_assignment(assignment, factor, present)?;
                assignment.clone()
            }
            None => {
                let existing: Assignment = topic
                    .partitions
                    .iter()
                    .map(|p| p.replicas.clone())
                    .collect();
                self.place(assign::seed_of(&topic.id), new, factor, &existing)?
            }
        };
        if !validate_only {
            self.add_partitions(topic.id, present, &assignment);
        }
        Ok(())
    }
}

/// What creating a topic would do.
#[derive(Default)]
struct Plan {
    /// It was created by an earlier copy of the same request.
    exists: bool,
    partitions: usize,
    factor: usize,
    assignment: Assignment,
    configs: BTreeMap<String, String>,
}

/// Whether a topic can have that name at all.
pub(super) fn check_legal(name: &str) -> Result<(), Refusal> {
    let invalid = |why: String| Err((codes::INVALID_TOPIC_EXCEPTION, why));
    if name.is_empty() {
        return invalid("Topic name is invalid: the empty string is not allowed".to_owned());
    }
    if name == "." || name == ".." {
        return invalid(format!("Topic name is invalid: '{name}' is not allowed"));
    }
    if name.len() > MAX_NAME {
        return invalid(format!(
            "Topic name is invalid: the length of '{name}' is longer than the max allowed length {MAX_NAME}"
        ));
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !name.chars().all(legal) {
        return invalid(format!(
            "Topic name is invalid: '{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
        ));
    }
    Ok(())
}

/// One request may not ask for more than can be committed at once.
fn spend(budget: &mut usize, partitions: usize) -> Result<(), Refusal> {
    match budget.checked_sub(partitions) {
        Some(left) => {
            *budget = left;
            Ok(())
        }
        None => Err((
            codes::POLICY_VIOLATION,
            "Excessively large number of partitions per request.".to_owned(),
        )),
    }
}
