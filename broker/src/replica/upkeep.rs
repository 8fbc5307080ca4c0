//! What time asks for: lagging followers, retention, flushes, files of deleted segments, room on the
//! disk, high watermark checkpoints.

use super::io::blocking;
use super::manager::ReplicaManager;
use super::partition::Partition;
use super::produce::now_ms;
use leasehold_types::seams;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::task::JoinSet;

/// Starts the periodic tasks; they end with the manager.
pub fn spawn(tasks: &mut JoinSet<()>, manager: &Arc<ReplicaManager>) {
    let settings = manager.settings();
    // Twice per lag time finds a laggard in time, as in Kafka; more rarely than each second costs nothing.
    let lag_check = (settings.replica_lag_time_max / 2)
        .clamp(Duration::from_millis(50), Duration::from_secs(1));
    tasks.spawn(every(lag_check, Arc::downgrade(manager), |manager| {
        check_isr(manager);
        async {}
    }));
    tasks.spawn(every(
        settings.retention_check_interval,
        Arc::downgrade(manager),
        |manager| {
            retain(manager);
            async {}
        },
    ));
    tasks.spawn(every(
        Duration::from_secs(1),
        Arc::downgrade(manager),
        |manager| {
            flush(manager);
            remove_discarded(manager);
            async {}
        },
    ));
    tasks.spawn(every(
        Duration::from_secs(1),
        Arc::downgrade(manager),
        |manager| {
            let disks = manager.disks().clone();
            async move {
                // A disk that hangs must not hold an async worker. A panic has said its word.
                let _ = blocking(move || disks.look()).await;
            }
        },
    ));
    tasks.spawn(checkpoint(
        settings.checkpoint_interval,
        Arc::downgrade(manager),
    ));
}

async fn every<F: Future<Output = ()>>(
    interval: Duration,
    manager: Weak<ReplicaManager>,
    work: impl Fn(&Arc<ReplicaManager>) -> F,
) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(manager) = manager.upgrade() else {
            return;
        };
        work(&manager).await;
    }
}

fn check_isr(manager: &Arc<ReplicaManager>) {
    for partition in manager.all() {
        let leads = partition.adjust(|state| {
            // Producers that gave up leave their place behind.
            let acks = state.acks_mut()?;
            acks.retain(|waiter| !waiter.reply.is_closed());
            Some(())
        });
        if leads.is_some() {
            manager.consider_isr(&partition);
        }
    }
}

fn retain(manager: &Arc<ReplicaManager>) {
    for partition in manager.all() {
        partition.submit(|partition| {
            let Some(log) = partition.log() else { return };
            let high_watermark = partition.look(|state| state.high_watermark());
            match log.apply_retention(now_ms(), high_watermark) {
                Ok(deleted) if deleted.is_empty() => {}
                Ok(deleted) => {
                    tracing::info!(topic = %partition.topic(), partition = partition.key().1,
                    segments = deleted.len(), log_start = log.log_start_offset().0,
                    "deleted segments past their retention");
                }
                Err(error) => report(partition, &error),
            }
        });
    }
}

fn flush(manager: &Arc<ReplicaManager>) {
    for partition in manager.all() {
        let wants = partition
            .log()
            .is_some_and(|log| log.config().flush_ms != i64::MAX);
        if wants {
            partition.submit(|partition| {
                if let Some(Err(error)) = partition.log().map(|log| log.flush_if_due(now_ms())) {
                    report(partition, &error);
                }
            });
        }
    }
}

fn remove_discarded(manager: &Arc<ReplicaManager>) {
    for partition in manager.all() {
        if partition.log().is_some_and(|log| log.has_discarded()) {
            partition.submit(|partition| {
                let removed = partition
                    .log()
                    .map(|log| log.remove_discarded(seams::now()));
                if let Some(Err(error)) = removed {
                    report(partition, &error);
                }
            });
        }
    }
}

fn report(partition: &Partition, error: &leasehold_log::LogError) {
    // A log that is offline says so at every call, and was told of once.
    if !partition.notice_failure() {
        tracing::warn!(topic = %partition.topic(), partition = partition.key().1, %error, "upkeep of the log failed");
    }
}

async fn checkpoint(interval: Duration, manager: Weak<ReplicaManager>) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(manager) = manager.upgrade() else {
            return;
        };
        match blocking(move || manager.checkpoint()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot write the high watermarks"),
            Err(_) => return,
        }
    }
}
