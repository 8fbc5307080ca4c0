//! Folding records into the image, with every check that tells a fitting record from a foreign one.

use super::{Broker, Claim, Image, Partition, Position, Topic};
use crate::features::{self, Level, METADATA_VERSION, Unsupported};
use crate::records::{
    BrokerChange, ConfigResource, Entry, PartitionChange, Record, RegisterBroker,
};
use leasehold_types::{
    BrokerId, ControllerEpoch, Incarnation, LeaderEpoch, PartitionEpoch, ProducerId, Seq, TopicId,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Claims that the image remembers; a broker that was away for longer is treated as new.
const MAX_CLAIMS: usize = 10_000;

/// Why a record does not fit the image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    #[error("entry {found} does not follow entry {at}")]
    Gap { at: Seq, found: Seq },
    #[error("entry {seq} carries epoch {found}, but the claim in force is of epoch {claimed}")]
    WrongEpoch {
        seq: Seq,
        found: ControllerEpoch,
        claimed: ControllerEpoch,
    },
    #[error(
        "the claim in entry {seq} names epoch {epoch} and first seq {first_seq}; it must be the entry's first record, name the entry's own, and raise the epoch"
    )]
    BadClaim {
        seq: Seq,
        epoch: ControllerEpoch,
        first_seq: Seq,
    },
    #[error("the snapshot at {position:?} holds other claims than its position's")]
    SnapshotOffLine { position: Position },
    #[error("broker {0} is not registered")]
    UnknownBroker(BrokerId),
    #[error(
        "the change of broker {broker} is meant for incarnation {meant}, but {registered} is registered"
    )]
    OtherIncarnation {
        broker: BrokerId,
        meant: Incarnation,
        registered: Incarnation,
    },
    #[error("topic {0} does not exist")]
    UnknownTopic(TopicId),
    #[error("topic {name:?} or its id {id} exists already")]
    TopicExists { id: TopicId, name: String },
    #[error("partition {topic}-{partition} does not exist")]
    UnknownPartition { topic: TopicId, partition: i32 },
    #[error("partition {topic}-{partition} does not follow the last one")]
    NotDense { topic: TopicId, partition: i32 },
    #[error(
        "partition {topic}-{partition} is at epochs ({leader_epoch}, {partition_epoch}); the change to ({new_leader_epoch}, {new_partition_epoch}) does not follow"
    )]
    EpochJump {
        topic: TopicId,
        partition: i32,
        leader_epoch: LeaderEpoch,
        partition_epoch: PartitionEpoch,
        new_leader_epoch: LeaderEpoch,
        new_partition_epoch: PartitionEpoch,
    },
    #[error("partition {topic}-{partition} would break a rule: {rule}")]
    BadPartition {
        topic: TopicId,
        partition: i32,
        rule: &'static str,
    },
    #[error("producer ids would fall from {from} to {to}")]
    ProducerIdsFall { from: ProducerId, to: ProducerId },
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    #[error("{METADATA_VERSION} would fall from {from} to {to}")]
    LevelFalls { from: Level, to: Level },
    #[error("a recovery must raise the epochs, not change them by {0}")]
    BadRecovery(i32),
}

