//! A broker's side of its session: register, poll, make durable, publish; the real decisions about what
//! may be taken in, on a simulated disk and network.

use super::{Broker, place};
use leasehold_broker::session::apply::{Taken, take};
use leasehold_metadata::image::Endpoint;
use leasehold_metadata::image::Image;
use leasehold_metadata::rpc::{
    BrokerState, Poll, PollAnswer, Registration, Request, Response, RestartReport, codes,
};
use leasehold_types::Seq;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const PAUSE: Duration = Duration::from_millis(40);
const LIMIT: Duration = Duration::from_millis(1_500);
/// After this long of nothing but "you are not registered" the process ends.
const DISOWNED: Duration = Duration::from_secs(3);

enum Stop {
    Elsewhere(Option<usize>),
    End(String),
}

struct Life {
    image: Image,
    registered_at: Option<Seq>,
    disowned_since: Option<Instant>,
}

impl Broker {
    /// Runs until the process must end, and says why.
    pub(super) async fn session(self: &Arc<Self>) -> String {
        let (report, image) = {
            let mut core = self.core.lock();
            let disk = &mut core.nodes[self.me].disk;
            (disk.begin(self.life), disk.image.clone())
        };
        let mut life = Life {
            image: image.unwrap_or_else(|| Image::genesis(super::cluster_id())),
            registered_at: None,
            disowned_since: None,
        };
        let mut redirect = None;
        loop {
            if let Some(target) = self.target(redirect.take()) {
                match self.converse(&mut life, target, &report).await {
                    Stop::Elsewhere(to) => redirect = to,
                    Stop::End(reason) => return reason,
                }
            }
            sleep(PAUSE).await;
        }
    }

    async fn converse(
        self: &Arc<Self>,
        life: &mut Life,
        target: usize,
        report: &RestartReport,
    ) -> Stop {
        loop {
            let done = match life.registered_at {
                None => self.register(life, target, report).await,
                Some(_) => self.poll(life, target).await,
            };
            if let Err(stop) = done {
                return stop;
            }
        }
    }

    async fn register(
        &self,
        life: &mut Life,
        target: usize,
        report: &RestartReport,
    ) -> Result<(), Stop> {
        let endpoint = Endpoint {
            host: format!("broker-{}", self.me),
            port: 1,
        };
        let request = Request::Register(Registration {
            broker: self.id,
            incarnation: self.life,
            client: endpoint.clone(),
            internal: endpoint,
            http: None,
            rack: None,
            version: String::new(),
            restart: report.clone(),
        });
        match self.ask(target, request, LIMIT).await {
            Some(Response::Registered { at, .. }) => {
                let mut core = self.core.lock();
                core.note(format!("broker {} is registered at {at}", self.me));
                core.nodes[self.me].disk.confirm(self.life);
                core.check.registered(self.me, self.life, at);
                life.registered_at = Some(at);
                Ok(())
            }
            Some(other) => Err(self.refused(life, other)),
            None => Err(Stop::Elsewhere(None)),
        }
    }

    async fn poll(self: &Arc<Self>, life: &mut Life, target: usize) -> Result<(), Stop> {
        let wanted = life.image.wanted_log_ends(self.id);
        let log_ends = self.core.lock().nodes[self.me].disk.log_ends(&wanted);
        let position = (life.image.position.seq.0 > 0).then_some(life.image.position);
        let request = Request::Poll(Poll {
            broker: self.id,
            incarnation: self.life,
            position,
            state: BrokerState {
                wants_shutdown: self.leaving.load(Ordering::Relaxed),
                log_ends,
                epochs_ahead: Vec::new(),
            },
        });
        match self.ask(target, request, LIMIT).await {
            Some(Response::Poll(answer)) => self.take_in(life, target, answer).await,
            Some(other) => Err(self.refused(life, other)),
            None => Err(Stop::Elsewhere(None)),
        }
    }

    async fn take_in(
        self: &Arc<Self>,
        life: &mut Life,
        target: usize,
        answer: PollAnswer,
    ) -> Result<(), Stop> {
        life.disowned_since = None;
        let frozen = answer.frozen.is_some().then_some(answer.committed.epoch.0);
        let may_stop = answer.may_stop && self.leaving.load(Ordering::Relaxed);
        let image = match take(&life.image, answer) {
            Ok(Taken::Nothing) => None,
            Ok(Taken::Entries(_, image) | Taken::Snapshot(image)) => Some(image),
            Err(error) => {
                self.core
                    .lock()
                    .note(format!("broker {} takes nothing in: {error}", self.me));
                sleep(PAUSE).await;
                return Err(Stop::Elsewhere(None));
            }
        };
        if let Some(image) = image {
            let mut core = self.core.lock();
            core.check.applied(self.me, self.life, &image.position);
            core.nodes[self.me].disk.image = Some(image.clone());
            drop(core);
            life.image = image;
        }
        if let Some(epoch) = frozen {
            self.core.lock().check.frozen(self.me, epoch);
        }
        self.publish(life)?;
        if may_stop {
            return Err(self.leave(target).await);
        }
        Ok(())
    }

    /// Says goodbye and ends in order.
    async fn leave(&self, target: usize) -> Stop {
        let (broker, incarnation) = (self.id, self.life);
        self.ask(
            target,
            Request::Goodbye {
                broker,
                incarnation,
            },
            LIMIT,
        )
        .await;
        self.core.lock().nodes[self.me].disk.close();
        Stop::End("it left in order".to_owned())
    }

    fn publish(self: &Arc<Self>, life: &Life) -> Result<(), Stop> {
        let Some(at) = life.registered_at else {
            return Ok(());
        };
        if life.image.position.seq < at {
            return Ok(());
        }
        match life.image.broker(self.id).map(|b| b.incarnation) {
            Some(registered) if registered == self.life => {}
            other => return Err(Stop::End(format!("it was replaced by {other:?}"))),
        }
        let known = self.image.lock().as_ref().map(|image| image.position);
        if known != Some(life.image.position) {
            let image = Arc::new(life.image.clone());
            *self.image.lock() = Some(Arc::clone(&image));
            self.observe(&image);
        }
        Ok(())
    }

    fn refused(&self, life: &mut Life, response: Response) -> Stop {
        match response {
            Response::NotController { hint } => {
                Stop::Elsewhere(hint.map(|h| place(h.broker)).filter(|&to| to != self.me))
            }
            Response::Error(outcome) => {
                let disowned = matches!(
                    outcome.code,
                    codes::STALE_BROKER_EPOCH | codes::BROKER_ID_NOT_REGISTERED
                );
                if disowned && life.registered_at.is_some() {
                    let since = *life.disowned_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > DISOWNED {
                        return Stop::End("the controller does not know it".to_owned());
                    }
                }
                Stop::Elsewhere(None)
            }
            _ => Stop::Elsewhere(None),
        }
    }
}
