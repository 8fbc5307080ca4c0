//! Wires the operator together: probes, the Lease, then watches and rounds while it is held.
//!
//! Promises: only the holder of the Lease runs rounds; when the Lease is lost, or the task that holds
//! it ends for whatever reason, the process exits at once, so that nothing half-stopped acts on; a
//! clean stop ends the rounds first and releases the Lease last.

use crate::cli::RunArgs;
use crate::cluster::apply::Applied;
use crate::cluster::listeners::look::Nodes;
use crate::cluster::names::MANAGER;
use crate::cluster::validate::{Defaults, OperatorPods};
use crate::context::{Backoff, Context, Gate, Told};
use crate::events::{self};
use crate::hints::{Hints, follow_clusters};
use crate::http::{self, Health};
use crate::leader::{Elector, Leadership};
use crate::metrics::Metrics;
use crate::pace::paced;
use crate::status_queue::StatusQueue;
use crate::view::{self, Views};
use crate::{cluster, topic};
use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use futures::channel::mpsc::{UnboundedReceiver, unbounded};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{
    Controller, Predicate as _, PredicateConfig, WatchStreamExt as _, controller, predicates,
    watcher,
};
use kube::{Client, Config, Resource, ResourceExt as _};
use leasehold_crds::{CLUSTER_LABEL, Cluster, Topic};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often a Cluster's round follows a change of its metadata or its status. While a broker is drained the metadata
/// changes 20 times a second, and each round costs the API server a dozen requests. What is done to the Cluster's
/// specification and to its objects is followed at once all the same.
const HINTS_PACE: Duration = Duration::from_millis(500);

type Clusters = DeserializeGuard<Cluster>;
type Topics = DeserializeGuard<Topic>;

/// Runs until SIGTERM, SIGINT, or the loss of the Lease.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    let mut config = Config::infer()
        .await
        .context("cannot find the Kubernetes API: neither in-cluster nor a kubeconfig")?;
    // Retries are decided here, per object, with a back-off; a blind one could repeat a late write.
    config.default_retry = false;
    let client = Client::try_from(config.clone())?;
    let mut quick = config.clone();
    quick.connect_timeout = Some(Duration::from_secs(1));
    quick.read_timeout = Some(Duration::from_secs(2));
    let quick = Client::try_from(quick)?;
    let identity = args
        .identity
        .clone()
        .unwrap_or_else(|| format!("operator-{:08x}", rand::random::<u32>()));
    if args.pod_selector.is_none() {
        tracing::info!("without --pod-selector no NetworkPolicies are made");
    }
    let metrics = Metrics::default();
    let health = Health::default();
    let leadership = Leadership::default();
    let mut stop = stop_signal()?;
    let mut probes = tokio::spawn(http::serve(
        args.http_listen,
        health.clone(),
        metrics.clone(),
    ));
    let mut elector = Elector::new(
        quick,
        &args.own_namespace,
        &args.lease,
        &identity,
        leadership.clone(),
    );

    tracing::info!(%identity, lease = %args.lease, namespace = args.namespace.as_deref().unwrap_or("(all)"), "standing by");
    let lease = tokio::select! {
        lease = elector.acquire(|reached| health.set_ready(reached)) => lease,
        _ = stop.changed() => return Ok(()),
        ended = &mut probes => bail!("{}", why_ended(ended)),
    };
    tracing::info!(%identity, "this replica acts");
    metrics.acting(true);
    let rounds = tokio::spawn(act(
        args,
        client,
        config,
        identity,
        metrics,
        leadership,
        stop.clone(),
    ));
    let outcome = tokio::select! {
        why = elector.hold(lease) => Err(anyhow::anyhow!("the operator's Lease is lost: {why}")),
        ended = rounds => match ended {
            Ok(result) => result,
            Err(panic) => Err(anyhow::anyhow!("the rounds ended: {panic}")),
        },
        ended = probes => Err(anyhow::anyhow!("{}", why_ended(ended))),
    };
    match outcome {
        Ok(()) => {
            elector.release().await;
            tracing::info!("stopped; the Lease is released");
            Ok(())
        }
        Err(error) => {
            tracing::error!(%error, "exiting at once");
            // No destructor, no grace: what runs in other tasks must not act any more.
            std::process::exit(1)
        }
    }
}

