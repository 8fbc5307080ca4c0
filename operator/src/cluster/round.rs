//! The part of a cluster's round that changes the world: brokers, objects, volumes, racks.

use super::apply::apply_all;
use super::balance::{self, Balance};
use super::build::{Inputs, Objects, build};
use super::facts::{Totals, totals};
use super::fetch::Existing;
use super::listeners::find::{Facts as ListenerFacts, Told, find};
use super::listeners::look;
use super::listeners::tell::tell;
use super::maintenance;
use super::reconcile::{BUSY, ClusterError, IDLE, KIND, SOON};
use super::restart::{self, Removed};
use super::roll::{self, Facts as RollFacts, PodFacts, Policy, Roll};
use super::scale::{self, Decision, Draining, Facts};
use super::status::{Findings, ROLLING};
use super::teardown;
use super::tell::publish;
use super::topic_defaults;
use super::validate::ValidCluster;
use super::volumes::{self, Storage};
use crate::admin::{self, AdminError};
use crate::context::Context;
use crate::events::News;
use crate::view::{ClusterKey, View};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::runtime::controller::Action;
use kube::{Resource as _, ResourceExt as _};
use leasehold_crds::{
    Cluster, REBALANCE_ANNOTATION, REVISION_ANNOTATION, ScalePolicy, StorageKind, UnavailablePolicy,
};
use leasehold_metadata::balance::Balancing;
use leasehold_metadata::image::Image;
use leasehold_metadata::rpc::{AdminRequest, AdminResponse, Outcome};
use leasehold_types::BrokerId;
use std::time::Duration;

