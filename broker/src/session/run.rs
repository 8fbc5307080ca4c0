//! The session's loop: find, register, poll, make durable, publish.

use super::apply::{NotTaken, Taken, take};
use super::durable::Durable;
use super::find::{Target, address_of};
use super::listeners::untold;
use super::{ReplicaReports, SessionConfig, SessionHealth, SessionStatus};
use crate::controller::{ControllerHandle, Role};
use crate::internal::{self, CallError, controller_call};
use leasehold_log::DirectoryStart;
use leasehold_metadata::features;
use leasehold_metadata::image::Image;
use leasehold_metadata::rpc::{
    BrokerState, ConfirmedRun, DirectoryReport, Poll, PollAnswer, Registration, Request, Response,
    RestartReport, codes,
};
use leasehold_types::{Seq, TopicId};
use leasehold_wire::Client;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// A poll is answered within half a second; one that is not within this is given up.
const POLL_LIMIT: Duration = Duration::from_millis(1_500);
const REGISTER_LIMIT: Duration = Duration::from_secs(2);
const CONNECT_LIMIT: Duration = Duration::from_millis(500);
/// Between attempts, where nothing tells when the next one is worth while: the first pause, and the
/// longest that it grows to.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const PAUSE: Duration = Duration::from_millis(100);
/// After this long of nothing but "you are not registered" the process ends.
const DISOWNED: Duration = Duration::from_secs(3);

/// The session's task.
pub(super) struct Runner {
    pub(super) config: SessionConfig,
    pub(super) controller: ControllerHandle,
    /// Everything that is durable here.
    pub(super) image: Image,
    /// `None` only while a blocking task has it.
    pub(super) durable: Option<Durable>,
    pub(super) published: watch::Sender<Arc<Image>>,
    pub(super) health: SessionHealth,
    pub(super) status: watch::Sender<SessionStatus>,
    pub(super) ended: watch::Sender<Option<String>>,
    pub(super) leaving: watch::Receiver<bool>,
    pub(super) reports: Arc<OnceLock<Arc<dyn ReplicaReports>>>,
    pub(super) registered_at: Option<Seq>,
    pub(super) wanted_ends: Vec<(TopicId, i32)>,
    pub(super) disowned_since: Option<Instant>,
}

/// What the log directories brought to this life.
struct Start {
    directories: Vec<DirectoryReport>,
    unreadable: u32,
}

fn report_of(found: leasehold_log::RestartReport) -> RestartReport {
    RestartReport {
        confirmed: found.confirmed.map(|c| ConfirmedRun {
            incarnation: c.incarnation,
            boot_id: c.boot_id,
            pod_uid: c.pod_uid,
            clean: c.clean,
        }),
        attempted: found.attempted,
        boot_id: found.boot_id,
        pod_uid: found.pod_uid,
    }
}

/// Where to ask.
enum Route {
    Here,
    There(Client),
}

/// Why a conversation with one controller ended.
enum Stop {
    /// Look again; perhaps there.
    Elsewhere(Option<Target>),
    /// The process must end.
    End(String),
}

impl Runner {
    pub(super) async fn run(mut self) {
        let reason = match self.begin_life().await {
            Ok(start) => self.serve(start).await,
            Err(reason) => reason,
        };
        tracing::error!(reason, "this broker's session is over");
        self.ended.send_replace(Some(reason));
    }

    /// Notes in every `run` file, durably, that this incarnation is about to register.
    async fn begin_life(&self) -> Result<Start, String> {
        let (dirs, incarnation) = (Arc::clone(&self.config.log_dirs), self.config.incarnation);
        let begun = tokio::task::spawn_blocking(move || dirs.begin(incarnation)).await;
        let (directories, unreadable) = begun
            .map_err(|e| e.to_string())?
            .map_err(|e| format!("the run file cannot be written: {e}"))?;
        let report = |start: DirectoryStart| DirectoryReport {
            id: start.id,
            restart: report_of(start.restart),
            partitions: start.partitions,
        };
        Ok(Start {
            directories: directories.into_iter().map(report).collect(),
            unreadable,
        })
    }

