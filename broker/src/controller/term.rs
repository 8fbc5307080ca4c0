//! One term: inputs in, batches committed one at a time, effects released when their commit is known.
//!
//! [M] The rules that the model checker insists on, and where they are: an effect, refusals included,
//! leaves only in [`Term::release`], which runs after the write that it rests on is known to be applied;
//! a failed write ends the term, with its image; a broker's position is checked against the committed
//! line of claims before anything it says is believed.

use super::asking::{Confirming, Doubtful};
use super::driver::DriverConfig;
use super::events;
use super::handle::{Question, Role};
use super::peers::{Death, Watches};
use super::polls::Polls;
use leasehold_metadata::controller::{Controller, Effect, Input, Millis, Output, ReplyTo};
use leasehold_metadata::head::{Committed, Failed, HeadWriter, Loaded};
use leasehold_metadata::image::Image;
use leasehold_metadata::lease::{BootInstant, Holder, Tenure};
use leasehold_metadata::records::Record;
use leasehold_metadata::rpc::{Outcome, Response, codes};
use leasehold_metadata::store::{ChunkInfo, HeadObject, Store, StoreError};
use leasehold_types::BrokerId;
use leasehold_types::seams::taken_out;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

/// How long expansions of ISRs wait for company.
const LINGER: Duration = Duration::from_millis(500);
/// Inputs taken in before the next write begins.
const INPUTS_PER_BATCH: usize = 512;

/// How a term ended.
#[derive(Debug)]
pub(super) enum End {
    /// The process is asked to stop.
    Stopped,
    /// The role is lost.
    Lost(String),
    /// It saw most brokers lost, and leaves the role to whoever sees more.
    StandBack {
        reason: String,
        lost: BTreeSet<BrokerId>,
    },
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("asked to stop"),
            Self::Lost(reason) => f.write_str(reason),
            Self::StandBack { reason, .. } => write!(f, "standing back: {reason}"),
        }
    }
}

type Writing = Pin<Box<dyn Future<Output = (HeadWriter, Result<Committed, Failed>)> + Send>>;
/// Where the writer is.
enum Writer {
    Idle(Box<HeadWriter>),
    Busy(Writing),
    /// Only while it moves from one to the other.
    Moving,
}

/// What a batch holds back until it is committed.
#[derive(Default)]
struct Batch {
    records: Vec<Record>,
    effects: Vec<Effect>,
    /// Something in it does not wait.
    urgent: bool,
    since: Option<Instant>,
    /// Its write must begin before this, or never: the earliest deadline of an administrator's wish.
    write_before: Option<Millis>,
}

/// One term as controller.
pub(super) struct Term<'a> {
    me: Holder,
    pub(super) store: Arc<dyn Store>,
    tenure: &'a Tenure,
    pub(super) controller: Controller,
    writer: Writer,
    /// Committed, and nothing else.
    pub(super) image: Arc<Image>,
    /// The nonce of the last head that is known to be ours.
    pub(super) nonce: String,
    gathering: Batch,
    flying: Vec<Effect>,
    pub(super) replies: BTreeMap<ReplyTo, oneshot::Sender<Response>>,
    pub(super) next_token: u64,
    pub(super) polls: Polls,
    watches: Watches,
    deaths: mpsc::UnboundedReceiver<Death>,
    pub(super) confirming: Option<Confirming>,
    pub(super) frozen: Option<String>,
    started: Instant,
    collect_every: Duration,
    collect_at: Instant,
    survey: Option<oneshot::Receiver<Vec<ChunkInfo>>>,
    /// Set when the term must end after what was just done.
    end: Option<End>,
}

