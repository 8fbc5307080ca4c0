//! The group coordinator of one broker: the real one, over the real replicas; and how clients reach it.
//!
//! Tells the checker of every question when it arrives, and of its answer before anyone can hear it.

use super::Broker;
use super::reply::Reply;
use crate::core::STEP;
use crate::groups::mail::{Answer, Ask};
use crate::groups::{COMMIT_TIMEOUT, FIRST_DELAY, SESSION};
use async_trait::async_trait;
use leasehold_broker::config::BrokerConfig;
use leasehold_broker::coordinator::find::AskController;
use leasehold_broker::group::cluster::{Cluster, Endpoint};
use leasehold_broker::group::{GroupCoordinator, ImageCluster, start_in};
use leasehold_broker::replica::ReplicaManager;
use leasehold_metadata::image::{Image, Position};
use leasehold_metadata::rpc::{Request, Response};
use leasehold_types::LeaderEpoch;
use leasehold_wire::ErrorCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::sleep;

/// Asks the controller at most so long at a time.
const LIMIT: Duration = Duration::from_millis(900);
const PAUSE: Duration = Duration::from_millis(20);

impl Broker {
    /// Starts the coordinator, once the replicas are started.
    pub(super) fn start_groups(self: &Arc<Self>, replicas: Arc<ReplicaManager>) {
        let image = self.group_image.subscribe();
        let cluster = LookedAt {
            cluster: ImageCluster::new(image.clone(), self.controller_calls()),
            image: image.clone(),
        };
        let config = BrokerConfig {
            group_min_session_timeout_ms: SESSION,
            group_initial_rebalance_delay_ms: FIRST_DELAY,
            offsets_commit_timeout_ms: COMMIT_TIMEOUT,
            ..BrokerConfig::default()
        };
        // A process registers once.
        let _ = self
            .groups
            .set(start_in(Arc::new(cluster), image, replicas, &config));
    }

    /// The way to whoever is the controller. It does not keep the broker alive.
    pub(super) fn controller_calls(self: &Arc<Self>) -> AskController {
        let weak = Arc::downgrade(self);
        Arc::new(move |request, deadline| {
            let weak = weak.clone();
            Box::pin(async move {
                match weak.upgrade() {
                    Some(broker) => broker.ask_any(request, deadline).await,
                    None => Response::NotController { hint: None },
                }
            })
        })
    }

    /// Asks whoever is the controller, until the deadline.
    async fn ask_any(&self, request: Request, deadline: Instant) -> Response {
        let mut redirect = None;
        while leasehold_types::seams::now() < deadline {
            if let Some(target) = self.target(redirect.take()) {
                match self.ask(target, request.clone(), LIMIT).await {
                    Some(Response::NotController { hint }) => {
                        redirect = hint.map(|hint| super::place(hint.broker));
                    }
                    Some(response) => return response,
                    None => {}
                }
            }
            sleep(PAUSE).await;
        }
        Response::NotController { hint: None }
    }

    /// The leader epoch in which this broker leads the log of `group`.
    pub(super) fn leads_group(&self, group: &str) -> Option<LeaderEpoch> {
        let (topic, partition) = self.core.lock().check.home(group)?;
        let led = self.replicas.get()?.leads(topic, partition)?;
        Some(led.epoch)
    }

    /// Answers a client.
    pub(super) fn group(self: &Arc<Self>, ask: Ask, reply: Reply<Answer>) {
        let Some(groups) = self.groups.get().cloned() else {
            return;
        };
        let leads = self.leads_group(ask.group());
        let ticket = {
            let mut core = self.core.lock();
            let now = core.now;
            core.check
                .group_asked(now, (self.me, self.life, leads), &ask)
        };
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let answer = answer(&groups, ask.clone()).await;
            let home = this.core.lock().check.home(ask.group());
            if let Some(home) = home {
                this.show(home);
            }
            let leads = this.leads_group(ask.group());
            let mut core = this.core.lock();
            let now = core.now;
            if let Some(line) = core
                .check
                .group_answered(now, leads, &ticket, &ask, &answer)
            {
                core.note(format!("group {line}, says broker {}", this.me));
            }
            core.answer_client(move || reply.send(answer));
        });
    }
}

async fn answer(groups: &Arc<GroupCoordinator>, ask: Ask) -> Answer {
    match ask {
        Ask::Find(group) => Answer::Find(groups.find_coordinator(0, &group).await),
        Ask::Join(request) => Answer::Join(groups.join(request).await),
        Ask::Sync(request) => Answer::Sync(groups.sync(request).await),
        Ask::Heartbeat(request) => Answer::Heartbeat(groups.heartbeat(request).await),
        Ask::Leave(request) => Answer::Leave(groups.leave(request).await),
        Ask::Commit(request) => Answer::Commit(groups.commit(request).await),
        Ask::Fetch(request) => Answer::Fetch(groups.fetch(request).await),
    }
}

/// The cluster of the image, where several may wait for a change: they look, so that the seed decides who is first.
struct LookedAt {
    cluster: ImageCluster,
    image: watch::Receiver<Arc<Image>>,
}

impl LookedAt {
    fn position(&self) -> Position {
        self.image.borrow().position
    }
}

#[async_trait]
impl Cluster for LookedAt {
    fn offsets_partitions(&self) -> Option<i32> {
        self.cluster.offsets_partitions()
    }

    fn offsets_leader(&self, partition: i32) -> Option<Endpoint> {
        self.cluster.offsets_leader(partition)
    }

    fn has_partition(&self, topic: &str, partition: i32) -> bool {
        self.cluster.has_partition(topic, partition)
    }

    fn image(&self) -> Arc<Image> {
        self.cluster.image()
    }

    async fn create_offsets_topic(&self) -> Result<(), ErrorCode> {
        self.cluster.create_offsets_topic().await
    }

    async fn changed(&self, timeout: Duration) {
        let before = self.position();
        let until = tokio::time::Instant::now() + timeout;
        while self.position() == before && tokio::time::Instant::now() < until {
            sleep(Duration::from_millis(STEP)).await;
        }
    }
}