    async fn serve(&mut self, start: Start) -> String {
        let mut redirect = None;
        let mut pause = FIRST_PAUSE;
        let mut lease = self.controller.lease();
        let mut role = self.controller.role();
        loop {
            lease.borrow_and_update();
            role.borrow_and_update();
            if let Some(route) = self.route(redirect.take()).await {
                let confirmed = self.health.last_confirmed();
                let stop = self.converse(&route, &start).await;
                if self.health.last_confirmed() != confirmed {
                    pause = FIRST_PAUSE;
                }
                match stop {
                    Stop::Elsewhere(hint) => redirect = hint,
                    Stop::End(reason) => return reason,
                }
            } else {
                self.note(|status| {
                    status.trouble = Some("no controller can be reached".to_owned());
                });
            }
            tokio::select! {
                _ = lease.changed() => {}
                _ = role.changed() => {}
                () = sleep(pause) => pause = (pause * 2).min(PAUSE),
            }
        }
    }

    async fn route(&self, redirect: Option<Target>) -> Option<Route> {
        let role = *self.controller.role().borrow();
        if role != Role::Standby {
            return Some(Route::Here);
        }
        let target = redirect.or_else(|| self.controller.hint().map(Target::from))?;
        if target.broker == self.config.broker {
            return None;
        }
        let address = address_of(&target.internal);
        let connected = internal::connect(&address, &self.config.cluster_id, CONNECT_LIMIT).await;
        match connected {
            Ok(client) => Some(Route::There(client)),
            Err(error) => {
                tracing::debug!(%error, "cannot reach the controller");
                None
            }
        }
    }

    async fn ask(
        &self,
        route: &Route,
        request: Request,
        limit: Duration,
    ) -> Result<Response, String> {
        match route {
            Route::Here => timeout(limit, self.controller.call(request))
                .await
                .map_err(|_| format!("no answer within {limit:?}")),
            Route::There(client) => {
                controller_call(client, &self.config.cluster_id, request, limit)
                    .await
                    .map_err(|error| {
                        if let CallError::Json(_) = error {
                            // It stays behind, and is fenced; but the reason is here.
                            tracing::error!(%error, "the controller's answer cannot be read: is it of a newer release?");
                        }
                        error.to_string()
                    })
            }
        }
    }

    async fn converse(&mut self, route: &Route, start: &Start) -> Stop {
        let mut rack = self.config.rack.clone();
        let mut must_register = self.registered_at.is_none();
        let mut told_again = false;
        loop {
            // Once for each controller: one of an older release passes over it every time.
            if !told_again && self.is_untold() {
                (must_register, told_again) = (true, true);
            }
            if must_register || rack.has_changed().unwrap_or(false) {
                rack.borrow_and_update();
                match self.register(route, start).await {
                    Ok(()) => must_register = false,
                    Err(stop) => return stop,
                }
            }
            if let Err(stop) = self.poll_once(route).await {
                return stop;
            }
        }
    }

    fn is_untold(&self) -> bool {
        let (broker, incarnation) = (self.config.broker, self.config.incarnation);
        untold(&self.image, broker, incarnation, &self.config.listeners)
            || !self.is_known_for_its_features()
    }

    /// Whether the metadata says what this process supports; not, if its controller is of a release that did not ask.
    fn is_known_for_its_features(&self) -> bool {
        let registered = self.image.broker(self.config.broker);
        registered.is_none_or(|known| {
            known.incarnation != self.config.incarnation || known.features == features::supported()
        })
    }