fn why_ended(probes: Result<anyhow::Result<()>, tokio::task::JoinError>) -> String {
    match probes {
        Ok(Ok(())) => "the server of the probes ended".to_owned(),
        Ok(Err(error)) => format!("{error:#}"),
        Err(error) => format!("the server of the probes ended: {error}"),
    }
}

fn stop_signal() -> anyhow::Result<watch::Receiver<bool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        sender.send_replace(true);
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        // A second signal: the user does not want to wait.
        std::process::exit(1);
    });
    Ok(receiver)
}

/// The rounds, until `stop`.
async fn act(
    args: RunArgs,
    client: Client,
    config: Config,
    identity: String,
    metrics: Metrics,
    leadership: Leadership,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let scope = args.namespace.as_deref();
    let cluster_api = Context::scoped::<Clusters>(&client, scope);
    let topic_api = Context::scoped::<Topics>(&client, scope);
    // Kube's debounce waits for silence, so it must be shorter than any steady stream's pace.
    let pace = |concurrency| {
        controller::Config::default()
            .debounce(Duration::from_millis(50))
            .concurrency(concurrency)
    };
    let clusters = wishes_of_clusters(cluster_api.clone()).with_config(pace(8));
    let (finder_wakes, finder_woken) = unbounded();
    let wakes = finder_wakes.clone();
    let topics_known = Gate::default();
    let all_known = topics_known.clone();
    let topics = lean_controller(topic_api, move |event| match event {
        watcher::Event::InitDone => all_known.open(),
        watcher::Event::Delete(gone) => {
            if let (Some(namespace), Ok(topic)) = (gone.namespace(), &gone.0) {
                let _ended = wakes.unbounded_send((namespace, topic.spec.cluster.clone()));
            }
        }
        _ => {}
    });
    let topics = topics.with_config(pace(64));

    let (known_clusters, writer) = reflector::store();
    let (events, publisher) = events::channel(&identity, metrics.clone());
    let statuses = StatusQueue::new(metrics.clone());
    let views = Arc::new(Views::new(config));
    let context = Arc::new(Context {
        client: client.clone(),
        namespace: args.namespace.clone(),
        defaults: Defaults {
            image: args.broker_image.clone(),
            image_pull_policy: args
                .broker_image_pull_policy
                .clone()
                .filter(|policy| !policy.is_empty()),
            operator: args.pod_selector.clone().map(|labels| OperatorPods {
                namespace: args.own_namespace.clone(),
                labels,
            }),
        },
        leadership: leadership.clone(),
        views: views.clone(),
        applied: Arc::default(),
        statuses: statuses.clone(),
        events: events.clone(),
        metrics: metrics.clone(),
        clusters: known_clusters,
        topics: topics.store(),
        clusters_known: Gate::default(),
        topics_known,
        backoff: Backoff::default(),
        told: Told::default(),
        nodes: Nodes::default(),
    });
    tokio::spawn(publisher.run(client.clone()));
    tokio::spawn(statuses.run(client.clone(), leadership));

    let (cluster_hints, cluster_hinted) = unbounded();
    let (topic_hints, topic_hinted) = unbounded();
    let hints = Hints {
        context: context.clone(),
        clusters: cluster_hints,
        topics: topic_hints,
        finder: finder_wakes,
    };
    let clusters_followed = follow_clusters(cluster_api, writer, hints.clone());
    let finding = topic::found::finder::run(context.clone(), finder_woken);
    let following = view::follow(
        Context::scoped::<ConfigMap>(&client, scope),
        views,
        move |update| hints.give(&update),
    );

    let clusters = children(clusters, &context, &client, scope);
    let rounds_of_clusters = run_clusters(clusters, cluster_hinted, context.clone(), stop.clone());
    let rounds_of_topics = run_topics(topics, topic_hinted, context, stop);
    tokio::select! {
        _ = following => bail!("the watch of the clusters' metadata ended"),
        _ = clusters_followed => bail!("the watch of Clusters ended"),
        _ = finding => bail!("the watch of Topics ended"),
        _ = async { tokio::join!(rounds_of_clusters, rounds_of_topics) } => Ok(()),
    }
}