impl<'a> Term<'a> {
    pub(super) fn new(
        config: &DriverConfig,
        store: &Arc<dyn Store>,
        tenure: &'a Tenure,
        writer: HeadWriter,
        loaded: Loaded,
        lost: Option<BTreeSet<BrokerId>>,
        dead: Option<String>,
    ) -> Self {
        let image = Arc::clone(writer.image());
        let mut controller = Controller::new((*image).clone(), config.settings.clone(), Millis(0));
        if let Some(lost) = lost {
            controller = controller.after_standing_back(lost);
        }
        let (mut watches, deaths) = Watches::new(config.me.broker);
        watches.follow(&image);
        let mut polls = Polls::default();
        for entry in loaded.recent {
            polls.committed(Arc::new(entry));
        }
        if let Some(claim) = writer.last_entry() {
            polls.committed(Arc::clone(claim));
        }
        let mut term = Self {
            me: config.me,
            store: Arc::clone(store),
            tenure,
            controller,
            nonce: writer.head().nonce.clone(),
            writer: Writer::Idle(Box::new(writer)),
            image,
            gathering: Batch::default(),
            flying: Vec::new(),
            replies: BTreeMap::new(),
            next_token: 0,
            polls,
            watches,
            deaths,
            confirming: None,
            frozen: None,
            started: Instant::now(),
            collect_every: config.limits.collect_every,
            collect_at: Instant::now() + config.limits.collect_every,
            survey: None,
            end: None,
        };
        // What made us candidate is evidence for the sessions too: its holder was a broker.
        if let Some(dead) = dead.and_then(|text| Holder::parse(&text)) {
            term.step(Input::SessionEvidence {
                broker: dead.broker,
                incarnation: dead.incarnation,
                evidence: "it was the controller, and is gone".to_owned(),
            });
        }
        term
    }

