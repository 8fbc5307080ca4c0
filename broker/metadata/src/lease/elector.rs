//! Waits for the Lease, takes it, renews it, gives it back.

use super::{ACT_FOR, BootInstant, DURATION, Decision, Holder, Observation, RENEW_EVERY};
use crate::store::{LeaseError, LeaseRecord, Store};
use leasehold_types::seams::taken_out;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Where those who see a holder die say so.
#[derive(Clone, Debug)]
pub struct Evidence(Arc<watch::Sender<Option<Death>>>);

#[derive(Clone, Debug)]
struct Death {
    holder: String,
    reported: BootInstant,
}

/// A renewal that is seen this long after the report was not under way when the holder died: it lives.
const REFUTED_AFTER: Duration = Duration::from_millis(500);

impl Evidence {
    /// This holder (`<broker id>/<incarnation>`) is dead: its connection ended, and a new one was
    /// refused, or not answered in time, or answered by someone else.
    pub fn dead(&self, holder: &str) {
        self.0.send_replace(Some(Death {
            holder: holder.to_owned(),
            reported: BootInstant::now(),
        }));
    }

    /// The holder that was last reported dead; it is not told twice.
    pub fn take(&self) -> Option<String> {
        self.0.send_replace(None).map(|death| death.holder)
    }

    /// `holder` has just been seen to renew.
    fn renewed(&self, holder: Option<&str>, now: BootInstant) {
        self.0.send_if_modified(|death| {
            let refuted = death.as_ref().is_some_and(|d| {
                Some(d.holder.as_str()) == holder && now.since(d.reported) > REFUTED_AFTER
            });
            if refuted {
                *death = None;
            }
            false
        });
    }
}

/// A candidate for the Lease.
pub struct Elector {
    store: Arc<dyn Store>,
    me: Holder,
    address: String,
    evidence: Evidence,
    observed: watch::Sender<Option<LeaseRecord>>,
    stand_back: Option<BootInstant>,
    ignore_deadline: bool,
}

impl Elector {
    /// A candidate `me`, whose internal listener is at `address`.
    pub fn new(store: Arc<dyn Store>, me: Holder, address: String) -> Self {
        let elector = Self {
            store,
            me,
            address,
            evidence: Evidence(Arc::new(watch::Sender::new(None))),
            observed: watch::Sender::new(None),
            stand_back: None,
            ignore_deadline: false,
        };
        let variable = std::env::var(super::IGNORE_DEADLINE_VARIABLE);
        match variable.is_ok_and(|value| value == "1") {
            true => elector.ignoring_its_deadline(),
            false => elector,
        }
    }

    /// Test switch: goes on acting past its Lease deadline, so that only the head stands in its way.
    pub fn ignoring_its_deadline(self) -> Self {
        tracing::warn!("this broker will go on acting as controller past its Lease deadline");
        Self {
            ignore_deadline: true,
            ..self
        }
    }

    /// Where to report that a holder died.
    pub fn evidence(&self) -> Evidence {
        self.evidence.clone()
    }

    /// The Lease as this candidate last saw it.
    pub fn observed(&self) -> watch::Receiver<Option<LeaseRecord>> {
        self.observed.subscribe()
    }

    /// Leaves the Lease to others for one Lease duration.
    pub fn stand_back(&mut self) {
        self.stand_back = Some(BootInstant::now() + DURATION);
    }

    /// Waits until the Lease is ours.
    pub async fn acquire(&mut self) -> Tenure {
        let mut dead = self.evidence.0.subscribe();
        let mut observation: Option<Observation> = None;
        loop {
            let record = match self.store.read_lease().await {
                Ok(record) => record,
                Err(error) => {
                    tracing::debug!(%error, "cannot read the Lease");
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    continue;
                }
            };
            self.observed.send_if_modified(|known| {
                let news = *known != record;
                known.clone_from(&record);
                news
            });
            let now = BootInstant::now();
            let seen = observation.get_or_insert_with(|| Observation::new(record.clone(), now));
            if seen.see(record, now) {
                let holder = seen.record().and_then(|r| r.holder.as_deref());
                self.evidence.renewed(holder, now);
            }
            let reported = dead.borrow_and_update().clone().map(|d| d.holder);
            let mut decision = seen.decide(self.me, reported.as_deref(), now);
            if let Some(until) = self.stand_back
                && until > now
            {
                decision = Decision::Wait(until.since(now));
            }
            match decision {
                Decision::Take => {
                    let known = seen.record().cloned();
                    if let Some(tenure) = self.take(known).await {
                        self.stand_back = None;
                        return tenure;
                    }
                }
                Decision::Wait(rest) => {
                    let version = seen.record().map(|r| r.version.clone());
                    tokio::select! {
                        biased;
                        () = self.store.lease_changed(version.as_deref()) => {}
                        _ = dead.changed() => {}
                        // A watch may stall: look for oneself now and then.
                        () = tokio::time::sleep(rest.min(RENEW_EVERY)) => {}
                    }
                }
            }
        }
    }