impl Image {
    /// Applies the next entry: all of it, or none and an error.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), ApplyError> {
        if entry.seq != self.position.seq.next() {
            return Err(ApplyError::Gap {
                at: self.position.seq,
                found: entry.seq,
            });
        }
        let mut next = self.clone();
        let mut records = entry.records.as_slice();
        if let Some((Record::Claim(claim), rest)) = records.split_first() {
            next.apply_claim(claim, entry)?;
            records = rest;
        }
        if entry.epoch != next.position.epoch {
            return Err(ApplyError::WrongEpoch {
                seq: entry.seq,
                found: entry.epoch,
                claimed: next.position.epoch,
            });
        }
        for record in records {
            next.apply_record(record, entry.seq)?;
        }
        next.position.seq = entry.seq;
        *self = next;
        Ok(())
    }

    fn apply_claim(&mut self, claim: &Claim, entry: &Entry) -> Result<(), ApplyError> {
        if claim.epoch != entry.epoch
            || claim.epoch <= self.position.epoch
            || claim.first_seq != entry.seq
        {
            return Err(bad_claim(claim, entry.seq));
        }
        self.position.epoch = claim.epoch;
        self.position.claim_id = claim.claim_id;
        self.claims.push_back(claim.clone());
        if self.claims.len() > MAX_CLAIMS {
            self.claims.pop_front();
        }
        Ok(())
    }

    /// Applies one record of the entry `seq`. On an error the image is unchanged by this record.
    pub(crate) fn apply_record(&mut self, record: &Record, seq: Seq) -> Result<(), ApplyError> {
        match record {
            Record::Claim(claim) => return Err(bad_claim(claim, seq)),
            Record::RegisterBroker(registration) => self.register(registration, seq),
            Record::BrokerChange(change) => self.change_broker(change, seq)?,
            Record::UnregisterBroker { broker } => {
                if self.brokers.remove(broker).is_none() {
                    return Err(ApplyError::UnknownBroker(*broker));
                }
            }
            Record::Topic {
                id,
                name,
                internal,
                configs,
            } => {
                if self.topics.contains_key(id) || self.names.contains_key(name) {
                    return Err(ApplyError::TopicExists {
                        id: *id,
                        name: name.clone(),
                    });
                }
                self.names.insert(name.clone(), *id);
                let topic = Topic {
                    id: *id,
                    name: name.clone(),
                    internal: *internal,
                    partitions: Vec::new(),
                    configs: configs.clone(),
                };
                self.topics.insert(*id, Arc::new(topic));
            }
            Record::DeleteTopic { id } => {
                let topic = self
                    .topics
                    .remove(id)
                    .ok_or(ApplyError::UnknownTopic(*id))?;
                self.names.remove(&topic.name);
            }
            Record::Partition {
                topic,
                partition,
                state,
            } => self.add_partition(*topic, *partition, state)?,
            Record::PartitionChange(change) => self.change_partition(change)?,
            Record::Config {
                resource,
                key,
                value,
            } => self.set_config(resource, key, value.as_deref())?,
            Record::ClientQuota { entity, key, limit } => {
                let quotas = Arc::make_mut(&mut self.client_quotas);
                let limits = quotas.entry(entity.clone()).or_default();
                match limit {
                    Some(limit) => limits.insert(key.clone(), *limit),
                    None => limits.remove(key),
                };
                if limits.is_empty() {
                    quotas.remove(entity);
                }
            }
            Record::Balancing(balancing) => self.balancing = *balancing,
            Record::FeatureLevel { name, level } => {
                features::check(name, *level)?;
                if name != METADATA_VERSION {
                    let levels = Arc::make_mut(&mut self.features);
                    match *level {
                        Level::OFF => levels.remove(name),
                        level => levels.insert(name.clone(), level),
                    };
                    return Ok(());
                }
                if let Some(from) = self.metadata_version.filter(|from| level < from) {
                    return Err(ApplyError::LevelFalls { from, to: *level });
                }
                self.metadata_version = Some(*level);
            }
            Record::ProducerIds { next } => {
                if *next < self.next_producer_id {
                    return Err(ApplyError::ProducerIdsFall {
                        from: self.next_producer_id,
                        to: *next,
                    });
                }
                self.next_producer_id = *next;
            }
            Record::Recovery {
                epoch_jump,
                producer_id_jump,
                ..
            } => self.recover(*epoch_jump, *producer_id_jump)?,
            Record::NoOp => {}
            #[cfg(feature = "next-release")]
            Record::NextRelease {} => {}
        }
        Ok(())
    }

    fn register(&mut self, r: &RegisterBroker, seq: Seq) {
        let broker = Broker {
            id: r.broker,
            incarnation: r.incarnation,
            client: r.client.clone(),
            internal: r.internal.clone(),
            http: r.http.clone(),
            rack: r.rack.clone(),
            version: r.version.clone(),
            fenced: r.fenced,
            shutting_down: r.shutting_down,
            cordoned: r.cordoned,
            registered_at: r.registered_at.unwrap_or(seq),
            changed_at: r.changed_at.unwrap_or(seq),
            directories: r.directories.clone(),
            listeners: r.listeners.clone(),
            features: r.features.clone(),
        };
        self.brokers.insert(r.broker, Arc::new(broker));
    }

    fn change_broker(&mut self, change: &BrokerChange, seq: Seq) -> Result<(), ApplyError> {
        let slot = self
            .brokers
            .get_mut(&change.broker)
            .ok_or(ApplyError::UnknownBroker(change.broker))?;
        if slot.incarnation != change.incarnation {
            return Err(ApplyError::OtherIncarnation {
                broker: change.broker,
                meant: change.incarnation,
                registered: slot.incarnation,
            });
        }
        let broker = Arc::make_mut(slot);
        if let Some(fenced) = change.fenced {
            broker.fenced = fenced;
            if fenced {
                broker.changed_at = seq;
            }
        }
        if let Some(shutting_down) = change.shutting_down {
            broker.shutting_down = shutting_down;
        }
        if let Some(cordoned) = change.cordoned {
            broker.cordoned = cordoned;
        }
        for (name, endpoint) in &change.listeners {
            broker.listeners.insert(name.clone(), endpoint.clone());
        }
        Ok(())
    }

    fn topic_mut(&mut self, id: TopicId) -> Result<&mut Topic, ApplyError> {
        let topic = self
            .topics
            .get_mut(&id)
            .ok_or(ApplyError::UnknownTopic(id))?;
        Ok(Arc::make_mut(topic))
    }

    fn add_partition(
        &mut self,
        id: TopicId,
        partition: i32,
        state: &Partition,
    ) -> Result<(), ApplyError> {
        let topic = self.topic_mut(id)?;
        if usize::try_from(partition) != Ok(topic.partitions.len()) {
            return Err(ApplyError::NotDense {
                topic: id,
                partition,
            });
        }
        check(state).map_err(|rule| ApplyError::BadPartition {
            topic: id,
            partition,
            rule,
        })?;
        topic.partitions.push(Arc::new(state.clone()));
        Ok(())
    }

    fn change_partition(&mut self, change: &PartitionChange) -> Result<(), ApplyError> {
        let (id, partition) = (change.topic, change.partition);
        let topic = self.topic_mut(id)?;
        let slot = usize::try_from(partition)
            .ok()
            .and_then(|index| topic.partitions.get_mut(index))
            .ok_or(ApplyError::UnknownPartition {
                topic: id,
                partition,
            })?;
        let new = follow(slot, change)?;
        check(&new).map_err(|rule| ApplyError::BadPartition {
            topic: id,
            partition,
            rule,
        })?;
        *slot = Arc::new(new);
        Ok(())
    }

    fn set_config(
        &mut self,
        resource: &ConfigResource,
        key: &str,
        value: Option<&str>,
    ) -> Result<(), ApplyError> {
        let values = match resource {
            ConfigResource::Topic(id) => &mut self.topic_mut(*id)?.configs,
            ConfigResource::Broker(id) => {
                set_among(&mut self.broker_configs, id, key, value);
                return Ok(());
            }
            ConfigResource::Group(name) => {
                set_among(&mut self.group_configs, name, key, value);
                return Ok(());
            }
            ConfigResource::ClientMetrics(name) => {
                set_among(&mut self.client_metrics, name, key, value);
                return Ok(());
            }
            ConfigResource::Cluster => Arc::make_mut(&mut self.cluster_configs),
            ConfigResource::Static => Arc::make_mut(&mut self.static_configs),
        };
        set_value(values, key, value);
        Ok(())
    }

    fn recover(&mut self, jump: i32, producer_ids: i64) -> Result<(), ApplyError> {
        if jump <= 0 || producer_ids < 0 {
            return Err(ApplyError::BadRecovery(jump));
        }
        let ids: Vec<TopicId> = self.topics.keys().copied().collect();
        for id in ids {
            for slot in &mut self.topic_mut(id)?.partitions {
                let partition = Arc::make_mut(slot);
                partition.leader_epoch.0 += jump;
                partition.partition_epoch.0 += jump;
            }
        }
        self.next_producer_id.0 += producer_ids;
        Ok(())
    }
}

