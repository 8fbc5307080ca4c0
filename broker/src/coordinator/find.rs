//! FindCoordinator: who leads the partition of an id, and the creation of the internal topic by the
//! first who asks.

use super::hash::partition_of;
use crate::session::ControllerClient;
use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::poll;
use leasehold_metadata::image::Image;
use leasehold_metadata::rpc::{AdminRequest, AdminResponse, NewTopic, Request, Response};
use leasehold_types::{BrokerId, TopicId, seams};
use leasehold_wire::ErrorCode;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long the first to ask may wait for the topic to be there. Clients ask again after a refusal,
/// but some only after a while.
const CREATION_WAIT: Duration = Duration::from_secs(1);
/// How long the controller may take to create a topic.
const CREATION: Duration = Duration::from_secs(10);

/// A broker that clients can reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub broker: BrokerId,
    pub host: String,
    pub port: i32,
}

/// FindCoordinator's answer for one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundCoordinator {
    pub key: String,
    pub error: ErrorCode,
    pub error_message: Option<String>,
    /// -1 with an error.
    pub broker: BrokerId,
    pub host: String,
    pub port: i32,
}

impl FoundCoordinator {
    /// There is none.
    pub fn refused(key: &str, error: ErrorCode, message: String) -> Self {
        Self {
            key: key.to_owned(),
            error,
            error_message: Some(message),
            broker: BrokerId(-1),
            host: String::new(),
            port: -1,
        }
    }
}

/// The internal topic of a coordinator, as this broker knows the cluster now.
#[async_trait]
pub trait StateTopic: Send + Sync + 'static {
    /// How many partitions it has; `None` while it does not exist.
    fn partitions(&self) -> Option<i32>;

    /// The leader of a partition, if there is one that serves.
    fn leader(&self, partition: i32) -> Option<Endpoint>;

    /// Creates it. Succeeds if it exists already.
    async fn create(&self) -> Result<(), ErrorCode>;

    /// Resolves when the metadata changes after the first poll, at the latest after `timeout`.
    async fn changed(&self, timeout: Duration);
}

/// Finds the coordinators whose state is in one topic.
pub struct Finder {
    topic: Arc<dyn StateTopic>,
    /// Held while somebody creates the topic.
    creating: Arc<Mutex<bool>>,
}

impl Finder {
    /// A finder by `topic`.
    pub fn new(topic: Arc<dyn StateTopic>) -> Self {
        Self {
            topic,
            creating: Arc::default(),
        }
    }

    /// The coordinator of `key`.
    pub async fn find(&self, key: &str) -> FoundCoordinator {
        if let Some(found) = self.known(key) {
            return found;
        }
        // Only a missing topic is waited for; a partition without a leader may stay so for long.
        if self.topic.partitions().is_none() {
            self.create_in_background();
            let until = tokio::time::Instant::now() + CREATION_WAIT;
            loop {
                let left = until.saturating_duration_since(tokio::time::Instant::now());
                if left.is_zero() {
                    break;
                }
                let mut changed = self.topic.changed(left);
                // It listens from its first poll on; looking after that misses no change.
                let already = poll!(&mut changed).is_ready();
                if let Some(found) = self.known(key) {
                    return found;
                }
                if !already {
                    changed.await;
                }
            }
        }
        let message =
            "the coordinator's topic has no leader for this key yet; ask again".to_owned();
        FoundCoordinator::refused(key, ErrorCode::CoordinatorNotAvailable, message)
    }

    fn known(&self, key: &str) -> Option<FoundCoordinator> {
        let partitions = self.topic.partitions()?;
        let leader = self.topic.leader(partition_of(key, partitions))?;
        Some(FoundCoordinator {
            key: key.to_owned(),
            error: ErrorCode::None,
            error_message: None,
            broker: leader.broker,
            host: leader.host,
            port: leader.port,
        })
    }

    /// One creation at a time, however many ask; it goes on if those who asked hang up.
    fn create_in_background(&self) {
        if std::mem::replace(&mut *self.creating.lock(), true) {
            return;
        }
        let (topic, creating) = (self.topic.clone(), self.creating.clone());
        tokio::spawn(async move {
            if let Err(error) = topic.create().await {
                tracing::warn!(
                    %error,
                    "cannot create a coordinator's topic; the next FindCoordinator tries again"
                );
            }
            *creating.lock() = false;
        });
    }
}

/// Asks the controller, and gives its answer by the deadline.
pub type AskController =
    Arc<dyn Fn(Request, Instant) -> BoxFuture<'static, Response> + Send + Sync>;

/// The way to the controller that a running broker has.
pub fn through(controller: &ControllerClient) -> AskController {
    let controller = controller.clone();
    Arc::new(move |request, deadline| {
        let controller = controller.clone();
        Box::pin(async move { controller.call(request, deadline).await })
    })
}

/// An internal topic, as the metadata image has it.
pub struct ImageTopic {
    name: &'static str,
    image: watch::Receiver<Arc<Image>>,
    controller: AskController,
    /// Of the topic, if this broker creates it: a repeat with the same id does no harm.
    id: TopicId,
}

impl ImageTopic {
    /// The internal topic of that name.
    pub fn new(
        name: &'static str,
        image: watch::Receiver<Arc<Image>>,
        controller: AskController,
    ) -> Self {
        Self {
            name,
            image,
            controller,
            id: TopicId::random(),
        }
    }
}

#[async_trait]
impl StateTopic for ImageTopic {
    fn partitions(&self) -> Option<i32> {
        let image = self.image.borrow().clone();
        let topic = image.topic_by_name(self.name)?;
        i32::try_from(topic.partitions.len()).ok()
    }

    fn leader(&self, partition: i32) -> Option<Endpoint> {
        let image = self.image.borrow().clone();
        let topic = image.topic_by_name(self.name)?;
        let leader = image.broker(topic.partition(partition)?.leader?)?;
        Some(Endpoint {
            broker: leader.id,
            host: leader.client.host.clone(),
            port: leader.client.port.into(),
        })
    }

    async fn create(&self) -> Result<(), ErrorCode> {
        let topic = NewTopic {
            id: self.id,
            // Partitions, replicas and configuration are the controller's, for these topics.
            ..NewTopic::with_defaults(self.name)
        };
        let request = AdminRequest::CreateTopics {
            topics: vec![topic],
            validate_only: false,
        };
        let timeout_ms = CREATION.as_millis() as u64;
        let request = Request::Admin {
            request,
            timeout_ms,
        };
        let deadline = seams::now() + CREATION;
        let outcome = match (self.controller)(request, deadline).await {
            Response::Admin(AdminResponse::CreateTopics(created)) => {
                created.into_iter().next().map(|created| created.outcome)
            }
            Response::Error(outcome) => Some(outcome),
            _ => None,
        };
        match outcome {
            Some(outcome) if outcome.is_ok() => Ok(()),
            Some(outcome) if outcome.code == ErrorCode::TopicAlreadyExists.code() => Ok(()),
            Some(outcome) => {
                tracing::warn!(
                    topic = self.name,
                    message = outcome.message,
                    "an internal topic was refused"
                );
                Err(ErrorCode::from_code(outcome.code))
            }
            None => Err(ErrorCode::NotController),
        }
    }

    async fn changed(&self, timeout: Duration) {
        let mut image = self.image.clone();
        image.mark_unchanged();
        // A timeout is an answer, too: the caller looks again.
        let _ = tokio::time::timeout(timeout, image.changed()).await;
    }
}