    async fn take(&self, known: Option<LeaseRecord>) -> Option<Tenure> {
        let transitions = known.as_ref().map_or(0, |r| r.transitions);
        let now = wall_clock_ms();
        let record = LeaseRecord {
            holder: Some(self.me.to_string()),
            address: Some(self.address.clone()),
            duration: DURATION,
            transitions: transitions.saturating_add(1),
            taken_at_ms: now,
            renewed_at_ms: now,
            ..LeaseRecord::default()
        };
        let expected = known.as_ref().map(|r| (r.uid.as_str(), r.version.as_str()));
        let sent = BootInstant::now();
        match self.store.write_lease(expected, &record).await {
            Ok(written) => {
                self.observed.send_replace(Some(written.clone()));
                Some(Tenure::begin(self, written, sent))
            }
            Err(LeaseError::Conflict) => None,
            Err(error) => {
                tracing::warn!(%error, "cannot take the Lease");
                tokio::time::sleep(Duration::from_millis(200)).await;
                None
            }
        }
    }
}

/// For people who read the Lease; no program compares it.
fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

struct Shared {
    /// When the last successful renewal was sent.
    renewed: Mutex<BootInstant>,
    /// The record last written by us.
    written: Mutex<LeaseRecord>,
    lost: watch::Sender<bool>,
    ignore_deadline: bool,
}

/// Marks the Lease as lost when the renewing task ends, however it ends.
struct LostOnDrop(Arc<Shared>);

impl Drop for LostOnDrop {
    fn drop(&mut self) {
        self.0.lost.send_replace(true);
    }
}

/// The time in which we hold the Lease. Dropping it stops renewing.
pub struct Tenure {
    store: Arc<dyn Store>,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    renewing: Option<JoinHandle<()>>,
}

impl Drop for Tenure {
    fn drop(&mut self) {
        if let Some(task) = &self.renewing {
            task.abort();
        }
        self.shared.lost.send_replace(true);
    }
}

impl Tenure {
    fn begin(elector: &Elector, written: LeaseRecord, sent: BootInstant) -> Self {
        let shared = Arc::new(Shared {
            renewed: Mutex::new(sent),
            written: Mutex::new(written),
            lost: watch::Sender::new(false),
            ignore_deadline: elector.ignore_deadline,
        });
        let (stop, stopped) = watch::channel(false);
        let renewing = tokio::spawn(renew(
            Arc::clone(&elector.store),
            LostOnDrop(Arc::clone(&shared)),
            elector.me,
            stopped,
        ));
        Self {
            store: Arc::clone(&elector.store),
            shared,
            stop,
            renewing: Some(renewing),
        }
    }

    /// Whether the holder may still decide, write and answer.
    pub fn may_act(&self) -> bool {
        self.shared.may_act()
    }

    /// A handle for those who must ask [`Self::may_act`] elsewhere.
    pub fn guard(&self) -> TenureGuard {
        TenureGuard(Arc::clone(&self.shared))
    }

