//! Joins the coordinator to the rest of the broker: the replicas keep its log and tell it what it
//! leads, the metadata image tells it of topics, the controller creates the one that it needs.

use super::cluster::{Cluster, Endpoint, OFFSETS_TOPIC};
use super::consumer::ConsumerSettings;
use super::consumer::assignor::Assignor;
use super::consumer::settings::Migration;
use super::coordinator::GroupCoordinator;
use super::log::Leadership;
use super::shard::Settings;
use super::state::Limits;
use crate::config::BrokerConfig;
use crate::coordinator::find::{AskController, ImageTopic, StateTopic, through};
use crate::coordinator::replicas::ReplicaLog;
use crate::replica::{AppendedMarker, LeadershipChange, MarkerListener, ReplicaManager};
use crate::session::Membership;
use async_trait::async_trait;
use leasehold_metadata::group_configs::GroupDefaults;
use leasehold_metadata::image::Image;
use leasehold_wire::ErrorCode;
use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Kafka's constant: how long a new member may wait for its first rebalance.
const NEW_MEMBER_JOIN_TIMEOUT: Duration = Duration::from_secs(300);
/// Member ids of one group that were handed out and not used yet.
const MAX_PENDING: usize = 10_000;

/// Starts the coordinator of this broker. It follows the leaderships until `replicas` is closed.
pub fn start(
    membership: &Membership,
    replicas: Arc<ReplicaManager>,
    config: &BrokerConfig,
) -> Arc<GroupCoordinator> {
    let controller = through(&membership.controller);
    let cluster = ImageCluster::new(membership.image.clone(), controller);
    start_in(
        Arc::new(cluster),
        membership.image.clone(),
        replicas,
        config,
    )
}

/// The same, for a broker whose way to the controller is not [`Membership`]'s.
pub fn start_in(
    cluster: Arc<dyn Cluster>,
    image: watch::Receiver<Arc<Image>>,
    replicas: Arc<ReplicaManager>,
    config: &BrokerConfig,
) -> Arc<GroupCoordinator> {
    let leaderships = replicas.subscribe();
    let coordinator = GroupCoordinator::new(
        settings(config),
        config.group_min_session_timeout_ms..=config.group_max_session_timeout_ms,
        cluster,
        Arc::new(ReplicaLog(replicas.clone())),
    );
    // Offsets of transactions show once their markers are in.
    replicas.tell_of_markers(Arc::new(Markers(Arc::downgrade(&coordinator))));
    tokio::spawn(follow(coordinator.clone(), image, leaderships));
    coordinator
}

/// The replicas' way to the coordinator, which keeps them.
struct Markers(Weak<GroupCoordinator>);

impl MarkerListener for Markers {
    fn on_marker(&self, marker: AppendedMarker) {
        if let Some(coordinator) = self.0.upgrade() {
            coordinator.on_marker(marker);
        }
    }
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
        consumer: consumer_settings(config),
        offset_metadata_max: usize::try_from(config.offset_metadata_max_bytes).unwrap_or(0),
        offsets_retention_ms: i64::from(config.offsets_retention_minutes) * 60_000,
        offsets_check_interval_ms: positive(config.offsets_retention_check_interval_ms),
        write_timeout_ms: positive(config.offsets_commit_timeout_ms.into()),
    }
}

/// Kafka's defaults.
#[cfg(test)]
pub(super) fn default_settings() -> Settings {
    settings(&BrokerConfig::default())
}

fn consumer_settings(config: &BrokerConfig) -> ConsumerSettings {
    let defaults = ConsumerSettings::DEFAULT;
    ConsumerSettings {
        max_size: usize::try_from(config.group_consumer_max_size).unwrap_or(usize::MAX),
        session_timeout_ms: config.group_consumer_session_timeout_ms,
        heartbeat_interval_ms: config.group_consumer_heartbeat_interval_ms,
        own: GroupDefaults::from_config(config),
        assignors: Assignor::list(&config.group_consumer_assignors).unwrap_or(defaults.assignors),
        migration: Migration::parse(&config.group_consumer_migration_policy)
            .unwrap_or(defaults.migration),
        classic_max_size: usize::try_from(config.group_max_size).unwrap_or(usize::MAX),
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
                if concerns_groups(&known, &newer) {
                    coordinator.topics_changed(newer.clone());
                }
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

/// Whether groups are to look at the topics, or at their configurations, which change seldom enough to do both.
fn concerns_groups(before: &Image, after: &Image) -> bool {
    let same_configs = Arc::ptr_eq(&before.group_configs, &after.group_configs);
    !same_configs || !before.topics.ptr_eq(&after.topics)
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

/// The cluster, as the metadata image has it.
pub struct ImageCluster {
    image: watch::Receiver<Arc<Image>>,
    offsets: ImageTopic,
}

impl ImageCluster {
    /// The cluster of `image`.
    pub fn new(image: watch::Receiver<Arc<Image>>, controller: AskController) -> Self {
        Self {
            offsets: ImageTopic::new(OFFSETS_TOPIC, image.clone(), controller),
            image,
        }
    }
}

#[async_trait]
impl Cluster for ImageCluster {
    fn offsets_partitions(&self) -> Option<i32> {
        self.offsets.partitions()
    }

    fn offsets_leader(&self, partition: i32) -> Option<Endpoint> {
        self.offsets.leader(partition)
    }

    fn has_partition(&self, topic: &str, partition: i32) -> bool {
        let image = self.image();
        let topic = image.topic_by_name(topic);
        topic.is_some_and(|topic| topic.partition(partition).is_some())
    }

    fn image(&self) -> Arc<Image> {
        self.image.borrow().clone()
    }

    async fn create_offsets_topic(&self) -> Result<(), ErrorCode> {
        self.offsets.create().await
    }

    async fn changed(&self, timeout: Duration) {
        self.offsets.changed(timeout).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold_metadata::image::Topic;
    use leasehold_types::TopicId;
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
    fn groups_hear_of_topics_and_of_their_own_configurations_and_of_nothing_else() {
        let before = with(&[("t", TopicId::random())]);
        let mut after = before.clone();
        after.cluster_configs = Arc::new(BTreeMap::from([("a".to_owned(), "1".to_owned())]));
        assert!(!concerns_groups(&before, &after));
        Arc::make_mut(&mut after.group_configs).insert("g".to_owned(), BTreeMap::new());
        assert!(concerns_groups(&before, &after));
        assert!(concerns_groups(&before, &with(&[])));
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
