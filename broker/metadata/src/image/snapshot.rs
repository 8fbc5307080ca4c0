//! An image as a list of records, and back: what a snapshot chunk and a late joiner's first poll hold.

use super::{ApplyError, Image, Position};
use crate::balance::Balancing;
use crate::features::METADATA_VERSION;
use crate::records::{ConfigResource, Record, RegisterBroker};
use leasehold_types::ClusterId;

/// Makes a resource of its name.
type OfName = fn(String) -> ConfigResource;

impl Image {
    /// Records that rebuild this image, in an order in which they can be applied.
    pub fn to_records(&self) -> Vec<Record> {
        let mut records: Vec<Record> = self.claims.iter().cloned().map(Record::Claim).collect();
        // Before what it is about.
        if let Some(level) = self.metadata_version {
            records.push(Record::FeatureLevel {
                name: METADATA_VERSION.to_owned(),
                level,
            });
        }
        for (name, level) in self.features.iter() {
            records.push(Record::FeatureLevel {
                name: name.clone(),
                level: *level,
            });
        }
        for broker in self.brokers.values() {
            records.push(Record::RegisterBroker(RegisterBroker {
                broker: broker.id,
                incarnation: broker.incarnation,
                client: broker.client.clone(),
                internal: broker.internal.clone(),
                http: broker.http.clone(),
                rack: broker.rack.clone(),
                version: broker.version.clone(),
                fenced: broker.fenced,
                shutting_down: broker.shutting_down,
                cordoned: broker.cordoned,
                registered_at: Some(broker.registered_at),
                changed_at: Some(broker.changed_at),
                directories: broker.directories.clone(),
                listeners: broker.listeners.clone(),
                features: broker.features.clone(),
            }));
        }
        let defaults = [
            (ConfigResource::Static, &self.static_configs),
            (ConfigResource::Cluster, &self.cluster_configs),
        ];
        for (resource, values) in defaults {
            for (key, value) in values.iter() {
                records.push(Record::Config {
                    resource: resource.clone(),
                    key: key.clone(),
                    value: Some(value.clone()),
                });
            }
        }
        for (broker, values) in self.broker_configs.iter() {
            for (key, value) in values {
                records.push(Record::Config {
                    resource: ConfigResource::Broker(*broker),
                    key: key.clone(),
                    value: Some(value.clone()),
                });
            }
        }
        let named: [(OfName, _); 2] = [
            (ConfigResource::Group, &self.group_configs),
            (ConfigResource::ClientMetrics, &self.client_metrics),
        ];
        for (resource, all) in named {
            for (name, values) in all.iter() {
                for (key, value) in values {
                    records.push(Record::Config {
                        resource: resource(name.clone()),
                        key: key.clone(),
                        value: Some(value.clone()),
                    });
                }
            }
        }
        for topic in self.topics.values() {
            records.push(Record::Topic {
                id: topic.id,
                name: topic.name.clone(),
                internal: topic.internal,
                configs: topic.configs.clone(),
            });
            for (index, partition) in (0..).zip(&topic.partitions) {
                records.push(Record::Partition {
                    topic: topic.id,
                    partition: index,
                    state: (**partition).clone(),
                });
            }
        }
        for (entity, limits) in self.client_quotas.iter() {
            for (key, limit) in limits {
                records.push(Record::ClientQuota {
                    entity: entity.clone(),
                    key: key.clone(),
                    limit: Some(*limit),
                });
            }
        }
        if self.balancing != Balancing::default() {
            records.push(Record::Balancing(self.balancing));
        }
        records.push(Record::ProducerIds {
            next: self.next_producer_id,
        });
        records
    }

    /// Rebuilds the image at `position` from a snapshot's records.
    pub fn from_snapshot<'a>(
        cluster_id: ClusterId,
        position: Position,
        records: impl IntoIterator<Item = &'a Record>,
    ) -> Result<Self, ApplyError> {
        let mut image = Self::genesis(cluster_id);
        image.claims.clear();
        image.position = position;
        for record in records {
            match record {
                Record::Claim(claim) => image.claims.push_back(claim.clone()),
                other => image.apply_record(other, position.seq)?,
            }
        }
        let line = image.claims.back().map(|c| (c.epoch, c.claim_id));
        if line != Some((position.epoch, position.claim_id)) {
            return Err(ApplyError::SnapshotOffLine { position });
        }
        Ok(image)
    }
}
