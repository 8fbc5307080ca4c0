//! One partition of this broker: the pure replica, its log, and those who wait for either.
//!
//! The state's lock is held for decisions only, never across I/O. Everything that changes the log
//! runs on the partition's lane (`io.rs`); since a role changes under the lock before any job of the
//! new role is queued, a job that finds its own role and epoch still in force works on the log as
//! that role left it.

use super::io::IoPool;
use super::leader::Leader;
use super::refusals::Refusals;
use super::space::Space;
use super::state::{Change, Replica, Role};
use super::types::{LeaderHint, LeaderState, LeadershipChange, PartitionKey, ProduceResult};
use super::wait::Waiters;
use leasehold_log::{LogDir, PartitionLog};
use leasehold_types::{BrokerId, LeaderEpoch, Offset};
use leasehold_wire::ErrorCode;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::{mpsc, oneshot, watch};

/// A producer that waits for its record to be committed, and what it will hear.
#[derive(Debug)]
pub struct AckWaiter {
    pub reply: oneshot::Sender<ProduceResult>,
    pub done: ProduceResult,
}

/// Those who follow changes of leadership, and those who must hear when a log fails.
#[derive(Default)]
pub struct Leaderships {
    subscribers: parking_lot::Mutex<Vec<mpsc::UnboundedSender<LeadershipChange>>>,
    /// Counts the partitions that went out of service.
    pub failures: watch::Sender<u64>,
    /// Why this process must end, though no disk failed.
    pub ended: OnceLock<String>,
}

/// The log directory that a partition lies in, and the room on its disk.
#[derive(Clone)]
pub struct Place {
    pub dir: Arc<LogDir>,
    pub space: Arc<Space>,
}

/// A log that is open, and where it lies.
struct Here {
    log: Arc<PartitionLog>,
    place: Place,
    /// In the moment in which its files change their place, nobody may use it.
    leaves: bool,
}

impl Leaderships {
    /// A new subscriber.
    pub fn subscribe(
        &self,
    ) -> (
        mpsc::UnboundedSender<LeadershipChange>,
        mpsc::UnboundedReceiver<LeadershipChange>,
    ) {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.subscribers.lock().push(sender.clone());
        (sender, receiver)
    }

    fn tell(&self, change: LeadershipChange) {
        self.subscribers
            .lock()
            .retain(|subscriber| subscriber.send(change).is_ok());
    }
}

/// One partition that this broker hosts.
pub struct Partition {
    key: PartitionKey,
    topic: Arc<str>,
    lane: u64,
    io: Arc<IoPool>,
    /// None until it is open.
    here: parking_lot::RwLock<Option<Here>>,
    state: parking_lot::Mutex<Replica<AckWaiter>>,
    leaderships: Arc<Leaderships>,
    /// Counts when a cut of this follower's log begins and when it is done.
    cuts: AtomicU64,
    /// Batches that producers must send again first.
    pub refusals: parking_lot::Mutex<Refusals>,
    /// Woken when the log grows: for followers.
    pub grown: Waiters,
    /// Woken when the high watermark moves: for clients.
    pub committed: Waiters,
    /// Woken when a replica tells where its log begins, and when others lead or live than before: for
    /// those who wait until records are deleted everywhere.
    pub starts: Waiters,
}

impl Partition {
    /// A partition whose log is not open yet.
    pub fn new(
        me: BrokerId,
        key: PartitionKey,
        topic: Arc<str>,
        io: Arc<IoPool>,
        leaderships: Arc<Leaderships>,
    ) -> Self {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        Self {
            key,
            topic,
            lane: hasher.finish(),
            io,
            here: parking_lot::RwLock::default(),
            state: parking_lot::Mutex::new(Replica::new(me, Offset(0), Offset(0))),
            leaderships,
            cuts: AtomicU64::new(0),
            refusals: parking_lot::Mutex::default(),
            grown: Waiters::default(),
            committed: Waiters::default(),
            starts: Waiters::default(),
        }
    }

    /// Its topic's id and its number.
    pub fn key(&self) -> PartitionKey {
        self.key
    }

