//! A broker's side of its session: register, poll, make durable, publish; the real decisions about what
//! may be taken in, on a simulated disk and network.

use super::start::{Opened, registration};
use super::{Broker, place};
use crate::core::STEP;
use leasehold_broker::session::apply::{Taken, take};
use leasehold_metadata::image::Image;
use leasehold_metadata::rpc::{BrokerState, Poll, PollAnswer, Request, Response, codes};
use leasehold_types::{Seq, seams};
use std::io;
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
    pub(super) async fn session(self: &Arc<Self>, opened: Opened) -> String {
        let image = self.core.lock().nodes[self.me].disk.image.clone();
        let mut life = Life {
            image: image.unwrap_or_else(|| Image::genesis(super::cluster_id())),
            registered_at: None,
            disowned_since: None,
        };
        let mut redirect = None;
        loop {
            if let Some(target) = self.target(redirect.take()) {
                match self.converse(&mut life, target, &opened).await {
                    Stop::Elsewhere(to) => redirect = to,
                    Stop::End(reason) => return reason,
                }
            }
            sleep(PAUSE).await;
        }
    }

    async fn converse(self: &Arc<Self>, life: &mut Life, target: usize, begun: &Opened) -> Stop {
        loop {
            let done = match life.registered_at {
                None => self.register(life, target, begun).await,
                Some(_) => self.poll(life, target).await,
            };
            if let Err(stop) = done {
                return stop;
            }
        }
    }

    async fn register(
        self: &Arc<Self>,
        life: &mut Life,
        target: usize,
        (log_dirs, directories, unreadable): &Opened,
    ) -> Result<(), Stop> {
        let mut registration = registration(self.me, self.life, directories);
        registration.unreadable = *unreadable;
        let request = Request::Register(Box::new(registration));
        match self.ask(target, request, LIMIT).await {
            Some(Response::Registered { at, .. }) => {
                let mut core = self.core.lock();
                core.note(format!("broker {} is registered at {at}", self.me));
                core.check.registered(self.me, self.life, at);
                drop(core);
                life.registered_at = Some(at);
                let started = log_dirs.confirm(self.life).map_err(io::Error::other);
                started
                    .and_then(|()| self.start_replicas(log_dirs))
                    .map_err(|error| Stop::End(format!("it cannot start: {error}")))?;
                let disk = &mut self.core.lock().nodes[self.me].disk;
                disk.failing = disk.is_broken();
                disk.damaged &= disk.failing;
                Ok(())
            }
            Some(other) => Err(self.refused(life, other)),
            None => Err(Stop::Elsewhere(None)),
        }
    }

    async fn poll(self: &Arc<Self>, life: &mut Life, target: usize) -> Result<(), Stop> {
        let wanted = life.image.wanted_log_ends(self.id);
        let replicas = self.replicas.get();
        let log_ends = replicas.map(|replicas| replicas.ends_of(&wanted));
        let offline = replicas.map(|replicas| replicas.untold_failures());
        let ahead = replicas.map(|replicas| replicas.ahead_of_metadata());
        let sent = seams::now();
        let position = (life.image.position.seq.0 > 0).then_some(life.image.position);
        let request = Request::Poll(Poll {
            broker: self.id,
            incarnation: self.life,
            position,
            state: BrokerState {
                wants_shutdown: self.leaving.load(Ordering::Relaxed),
                log_ends: log_ends.unwrap_or_default(),
                epochs_ahead: ahead.unwrap_or_default(),
                offline: offline.unwrap_or_default(),
            },
        });
        match self.ask(target, request, LIMIT).await {
            Some(Response::Poll(answer)) => self.take_in(life, target, (answer, sent)).await,
            Some(other) => Err(self.refused(life, other)),
            None => Err(Stop::Elsewhere(None)),
        }
    }

    async fn take_in(
        self: &Arc<Self>,
        life: &mut Life,
        target: usize,
        (answer, sent): (PollAnswer, std::time::Instant),
    ) -> Result<(), Stop> {
        while self.core.lock().is_behind(self.me) {
            sleep(Duration::from_millis(STEP)).await;
        }
        life.disowned_since = None;
        let frozen = answer.frozen.is_some().then_some(answer.committed.epoch.0);
        let committed = answer.committed.seq;
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
        if life.image.position.seq >= committed {
            *self.confirmed.lock() = Some(sent);
        }
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
        let closed = match self.replicas.get() {
            Some(replicas) => replicas.close().await,
            None => Ok(()),
        };
        match closed {
            Ok(()) => Stop::End("it left in order".to_owned()),
            Err(error) => Stop::End(format!("its logs could not be closed: {error}")),
        }
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
        if self.image.borrow().position != life.image.position {
            let image = Arc::new(life.image.clone());
            self.group_image.send_replace(image.clone());
            self.image.send_replace(image);
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
