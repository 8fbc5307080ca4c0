//! Administrators' wishes, each to the part that knows.

use super::{At, Controller, ReplyTo};
use crate::rpc::{AdminRequest, AdminResponse, ElectionKind, Outcome, Response, codes};
use leasehold_types::BrokerId;

impl Controller {
    pub(super) fn admin(&mut self, to: ReplyTo, request: AdminRequest) {
        let response = match request {
            AdminRequest::CreateTopics {
                topics,
                validate_only,
            } => AdminResponse::CreateTopics(self.create_topics(&topics, validate_only)),
            AdminRequest::DeleteTopics { topics } => {
                AdminResponse::DeleteTopics(self.delete_topics(&topics))
            }
            AdminRequest::CreatePartitions {
                topics,
                validate_only,
            } => AdminResponse::CreatePartitions(self.create_partitions(&topics, validate_only)),
            AdminRequest::AlterConfigs {
                resources,
                validate_only,
            } => AdminResponse::AlterConfigs(
                resources
                    .into_iter()
                    .map(|changes| {
                        let outcome = self.alter_configs(&changes, validate_only);
                        (changes.target, outcome)
                    })
                    .collect(),
            ),
            AdminRequest::AlterReassignments {
                items,
                allow_replication_factor_change,
            } => AdminResponse::AlterReassignments(
                items
                    .into_iter()
                    .map(|item| {
                        let outcome = self.reassign(&item, allow_replication_factor_change);
                        (item.topic, item.partition, outcome)
                    })
                    .collect(),
            ),
            AdminRequest::SetReplicationFactor { topics } => AdminResponse::SetReplicationFactor(
                topics
                    .into_iter()
                    .map(|(name, factor)| {
                        let outcome = self.set_replication_factor(&name, factor);
                        (name, outcome)
                    })
                    .collect(),
            ),
            AdminRequest::ElectLeaders { kind, partitions } => {
                AdminResponse::ElectLeaders(self.elect_leaders(kind, partitions))
            }
            AdminRequest::Cordon { brokers } => AdminResponse::Cordon(self.cordon(&brokers)),
            AdminRequest::SetBalancing { balancing } => {
                AdminResponse::SetBalancing(self.set_balancing(balancing))
            }
            AdminRequest::SetTopicDefaults { configs } => {
                AdminResponse::SetTopicDefaults(self.set_topic_defaults(&configs))
            }
            AdminRequest::SetEndpoints { brokers } => AdminResponse::SetEndpoints(
                brokers
                    .into_iter()
                    .map(|told| (told.broker, self.set_endpoints(told)))
                    .collect(),
            ),
            AdminRequest::AlterClientQuotas {
                entities,
                validate_only,
            } => AdminResponse::AlterClientQuotas(
                entities
                    .iter()
                    .map(|changes| self.alter_client_quotas(changes, validate_only))
                    .collect(),
            ),
            AdminRequest::UpdateFeatures {
                updates,
                validate_only,
            } => AdminResponse::UpdateFeatures(self.update_features(&updates, validate_only)),
            AdminRequest::UnregisterBroker { broker } => {
                AdminResponse::UnregisterBroker(self.unregister(broker))
            }
        };
        self.reply(to, Response::Admin(response));
    }

    fn elect_leaders(
        &mut self,
        kind: ElectionKind,
        partitions: Option<Vec<(String, i32)>>,
    ) -> Vec<(String, i32, Outcome)> {
        let Some(named) = partitions else {
            return self.elect_all_leaders(kind);
        };
        let mut outcomes = Vec::new();
        for (name, number) in named {
            let outcome = match self.image.topic_by_name(&name).map(|t| t.id) {
                Some(id) => self.elect_on_request((id, number), kind),
                None => Outcome::refused(
                    codes::UNKNOWN_TOPIC_OR_PARTITION,
                    format!("topic {name} does not exist"),
                ),
            };
            outcomes.push((name, number, outcome));
        }
        outcomes
    }

    /// Everywhere; tells only where something was to do.
    fn elect_all_leaders(&mut self, kind: ElectionKind) -> Vec<(String, i32, Outcome)> {
        let mut all: Vec<(String, At)> = Vec::new();
        for topic in self.image.topics.values() {
            for (number, p) in (0..).zip(&topic.partitions) {
                let first: Option<BrokerId> = p.replicas.first().copied();
                if p.leader.is_none() || (kind == ElectionKind::Preferred && p.leader != first) {
                    all.push((topic.name.clone(), (topic.id, number)));
                }
            }
        }
        let mut outcomes = Vec::new();
        for (name, at) in all {
            outcomes.push((name, at.1, self.elect_on_request(at, kind)));
        }
        outcomes
    }
}
