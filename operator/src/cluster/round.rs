//! The part of a cluster's round that changes the world: brokers, objects, volumes, racks.

use super::apply::apply_all;
use super::build::{Inputs, build};
use super::facts::{Totals, totals};
use super::fetch::Existing;
use super::reconcile::{BUSY, ClusterError, IDLE, KIND, publish};
use super::restart::outdated;
use super::scale::{self, Decision, Draining, Facts};
use super::status::Findings;
use super::teardown;
use super::validate::ValidCluster;
use crate::admin::{self, AdminError};
use crate::context::Context;
use crate::view::{ClusterKey, View};
use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use leasehold_crds::{Cluster, ScalePolicy};
use leasehold_metadata::rpc::{AdminRequest, AdminResponse, Outcome};
use leasehold_types::BrokerId;

/// The part of a round that changes the world.
pub(super) struct Round<'a> {
    pub context: &'a Context,
    pub key: &'a ClusterKey,
    pub valid: &'a ValidCluster,
    pub existing: &'a Existing,
    pub cluster_id: &'a str,
}

impl Round<'_> {
    /// Carries it out.
    pub async fn run(
        &self,
        cluster: &Cluster,
        known: Option<&(&View, Totals)>,
        mut findings: Findings<'_>,
    ) -> Result<Action, ClusterError> {
        let facts = self.facts(known.map(|(_, totals)| totals));
        let mut decision = scale::decide(&facts);
        let current = facts.current.unwrap_or(0);
        if decision.replicas < current
            && self.valid.spec.replicas > 0
            && !self.still_lower(&decision).await?
        {
            decision.replicas = current;
        }
        if let Some((view, _)) = known {
            let problems = self.settle_brokers(view, &decision).await;
            decision.draining = told(decision.draining, &problems);
        }
        let inputs = Inputs {
            cluster_id: self.cluster_id,
            replicas: decision.replicas,
            may_disrupt: known.is_none_or(|(_, totals)| totals.at_minimum == 0),
        };
        let objects = build(self.valid, &inputs)?;
        if !self.context.leadership.is_held() {
            return Err(ClusterError::NotLeader);
        }
        // Fewer pods only if the StatefulSet is the very one that the decision looked at.
        let set = self.existing.stateful_set.as_ref();
        let version = set
            .filter(|_| decision.replicas < current)
            .and_then(|set| set.resource_version());
        apply_all(
            &self.context.client,
            &self.context.applied,
            &objects,
            version.as_deref(),
        )
        .await?;
        if self.valid.spec.storage.when_scaled == ScalePolicy::Delete {
            self.delete_spent(&decision).await?;
        }
        let rack_key = &self.valid.spec.rack.topology_key;
        if let Err(error) =
            super::racks::tell(self.context, &self.key.0, rack_key, &self.existing.pods).await
        {
            tracing::warn!(namespace = %self.key.0, cluster = %self.key.1, %error, "cannot tell the pods their racks; brokers keep the last known ones");
        }
        let revisions: Vec<_> = self
            .existing
            .pods
            .iter()
            .map(|pod| pod.revision.clone())
            .collect();
        findings.outdated = Some(outdated(&revisions, &objects.revision));
        let busy = matches!(decision.draining, Draining::InProgress(_));
        findings.draining = Some(decision.draining);
        publish(cluster, self.context, &findings);
        self.context
            .backoff
            .succeeded(KIND, &self.key.0, &self.key.1);
        Ok(Action::requeue(if busy { BUSY } else { IDLE }))
    }

    fn facts(&self, totals: Option<&Totals>) -> Facts {
        let spec = self
            .existing
            .stateful_set
            .as_ref()
            .and_then(|set| set.spec.as_ref());
        Facts {
            wanted: self.valid.spec.replicas,
            current: spec.map(|spec| spec.replicas.unwrap_or(1)),
            pods: self
                .existing
                .pods
                .iter()
                .map(|pod| pod.revision.ordinal)
                .collect(),
            brokers: totals.map(|totals| totals.brokers.clone()),
            widest: totals.and_then(|totals| totals.widest.clone()),
        }
    }

    /// Looks again, by a quorum read of the head, whether the pod may really go: whoever is controller
    /// now, under whatever epoch, this is what it has committed, and the cordon keeps it so.
    async fn still_lower(&self, decision: &Decision) -> Result<bool, ClusterError> {
        let view = self.context.views.read(self.key).await?;
        let again = scale::decide(&self.facts(Some(&totals(&view.image))));
        let same = again.replicas == decision.replicas;
        tracing::info!(
            namespace = %self.key.0, cluster = %self.key.1, replicas = decision.replicas,
            controller_epoch = %view.image.position.epoch, seq = %view.image.position.seq, confirmed = same,
            "a drained broker is to go"
        );
        Ok(same)
    }

    /// Cordons and forgets brokers as decided. What does not work is told, and does not stop the rest.
    async fn settle_brokers(&self, view: &View, decision: &Decision) -> Vec<String> {
        let mut problems = Vec::new();
        let image = &view.image;
        if let Some(wanted) = &decision.cordon {
            let is: std::collections::BTreeSet<i32> = image
                .brokers
                .values()
                .filter(|b| b.cordoned)
                .map(|b| b.id.0)
                .collect();
            if is != *wanted {
                let brokers = wanted.iter().map(|id| BrokerId(*id)).collect();
                let answer = self.ask(view, AdminRequest::Cordon { brokers }).await;
                problems.extend(failure("cordon the brokers that are to leave", answer));
            }
        }
        for id in &decision.unregister {
            let broker = BrokerId(*id);
            let answer = self
                .ask(view, AdminRequest::UnregisterBroker { broker })
                .await;
            problems.extend(failure(&format!("unregister broker {id}"), answer));
        }
        problems
    }

    async fn ask(&self, view: &View, request: AdminRequest) -> Result<AdminResponse, AdminError> {
        if !self.context.leadership.is_held() {
            return Err(AdminError::NotLeader);
        }
        admin::ask(&view.image, request).await
    }

    async fn delete_spent(&self, decision: &Decision) -> Result<(), ClusterError> {
        for claim in &self.existing.claims {
            let spent = claim
                .ordinal
                .is_some_and(|ordinal| decision.spent.contains(&ordinal));
            if spent && claim.cluster_id.as_deref() == Some(self.cluster_id) {
                teardown::delete_claim(self.context, &self.key.0, &claim.name, &claim.uid).await?;
            }
        }
        Ok(())
    }
}

/// The `Draining` condition with what went wrong just now.
fn told(draining: Draining, problems: &[String]) -> Draining {
    let problems = problems.join("; ");
    match draining {
        draining if problems.is_empty() => draining,
        Draining::InProgress(message) => Draining::InProgress(format!("{message}; {problems}")),
        Draining::Idle | Draining::Refused(_) => Draining::InProgress(problems),
    }
}

/// What went wrong with a request, for people; `None` if nothing.
fn failure(what: &str, answer: Result<AdminResponse, AdminError>) -> Option<String> {
    let refused = |outcome: &Outcome| {
        (!outcome.is_ok()).then(|| {
            format!(
                "cannot {what}: {}",
                outcome.message.as_deref().unwrap_or("refused")
            )
        })
    };
    match answer {
        Ok(AdminResponse::Cordon(outcomes)) => {
            outcomes.iter().find_map(|(_, outcome)| refused(outcome))
        }
        Ok(AdminResponse::UnregisterBroker(outcome)) => refused(&outcome),
        Ok(_) => None,
        Err(error) => Some(format!("cannot {what}: {error}")),
    }
}
