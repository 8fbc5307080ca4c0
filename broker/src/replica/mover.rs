//! One replica on its way to another log directory of its broker.
//!
//! Promises: the copying is done beside the partition's lane, in passes; only the last one, which has little to do, is a job of
//! the lane. If this process ends, the copy stays, so that the next one knows of the move.

use super::io::blocking;
use super::manager::ReplicaManager;
use super::moves::{Progress, Word};
use super::partition::Partition;
use super::space::{Space, Writer};
use super::throttle::Limited;
use leasehold_log::{LogError, Move, Turn};
use leasehold_types::DirectoryId;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Semaphore, oneshot, watch};
use tokio::time::timeout;

/// So little is copied while producers of the partition wait.
const LITTLE: u64 = 4 << 20;
/// A limit that was raised is noticed as soon.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// One move.
pub struct Mover {
    pub manager: Weak<ReplicaManager>,
    pub partition: Arc<Partition>,
    pub to: DirectoryId,
    /// The room there.
    pub space: Arc<Space>,
    pub(super) progress: Arc<Progress>,
    pub(super) word: watch::Receiver<Word>,
    /// Of those who move this replica.
    pub line: Arc<Mutex<()>>,
    /// Of those who may copy.
    pub turns: Arc<Semaphore>,
}

/// How it ended.
enum End {
    Moved,
    /// A newer wish, or the replica went.
    Stopped,
    Failed(String),
}

impl Mover {
    /// Carries it to its end, and says how it ended.
    pub async fn run(self) {
        let key = self.partition.key();
        let (topic, manager) = (self.partition.topic().clone(), self.manager.clone());
        let progress = self.progress.clone();
        let began = Instant::now();
        let end = self.carry().await;
        let Some(manager) = manager.upgrade() else {
            return;
        };
        manager.moves().forget(key, &progress);
        let bytes = progress.bytes.load(Ordering::Relaxed);
        match end {
            End::Moved => {
                tracing::info!(%topic, partition = key.1, bytes, seconds = began.elapsed().as_secs_f64(),
                    "the replica lies in another log directory now");
            }
            End::Stopped => {
                tracing::info!(%topic, partition = key.1, "the replica's move to another log directory was ended");
            }
            End::Failed(error) => {
                tracing::warn!(%topic, partition = key.1, error, "the replica cannot be moved to another log directory");
            }
        }
    }

    async fn carry(mut self) -> End {
        let _first = self.line.clone().lock_owned().await;
        // Before it is its turn: the next process is to know of it.
        let begun = blocking(move || {
            let begun = self.begin();
            (self, begun)
        });
        let mut moving;
        (self, moving) = match begun.await {
            Ok((this, Ok(begun))) => (this, begun),
            Ok((_, Err(end))) => return end,
            Err(panic) => return End::Failed(panic.to_string()),
        };
        let turns = self.turns.clone();
        // Whichever comes first. It is never closed.
        let _turn = tokio::select! {
            turn = turns.acquire_owned() => turn.ok(),
            _ = self.word.changed() => None,
        };
        loop {
            let copied = blocking(move || {
                let copied = self.copy(moving);
                (self, copied)
            });
            let copy;
            (self, copy) = match copied.await {
                Ok((this, Ok(copy))) => (this, copy),
                Ok((_, Err(end))) => return end,
                Err(panic) => return End::Failed(panic.to_string()),
            };
            let partition = self.partition.clone();
            let (done, end) = oneshot::channel();
            partition.submit(move |_| {
                let turned = self.turn(copy);
                // Whoever waits goes only with the manager.
                let _ = done.send((self, turned));
            });
            let Ok((this, turned)) = end.await else {
                return End::Failed("its log threads ended".to_owned());
            };
            match turned {
                Turned::Moved => {
                    if let Some(manager) = this.manager.upgrade() {
                        clear(&manager, &partition).await;
                    }
                    return End::Moved;
                }
                Turned::Busy(copy) => {
                    moving = match blocking(move || copy.wait_for_rest()).await {
                        Ok(copy) => copy,
                        Err(panic) => return End::Failed(panic.to_string()),
                    };
                }
                Turned::Stayed(copy, end) => {
                    if let Ok(Err(error)) = blocking(move || copy.give_up()).await {
                        tracing::warn!(%error, "a copy that is not needed stays until the next start");
                    }
                    return end;
                }
                Turned::Left => return End::Stopped,
                Turned::Lost(error) => return End::Failed(error),
            }
            self = this;
        }
    }

