//! The life of a candidate: wait for the Lease, claim the head, serve a term, begin again.

use super::handle::{ControllerHandle, QUEUE, Question, Role};
use super::term::{End, Term};
use leasehold_metadata::controller::Settings;
use leasehold_metadata::head::keys::CLUSTER_ID;
use leasehold_metadata::head::{
    ControllerRef, HeadWriter, Limits, LoadError, Loaded, check_level, load,
};
use leasehold_metadata::lease::{Elector, Evidence, Holder, Tenure};
use leasehold_metadata::store::Store;
use leasehold_types::seams::taken_out;
use leasehold_types::{BrokerId, ClusterId};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// What a candidate needs to know.
pub struct DriverConfig {
    pub cluster_id: ClusterId,
    pub me: Holder,
    /// This broker's internal listener, `host:port`.
    pub address: String,
    pub settings: Settings,
    pub limits: Limits,
}

/// The running candidate. Dropping it ends it at once, without releasing the Lease.
pub struct Driver {
    handle: ControllerHandle,
    evidence: Evidence,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Begins to stand for election.
pub fn start(config: DriverConfig, store: Arc<dyn Store>) -> Driver {
    let elector = Elector::new(Arc::clone(&store), config.me, config.address.clone());
    start_with(config, store, elector)
}

/// [`start`] with an elector of the caller's.
pub(crate) fn start_with(config: DriverConfig, store: Arc<dyn Store>, elector: Elector) -> Driver {
    let evidence = elector.evidence();
    let (questions, asked) = mpsc::channel(QUEUE);
    let (role_sender, role) = watch::channel(Role::Standby);
    let (stop, stopped) = watch::channel(false);
    let handle = ControllerHandle {
        questions,
        role,
        lease: elector.observed(),
    };
    let candidate = Candidate {
        config,
        store,
        elector,
        role: RoleSender(role_sender),
        asked,
        stopped,
        lost: None,
        foreign: false,
    };
    Driver {
        handle,
        evidence,
        stop,
        task: tokio::spawn(candidate.run()),
    }
}

impl Driver {
    /// Reaches the controller of this process.
    pub fn handle(&self) -> ControllerHandle {
        self.handle.clone()
    }

    /// Where to report that the holder of the Lease died.
    pub fn evidence(&self) -> Evidence {
        self.evidence.clone()
    }

    /// Ends the candidacy in order: the term first, then the Lease is given back.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let _ = (&mut self.task).await;
    }
}

/// Says "standby" when the candidate ends, however it ends.
pub(super) struct RoleSender(pub(super) watch::Sender<Role>);

impl Drop for RoleSender {
    fn drop(&mut self) {
        self.0.send_replace(Role::Standby);
    }
}

struct Candidate {
    config: DriverConfig,
    store: Arc<dyn Store>,
    elector: Elector,
    role: RoleSender,
    asked: mpsc::Receiver<Question>,
    stopped: watch::Receiver<bool>,
    /// Whom the last term of this process saw lost when it stood back.
    lost: Option<BTreeSet<BrokerId>>,
    /// The head was another cluster's when it was last looked at, or of a level that this release does not know.
    foreign: bool,
}

/// Between attempts to claim that failed for want of a store.
const PAUSE: Duration = Duration::from_millis(100);

