//! Joins the coordinator to the rest of the broker: the replicas keep its log and tell it what it leads,
//! the metadata image tells where markers go.

use super::coordinator::TxnCoordinator;
use super::markers::Markers;
use super::peers::{Lines, Peers};
use super::shard::Settings;
use super::verify::Verifier;
use crate::config::BrokerConfig;
use crate::coordinator::find::{ImageTopic, StateTopic, through};
use crate::coordinator::log::Leadership;
use crate::coordinator::replicas::ReplicaLog;
use crate::replica::{LeadershipChange, ReplicaManager};
use crate::session::Membership;
use leasehold_metadata::controller::TRANSACTIONS_TOPIC;
use leasehold_metadata::image::Image;
use leasehold_types::BrokerId;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long a client waits for a change to be stored; it then asks again. As `offsets.commit.timeout.ms`.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// The parts of transactions that others need.
#[derive(Clone)]
pub struct Transactions {
    pub coordinator: Arc<TxnCoordinator>,
    pub verifier: Arc<Verifier>,
}

/// Starts the coordinator of this broker. It follows the leaderships until `replicas` is closed.
pub fn start(
    membership: &Membership,
    replicas: Arc<ReplicaManager>,
    config: &BrokerConfig,
) -> Transactions {
    let image = membership.image.clone();
    let ways = Ways {
        topic: Arc::new(ImageTopic::new(
            TRANSACTIONS_TOPIC,
            image.clone(),
            through(&membership.controller),
        )),
        lines: Arc::new(Peers::new(membership.cluster_id.clone(), image.clone())),
    };
    start_in(membership.broker, ways, image, replicas, config)
}

/// How the coordinator reaches others.
pub struct Ways {
    /// `__transaction_state`.
    pub topic: Arc<dyn StateTopic>,
    /// The other brokers.
    pub lines: Arc<dyn Lines>,
}

/// The same as [`start`], for a broker whose ways to others are not [`Membership`]'s.
pub fn start_in(
    me: BrokerId,
    Ways { topic, lines }: Ways,
    image: watch::Receiver<Arc<Image>>,
    replicas: Arc<ReplicaManager>,
    config: &BrokerConfig,
) -> Transactions {
    let leaderships = replicas.subscribe();
    let coordinator = TxnCoordinator::new(
        settings(config),
        topic,
        Arc::new(ReplicaLog(replicas)),
        Arc::new(Markers::new(image.clone(), lines.clone())),
    );
    tokio::spawn(follow(coordinator.clone(), image, leaderships));
    let verifier = Verifier::new(me, coordinator.clone(), lines);
    Transactions {
        coordinator,
        verifier: Arc::new(verifier),
    }
}

fn settings(config: &BrokerConfig) -> Settings {
    let ms = |value: i32| u64::try_from(value).unwrap_or(0);
    Settings {
        max_timeout_ms: config.transaction_max_timeout_ms,
        abort_interval_ms: ms(config.transaction_abort_timed_out_transaction_cleanup_interval_ms),
        expiration_ms: config.transactional_id_expiration_ms.into(),
        expiration_interval_ms: ms(
            config.transaction_remove_expired_transaction_cleanup_interval_ms
        ),
        write_timeout_ms: WRITE_TIMEOUT.as_millis() as u64,
    }
}

/// Leads and resigns with the replicas.
async fn follow(
    coordinator: Arc<TxnCoordinator>,
    image: watch::Receiver<Arc<Image>>,
    mut leaderships: mpsc::UnboundedReceiver<LeadershipChange>,
) {
    while let Some(change) = leaderships.recv().await {
        let LeadershipChange {
            topic,
            partition,
            leads,
        } = change;
        let Some(epoch) = leads else {
            coordinator.resign(topic, partition);
            continue;
        };
        // The replicas learn of a topic from this same channel, so it is in its newest image.
        let known = image.borrow().topic(&topic).cloned();
        if known.is_some_and(|topic| topic.name == TRANSACTIONS_TOPIC) {
            coordinator.lead(Leadership {
                topic,
                partition,
                epoch,
            });
        }
    }
    coordinator.close();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_are_kafkas_defaults() {
        let settings = settings(&BrokerConfig::default());
        assert_eq!(settings.max_timeout_ms, 15 * 60 * 1000);
        assert_eq!(settings.abort_interval_ms, 10_000);
        assert_eq!(settings.expiration_ms, 7 * 24 * 60 * 60 * 1000);
        assert_eq!(settings.expiration_interval_ms, 60 * 60 * 1000);
    }
}
