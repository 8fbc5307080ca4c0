//! Joins the coordinator to the rest of the broker: the replicas keep its log and tell it what it
//! leads, the metadata image tells it of topics, the controller creates the one that it needs.

use super::cluster::{Cluster, Endpoint, OFFSETS_TOPIC};
use super::coordinator::GroupCoordinator;
use super::log::{Bounds, Leadership, OffsetsLog};
use super::shard::Settings;
use super::state::Limits;
use crate::config::BrokerConfig;
use crate::replica::{
    Acks, FetchEntry, FetchParams, LeadershipChange, ProduceEntry, ReplicaManager,
};
use crate::session::{ControllerClient, Membership};
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use leasehold_metadata::image::Image;
use leasehold_metadata::rpc::{AdminRequest, AdminResponse, NewTopic, Request, Response};
use leasehold_types::{Offset, TopicId};
use leasehold_wire::ErrorCode;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Kafka's constant: how long a new member may wait for its first rebalance.
const NEW_MEMBER_JOIN_TIMEOUT: Duration = Duration::from_secs(300);
/// Member ids of one group that were handed out and not used yet.
const MAX_PENDING: usize = 10_000;
/// An append waits as long as its leadership lasts; its client is answered long before.
const FOR_EVER: Duration = Duration::from_secs(60 * 60 * 24 * 365);
const READ_BYTES: usize = 1024 * 1024;
const READ_WAIT: Duration = Duration::from_millis(500);
const CREATION: Duration = Duration::from_secs(10);

/// Starts the coordinator of this broker. It follows the leaderships until `replicas` is closed.
pub fn start(
    membership: &Membership,
    replicas: Arc<ReplicaManager>,
    config: &BrokerConfig,
) -> Arc<GroupCoordinator> {
    let leaderships = replicas.subscribe();
    let image = membership.image.clone();
    let coordinator = GroupCoordinator::new(
        settings(config),
        config.group_min_session_timeout_ms..=config.group_max_session_timeout_ms,
        Arc::new(ImageCluster {
            image: image.clone(),
            controller: membership.controller.clone(),
            topic_id: TopicId::random(),
        }),
        Arc::new(ReplicaLog(replicas)),
    );
    tokio::spawn(follow(coordinator.clone(), image, leaderships));
    coordinator
}

fn settings(config: &BrokerConfig) -> Settings {
    let positive = |value: i64| u64::try_from(value).unwrap_or(0);
    Settings {
        limits: Limits {
            max_size: usize::try_from(config.group_max_size).unwrap_or(usize::MAX),
            initial_rebalance_delay_ms: positive(config.group_initial_rebalance_delay_ms.into()),
            new_member_join_timeout_ms: NEW_MEMBER_JOIN_TIMEOUT.as_millis() as u64,
            max_pending: MAX_PENDING,
        },
        offset_metadata_max: usize::try_from(config.offset_metadata_max_bytes).unwrap_or(0),
        offsets_retention_ms: i64::from(config.offsets_retention_minutes) * 60_000,
        offsets_check_interval_ms: positive(config.offsets_retention_check_interval_ms),
        write_timeout_ms: positive(config.offsets_commit_timeout_ms.into()),
    }
}

/// Leads and resigns with the replicas, and forgets the offsets of topics that are deleted.
async fn follow(
    coordinator: Arc<GroupCoordinator>,
    mut image: watch::Receiver<Arc<Image>>,
    mut leaderships: mpsc::UnboundedReceiver<LeadershipChange>,
) {
    let mut known = image.borrow_and_update().clone();
    loop {
        tokio::select! {
            // A topic that is made anew must not meet the offsets of its predecessor.
            biased;
            changed = image.changed() => {
                if changed.is_err() {
                    break;
                }
                let newer = image.borrow_and_update().clone();
                let deleted = deleted_topics(&known, &newer);
                if !deleted.is_empty() {
                    coordinator.topics_deleted(deleted);
                }
                known = newer;
            }
            change = leaderships.recv() => {
                let Some(change) = change else { break };
                // The replicas learn of a topic from this same channel, so it is in its newest image.
                let newest = image.borrow().clone();
                take(&coordinator, &newest, change);
            }
        }
    }
    coordinator.close();
}

fn take(coordinator: &GroupCoordinator, image: &Image, change: LeadershipChange) {
    let LeadershipChange {
        topic,
        partition,
        leads,
    } = change;
    match leads {
        Some(epoch) if image.topic(&topic).is_some_and(|t| t.name == OFFSETS_TOPIC) => {
            coordinator.lead(Leadership {
                topic,
                partition,
                epoch,
            });
        }
        Some(_) => {}
        None => coordinator.resign(topic, partition),
    }
}

/// Names of topics that are no more, even if others have been created under them.
fn deleted_topics(before: &Image, after: &Image) -> HashSet<String> {
    if before.topics.ptr_eq(&after.topics) {
        return HashSet::new();
    }
    let gone = before
        .topics
        .iter()
        .filter(|(id, _)| !after.topics.contains_key(*id));
    gone.map(|(_, topic)| topic.name.clone()).collect()
}

/// The offsets topic's log, kept by the replicas.
struct ReplicaLog(Arc<ReplicaManager>);

