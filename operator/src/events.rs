//! Kubernetes Events, no more than people can read and the API server should bear.
//!
//! Events are news, not state: one that does not fit the rate is dropped and counted, and what it
//! would have told is in `status` anyway.

use crate::metrics::Metrics;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Events per second in the long run.
const RATE: f64 = 5.0;
/// Events at once after a quiet time; also the length of the queue.
const BURST: f64 = 50.0;

/// One piece of news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    pub warning: bool,
    pub reason: &'static str,
    pub action: &'static str,
    pub note: String,
}

/// Where events go in; clones share the rate.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<(ObjectReference, News)>,
    metrics: Metrics,
}

/// The task behind [`Events`].
pub struct Publisher {
    queue: mpsc::Receiver<(ObjectReference, News)>,
    metrics: Metrics,
    instance: String,
}

/// Both ends.
pub fn channel(instance: &str, metrics: Metrics) -> (Events, Publisher) {
    let (sender, receiver) = mpsc::channel(BURST as usize);
    let events = Events {
        queue: sender,
        metrics: metrics.clone(),
    };
    let publisher = Publisher {
        queue: receiver,
        metrics,
        instance: instance.to_owned(),
    };
    (events, publisher)
}

impl Events {
    /// Tells the world about `about`; never waits.
    pub fn tell(&self, about: ObjectReference, news: News) {
        if self.queue.try_send((about, news)).is_err() {
            self.metrics.event("dropped");
        }
    }
}

impl Publisher {
    /// Publishes until every [`Events`] is gone.
    pub async fn run(mut self, client: kube::Client) {
        let mut left = BURST;
        let mut at = Instant::now();
        while let Some((about, news)) = self.queue.recv().await {
            let now = Instant::now();
            left = (left + now.duration_since(at).as_secs_f64() * RATE).min(BURST);
            at = now;
            if left < 1.0 {
                self.metrics.event("dropped");
                continue;
            }
            left -= 1.0;
            let api: Api<Event> = Api::namespaced(
                client.clone(),
                about.namespace.as_deref().unwrap_or("default"),
            );
            match api
                .create(&PostParams::default(), &self.object(about, news))
                .await
            {
                Ok(_) => self.metrics.event("published"),
                // A namespace that is being deleted takes no news any more.
                Err(kube::Error::Api(status)) if status.message.contains("being terminated") => {
                    self.metrics.event("failed");
                    tracing::debug!(why = %status.message, "an Event is not wanted");
                }
                Err(error) => {
                    self.metrics.event("failed");
                    tracing::warn!(%error, "cannot publish an Event");
                }
            }
        }
    }

    fn object(&self, about: ObjectReference, news: News) -> Event {
        let now = Timestamp::now();
        let name = about.name.as_deref().unwrap_or("leasehold");
        Event {
            metadata: ObjectMeta {
                name: Some(format!(
                    "{name}.{:x}.{:04x}",
                    now.as_nanosecond(),
                    rand::random::<u16>()
                )),
                namespace: about.namespace.clone(),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            reporting_controller: Some(format!("{}/operator", leasehold_crds::GROUP)),
            reporting_instance: Some(self.instance.clone()),
            action: Some(news.action.to_owned()),
            reason: Some(news.reason.to_owned()),
            note: Some(news.note.chars().take(1000).collect()),
            type_: Some(if news.warning { "Warning" } else { "Normal" }.to_owned()),
            regarding: Some(about),
            ..Event::default()
        }
    }
}