    /// Makes room for the copy. Blocks.
    fn begin(&self) -> Result<Box<Move>, End> {
        let manager = self.manager.upgrade().ok_or(End::Stopped)?;
        let log = self.partition.log().ok_or(End::Stopped)?;
        let begun = manager.disks().dirs().begin_move(&log, self.to);
        Ok(Box::new(begun.map_err(failed)?))
    }

    /// Copies until little is left to copy. Blocks.
    fn copy(&self, mut moving: Box<Move>) -> Result<Box<Move>, End> {
        let manager = self.manager.upgrade().ok_or(End::Stopped)?;
        let log = self.partition.log().ok_or(End::Stopped)?;
        let throttles = manager.throttles.clone();
        drop(manager);
        loop {
            let log_end = log.log_end_offset();
            let mut room = true;
            let mut word = Word::GoOn;
            let passed = moving.pass(&mut |bytes| {
                word = self.wait_for_turn(&throttles.log_dirs);
                if word != Word::GoOn {
                    return false;
                }
                let size = usize::try_from(bytes).unwrap_or(usize::MAX);
                room = self.space.take(size, Writer::Records);
                if room {
                    throttles.log_dirs.sent(size);
                    self.progress.bytes.fetch_add(bytes, Ordering::Relaxed);
                }
                room
            });
            let Some(copied) = passed.map_err(failed)? else {
                if word == Word::Leave {
                    return Err(End::Stopped);
                }
                moving.give_up().map_err(failed)?;
                return Err(match room {
                    true => End::Stopped,
                    false => End::Failed(self.space.refusal()),
                });
            };
            self.progress.log_end.store(log_end.0, Ordering::Relaxed);
            if copied <= LITTLE {
                return Ok(moving);
            }
        }
    }

    fn word(&self) -> Word {
        let word = *self.word.borrow();
        match self.word.has_changed() {
            // Whoever began it has dropped the other end.
            Err(_) if word == Word::GoOn => Word::Stop,
            _ => word,
        }
    }

    /// Waits until more may be copied, or until there is another word. Blocks.
    fn wait_for_turn(&self, limit: &Limited) -> Word {
        let runtime = Handle::current();
        while let Some((wait, _)) = limit
            .wait(Instant::now())
            .filter(|(wait, _)| !wait.is_zero())
        {
            let mut word = self.word.clone();
            let told = async move { timeout(wait.min(LOOK_AGAIN), word.changed()).await };
            if runtime.block_on(told).is_ok() {
                break;
            }
        }
        self.word()
    }

    /// Puts the copy in the log's place. On the partition's lane.
    fn turn(&self, moving: Box<Move>) -> Turned {
        let Some(manager) = self.manager.upgrade() else {
            return Turned::Stayed(moving, End::Stopped);
        };
        match self.word() {
            Word::GoOn => {}
            Word::Stop => return Turned::Stayed(moving, End::Stopped),
            Word::Leave => return Turned::Left,
        }
        let partition = &self.partition;
        let dir = moving.target().clone();
        let turn = manager
            .disks()
            .dirs()
            .end_move(*moving, || partition.leaves());
        match turn {
            Ok(Turn::Moved(log)) => {
                let Some(place) = manager.disks().place(dir) else {
                    let error = "its log directory is not this broker's".to_owned();
                    partition.fail(error.clone());
                    return Turned::Lost(error);
                };
                partition.arrived(log, place);
                // Whoever looked for its log in between went without it.
                manager.look_again();
                Turned::Moved
            }
            Ok(Turn::Busy(moving)) => Turned::Busy(moving),
            Ok(Turn::Stayed(moving, error)) => {
                // Such as of a replica that was deleted meanwhile.
                let end = match partition.log().is_none_or(|log| log.offline().is_some()) {
                    true => End::Stopped,
                    false => End::Failed(error.to_string()),
                };
                Turned::Stayed(moving, end)
            }
            Err(error) => {
                partition.fail(error.to_string());
                Turned::Lost(error.to_string())
            }
        }
    }
}

enum Turned {
    Moved,
    Busy(Box<Move>),
    Stayed(Box<Move>, End),
    /// For the next process.
    Left,
    /// Neither here nor there until the next start.
    Lost(String),
}

fn failed(error: LogError) -> End {
    End::Failed(error.to_string())
}

/// Removes what the former place still has, once the new one knows how far the replica had come.
async fn clear(manager: &Arc<ReplicaManager>, partition: &Arc<Partition>) {
    let (topic, index) = partition.key();
    let this = manager.clone();
    let cleared = blocking(move || {
        this.checkpoint()?;
        this.disks().dirs().clear_after_move(topic, index)
    });
    if let Ok(Err(error)) = cleared.await {
        tracing::warn!(topic = %partition.topic(), partition = index, %error,
            "what was left at the replica's former place stays until the next start");
    }
}