    async fn register(&mut self, route: &Route, start: &Start) -> Result<(), Stop> {
        let registration = Registration {
            broker: self.config.broker,
            incarnation: self.config.incarnation,
            client: self.config.client.clone(),
            internal: self.config.internal.clone(),
            http: self.config.http.clone(),
            rack: self.config.rack.borrow().clone(),
            version: self.config.version.clone(),
            restart: start
                .directories
                .first()
                .map_or_else(Default::default, |first| first.restart.clone()),
            directories: start.directories.clone(),
            unreadable: start.unreadable,
            listeners: self.config.listeners.clone(),
            features: features::supported(),
        };
        let request = Request::Register(Box::new(registration));
        let at = match self.ask(route, request, REGISTER_LIMIT).await {
            Ok(Response::Registered { incarnation, at })
                if incarnation == self.config.incarnation =>
            {
                at
            }
            Ok(other) => return Err(self.refused("registering", other).await),
            Err(why) => return Err(self.unanswered("registering", &why)),
        };
        if self.registered_at.is_none() {
            let (dirs, incarnation) = (Arc::clone(&self.config.log_dirs), self.config.incarnation);
            let confirmed = tokio::task::spawn_blocking(move || dirs.confirm(incarnation)).await;
            if let Err(why) = confirmed
                .map_err(|e| e.to_string())
                .and_then(|r| r.map_err(|e| e.to_string()))
            {
                return Err(Stop::End(format!("the run file cannot be written: {why}")));
            }
            tracing::info!(broker = %self.config.broker, incarnation = %self.config.incarnation, %at, "registered");
            self.registered_at = Some(at);
        }
        Ok(())
    }

    async fn poll_once(&mut self, route: &Route) -> Result<(), Stop> {
        let leaving = *self.leaving.borrow_and_update();
        let known = self.image.position.seq.0 > 0;
        let reports = self.reports.get();
        // Before the look, so that none in between is missed.
        let mut failures = reports.map(|r| r.failures());
        let state = BrokerState {
            wants_shutdown: leaving,
            log_ends: reports.map_or_else(Vec::new, |r| r.log_ends(&self.wanted_ends)),
            epochs_ahead: reports.map_or_else(Vec::new, |r| r.epochs_ahead()),
            offline: reports.map_or_else(Vec::new, |r| r.offline()),
        };
        let poll = Poll {
            broker: self.config.broker,
            incarnation: self.config.incarnation,
            position: known.then_some(self.image.position),
            state,
        };
        let sent = Instant::now();
        let mut leave = self.leaving.clone();
        let mut role = self.controller.role();
        let asked = matches!(route, Route::Here);
        let answer = tokio::select! {
            answer = self.ask(route, Request::Poll(poll), POLL_LIMIT) => answer,
            // News to tell: the controller lets the poll that waits there go when the next one comes.
            _ = leave.changed() => return Ok(()),
            () = next_of(&mut failures) => return Ok(()),
            // We became controller, or are none any more: the other way is the right one now.
            _ = role.wait_for(|role| (*role != Role::Standby) != asked) => {
                return Err(Stop::Elsewhere(None));
            }
        };
        match answer {
            Ok(Response::Poll(answer)) => self.take_in(answer, sent).await,
            Ok(other) => Err(self.refused("polling", other).await),
            Err(why) => Err(self.unanswered("polling", &why)),
        }
    }

    async fn take_in(&mut self, answer: PollAnswer, sent: Instant) -> Result<(), Stop> {
        self.disowned_since = None;
        let committed = answer.committed;
        let (may_stop, frozen) = (answer.may_stop, answer.frozen.clone());
        let taken = match take(&self.image, answer) {
            Ok(taken) => taken,
            Err(NotTaken::Unsupported(error)) => return Err(Stop::End(error.to_string())),
            Err(error) => {
                tracing::error!(position = ?self.image.position, %error, "the metadata is not followed");
                self.note(|status| status.trouble = Some(error.to_string()));
                sleep(PAUSE * 5).await;
                return Err(Stop::Elsewhere(None));
            }
        };
        if let Err(error) = self.persist(taken).await {
            return Err(Stop::End(error));
        }
        if self.image.position == committed {
            self.health.confirm(sent);
        }
        let registered = self.publish()?;
        self.note(|status| {
            *status = SessionStatus {
                registered,
                trouble: None,
                frozen,
                may_stop,
            };
        });
        Ok(())
    }

