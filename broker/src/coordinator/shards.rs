//! The shards that a coordinator runs: one task per led partition, each asked through a queue of its own.
//!
//! A shard belongs to one leadership: when that ends, its task is dropped at once, and whoever it kept
//! waiting is told NOT_COORDINATOR.

use super::log::Leadership;
use leasehold_types::TopicId;
use leasehold_types::seams::{HashMap, taken_out};
use leasehold_wire::ErrorCode;
use parking_lot::RwLock;
use std::sync::Arc;
use tokio::runtime::Handle as Runtime;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Questions that may wait for a shard; more make their connections wait.
const QUEUE: usize = 1024;

/// What others may read of a shard without asking it.
pub trait Gauges: Default + Send + Sync + 'static {
    /// Whether its state is loaded, so that it can be asked.
    fn is_loaded(&self) -> bool;
}

struct Handle<C, G> {
    at: Leadership,
    commands: mpsc::Sender<C>,
    gauges: Arc<G>,
    /// For those who tell the shard something from a thread of the replicas.
    runtime: Runtime,
    /// Ends the task when the handle is dropped.
    _guard: DropGuard,
}

/// The shards by partition; `C` is what they are asked, `G` what they show.
pub struct Shards<C, G> {
    handles: RwLock<HashMap<i32, Handle<C, G>>>,
}

impl<C, G> Default for Shards<C, G> {
    fn default() -> Self {
        Self {
            handles: RwLock::default(),
        }
    }
}

impl<C: Send + 'static, G: Gauges> Shards<C, G> {
    /// This broker leads a partition from now on: runs what `task` gives until it does so no longer.
    pub fn lead<F>(&self, at: Leadership, task: impl FnOnce(mpsc::Receiver<C>, Arc<G>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut handles = self.handles.write();
        let present = handles.get(&at.partition);
        if present.is_some_and(|handle| handle.at == at) {
            return;
        }
        let (sender, commands) = mpsc::channel(QUEUE);
        let gauges = Arc::new(G::default());
        let cancel = CancellationToken::new();
        let (cancelled, task) = (cancel.clone(), task(commands, gauges.clone()));
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = cancelled.cancelled() => {}
                () = task => {}
            }
        });
        let handle = Handle {
            at,
            commands: sender,
            gauges,
            runtime: Runtime::current(),
            _guard: cancel.drop_guard(),
        };
        handles.insert(at.partition, handle);
    }

    /// This broker leads the partition no longer, in whatever epoch it did.
    pub fn resign(&self, topic: TopicId, partition: i32) {
        let mut handles = self.handles.write();
        if let Some(handle) = handles.get(&partition)
            && handle.at.topic == topic
            && !taken_out("a-former-leader-lets-go")
        {
            tracing::info!(%topic, partition, epoch = %handle.at.epoch, "what was coordinated is let go");
            handles.remove(&partition);
        }
    }

    /// Lets all go: the broker stops.
    pub fn close(&self) {
        self.handles.write().clear();
    }

    /// The partitions that are led, loaded or not.
    pub fn partitions(&self) -> Vec<i32> {
        self.handles.read().keys().copied().collect()
    }

    /// What the shards show.
    pub fn gauges(&self) -> Vec<Arc<G>> {
        let handles = self.handles.read();
        handles.values().map(|h| h.gauges.clone()).collect()
    }

    /// The queues of all shards.
    pub fn senders(&self) -> Vec<mpsc::Sender<C>> {
        let handles = self.handles.read();
        handles.values().map(|h| h.commands.clone()).collect()
    }

    /// Asks the shard of a partition, if it is loaded.
    pub async fn ask<R>(
        &self,
        partition: i32,
        command: impl FnOnce(oneshot::Sender<R>) -> C,
    ) -> Result<R, ErrorCode> {
        let sender = {
            let handles = self.handles.read();
            let handle = handles.get(&partition).ok_or(ErrorCode::NotCoordinator)?;
            if !handle.gauges.is_loaded() {
                return Err(ErrorCode::CoordinatorLoadInProgress);
            }
            handle.commands.clone()
        };
        let (reply, answer) = oneshot::channel();
        let gone = ErrorCode::NotCoordinator;
        sender.send(command(reply)).await.map_err(|_| gone)?;
        // Without the sender the shard can see that nobody will ask it any more.
        drop(sender);
        answer.await.map_err(|_| gone)
    }

    /// Tells the shard of a leadership something, if it is there; does not wait, and may be called from any
    /// thread. What is told may overtake what is asked, and the other way round.
    pub fn tell(&self, at: Leadership, command: C) {
        let handles = self.handles.read();
        let Some(handle) = handles.get(&at.partition).filter(|handle| handle.at == at) else {
            return;
        };
        // One that has ended need not know.
        if let Err(TrySendError::Full(command)) = handle.commands.try_send(command) {
            let sender = handle.commands.clone();
            handle
                .runtime
                .spawn(async move { sender.send(command).await });
        }
    }
}
