//! One simulated broker process: the real candidate for the controller role (Lease, head, term, decisions),
//! the real replica manager over the real log, and between them a thin session and network of its own.

mod groups;
pub mod mail;
mod questions;
mod replicas;
pub mod reply;
mod session;
mod start;
mod txns;

use crate::api::ApiClient;
use crate::core::{STEP, Shared};
use crate::disk::Key;
use leasehold_broker::controller::{ControllerHandle, Driver, DriverConfig, Role, start};
use leasehold_broker::group::GroupCoordinator;
use leasehold_broker::internal::same_cluster;
use leasehold_broker::replica::ReplicaManager;
use leasehold_broker::session::watch::holder;
use leasehold_metadata::controller::{InternalTopic, Settings};
use leasehold_metadata::head::Limits;
use leasehold_metadata::image::Image;
use leasehold_metadata::lease::Holder;
use leasehold_metadata::rpc::{Request, Response};
use leasehold_types::{BrokerId, ClusterId, Incarnation, LeaderEpoch};
use mail::Mail;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

pub use start::FOREIGNERS;
pub(crate) use start::registration;

/// The id of the simulated cluster.
pub fn cluster_id() -> ClusterId {
    ClusterId("simulated".to_owned())
}

/// The id of another cluster of the same name.
pub fn foreign_cluster() -> ClusterId {
    ClusterId("another".to_owned())
}

/// A broker's id as a place in lists.
pub fn place(id: BrokerId) -> usize {
    usize::try_from(id.0).unwrap_or(usize::MAX)
}

/// One process.
pub(crate) struct Broker {
    core: Shared,
    me: usize,
    id: BrokerId,
    life: Incarnation,
    controller: ControllerHandle,
    /// The newest image that may be acted on.
    image: watch::Sender<Arc<Image>>,
    /// The same, for the coordinator: no two tasks may wait on one.
    group_image: watch::Sender<Arc<Image>>,
    /// Once the registration is confirmed.
    replicas: OnceLock<Arc<ReplicaManager>>,
    groups: OnceLock<Arc<GroupCoordinator>>,
    txns: OnceLock<txns::Txns>,
    /// The newest leader epochs that followers told of.
    heard: Mutex<BTreeMap<Key, LeaderEpoch>>,
    /// The leader epochs that the checker knows to have begun here.
    begun: Mutex<BTreeMap<Key, LeaderEpoch>>,
    /// When the poll was sent whose answer brought all that is committed.
    confirmed: Arc<Mutex<Option<std::time::Instant>>>,
    leaving: AtomicBool,
}

/// Runs a process until its runtime is dropped.
pub async fn run(core: Shared, me: usize, life: Incarnation, inbox: mpsc::UnboundedReceiver<Mail>) {
    let id = BrokerId(i32::try_from(me).unwrap_or(-1));
    let store = Arc::new(ApiClient {
        core: core.clone(),
        node: me,
        life,
    });
    let found = start::await_head(&*store).await;
    let opened = match start::open(&core, (me, id, life), &found) {
        Ok(opened) => opened,
        Err(reason) => return end(&core, me, reason).await,
    };
    let holder_id = Holder {
        broker: id,
        incarnation: life,
    };
    let config = DriverConfig {
        cluster_id: cluster_id(),
        me: holder_id,
        address: format!("broker-{me}:1"),
        settings: Settings {
            preferred_leader_delay_ms: 2_000,
            preferred_leader_check_ms: 500,
            unclean_recovery_timeout_ms: 20_000,
            default_replication_factor: 3,
            offsets_topic: InternalTopic {
                partitions: 2,
                ..Settings::default().offsets_topic
            },
            transactions_topic: InternalTopic {
                partitions: 2,
                ..Settings::default().transactions_topic
            },
            producer_id_block: 3,
            topic_defaults: crate::check::min_isr(core.lock().check.default_min),
            ..Settings::default()
        },
        limits: Limits {
            tail_bytes: 2_000,
            segments: 3,
            segment_bytes: 12_000,
            grace: Duration::from_secs(4),
            collect_every: Duration::from_millis(1_300),
        },
    };
    let driver: Driver = start(config, store);
    let controller = driver.handle();
    let watched = holder(
        cluster_id(),
        holder_id,
        controller.lease(),
        driver.evidence(),
    );
    tokio::spawn(watched);
    let broker = Arc::new(Broker {
        core,
        me,
        id,
        life,
        controller,
        image: watch::Sender::new(Arc::new(Image::genesis(cluster_id()))),
        group_image: watch::Sender::new(Arc::new(Image::genesis(cluster_id()))),
        replicas: OnceLock::new(),
        groups: OnceLock::new(),
        txns: OnceLock::new(),
        heard: Mutex::default(),
        begun: Mutex::default(),
        confirmed: Arc::default(),
        leaving: AtomicBool::new(false),
    });
    tokio::spawn(Arc::clone(&broker).read(inbox));
    tokio::spawn(Arc::clone(&broker).watch_for_a_freeze());
    let reason = broker.session(opened).await;
    end(&broker.core, me, reason).await;
    drop(driver);
}

