//! One simulated broker process: the real candidate for the controller role (Lease, head, term, decisions),
//! the real replica and leader state machines, and between them a thin session, log and network of its own.

pub mod mail;
mod replicas;
mod session;

use crate::api::ApiClient;
use crate::core::{STEP, Shared};
use crate::disk::Key;
use leasehold_broker::controller::{ControllerHandle, Driver, DriverConfig, Role, start};
use leasehold_broker::session::watch::holder;
use leasehold_metadata::controller::Settings;
use leasehold_metadata::head::Limits;
use leasehold_metadata::image::Image;
use leasehold_metadata::lease::Holder;
use leasehold_metadata::rpc::{Request, Response};
use leasehold_types::{BrokerId, ClusterId, Incarnation};
use mail::Mail;
use parking_lot::Mutex;
use replicas::Replicated;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

/// The id of the simulated cluster.
pub fn cluster_id() -> ClusterId {
    ClusterId("simulated".to_owned())
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
    image: Mutex<Option<Arc<Image>>>,
    replicas: Mutex<BTreeMap<Key, Replicated>>,
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
    let holder_id = Holder {
        broker: id,
        incarnation: life,
    };
    let config = DriverConfig {
        me: holder_id,
        address: format!("broker-{me}:1"),
        settings: Settings {
            preferred_leader_delay_ms: 2_000,
            preferred_leader_check_ms: 500,
            unclean_recovery_timeout_ms: 20_000,
            default_replication_factor: 3,
            ..Settings::default()
        },
        limits: Limits {
            tail_bytes: 2_000,
            segments: 3,
            segment_bytes: 12_000,
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
        image: Mutex::new(None),
        replicas: Mutex::default(),
        leaving: AtomicBool::new(false),
    });
    tokio::spawn(Arc::clone(&broker).read(inbox));
    tokio::spawn(Arc::clone(&broker).upkeep());
    let reason = broker.session().await;
    {
        let mut core = broker.core.lock();
        core.note(format!("broker {me} ends: {reason}"));
        core.nodes[me].exit = Some(reason);
    }
    // The driver goes with the runtime, when the world sees the wish to end.
    std::future::pending::<()>().await;
    drop(driver);
}

impl Broker {
    async fn read(self: Arc<Self>, mut inbox: mpsc::UnboundedReceiver<Mail>) {
        while let Some(mail) = inbox.recv().await {
            match mail {
                Mail::Call {
                    from,
                    request,
                    reply,
                } => {
                    let this = Arc::clone(&self);
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
                        core.answer(this.me, from, move || drop(reply.send(response)));
                    });
                }
                Mail::Fetch(fetch) => self.serve(fetch),
                Mail::Fetched(fetched) => self.fetched(fetched),
                Mail::Produce { key, value } => self.produce(key, value),
                Mail::Leave => self.leaving.store(true, Ordering::Relaxed),
            }
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
        let (reply, answer) = oneshot::channel();
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
