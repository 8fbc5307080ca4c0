//! Carries ISR proposals to the controller.
//!
//! What to propose is the leader's pure decision (`leader.rs`); this asks it whenever a follower
//! catches up, time passes or an answer came, sends what is due in batches, and returns the answers.
//! A lost answer is no reason to forget a proposal: it is sent again until a record ends it.

use super::manager::ReplicaManager;
use super::partition::Partition;
use super::proposal::{IsrHint, IsrRequest};
use leasehold_metadata::rpc::{IsrProposal, IsrVerdict, codes};
use leasehold_types::seams::{self, HashMap};
use std::sync::Arc;
use tokio::sync::mpsc;

/// The controller, as far as ISR changes go.
#[async_trait::async_trait]
pub trait IsrController: Send + Sync {
    /// Asks for `proposals`. `None`: no answer, or none that says anything about them.
    async fn alter(&self, proposals: Vec<IsrProposal>) -> Option<Vec<IsrVerdict>>;
}

/// What an answer with this code hints at.
pub fn hint(code: i16) -> IsrHint {
    match code {
        codes::NONE => IsrHint::Accepted,
        codes::INELIGIBLE_REPLICA | codes::INVALID_REQUEST => IsrHint::Ineligible,
        _ => IsrHint::Unknown,
    }
}

/// Sends proposals for the partitions that arrive in `due`, until the manager is gone.
pub async fn run(
    manager: std::sync::Weak<ReplicaManager>,
    controller: Arc<dyn IsrController>,
    mut due: mpsc::UnboundedReceiver<Arc<Partition>>,
) {
    while let Some(first) = due.recv().await {
        let Some(manager) = manager.upgrade() else {
            return;
        };
        let mut partitions = vec![first];
        while let Ok(next) = due.try_recv() {
            partitions.push(next);
        }
        let now = seams::now();
        let lag_max = manager.settings().replica_lag_time_max;
        let requests: Vec<_> = partitions
            .into_iter()
            .filter_map(|partition| {
                let request =
                    partition.adjust(|state| state.leader_mut()?.next_request(lag_max, now));
                Some((partition, request?))
            })
            .collect();
        if !requests.is_empty() {
            // On its own task: one slow answer must not hold up other partitions.
            tokio::spawn(ask(manager, controller.clone(), requests));
        }
    }
}

async fn ask(
    manager: Arc<ReplicaManager>,
    controller: Arc<dyn IsrController>,
    requests: Vec<(Arc<Partition>, IsrRequest)>,
) {
    let proposals = requests
        .iter()
        .map(|(partition, request)| IsrProposal {
            topic: partition.key().0,
            partition: partition.key().1,
            leader_epoch: request.leader_epoch,
            partition_epoch: request.partition_epoch,
            isr: request.isr.clone(),
        })
        .collect();
    for (partition, request) in &requests {
        tracing::info!(topic = %partition.topic(), partition = partition.key().1,
            leader_epoch = request.leader_epoch.0, partition_epoch = request.partition_epoch.0,
            isr = ?request.isr.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), "proposing an ISR");
    }
    let verdicts: HashMap<_, _> = controller
        .alter(proposals)
        .await
        .unwrap_or_default()
        .into_iter()
        .map(|verdict| ((verdict.topic, verdict.partition), verdict.outcome))
        .collect();
    for (partition, request) in requests {
        let verdict = verdicts.get(&partition.key());
        if let Some(refusal) = verdict.filter(|outcome| !outcome.is_ok()) {
            tracing::info!(topic = %partition.topic(), partition = partition.key().1,
                code = refusal.code, message = refusal.message.as_deref().unwrap_or_default(),
                "the proposed ISR was refused");
        }
        let hint = verdict.map_or(IsrHint::Unknown, |outcome| hint(outcome.code));
        let next = partition.adjust(|state| {
            let leader = state.leader_mut()?;
            leader.answered(&request, hint, seams::now());
            leader.request_due()
        });
        if let Some(at) = next {
            let manager = Arc::downgrade(&manager);
            tokio::spawn(async move {
                tokio::time::sleep_until(at.into()).await;
                if let Some(manager) = manager.upgrade() {
                    manager.consider_isr(&partition);
                }
            });
        }
    }
}