    /// Its topic's name.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// Its log, once it is open, but for the moment in which it moves to another log directory. What changes the log asks for
    /// it anew in each job: the next may find another.
    pub fn log(&self) -> Option<Arc<PartitionLog>> {
        let here = self.here.read();
        let here = here.as_ref().filter(|here| !here.leaves);
        here.map(|here| here.log.clone())
    }

    /// Asks for, or gives back, guards of its log, also while it moves: they go with it. `ask` does not wait for the disk.
    pub fn guards<R>(&self, ask: impl FnOnce(&PartitionLog) -> R) -> Option<R> {
        self.here.read().as_ref().map(|here| ask(&here.log))
    }

    /// Its log, once it is open, for those who ask only what it keeps in memory: also while it moves.
    pub fn log_in_memory(&self) -> Option<Arc<PartitionLog>> {
        self.here.read().as_ref().map(|here| here.log.clone())
    }

    /// Where its log lies, once it is open.
    pub fn place(&self) -> Option<Place> {
        self.here.read().as_ref().map(|here| here.place.clone())
    }

    /// Its log is about to have another place; until it has, there is none to use.
    pub fn leaves(&self) {
        if let Some(here) = &mut *self.here.write() {
            here.leaves = true;
        }
    }

    /// Its log has another place now, and is otherwise as it was.
    pub fn arrived(&self, log: Arc<PartitionLog>, place: Place) {
        let mut here = self.here.write();
        if let Some(former) = &*here {
            log.take_over_guards(&former.log);
        }
        *here = Some(Here {
            log,
            place,
            leaves: false,
        });
        drop(here);
        // Whoever looked for the logs of a directory that failed may have missed this one, and whoever looked for
        // this one may not have found it.
        if !self.notice_failure() {
            self.grown.wake();
            self.committed.wake();
        }
    }

    /// The log was opened. Its checkpointed high watermark is believed as far as the log reaches.
    pub fn opened(&self, log: Arc<PartitionLog>, place: Place, high_watermark: Offset) {
        let high_watermark = high_watermark.max(log.log_start_offset());
        let last_epoch = log.last_epoch().unwrap_or(LeaderEpoch::NONE);
        let mut state = self.state.lock();
        state.opened(high_watermark, log.log_end_offset(), last_epoch);
        if let Some(view) = state.view()
            && view.leader_epoch < last_epoch
        {
            tracing::error!(topic = %self.topic, partition = self.key.1, image = view.leader_epoch.0,
                log = last_epoch.0, "this replica's log has seen a newer leader epoch than the metadata; refusing to take part until the metadata has recovered");
        }
        drop(state);
        *self.here.write() = Some(Here {
            log,
            place,
            leaves: false,
        });
        // Whoever looked for the logs of a directory that failed may have missed this one.
        self.notice_failure();
    }

    /// Queues a job on this partition's lane.
    pub fn submit(self: &Arc<Self>, job: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let this = self.clone();
        self.io.submit(self.lane, move || job(&this));
    }

    /// Looks at the state.
    pub fn look<R>(&self, look: impl FnOnce(&Replica<AckWaiter>) -> R) -> R {
        look(&self.state.lock())
    }

    /// Looks at the leadership, if this broker has it.
    pub fn look_leader<R>(&self, look: impl FnOnce(&Leader) -> R) -> Option<R> {
        self.state.lock().leader().map(look)
    }

    /// Changes the state without effect on those who wait.
    pub fn adjust<R>(&self, change: impl FnOnce(&mut Replica<AckWaiter>) -> R) -> R {
        change(&mut self.state.lock())
    }