impl Candidate {
    async fn run(mut self) {
        let mut stopped = self.stopped.clone();
        loop {
            tokio::select! {
                biased;
                () = self.own_head() => {}
                _ = stopped.wait_for(|stop| *stop) => return,
            }
            let tenure = tokio::select! {
                biased;
                tenure = self.elector.acquire() => tenure,
                _ = stopped.wait_for(|stop| *stop) => return,
            };
            tracing::info!(holder = %self.config.me, "holds the controller Lease");
            let begun = Instant::now();
            self.role.0.send_replace(Role::Claiming);
            let end = match self.claim(&tenure).await {
                Some((writer, loaded)) => {
                    let epoch = writer.our_claim().epoch;
                    tracing::info!(controller_epoch = epoch.0, holder = %self.config.me, seq = writer.head().seq.0,
                        took_ms = begun.elapsed().as_millis() as u64, "claimed: this broker is the controller");
                    let lost = self.lost.take();
                    let term = Term::new(
                        &self.config,
                        &self.store,
                        &tenure,
                        writer,
                        loaded,
                        lost,
                        self.elector.evidence().take(),
                    );
                    let end = term
                        .serve(&mut self.asked, &self.role.0, &mut stopped)
                        .await;
                    tracing::warn!(controller_epoch = epoch.0, holder = %self.config.me, %end, "resigned");
                    end
                }
                None => End::Lost("the head could not be claimed".to_owned()),
            };
            // Nothing of the term is left now, so the role may be seen to end and the Lease to be free.
            self.role.0.send_replace(Role::Standby);
            self.refuse_waiting();
            match end {
                End::Stopped => {
                    tenure.release().await;
                    return;
                }
                End::StandBack { lost, .. } => {
                    self.lost = Some(lost);
                    self.elector.stand_back();
                    tenure.release().await;
                }
                // The Lease may be ours still: others need not wait for it to expire.
                End::Lost(_) => tenure.release().await,
            }
        }
    }

    /// Waits as long as the head is known to be another cluster's, or cannot be read by this release: whoever held
    /// the Lease then would keep it from those who can go on with it.
    async fn own_head(&mut self) {
        while self.foreign {
            tokio::time::sleep(PAUSE * 10).await;
            if let Ok(Some(head)) = self.store.read_head().await {
                self.foreign = head.data.get(CLUSTER_ID) != Some(&self.config.cluster_id.0)
                    || check_level(&head.data).is_err();
            }
        }
    }

    /// Questions that came too late for the term get no answer from a later one.
    fn refuse_waiting(&mut self) {
        while self.asked.try_recv().is_ok() {}
    }

    /// Claims the head under `tenure`. `None`: the tenure is over, or the head is not this cluster's.
    async fn claim(&mut self, tenure: &Tenure) -> Option<(HeadWriter, Loaded)> {
        while tenure.may_act() {
            let loaded = match load(&*self.store).await {
                Ok(loaded) => loaded,
                Err(LoadError::Unsupported(error)) => {
                    tracing::error!(%error, store = self.store.describe(), "this broker stands for nothing");
                    self.foreign = true;
                    return None;
                }
                Err(error) => {
                    let fatal = !matches!(error, LoadError::Store(_));
                    if fatal {
                        tracing::error!(%error, "the metadata cannot be loaded");
                    } else {
                        tracing::warn!(%error, "cannot load the metadata");
                    }
                    tokio::time::sleep(if fatal { PAUSE * 10 } else { PAUSE }).await;
                    continue;
                }
            };
            let (ours, found) = (&self.config.cluster_id, &loaded.head.cluster_id);
            if found != ours && !taken_out("a-foreign-head-is-left-alone") {
                tracing::error!(%ours, %found, store = self.store.describe(), "the head is another cluster's: \
                    two clusters have one name; this broker stands for nothing until its own head is back");
                self.foreign = true;
                return None;
            }
            let controller = ControllerRef {
                broker: self.config.me.broker,
                incarnation: self.config.me.incarnation,
                address: self.config.address.clone(),
            };
            let guard = tenure.guard();
            let may_act = Arc::new(move || guard.may_act());
            let store = Arc::clone(&self.store);
            let claimed = HeadWriter::claim(
                store,
                loaded.clone(),
                controller,
                self.config.limits,
                may_act,
            )
            .await;
            match claimed {
                Ok((writer, _)) if self.still_holds().await => return Some((writer, loaded)),
                Ok(_) => {
                    tracing::info!("the Lease went to another while the head was claimed");
                    return None;
                }
                // The head moved, or the store did not answer: keep the Lease, begin again.
                Err(error) => tracing::info!(%error, "the claim failed"),
            }
        }
        None
    }

    /// Whether the Lease is ours after the claim: if not, its new holder is about to claim too.
    async fn still_holds(&self) -> bool {
        match self.store.read_lease().await {
            Ok(lease) => {
                let holder = lease.and_then(|l| l.holder);
                holder == Some(self.config.me.to_string())
            }
            // The head is ours and fences; the tenure's own deadline bounds the rest.
            Err(_) => true,
        }
    }
}