/// The process wishes to end; everything in it goes with the runtime, when the world sees that.
async fn end(core: &Shared, me: usize, reason: String) {
    {
        let mut core = core.lock();
        core.note(format!("broker {me} ends: {reason}"));
        core.nodes[me].exit = Some(reason);
    }
    std::future::pending::<()>().await;
}

impl Broker {
    async fn read(self: Arc<Self>, mut inbox: mpsc::UnboundedReceiver<Mail>) {
        while let Some(mail) = inbox.recv().await {
            self.take(mail);
        }
    }

    /// Tells the checker when the controller here says that it is frozen.
    async fn watch_for_a_freeze(self: Arc<Self>) {
        let role = self.controller.role();
        loop {
            let now = *role.borrow();
            if let Role::Controller {
                epoch,
                frozen: true,
            } = now
            {
                self.core.lock().check.frozen(self.me, epoch.0);
            }
            sleep(Duration::from_millis(STEP)).await;
        }
    }

    fn take(self: &Arc<Self>, mail: Mail) {
        match mail {
            Mail::Call {
                from,
                request,
                reply,
            } => {
                let this = Arc::clone(self);
                if reply.is_closed() {
                    self.core.lock().note(format!(
                        "net   {from} to {}: late {}",
                        self.me,
                        brief(&request)
                    ));
                }
                tokio::spawn(async move {
                    let response = this.here(*request).await;
                    let mut core = this.core.lock();
                    let (now, resumed) = (core.now, core.nodes[this.me].resumed_at);
                    if matches!(response, Response::Poll(_)) && now > resumed + 2 * STEP {
                        core.check.controller_answered(this.me, now);
                    }
                    core.answer(this.me, from, move || reply.send(response));
                });
            }
            Mail::Fetch {
                from,
                request,
                reply,
            } => self.serve(from, *request, reply),
            Mail::Produce {
                key,
                records,
                values,
                reply,
            } => self.produce(key, records, values, reply),
            Mail::Garbage { key, records, what } => self.garbage(key, records, what),
            Mail::Consume { key, from, reply } => self.consume(key, from, reply),
            Mail::Group { ask, reply } => self.group(ask, reply),
            Mail::Ask { key, question } => self.asked(key, question),
            Mail::Delete { key, before } => self.delete(key, before),
            Mail::Foreign(mail) => match same_cluster(&cluster_id(), Some(&foreign_cluster().0)) {
                Ok(()) => self.take(*mail),
                Err(why) => self
                    .core
                    .lock()
                    .note(format!("broker {} refuses: {why}", self.me)),
            },
            Mail::Txn { id, ask, reply } => self.transact(id, ask, reply),
            Mail::ProduceIn {
                id,
                client,
                key,
                records,
                values,
                reply,
            } => self.produce_in((id, client), (key, records), values, reply),
            Mail::Markers {
                from,
                request,
                reply,
            } => self.markers(from, *request, reply),
            Mail::Verify {
                from,
                request,
                reply,
            } => self.verify(from, *request, reply),
            Mail::Leave => self.leaving.store(true, Ordering::Relaxed),
        }
    }

    /// Asks the controller of this process. Waits for a claim under way by looking, so that several who
    /// wait are woken in an order that the seed decides.
    async fn here(&self, request: Request) -> Response {
        for _ in 0..200 {
            if *self.controller.role().borrow() != Role::Claiming {
                return self.controller.call(request).await;
            }
            sleep(Duration::from_millis(5)).await;
        }
        Response::NotController {
            hint: self.controller.hint(),
        }
    }

    /// Where the controller is believed to be.
    fn target(&self, redirect: Option<usize>) -> Option<usize> {
        if *self.controller.role().borrow() != Role::Standby {
            return Some(self.me);
        }
        let hint = self.controller.hint().map(|hint| place(hint.broker));
        redirect.or(hint).filter(|&target| target != self.me)
    }

    /// Asks the controller at `target`; `None` if no answer came in time.
    async fn ask(&self, target: usize, request: Request, limit: Duration) -> Option<Response> {
        if target == self.me {
            return timeout(limit, self.here(request)).await.ok();
        }
        let (reply, answer) = reply::reply();
        let (from, request) = (self.me, Box::new(request));
        self.core.lock().post(
            from,
            target,
            Mail::Call {
                from,
                request,
                reply,
            },
        );
        match timeout(limit, answer).await {
            Ok(Ok(response)) => Some(response),
            Ok(Err(_)) => {
                sleep(Duration::from_millis(50)).await;
                None
            }
            Err(_) => None,
        }
    }
}

/// A request in a few words, for the trace.
fn brief(request: &Request) -> String {
    match request {
        Request::AlterPartition(alter) => format!("ISR proposal {:?}", alter.proposals),
        Request::Register(registration) => format!("registration of {}", registration.incarnation),
        other => format!("{other:?}"),
    }
}
