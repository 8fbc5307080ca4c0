//! One line in the log per election, fence, ISR change and the like, with the epochs.

use leasehold_metadata::controller::Event;
use leasehold_types::{BrokerId, ControllerEpoch};

fn ids(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|broker| broker.0).collect()
}

/// Logs `event`, which is committed.
pub(super) fn log(epoch: ControllerEpoch, event: &Event) {
    let controller_epoch = epoch.0;
    match event {
        Event::Registered {
            broker,
            incarnation,
            intact,
        } => tracing::info!(controller_epoch, %broker, %incarnation, intact, "broker registered"),
        Event::Fenced {
            broker,
            incarnation,
            reason,
        } => tracing::warn!(controller_epoch, %broker, %incarnation, reason, "broker fenced"),
        Event::Unfenced {
            broker,
            incarnation,
        } => tracing::info!(controller_epoch, %broker, %incarnation, "broker unfenced"),
        Event::ShuttingDown {
            broker,
            incarnation,
        } => tracing::info!(controller_epoch, %broker, %incarnation, "broker shuts down"),
        Event::Leader {
            partition,
            leader,
            leader_epoch,
            partition_epoch,
            isr,
            unclean,
            reason,
        } => {
            let leader = leader.map_or(-1, |l| l.0);
            let isr = ids(isr);
            if *unclean || leader < 0 {
                tracing::warn!(controller_epoch, %partition, leader, %leader_epoch, %partition_epoch, ?isr, unclean, reason, "election");
            } else {
                tracing::info!(controller_epoch, %partition, leader, %leader_epoch, %partition_epoch, ?isr, reason, "election");
            }
        }
        Event::Isr {
            partition,
            isr,
            elr,
            leader_epoch,
            partition_epoch,
        } => {
            let (isr, elr) = (ids(isr), ids(elr));
            tracing::info!(controller_epoch, %partition, ?isr, ?elr, %leader_epoch, %partition_epoch, "ISR changed");
        }
        Event::Reassignment {
            partition,
            replicas,
            what,
        } => {
            let replicas = ids(replicas);
            tracing::info!(controller_epoch, %partition, ?replicas, what, "reassignment");
        }
        Event::TopicCreated { name, id } => {
            tracing::info!(controller_epoch, topic = name, %id, "topic created");
        }
        Event::TopicDeleted { name, id } => {
            tracing::info!(controller_epoch, topic = name, %id, "topic deleted");
        }
        Event::Balance { what } => {
            tracing::info!(controller_epoch, "balance of the brokers {what}")
        }
        Event::Endpoints { broker, listeners } => {
            for (listener, endpoint) in listeners {
                let endpoint = endpoint.as_ref().map(ToString::to_string);
                let endpoint = endpoint.as_deref().unwrap_or("not known");
                tracing::info!(controller_epoch, %broker, %listener, endpoint, "endpoint of a listener");
            }
        }
        Event::Cordoned { broker, cordoned } => {
            tracing::info!(controller_epoch, %broker, cordoned, "broker cordoned or not");
        }
        Event::Unregistered { broker } => {
            tracing::info!(controller_epoch, %broker, "broker unregistered");
        }
        Event::FeatureLevel { name, level } => {
            tracing::info!(controller_epoch, feature = name, %level, "feature level");
        }
        Event::Frozen { reason } => tracing::error!(
            controller_epoch,
            reason,
            "FROZEN: nothing is decided any more until an operator recovers the metadata"
        ),
        Event::Warning { message } => tracing::warn!(controller_epoch, message, "controller"),
    }
}