/// A controller whose rounds follow at once what people change of a Cluster. A status that changes, mostly by
/// the last round, comes by [`Hints`] and at their pace: the two would chase each other.
fn wishes_of_clusters(api: kube::Api<Clusters>) -> Controller<Clusters> {
    let (store, writer) = reflector::store();
    let wished = predicates::generation
        .combine(predicates::labels)
        .combine(predicates::annotations)
        .combine(predicates::finalizers);
    let changes = watcher(api, watcher::Config::default())
        .reflect(writer)
        .applied_objects()
        .predicate_filter(wished, PredicateConfig::default());
    Controller::for_stream(changes, store)
}

/// A controller whose store keeps of each object only what rounds read. `Controller::new` would keep
/// the field managers' books as well, several times the size of a Topic itself. `hear` is told of what the store has just taken in.
fn lean_controller<K>(
    api: kube::Api<K>,
    hear: impl Fn(&watcher::Event<K>) + Send + Sync + 'static,
) -> Controller<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let changes = watcher(api, watcher::Config::default())
        .modify(without_history)
        .reflect(writer)
        .inspect(move |event| {
            if let Ok(event) = event {
                hear(event);
            }
        })
        .applied_objects();
    Controller::for_stream(changes, store)
}

pub(crate) fn without_history<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// Watches everything that a cluster consists of, so that what was changed or deleted is put right.
fn children(
    controller: Controller<Clusters>,
    context: &Arc<Context>,
    client: &Client,
    scope: Option<&str>,
) -> Controller<Clusters> {
    let applied = &context.applied;
    let controller = child::<StatefulSet>(controller, applied, client, scope);
    let controller = child::<Service>(controller, applied, client, scope);
    let controller = child::<ServiceAccount>(controller, applied, client, scope);
    let controller = child::<Role>(controller, applied, client, scope);
    let controller = child::<RoleBinding>(controller, applied, client, scope);
    let controller = child::<PodDisruptionBudget>(controller, applied, client, scope);
    let controller = child::<NetworkPolicy>(controller, applied, client, scope);
    let controller = child::<ConfigMap>(controller, applied, client, scope);
    let controller = child::<PersistentVolumeClaim>(controller, applied, client, scope);
    child::<Pod>(controller, applied, client, scope)
}

fn child<K>(
    controller: Controller<Clusters>,
    applied: &Arc<Applied>,
    client: &Client,
    scope: Option<&str>,
) -> Controller<Clusters>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    K: k8s_openapi::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    // Heads and chunks carry another label: they change with every write of the metadata.
    let labels = if <K as k8s_openapi::Resource>::KIND == "Pod" {
        format!("{CLUSTER_LABEL},app.kubernetes.io/component=broker")
    } else {
        format!("{CLUSTER_LABEL},app.kubernetes.io/managed-by={MANAGER}")
    };
    let config = watcher::Config::default().labels(&labels);
    let applied = applied.clone();
    controller.watches(Context::scoped::<K>(client, scope), config, move |object| {
        let namespace = object.namespace()?;
        applied.touched(
            <K as k8s_openapi::Resource>::KIND,
            &namespace,
            &object.name_any(),
        );
        let cluster = object.labels().get(CLUSTER_LABEL)?;
        Some(ObjectRef::<Clusters>::new(cluster).within(&namespace))
    })
}

async fn run_clusters(
    controller: Controller<Clusters>,
    hinted: UnboundedReceiver<ObjectRef<Clusters>>,
    context: Arc<Context>,
    mut stop: watch::Receiver<bool>,
) {
    controller
        .reconcile_on(paced(hinted, HINTS_PACE))
        .graceful_shutdown_on(async move { drop(stop.wait_for(|stop| *stop).await) })
        .run(
            cluster::reconcile::reconcile,
            cluster::reconcile::on_error,
            context,
        )
        .for_each(|_| async {})
        .await;
}

async fn run_topics(
    controller: Controller<Topics>,
    hinted: UnboundedReceiver<ObjectRef<Topics>>,
    context: Arc<Context>,
    mut stop: watch::Receiver<bool>,
) {
    controller
        .reconcile_on(hinted)
        .graceful_shutdown_on(async move { drop(stop.wait_for(|stop| *stop).await) })
        .run(
            topic::reconcile::reconcile,
            topic::reconcile::on_error,
            context,
        )
        .for_each(|_| async {})
        .await;
}