#[async_trait]
impl OffsetsLog for ReplicaLog {
    fn append(&self, at: Leadership, batch: Bytes) -> BoxFuture<'static, Result<(), ErrorCode>> {
        let entry = ProduceEntry {
            topic: at.topic,
            partition: at.partition,
            records: batch,
            leader_epoch: Some(at.epoch),
        };
        let pending = self.0.append(Acks::All, FOR_EVER, vec![entry]);
        Box::pin(async move {
            match pending.await.pop() {
                Some(result) if result.error.is_ok() => Ok(()),
                Some(result) => {
                    let Leadership {
                        partition, epoch, ..
                    } = at;
                    let message = result.message.unwrap_or_default();
                    tracing::warn!(partition, %epoch, error = %result.error, message, "groups could not be stored");
                    Err(result.error)
                }
                None => Err(ErrorCode::UnknownServerError),
            }
        })
    }

    fn bounds(&self, at: Leadership) -> Option<Bounds> {
        let state = self.0.leads(at.topic, at.partition)?;
        (state.epoch == at.epoch).then_some(Bounds {
            log_start: state.log_start,
            log_end: state.log_end,
        })
    }

    async fn read(&self, at: Leadership, from: Offset) -> Result<Bytes, ErrorCode> {
        let params = FetchParams {
            replica: None,
            max_wait: READ_WAIT,
            min_bytes: 1,
            max_bytes: READ_BYTES,
            read_committed: false,
        };
        let entry = FetchEntry {
            topic: at.topic,
            partition: at.partition,
            current_leader_epoch: Some(at.epoch),
            fetch_offset: from,
            last_fetched_epoch: None,
            log_start_offset: None,
            max_bytes: READ_BYTES,
        };
        match self.0.fetch(params, vec![entry]).await.pop() {
            Some(result) if result.error.is_ok() => Ok(result.records),
            Some(result) => Err(result.error),
            None => Err(ErrorCode::UnknownServerError),
        }
    }
}

/// The cluster, as the metadata image has it.
struct ImageCluster {
    image: watch::Receiver<Arc<Image>>,
    controller: ControllerClient,
    /// Of the offsets topic, if this broker creates it: a repeat with the same id does no harm.
    topic_id: TopicId,
}

impl ImageCluster {
    fn now(&self) -> Arc<Image> {
        self.image.borrow().clone()
    }
}

#[async_trait]
impl Cluster for ImageCluster {
    fn offsets_partitions(&self) -> Option<i32> {
        let image = self.now();
        let topic = image.topic_by_name(OFFSETS_TOPIC)?;
        i32::try_from(topic.partitions.len()).ok()
    }

    fn offsets_leader(&self, partition: i32) -> Option<Endpoint> {
        let image = self.now();
        let topic = image.topic_by_name(OFFSETS_TOPIC)?;
        let leader = image.broker(topic.partition(partition)?.leader?)?;
        Some(Endpoint {
            broker: leader.id,
            host: leader.client.host.clone(),
            port: leader.client.port.into(),
        })
    }

    fn has_partition(&self, topic: &str, partition: i32) -> bool {
        let image = self.now();
        let topic = image.topic_by_name(topic);
        topic.is_some_and(|topic| topic.partition(partition).is_some())
    }

    async fn create_offsets_topic(&self) -> Result<(), ErrorCode> {
        let topic = NewTopic {
            id: self.topic_id,
            // Partitions, replicas and configuration are the controller's, for this topic.
            ..NewTopic::with_defaults(OFFSETS_TOPIC)
        };
        let request = AdminRequest::CreateTopics {
            topics: vec![topic],
            validate_only: false,
        };
        let timeout_ms = CREATION.as_millis() as u64;
        let request = Request::Admin {
            request,
            timeout_ms,
        };
        let outcome = match self
            .controller
            .call(request, Instant::now() + CREATION)
            .await
        {
            Response::Admin(AdminResponse::CreateTopics(created)) => {
                created.into_iter().next().map(|created| created.outcome)
            }
            Response::Error(outcome) => Some(outcome),
            _ => None,
        };
        match outcome {
            Some(outcome) if outcome.is_ok() => Ok(()),
            Some(outcome) if outcome.code == ErrorCode::TopicAlreadyExists.code() => Ok(()),
            Some(outcome) => {
                tracing::warn!(message = outcome.message, "the offsets topic was refused");
                Err(ErrorCode::from_code(outcome.code))
            }
            None => Err(ErrorCode::NotController),
        }
    }

    async fn changed(&self, timeout: Duration) {
        let mut image = self.image.clone();
        image.mark_unchanged();
        // A timeout is an answer, too: the caller looks again.
        let _ = tokio::time::timeout(timeout, image.changed()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold_metadata::image::Topic;
    use std::collections::BTreeMap;

    fn with(names: &[(&str, TopicId)]) -> Image {
        let mut image = Image::genesis(leasehold_types::ClusterId::random());
        for (name, id) in names {
            let topic = Topic {
                id: *id,
                name: (*name).to_owned(),
                internal: false,
                partitions: Vec::new(),
                configs: BTreeMap::new(),
            };
            image.topics.insert(*id, Arc::new(topic));
        }
        image
    }

    #[test]
    fn a_topic_that_was_created_anew_under_its_name_counts_as_deleted() {
        let (old, new, kept) = (TopicId::random(), TopicId::random(), TopicId::random());
        let before = with(&[("t", old), ("kept", kept)]);
        let after = with(&[("t", new), ("kept", kept), ("more", TopicId::random())]);
        assert_eq!(
            deleted_topics(&before, &after),
            HashSet::from(["t".to_owned()])
        );
        assert!(deleted_topics(&after, &after.clone()).is_empty());
    }

    #[test]
    fn the_settings_are_kafkas_defaults() {
        let settings = settings(&BrokerConfig::default());
        assert_eq!(settings.offsets_retention_ms, 7 * 24 * 60 * 60 * 1000);
        assert_eq!(settings.limits.initial_rebalance_delay_ms, 3_000);
        assert_eq!(settings.write_timeout_ms, 5_000);
        assert_eq!(settings.offset_metadata_max, 4_096);
    }
}