fn set_value(values: &mut BTreeMap<String, String>, key: &str, value: Option<&str>) {
    match value {
        Some(value) => values.insert(key.to_owned(), value.to_owned()),
        None => values.remove(key),
    };
}

/// Sets what belongs to `whose`. Who has nothing left is not in it.
fn set_among<K: Ord + Clone>(
    all: &mut Arc<BTreeMap<K, BTreeMap<String, String>>>,
    whose: &K,
    key: &str,
    value: Option<&str>,
) {
    let all = Arc::make_mut(all);
    let values = all.entry(whose.clone()).or_default();
    set_value(values, key, value);
    if values.is_empty() {
        all.remove(whose);
    }
}

fn bad_claim(claim: &Claim, seq: Seq) -> ApplyError {
    ApplyError::BadClaim {
        seq,
        epoch: claim.epoch,
        first_seq: claim.first_seq,
    }
}

/// The partition after `change`, if the change's epochs follow those of `old` (invariant I5).
fn follow(old: &Partition, change: &PartitionChange) -> Result<Partition, ApplyError> {
    let leader_epoch = change.leader_epoch.unwrap_or(old.leader_epoch);
    let new_leader = change.leader.is_some_and(|leader| leader != old.leader);
    let raised = leader_epoch == old.leader_epoch.next();
    let kept = leader_epoch == old.leader_epoch && !new_leader;
    if change.partition_epoch != old.partition_epoch.next() || !(raised || kept) {
        return Err(ApplyError::EpochJump {
            topic: change.topic,
            partition: change.partition,
            leader_epoch: old.leader_epoch,
            partition_epoch: old.partition_epoch,
            new_leader_epoch: leader_epoch,
            new_partition_epoch: change.partition_epoch,
        });
    }
    fn or<T: Clone>(new: &Option<T>, old: &T) -> T {
        new.as_ref().unwrap_or(old).clone()
    }
    Ok(Partition {
        replicas: or(&change.replicas, &old.replicas),
        adding: or(&change.adding, &old.adding),
        removing: or(&change.removing, &old.removing),
        isr: or(&change.isr, &old.isr),
        elr: or(&change.elr, &old.elr),
        lossy: or(&change.lossy, &old.lossy),
        offline: or(&change.offline, &old.offline),
        leader: or(&change.leader, &old.leader),
        leader_epoch,
        partition_epoch: change.partition_epoch,
        recovering: or(&change.recovering, &old.recovering),
        draining: or(&change.draining, &old.draining),
        balancing: or(&change.balancing, &old.balancing),
    })
}