    /// Makes it durable before anybody can act on it.
    async fn persist(&mut self, taken: Taken) -> Result<(), String> {
        let (entries, image) = match taken {
            Taken::Nothing => return Ok(()),
            Taken::Entries(entries, image) => (Some(entries), image),
            Taken::Snapshot(image) => (None, image),
        };
        let Some(mut durable) = self.durable.take() else {
            return Err("the durable copy was lost to an earlier failure".to_owned());
        };
        let work = tokio::task::spawn_blocking(move || {
            let written = match &entries {
                Some(entries) => durable.append(entries, &image),
                None => durable.replace(&image),
            };
            written.map(|()| (durable, image))
        });
        let (durable, image) = work
            .await
            .map_err(|e| e.to_string())?
            .map_err(|e| format!("the metadata cannot be made durable: {e}"))?;
        self.durable = Some(durable);
        self.image = image;
        self.wanted_ends = self.image.wanted_log_ends(self.config.broker);
        Ok(())
    }

    /// Publishes the image, unless it is older than our registration. Tells whether it is not.
    fn publish(&self) -> Result<bool, Stop> {
        let Some(at) = self.registered_at else {
            return Ok(false);
        };
        if self.image.position.seq < at {
            return Ok(false);
        }
        let me = self.config.incarnation;
        match self.image.broker(self.config.broker).map(|b| b.incarnation) {
            Some(registered) if registered == me => {}
            Some(other) => {
                let why = format!("this process (incarnation {me}) was replaced by {other}");
                return Err(Stop::End(why));
            }
            None => return Err(Stop::End("this broker was unregistered".to_owned())),
        }
        self.published.send_if_modified(|published| {
            let news = published.position != self.image.position;
            if news {
                *published = Arc::new(self.image.clone());
            }
            news
        });
        Ok(true)
    }

    /// The controller (or one that is none) answered with something else than hoped for.
    async fn refused(&mut self, doing: &str, response: Response) -> Stop {
        let outcome = match response {
            Response::NotController { hint } => {
                let here = self.config.broker;
                return Stop::Elsewhere(hint.filter(|h| h.broker != here).map(Target::from));
            }
            Response::Error(outcome) => outcome,
            other => {
                tracing::warn!(doing, answer = ?other, "an answer to another question");
                return Stop::Elsewhere(None);
            }
        };
        let message = outcome.message.unwrap_or_default();
        if matches!(
            outcome.code,
            codes::INCONSISTENT_CLUSTER_ID | codes::UNSUPPORTED_VERSION
        ) {
            return Stop::End(message);
        }
        let disowned = matches!(
            outcome.code,
            codes::STALE_BROKER_EPOCH | codes::BROKER_ID_NOT_REGISTERED
        );
        if disowned && self.registered_at.is_some() {
            let since = *self.disowned_since.get_or_insert_with(Instant::now);
            // A deposed controller may not know our registration yet: only persistence counts.
            if since.elapsed() > DISOWNED {
                return Stop::End(format!(
                    "the controller does not know this process: {message}"
                ));
            }
        }
        // It is asked several times a second: once is enough to be read.
        let known = self.status.borrow().trouble.as_ref() == Some(&message);
        match known {
            true => tracing::debug!(
                doing,
                code = outcome.code,
                message,
                "the controller refused"
            ),
            false => tracing::warn!(
                doing,
                code = outcome.code,
                message,
                "the controller refused"
            ),
        }
        self.note(|status| status.trouble = Some(message.clone()));
        sleep(PAUSE).await;
        Stop::Elsewhere(None)
    }

    fn unanswered(&self, doing: &str, why: &str) -> Stop {
        tracing::info!(doing, why, "the controller does not answer");
        self.note(|status| status.trouble = Some(format!("{doing}: {why}")));
        Stop::Elsewhere(None)
    }

    fn note(&self, change: impl FnOnce(&mut SessionStatus)) {
        self.status.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            *status != before
        });
    }
}

/// Resolves at the next failure that there is to tell; never, where nothing can fail yet.
async fn next_of(failures: &mut Option<watch::Receiver<u64>>) {
    if let Some(failures) = failures
        && failures.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