/// The part of a round that changes the world.
pub(super) struct Round<'a> {
    pub context: &'a Context,
    pub key: &'a ClusterKey,
    pub valid: &'a ValidCluster,
    pub existing: &'a Existing,
    pub cluster_id: &'a str,
    /// Brokers that the user wants empty.
    pub maintenance: maintenance::Wish,
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
        if let Some((view, totals)) = known {
            let problems = self.settle_brokers(view, &decision).await;
            decision.draining = told(decision.draining, &problems);
            findings
                .problems
                .extend(self.settle_topic_defaults(cluster, view).await);
            findings.balance = Some(self.settle_balance(cluster, view).await);
            let (brokers, widest) = (&totals.brokers, totals.widest.as_ref());
            let widest = widest.map_or(0, |(_, replicas)| *replicas);
            findings.maintenance = maintenance::look(&self.maintenance, brokers, widest);
        }
        if restart::pass_on(self.context, cluster, &self.existing.pods).await? {
            return Ok(Action::requeue(Duration::ZERO));
        }
        let interrupts = self.policy().may_interrupt;
        // One that goes would swallow what is applied to it.
        let going = |set: &StatefulSet| set.metadata.deletion_timestamp.is_some();
        if self.existing.stateful_set.as_ref().is_some_and(going) {
            return Ok(Action::requeue(SOON));
        }
        let image = known.map(|(view, _)| &*view.image);
        let (storage, renewed) = self.settle_volumes(&decision, current, image).await?;
        if renewed {
            return Ok(Action::requeue(SOON));
        }
        findings.indisposed = Some(match known {
            Some((_, totals)) => totals.indisposed(interrupts),
            None => Some("the cluster's metadata is not known".to_owned()),
        });
        let may_disrupt = findings.indisposed == Some(None);
        let inputs = Inputs {
            cluster_id: self.cluster_id,
            replicas: decision.replicas,
            may_disrupt,
            claim_size: self.existing.claim_size(),
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
        let image = known.map(|(view, _)| &*view.image);
        let reached = self.settle_listeners(cluster, &objects, decision.replicas, image);
        let tell_again = reached.await.is_some_and(|(told, again)| {
            findings.listeners = Some(told);
            again
        });
        if self.valid.spec.storage.when_scaled == ScalePolicy::Delete {
            self.delete_spent(&decision).await?;
        }
        let rack_key = &self.valid.spec.rack.topology_key;
        if let Err(error) =
            super::racks::tell(self.context, &self.key.0, rack_key, &self.existing.pods).await
        {
            tracing::warn!(namespace = %self.key.0, cluster = %self.key.1, %error, "cannot tell the pods their racks; brokers keep the last known ones");
        }
        let pods: Vec<PodFacts> = self
            .existing
            .pods
            .iter()
            .map(|pod| pod.facts.clone())
            .collect();
        let facts = RollFacts {
            pods: &pods,
            wanted: &objects.revision,
            template_is_current: self.template_is_current(&objects),
            brokers: self.valid.spec.replicas.min(decision.replicas),
            image: known.map(|(view, _)| &*view.image),
            under_way: was_rolling(cluster),
            policy: self.policy(),
        };
        let roll = self.roll(&facts, may_disrupt).await?;
        let rolls = matches!(roll, Roll::Restart(_) | Roll::Waiting(_));
        let is_today = |pod: &&PodFacts| pod.revision.as_ref() == Some(&objects.revision);
        findings.updated = i32::try_from(pods.iter().filter(is_today).count()).unwrap_or(i32::MAX);
        let names = |behind: Vec<&PodFacts>| behind.iter().map(|pod| pod.name.clone()).collect();
        findings.roll = Some((roll, names(facts.behind())));
        let troubled = pods.iter().filter_map(|pod| {
            let trouble = pod.trouble.clone()?;
            Some((pod.name.clone(), trouble))
        });
        findings.troubles = troubled.collect();
        let moves = matches!(
            findings.balance,
            Some(Balance::Moving(_) | Balance::Settling(_))
        );
        let grows = matches!(storage, Storage::Growing(_) | Storage::Replacing(_));
        findings.storage = Some(storage);
        let busy = rolls
            || moves
            || grows
            || tell_again
            || matches!(decision.draining, Draining::InProgress(_));
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
        // Pods that outlive their StatefulSet, as when it is made anew, are left alone too.
        let pods = self.existing.pods.iter().map(|pod| pod.facts.ordinal + 1);
        Facts {
            wanted: self.valid.spec.replicas,
            current: spec.map_or(pods.max(), |spec| Some(spec.replicas.unwrap_or(1))),
            pods: self
                .existing
                .pods
                .iter()
                .map(|pod| pod.facts.ordinal)
                .collect(),
            brokers: totals.map(|totals| totals.brokers.clone()),
            maintenance: self.maintenance.brokers.clone(),
            widest: totals.and_then(|totals| totals.widest.clone()),
        }
    }

    /// Lets volumes grow, and gives up lost ones where the user wants that. `true`: the StatefulSet is to be made anew.
    async fn settle_volumes(
        &self,
        decision: &Decision,
        current: i32,
        image: Option<&Image>,
    ) -> Result<(Storage, bool), ClusterError> {
        let (spec, pods) = (&self.valid.spec, &self.existing.pods);
        let storage = &spec.storage;
        let persistent = storage.kind == StorageKind::Persistent;
        let steady = decision.replicas == current
            && decision.replicas == spec.replicas
            && pods.iter().all(|pod| pod.facts.ordinal < current);
        let facts = volumes::Facts {
            namespace: &self.key.0,
            cluster: &self.key.1,
            claims: &self.existing.claims,
            brokers: spec.replicas,
            wanted: storage.size.as_deref().filter(|_| persistent),
            template: self.existing.claim_size(),
            on_loss: storage.on_loss,
            image,
            steady,
        };
        let set = self.existing.stateful_set.as_ref();
        Ok(volumes::settle(self.context, &facts, set).await?)
    }

    fn policy(&self) -> Policy {
        let rolling = &self.valid.spec.rolling;
        Policy {
            settle: Duration::from_secs(u64::try_from(rolling.settle_seconds).unwrap_or(0)),
            may_interrupt: rolling.when_unavailable == UnavailablePolicy::Proceed,
            unit: rolling.unit,
        }
    }

    /// Whether the StatefulSet, as it was before this round, is of today, and its controller knows.
    fn template_is_current(&self, objects: &Objects) -> bool {
        let Some(set) = &self.existing.stateful_set else {
            return false;
        };
        let template = set.spec.as_ref().map(|spec| &spec.template);
        let revision = template
            .and_then(|template| template.metadata.as_ref()?.annotations.as_ref())
            .and_then(|annotations| annotations.get(REVISION_ANNOTATION));
        let observed = set.status.as_ref().and_then(|s| s.observed_generation);
        revision == Some(&objects.revision) && observed >= set.metadata.generation
    }

    /// Restarts at most one broker. What the watches say is only a hint: before a pod goes, the decision is
    /// taken again on a quorum read of the head, which is newer than the list of pods that it goes with. A pod
    /// that was ready there has its registration in that head, with all that followed from it.
    async fn roll(
        &self,
        facts: &RollFacts<'_>,
        budget_is_open: bool,
    ) -> Result<Roll, ClusterError> {
        let roll = roll::decide(facts);
        if !matches!(roll, Roll::Restart(_)) {
            return Ok(roll);
        }
        let view = self.context.views.read(self.key).await?;
        let again = RollFacts {
            image: Some(&view.image),
            ..*facts
        };
        let roll = roll::decide(&again);
        let Roll::Restart(restart) = &roll else {
            return Ok(roll);
        };
        if view.image.cluster_id.0 != self.cluster_id || !self.context.leadership.is_held() {
            return Err(ClusterError::NotLeader);
        }
        // The budget is spent on those of its rack that are away; it keeps others from taking away one more.
        let evicts = budget_is_open && !restart.joins;
        let removed = restart::remove(self.context, self.key, restart, evicts).await?;
        tracing::info!(
            namespace = %self.key.0, cluster = %self.key.1, pod = restart.pod, cause = restart.cause,
            left = restart.left, seq = %view.image.position.seq, ?removed, "a broker restarts"
        );
        Ok(match removed {
            Removed::Going => roll,
            Removed::Another => Roll::Waiting(format!("a look at {} anew", restart.pod)),
            Removed::NotYet => Roll::Waiting(format!(
                "the disruption budget to allow the eviction of {}",
                restart.pod
            )),
        })
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
                problems.extend(failure("cordon the brokers that are to be empty", answer));
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

    /// Tells the controller, and people, of defaults of topics that have changed since brokers started.
    async fn settle_topic_defaults(&self, cluster: &Cluster, view: &View) -> Option<String> {
        let configs = topic_defaults::untold(&view.image, &self.valid.broker_config)?;
        // As with `spec.balancing`.
        if view.image.brokers.values().all(|broker| broker.fenced) {
            return None;
        }
        let shown: Vec<String> = configs.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let answer = self
            .ask(view, AdminRequest::SetTopicDefaults { configs })
            .await;
        let problem = failure("tell the controller of spec.config", answer);
        if problem.is_none() {
            let note = match shown.is_empty() {
                true => "topics have Kafka's defaults, without a restart".to_owned(),
                false => format!(
                    "defaults of topics, without a restart: {}",
                    shown.join(", ")
                ),
            };
            self.context.events.tell(
                cluster.object_ref(&()),
                News {
                    warning: false,
                    reason: "Configured",
                    action: "Configure",
                    note,
                },
            );
        }
        problem
    }

    /// Tells the controller how the user wants brokers to be kept even, and looks how it goes.
    async fn settle_balance(&self, cluster: &Cluster, view: &View) -> Balance {
        let spec = &self.valid.spec.balancing;
        let asked = cluster.annotations().contains_key(REBALANCE_ANNOTATION);
        let balancing = Balancing {
            due: asked,
            ..balance::wanted(spec)
        };
        // Asleep, nobody could be told; it is done when somebody wakes.
        let awake = view.image.brokers.values().any(|broker| !broker.fenced);
        if awake && (asked || balance::differs(&view.image, &balancing)) {
            let answer = self
                .ask(view, AdminRequest::SetBalancing { balancing })
                .await;
            let told = failure("tell the controller of spec.balancing", answer);
            let problem = match (told, asked) {
                (None, true) => restart::take_off(self.context, cluster, REBALANCE_ANNOTATION)
                    .await
                    .err()
                    .map(|error| error.to_string()),
                (told, _) => told,
            };
            if let Some(problem) = problem {
                return Balance::Unknown(problem);
            }
        }
        balance::look(&view.image, spec)
    }

    /// Finds how clients reach the brokers, and tells the controller. `None`: nobody asks for a listener, and
    /// nobody did; the status keeps count of what may be left of one until that is taken away. What does not work
    /// is told, and does not stop the rest.
    async fn settle_listeners(
        &self,
        cluster: &Cluster,
        objects: &Objects,
        brokers: i32,
        image: Option<&Image>,
    ) -> Option<(Told, bool)> {
        let listeners = &self.valid.listeners;
        let before = cluster.status.iter().flat_map(|status| &status.listeners);
        let before: Vec<_> = before.cloned().collect();
        if !listeners.asked && before.is_empty() {
            return None;
        }
        let facts = match self.look_at_listeners(objects).await {
            Ok(facts) => facts,
            Err(error) => {
                tracing::warn!(namespace = %self.key.0, cluster = %self.key.1, %error, "cannot find how clients reach the brokers; what they were told stands");
                let told = Told {
                    listeners: before,
                    waiting: Some(format!("the API server: {error}")),
                };
                return Some((told, true));
            }
        };
        if !listeners.asked {
            return Some((Told::default(), false));
        }
        let found = find(&self.key.1, listeners, brokers, &facts);
        Some(tell(self.context, self.valid, brokers, &facts, &found, image).await)
    }

    async fn look_at_listeners(&self, objects: &Objects) -> Result<ListenerFacts, kube::Error> {
        let mut facts = look::look(self.context, self.valid, &self.existing.pods).await?;
        let services = objects.listeners.iter();
        let wanted = services.map(|service| service.name_any()).collect();
        look::remove_others(self.context, &self.key.0, &mut facts, &wanted).await?;
        Ok(facts)
    }

    async fn ask(&self, view: &View, request: AdminRequest) -> Result<AdminResponse, AdminError> {
        if !self.context.leadership.is_held() {
            return Err(AdminError::NotLeader);
        }
        admin::ask(&view.image, request).await
    }

    async fn delete_spent(&self, decision: &Decision) -> Result<(), ClusterError> {
        for claim in &self.existing.claims {
            let spent = decision.spent.contains(&claim.ordinal);
            if spent && claim.cluster_id.as_deref() == Some(self.cluster_id) {
                teardown::delete_claim(self.context, &self.key.0, &claim.name, &claim.uid).await?;
            }
        }
        Ok(())
    }
}

/// Whether the status tells of a roll that has not ended.
pub(super) fn was_rolling(cluster: &Cluster) -> bool {
    let conditions = cluster.status.iter().flat_map(|status| &status.conditions);
    conditions
        .into_iter()
        .any(|condition| condition.type_ == ROLLING && condition.status == "True")
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
        Ok(
            AdminResponse::UnregisterBroker(outcome)
            | AdminResponse::SetBalancing(outcome)
            | AdminResponse::SetTopicDefaults(outcome),
        ) => refused(&outcome),
        Ok(_) => None,
        Err(error) => Some(format!("cannot {what}: {error}")),
    }
}