    pub(super) fn now(&self) -> Millis {
        let elapsed = self.started.elapsed().as_millis();
        Millis(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    fn at(&self, millis: Millis) -> Instant {
        self.started + Duration::from_millis(millis.0)
    }

    /// Serves until the term ends. Whoever waits for an answer then gets a retriable error.
    pub(super) async fn serve(
        mut self,
        asked: &mut mpsc::Receiver<Question>,
        role: &watch::Sender<Role>,
        stopped: &mut watch::Receiver<bool>,
    ) -> End {
        let epoch = self.image.position.epoch;
        self.begin_survey();
        role.send_replace(Role::Controller {
            epoch,
            frozen: false,
        });
        self.step(Input::Tick);
        let end = loop {
            if self.end.is_none() {
                self.advance();
            }
            if let Some(end) = self.end.take() {
                break end;
            }
            if let Err(end) = self.turn(asked, stopped).await {
                break end;
            }
            let frozen = self.frozen.is_some();
            let now = Role::Controller { epoch, frozen };
            role.send_if_modified(|role| std::mem::replace(role, now) != now);
        };
        self.finish(&end);
        end
    }

    /// Waits for one thing to happen, and takes it in.
    async fn turn(
        &mut self,
        asked: &mut mpsc::Receiver<Question>,
        stopped: &mut watch::Receiver<bool>,
    ) -> Result<(), End> {
        let mut wake = self.at(self.controller.next_deadline());
        // Chunks go between writes: during one, a time that has come would be one to wake for at once, again
        // and again.
        if self.is_idle() {
            wake = wake.min(self.collect_at);
        }
        if let Some(heartbeat) = self.polls.next_heartbeat() {
            wake = wake.min(heartbeat);
        }
        if let Some(since) = self.gathering.since
            && matches!(self.writer, Writer::Idle(_))
        {
            wake = wake.min(since + LINGER);
        }
        tokio::select! {
            // A term that may not act any more must not go on because there is much to do.
            biased;
            () = self.tenure.lost() => return Err(End::Lost("the Lease is lost".to_owned())),
            _ = stopped.wait_for(|stop| *stop) => return Err(End::Stopped),
            written = written(&mut self.writer) => self.written(written)?,
            confirmed = confirmed(&mut self.confirming) => self.judge(confirmed)?,
            death = self.deaths.recv() => if let Some(death) = death {
                tracing::info!(broker = %death.broker, incarnation = %death.incarnation, evidence = death.evidence, "a broker is gone");
                self.step(Input::SessionEvidence {
                    broker: death.broker,
                    incarnation: death.incarnation,
                    evidence: death.evidence,
                });
            },
            question = asked.recv() => match question {
                Some(question) => {
                    self.ask(question);
                    for _ in 0..INPUTS_PER_BATCH {
                        match asked.try_recv() {
                            Ok(question) => self.ask(question),
                            Err(_) => break,
                        }
                    }
                }
                None => return Err(End::Stopped),
            },
            () = sleep_until(wake) => {
                self.step(Input::Tick);
                self.collect();
            }
        }
        Ok(())
    }

    /// Starts the next write if there is one to start, releases what rests on nothing unwritten, and
    /// answers polls.
    fn advance(&mut self) {
        if matches!(self.writer, Writer::Idle(_)) {
            if self.gathering.records.is_empty() {
                let effects = std::mem::take(&mut self.gathering.effects);
                self.gathering = Batch::default();
                self.release(effects);
            } else {
                let waited = self.gathering.since.is_some_and(|s| s.elapsed() >= LINGER);
                if self.gathering.urgent || waited {
                    self.write();
                }
            }
        }
        if self.tenure.may_act() {
            let due = self
                .polls
                .due(&self.image, self.frozen.as_deref(), Instant::now());
            for (to, answer) in due {
                self.reply(to, Response::Poll(answer));
            }
        }
    }

    fn write(&mut self) {
        let Writer::Idle(mut writer) = std::mem::replace(&mut self.writer, Writer::Moving) else {
            return;
        };
        let batch = std::mem::take(&mut self.gathering);
        if batch
            .write_before
            .is_some_and(|before| self.now() >= before)
        {
            // The speculative image holds a wish that must not be applied any more.
            self.writer = Writer::Idle(writer);
            let why = "an administrator's wish could not be written before its deadline";
            self.end = Some(End::Lost(why.to_owned()));
            return;
        }
        self.flying = batch.effects;
        let seq = self.controller.seal();
        debug_assert_eq!(seq, writer.head().seq.next());
        self.writer = Writer::Busy(Box::pin(async move {
            let result = writer.commit(batch.records).await;
            (*writer, result)
        }));
    }

    fn written(&mut self, written: (HeadWriter, Result<Committed, Failed>)) -> Result<(), End> {
        let (writer, result) = written;
        match result {
            Ok(committed) => {
                self.nonce.clone_from(&writer.head().nonce);
                self.writer = Writer::Idle(Box::new(writer));
                self.take_commit(committed)
            }
            Err(_) if taken_out("failed-write-ends-the-term") => {
                self.writer = Writer::Idle(Box::new(writer));
                Ok(())
            }
            Err(failed) => {
                // Who waits for this very write must not hear "not applied" if that is not known.
                if let Failed::Unknown(why) = &failed
                    && !taken_out("unknown-is-told")
                {
                    for effect in std::mem::take(&mut self.flying) {
                        if let Effect::Reply { to, .. } = effect {
                            let outcome = Outcome::refused(codes::REQUEST_TIMED_OUT, why.clone());
                            self.reply(to, Response::Error(outcome));
                        }
                    }
                }
                Err(End::Lost(failed.to_string()))
            }
        }
    }

    fn take_commit(&mut self, committed: Committed) -> Result<(), End> {
        self.controller.committed(committed.entry.seq);
        self.image = committed.image;
        self.polls.committed(committed.entry);
        self.watches.follow(&self.image);
        let effects = std::mem::take(&mut self.flying);
        self.release(effects);
        match committed.deposed {
            true => Err(End::Lost("another claimed the head".to_owned())),
            false => Ok(()),
        }
    }

    /// Everything that these effects rest on is known to be committed.
    fn release(&mut self, effects: Vec<Effect>) {
        let epoch = self.image.position.epoch;
        for effect in effects {
            match effect {
                Effect::Reply { to, response } => self.reply(to, response),
                Effect::Event(event) => events::log(epoch, &event),
                Effect::Resign { reason, lost } => {
                    self.end = Some(End::StandBack { reason, lost });
                }
            }
        }
    }

    pub(super) fn reply(&mut self, to: ReplyTo, response: Response) {
        if let Some(waiting) = self.replies.remove(&to) {
            let _ = waiting.send(response);
        }
    }

    pub(super) fn step(&mut self, input: Input) {
        let output = self.controller.step(input, self.now());
        self.gather(output);
    }

    pub(super) fn gather(&mut self, output: Output) {
        let batch = &mut self.gathering;
        if !output.records.is_empty() {
            batch.since.get_or_insert_with(Instant::now);
            batch.urgent |= !output.can_wait;
        }
        if let Some(before) = output.write_before {
            let earliest = batch.write_before.map_or(before, |known| known.min(before));
            batch.write_before = Some(earliest);
        }
        batch.records.extend(output.records);
        batch.effects.extend(output.effects);
        if taken_out("effects-wait") {
            let effects = std::mem::take(&mut self.gathering.effects);
            self.release(effects);
        }
    }

    /// From now on nothing is decided, and nothing more is written: what was decided and is not on its way
    /// is refused, as it will never be applied. A write under way cannot be taken back.
    pub(super) fn freeze(&mut self, reason: String) {
        let output = self.controller.step(
            Input::Freeze {
                reason: reason.clone(),
            },
            self.now(),
        );
        let unwritten = match taken_out("a-frozen-controller-writes-nothing") {
            true => Batch::default(),
            false => std::mem::take(&mut self.gathering),
        };
        for effect in unwritten.effects {
            if let Effect::Reply { to, .. } = effect {
                self.refuse_as_frozen(to, &reason);
            }
        }
        self.release(output.effects);
        self.frozen = Some(reason);
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.writer, Writer::Idle(_))
    }

    fn begin_survey(&mut self) {
        let store = Arc::clone(&self.store);
        let (found, survey) = oneshot::channel();
        tokio::spawn(async move {
            match store.list_chunks().await {
                Ok(chunks) => {
                    let _ = found.send(chunks);
                }
                Err(error) => tracing::debug!(%error, "the chunks were not surveyed"),
            }
        });
        self.survey = Some(survey);
    }

    /// Deletes chunks whose time has come, off the path of the writes.
    fn collect(&mut self) {
        let now = Instant::now();
        let Writer::Idle(writer) = &mut self.writer else {
            return;
        };
        if now < self.collect_at {
            return;
        }
        self.collect_at = now + self.collect_every;
        if let Some(chunks) = self.survey.as_mut().and_then(|s| s.try_recv().ok()) {
            writer.survey(&chunks);
            self.survey = None;
        }
        let due = writer.collectable(BootInstant::now());
        if due.is_empty() || !self.tenure.may_act() {
            return;
        }
        let store = Arc::clone(&self.store);
        tokio::spawn(async move {
            for name in due {
                if let Err(error) = store.delete_chunk(&name).await {
                    tracing::debug!(%error, "a chunk was not deleted; a later controller will");
                }
            }
        });
    }

    /// Ends the term: nothing that waits was applied, except what was answered already.
    fn finish(mut self, end: &End) {
        let unwritten = !matches!(self.writer, Writer::Busy(_));
        if !unwritten {
            // The write in flight may yet be applied.
            for effect in std::mem::take(&mut self.flying) {
                if let Effect::Reply { to, .. } = effect {
                    let why = format!("the controller resigned: {end}");
                    let outcome = Outcome::refused(codes::REQUEST_TIMED_OUT, why);
                    self.reply(to, Response::Error(outcome));
                }
            }
        }
        let waiting: Vec<ReplyTo> = self.replies.keys().copied().collect();
        for to in waiting {
            self.reply(to, Response::NotController { hint: None });
        }
        tracing::debug!(holder = %self.me, position = ?self.image.position, "the term is over");
    }
}

/// Resolves when the write in flight ends; never while there is none.
async fn written(writer: &mut Writer) -> (HeadWriter, Result<Committed, Failed>) {
    match writer {
        Writer::Busy(writing) => {
            let done = writing.await;
            *writer = Writer::Moving;
            done
        }
        Writer::Idle(_) | Writer::Moving => std::future::pending().await,
    }
}

async fn confirmed(
    confirming: &mut Option<Confirming>,
) -> (Result<Option<HeadObject>, StoreError>, Doubtful) {
    match confirming {
        Some(reading) => {
            let done = reading.await;
            *confirming = None;
            done
        }
        None => std::future::pending().await,
    }
}