    /// Returns once we may no longer act.
    pub async fn lost(&self) {
        if self.shared.ignore_deadline {
            return std::future::pending().await;
        }
        let mut lost = self.shared.lost.subscribe();
        loop {
            if !self.may_act() {
                return;
            }
            let age = BootInstant::now().since(*self.shared.renewed.lock());
            let rest = ACT_FOR.saturating_sub(age).max(Duration::from_millis(1));
            tokio::select! {
                biased;
                _ = lost.wait_for(|lost| *lost) => return,
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    /// Gives the Lease back, for a clean stop, after the work it guards has stopped.
    pub async fn release(mut self) {
        self.stop.send_replace(true);
        if let Some(task) = self.renewing.take() {
            // The task ends after the write that may be in flight, which a store bounds.
            let _ = task.await;
        }
        let last = self.shared.written.lock().clone();
        let released = LeaseRecord {
            holder: None,
            address: None,
            ..last.clone()
        };
        let expected = Some((last.uid.as_str(), last.version.as_str()));
        match self.store.write_lease(expected, &released).await {
            Ok(_) => tracing::info!("released the controller Lease"),
            // Someone took it, or the store is away: it expires by itself.
            Err(error) => tracing::info!(%error, "the controller Lease was not released"),
        }
    }
}

/// Tells whether the tenure it came from may still act.
#[derive(Clone)]
pub struct TenureGuard(Arc<Shared>);

impl TenureGuard {
    /// See [`Tenure::may_act`].
    pub fn may_act(&self) -> bool {
        self.0.may_act()
    }
}

impl Shared {
    fn may_act(&self) -> bool {
        let in_time = BootInstant::now().since(*self.renewed.lock()) < ACT_FOR;
        self.ignore_deadline || taken_out("lease-deadline") || (in_time && !*self.lost.borrow())
    }
}

async fn renew(
    store: Arc<dyn Store>,
    lost: LostOnDrop,
    me: Holder,
    mut stopped: watch::Receiver<bool>,
) {
    let shared = &lost.0;
    loop {
        let age = BootInstant::now().since(*shared.renewed.lock());
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(RENEW_EVERY.saturating_sub(age)) => {}
        }
        if !shared.may_act() {
            tracing::warn!("the Lease could not be renewed in time");
            return;
        }
        let last = shared.written.lock().clone();
        let next = LeaseRecord {
            renewed_at_ms: wall_clock_ms(),
            ..last.clone()
        };
        let sent = BootInstant::now();
        let expected = Some((last.uid.as_str(), last.version.as_str()));
        match store.write_lease(expected, &next).await {
            Ok(written) => {
                *shared.written.lock() = written;
                *shared.renewed.lock() = sent;
            }
            Err(LeaseError::NotSent(why)) => {
                tracing::debug!(why, "the Lease was not renewed");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            // A conflict may be our own earlier copy: only reading tells.
            Err(LeaseError::Conflict | LeaseError::InDoubt(_)) => match store.read_lease().await {
                Ok(Some(now)) if now.holder == Some(me.to_string()) => {
                    *shared.written.lock() = now;
                }
                Ok(Some(now)) => {
                    let holder = now.holder.unwrap_or_default();
                    tracing::warn!(holder, "another holds the Lease now");
                    return;
                }
                Ok(None) => {
                    tracing::warn!("the Lease was deleted");
                    return;
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot read the Lease");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::simulated::{SimulatedStore, WriteFault};
    use leasehold_types::{BrokerId, Incarnation};
    use tokio::time::timeout;

    const SOON: Duration = Duration::from_millis(500);

    fn candidate(store: &SimulatedStore, broker: i32) -> Elector {
        let me = Holder {
            broker: BrokerId(broker),
            incarnation: Incarnation(i64::from(broker) + 70),
        };
        Elector::new(Arc::new(store.clone()), me, format!("127.0.0.1:{broker}"))
    }

    #[tokio::test]
    async fn a_released_lease_is_taken_at_once_and_a_held_one_is_not() {
        let store = SimulatedStore::new();
        let mut first = candidate(&store, 0);
        let mut second = candidate(&store, 1);
        let tenure = timeout(SOON, first.acquire()).await.unwrap();
        assert!(tenure.may_act());
        assert!(timeout(SOON, second.acquire()).await.is_err());
        let waiting = tokio::spawn(async move { second.acquire().await.may_act() });
        tenure.release().await;
        assert!(timeout(SOON, waiting).await.unwrap().unwrap());
    }

    #[tokio::test]
    async fn evidence_against_the_holder_shortens_the_wait() {
        let store = SimulatedStore::new();
        let tenure = candidate(&store, 0).acquire().await;
        let mut second = candidate(&store, 1);
        let evidence = second.evidence();
        let waiting = tokio::spawn(async move { second.acquire().await });
        tokio::task::yield_now().await;
        evidence.dead("0/70");
        let taken = timeout(SOON, waiting).await.unwrap().unwrap();
        assert!(taken.may_act());
        // The old holder notices at its next renewal.
        timeout(RENEW_EVERY * 2, tenure.lost()).await.unwrap();
        assert!(!tenure.may_act());
    }

    #[tokio::test]
    async fn evidence_is_refuted_by_a_later_renewal_and_used_once() {
        let store = SimulatedStore::new();
        let mut holder = candidate(&store, 0);
        let tenure = holder.acquire().await;
        let mut second = candidate(&store, 1);
        let evidence = second.evidence();
        // It stands back, so that it sees the holder renew before it may act on the evidence.
        second.stand_back();
        let waiting = tokio::spawn(async move { second.acquire().await });
        tokio::task::yield_now().await;
        evidence.dead("0/70");
        tokio::time::sleep(RENEW_EVERY * 2).await;
        assert!(tenure.may_act() && !waiting.is_finished());
        assert_eq!(evidence.take(), None);
        evidence.dead("0/70");
        assert_eq!(evidence.take(), Some("0/70".to_owned()));
        assert_eq!(evidence.take(), None);
        waiting.abort();
    }

    #[tokio::test]
    async fn a_lost_reply_to_a_renewal_does_not_end_the_tenure() {
        let store = SimulatedStore::new();
        let tenure = candidate(&store, 0).acquire().await;
        store.inject_lease(WriteFault::LostReply);
        store.inject_lease(WriteFault::DuplicateRefused);
        assert!(timeout(RENEW_EVERY * 3, tenure.lost()).await.is_err());
        assert!(tenure.may_act());
    }

    #[tokio::test]
    async fn without_a_store_the_holder_stops_acting_before_the_lease_can_be_taken() {
        let store = SimulatedStore::new();
        let tenure = candidate(&store, 0).acquire().await;
        store.set_down(true);
        let begun = std::time::Instant::now();
        timeout(DURATION, tenure.lost()).await.unwrap();
        assert!(begun.elapsed() < DURATION);
        assert!(!tenure.may_act());
    }

    #[tokio::test]
    async fn a_deleted_lease_ends_the_tenure() {
        let store = SimulatedStore::new();
        let tenure = candidate(&store, 0).acquire().await;
        store.delete_lease();
        timeout(RENEW_EVERY * 2, tenure.lost()).await.unwrap();
    }
}