/// Invariant I6, as far as one partition shows it.
fn check(p: &Partition) -> Result<(), &'static str> {
    let within = |set: &[BrokerId]| set.iter().all(|b| p.replicas.contains(b));
    if p.replicas.is_empty() {
        return Err("a partition has at least one replica");
    }
    if !distinct(&p.replicas) || !distinct(&p.isr) || !distinct(&p.elr) || !distinct(&p.offline) {
        return Err("no broker is named twice");
    }
    if !within(&p.isr) || !within(&p.elr) {
        return Err("ISR and ELR are replicas");
    }
    if !within(&p.adding) || !within(&p.removing) {
        return Err("replicas being added or removed are replicas");
    }
    if !within(&p.offline) {
        return Err("replicas whose log failed are replicas");
    }
    if p.elr.iter().any(|b| p.isr.contains(b)) {
        return Err("no broker is in ISR and ELR");
    }
    match p.leader {
        Some(leader) if !p.isr.contains(&leader) => Err("the leader is in the ISR"),
        Some(leader) if p.is_offline(leader) => Err("a replica whose log failed does not lead"),
        _ => Ok(()),
    }
}

fn distinct(brokers: &[BrokerId]) -> bool {
    brokers
        .iter()
        .enumerate()
        .all(|(i, b)| !brokers[..i].contains(b))
}