    /// Changes the state, answers the acknowledgements that this settles and wakes who must look
    /// again. Returns the epoch that is to be prepared, if any.
    pub fn change(
        &self,
        change: impl FnOnce(&mut Replica<AckWaiter>) -> Change<AckWaiter>,
    ) -> Option<LeaderEpoch> {
        let (change, hint) = {
            let mut state = self.state.lock();
            let before = state.leader().map(Leader::epoch);
            let change = change(&mut state);
            let after = state.leader().map(Leader::epoch);
            if before != after {
                // Under the lock, so that subscribers hear changes in their order.
                self.leaderships.tell(self.leadership(after));
            }
            (change, hint(&state))
        };
        for waiter in change.committed {
            let _ = waiter.reply.send(waiter.done);
        }
        for waiter in change.failed {
            let _ = waiter.reply.send(not_leader(hint));
        }
        if change.role_changed {
            self.grown.wake();
            self.starts.wake();
        }
        if change.role_changed || change.moved {
            self.committed.wake();
        }
        change.prepare
    }

    fn leadership(&self, leads: Option<LeaderEpoch>) -> LeadershipChange {
        LeadershipChange {
            topic: self.key.0,
            partition: self.key.1,
            leads,
        }
    }

    /// Tells one new subscriber what is led now, in order with the changes that follow.
    pub fn tell_present(&self, subscriber: &mpsc::UnboundedSender<LeadershipChange>) {
        let state = self.state.lock();
        if let Some(leader) = state.leader() {
            let _ = subscriber.send(self.leadership(Some(leader.epoch())));
        }
    }

    /// What the leader knows, if this broker leads.
    pub fn leader_state(&self) -> Option<LeaderState> {
        let log_start = self.log_in_memory()?.log_start_offset();
        self.look_leader(|leader| LeaderState {
            epoch: leader.epoch(),
            epoch_start: leader.start(),
            log_start,
            high_watermark: leader.high_watermark(),
            log_end: leader.log_end(),
        })
    }

    /// Whom to ask instead.
    pub fn hint(&self) -> Option<LeaderHint> {
        hint(&self.state.lock())
    }

    /// Runs `cut`, which takes away records of this follower's log: who reads meanwhile notices.
    pub fn cutting<R>(&self, cut: impl FnOnce() -> R) -> R {
        self.cuts.fetch_add(1, Ordering::AcqRel);
        let done = cut();
        self.cuts.fetch_add(1, Ordering::AcqRel);
        done
    }

    /// A number that another look finds unchanged if nothing was cut in between; `None` during a cut.
    pub fn uncut(&self) -> Option<u64> {
        let cuts = self.cuts.load(Ordering::Acquire);
        cuts.is_multiple_of(2).then_some(cuts)
    }

    /// Takes the partition out of service: its storage failed.
    pub fn fail(&self, reason: String) {
        tracing::error!(topic = %self.topic, topic_id = %self.key.0, partition = self.key.1, %reason,
            "partition is offline on this broker until it is restarted");
        self.change(|state| state.fail(reason));
        self.leaderships.failures.send_modify(|count| *count += 1);
    }

    /// As [`Self::fail`], for what no disk is to blame for and another start may mend: this process must end.
    pub fn give_up(&self, reason: String) {
        let named = format!("{}-{}: {reason}", self.topic, self.key.1);
        // The first reason is the one that is told.
        let _ = self.leaderships.ended.set(named);
        self.fail(reason);
    }

    /// Takes the partition out of service if its log is: by an error of its own, or of another log in the
    /// same directory. Tells whether it is out of service now.
    pub fn notice_failure(&self) -> bool {
        if self.look(is_offline) {
            return true;
        }
        let storage = self.log().and_then(|log| log.offline());
        if let Some(storage) = &storage {
            self.fail(storage.to_string());
        }
        storage.is_some()
    }
}

/// Whom the image names. A leader that has yet to begin is named too: clients come back to it.
pub fn hint<T>(state: &Replica<T>) -> Option<LeaderHint> {
    state.view().map(|view| LeaderHint {
        leader: view.leader,
        epoch: view.leader_epoch,
    })
}

/// Whether the replica is out of service because of its storage.
pub fn is_offline<T>(state: &Replica<T>) -> bool {
    matches!(state.role(), Role::Offline(_))
}

/// The refusal of a produce by someone who does not lead.
pub fn not_leader(hint: Option<LeaderHint>) -> ProduceResult {
    ProduceResult {
        current_leader: hint,
        ..ProduceResult::failed(ErrorCode::NotLeaderOrFollower, None)
    }
}
