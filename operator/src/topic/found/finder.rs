//! Makes the objects of topics that clients made.
//!
//! Promises: only the holder of the operator's Lease makes any; nothing polls: a look follows a change of a cluster's
//! topics, the going of an object, or the end of a topic's wait; an object that others made under the name stays
//! as it is. Its rounds are those of any Topic; they take it away again (`make_way`).

use super::{Waiting, lone, object_name};
use crate::context::Context;
use crate::events::News;
use crate::view::ClusterKey;
use futures::channel::mpsc::UnboundedReceiver;
use futures::{FutureExt as _, StreamExt as _};
use kube::api::PostParams;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource as _, ResourceExt as _};
use leasehold_crds::{ClientTopics, Cluster, PAUSED_ANNOTATION, Topic};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How soon a cluster is looked at again when nothing happens: what a watch missed is made up for.
const IDLE: Duration = Duration::from_secs(600);

/// What is known of one cluster.
struct Followed {
    waiting: Waiting,
    /// When to look next.
    due: Instant,
}

/// Looks at the clusters that `wakes` names. Ends with it.
pub async fn run(context: Arc<Context>, mut wakes: UnboundedReceiver<ClusterKey>) {
    // Before all objects are known every topic seems to lack one.
    context.topics_known.opened().await;
    let mut followed: HashMap<ClusterKey, Followed> = HashMap::new();
    loop {
        let next = followed.values().map(|followed| followed.due).min();
        let next = next.unwrap_or_else(|| Instant::now() + IDLE);
        tokio::select! {
            wake = wakes.next() => {
                let Some(first) = wake else { return };
                let mut keys = vec![first];
                while let Some(Some(key)) = wakes.next().now_or_never() {
                    keys.push(key);
                }
                let due = Instant::now();
                for key in keys {
                    let known = followed.entry(key).or_insert(Followed { waiting: Waiting::default(), due });
                    known.due = due;
                }
            }
            () = tokio::time::sleep_until(next.into()) => {}
        }
        let now = Instant::now();
        for (key, followed) in followed.iter_mut().filter(|(_, f)| f.due <= now) {
            followed.due = look(&context, key, &mut followed.waiting).await;
        }
        followed.retain(|key, _| context.views.get(key).is_some());
    }
}

/// Makes what is due; returns when to look again.
async fn look(context: &Context, key: &ClusterKey, waiting: &mut Waiting) -> Instant {
    let idle = Instant::now() + IDLE;
    let guarded = context.cluster(&key.0, &key.1);
    let cluster = guarded.as_ref().and_then(|guarded| guarded.0.as_ref().ok());
    let Some(view) = context.views.get(key) else {
        return idle;
    };
    let Some(cluster) = cluster.filter(|cluster| is_wanted(cluster)) else {
        return idle;
    };
    let id = cluster.status.as_ref().and_then(|s| s.cluster_id.as_ref());
    if id.is_none_or(|id| *id != view.image.cluster_id.0) {
        // It is about to adopt this metadata, or it is held: its status brings no look by itself.
        return Instant::now() + super::GRACE;
    }
    let all = context.topics.state();
    let readable = all.iter().filter_map(|topic| topic.0.as_ref().ok());
    let of_cluster = readable.filter(|topic| {
        topic.spec.cluster == key.1 && topic.metadata.namespace.as_ref() == Some(&key.0)
    });
    let lone = lone(&view.image, of_cluster);
    let (due, next) = waiting.due(&lone, Instant::now());
    let mut next = next.unwrap_or(idle);
    for (id, topic) in due {
        if !context.leadership.is_held() {
            return idle;
        }
        let is_taken = |name: &str| {
            let reference = ObjectRef::new(name).within(&key.0);
            context.topics.get(&reference).is_some()
        };
        let name = object_name(&key.1, topic, is_taken);
        let object = Topic::found(&name, &key.1, topic);
        let made = context.api::<Topic>(&key.0);
        let made = made.create(&PostParams::default(), &object).await;
        waiting.tried(id, Instant::now());
        let wait = match made {
            Ok(object) => {
                tell(context, &object, topic);
                context.backoff.succeeded("FoundTopic", &key.0, &name);
                continue;
            }
            Err(error) => {
                let wait = context.backoff.failed("FoundTopic", &key.0, &name);
                tracing::warn!(namespace = %key.0, cluster = %key.1, %topic, object = %name, %error, ?wait, "cannot make the object of a topic that a client made");
                wait
            }
        };
        next = next.min(Instant::now() + wait.max(super::GRACE));
    }
    next
}

/// Whether topics of clients are to have objects.
fn is_wanted(cluster: &Cluster) -> bool {
    let paused = cluster.annotations().get(PAUSED_ANNOTATION);
    cluster.spec.client_topics == ClientTopics::Show
        && cluster.metadata.deletion_timestamp.is_none()
        && paused.is_none_or(|value| value != "true")
}

fn tell(context: &Context, object: &Topic, topic: &str) {
    tracing::info!(namespace = ?object.namespace(), object = %object.name_any(), %topic, "a client made a topic; it has an object now");
    let news = News {
        warning: false,
        reason: "Found",
        action: "Show",
        note: format!(
            "topic {topic} was made by a client: this object shows it, and wishes for nothing until its spec is edited"
        ),
    };
    context.events.tell(object.object_ref(&()), news);
}
