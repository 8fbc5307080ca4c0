//! From a plan's steps to requests to the controller, and from its answers to conditions; pure.

use super::plan::{Action as Step, Refusal};
use leasehold_metadata::rpc::{
    AdminRequest, AdminResponse, ConfigChange, ConfigChanges, ConfigOp, ConfigTarget,
    MorePartitions, NewTopic, Outcome, codes,
};

/// The request for one step.
pub fn request(step: &Step) -> AdminRequest {
    match step.clone() {
        Step::Create {
            name,
            partitions,
            replication_factor,
            configs,
        } => AdminRequest::CreateTopics {
            topics: vec![NewTopic {
                partitions,
                replication_factor,
                configs: configs
                    .into_iter()
                    .map(|(key, value)| (key, Some(value)))
                    .collect(),
                ..NewTopic::with_defaults(name)
            }],
            validate_only: false,
        },
        Step::Grow { name, partitions } => AdminRequest::CreatePartitions {
            topics: vec![MorePartitions {
                name,
                count: partitions,
                assignments: None,
            }],
            validate_only: false,
        },
        Step::Configure { name, changes } => AdminRequest::AlterConfigs {
            resources: vec![ConfigChanges {
                target: ConfigTarget::Topic(name),
                replace_all: false,
                changes: changes
                    .into_iter()
                    .map(|(key, value)| ConfigChange {
                        key,
                        op: if value.is_some() {
                            ConfigOp::Set
                        } else {
                            ConfigOp::Delete
                        },
                        value,
                    })
                    .collect(),
            }],
            validate_only: false,
        },
        Step::SetReplicationFactor {
            name,
            replication_factor,
        } => AdminRequest::SetReplicationFactor {
            topics: vec![(name, replication_factor)],
        },
    }
}

/// The outcome for the one item that was asked for.
pub fn outcome_of(answer: AdminResponse) -> Outcome {
    let first = match answer {
        AdminResponse::CreateTopics(items) => items.into_iter().next().map(|item| item.outcome),
        AdminResponse::CreatePartitions(items) | AdminResponse::SetReplicationFactor(items) => {
            items.into_iter().next().map(|(_, outcome)| outcome)
        }
        AdminResponse::AlterConfigs(items) => items.into_iter().next().map(|(_, outcome)| outcome),
        AdminResponse::DeleteTopics(items) => items.into_iter().next().map(|item| item.outcome),
        _ => None,
    };
    first.unwrap_or_else(|| {
        Outcome::refused(
            codes::INVALID_REQUEST,
            "the controller answered another question",
        )
    })
}

/// A refusal of the controller as a condition.
pub fn refusal_of(outcome: &Outcome) -> Refusal {
    let reason = match outcome.code {
        codes::INVALID_CONFIG => "InvalidConfig",
        codes::INVALID_PARTITIONS => "InvalidPartitions",
        codes::INVALID_REPLICATION_FACTOR | codes::INVALID_REPLICA_ASSIGNMENT => {
            "InvalidReplicationFactor"
        }
        codes::INVALID_TOPIC_EXCEPTION => "InvalidName",
        codes::TOPIC_DELETION_DISABLED => "DeletionDisabled",
        codes::POLICY_VIOLATION => "PolicyViolation",
        codes::REQUEST_TIMED_OUT | codes::NOT_CONTROLLER => "ClusterUnreachable",
        _ => "Refused",
    };
    let message = outcome
        .message
        .clone()
        .unwrap_or_else(|| format!("the controller refused with code {}", outcome.code));
    Refusal::new(reason, message)
}
