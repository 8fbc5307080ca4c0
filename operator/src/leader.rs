//! Which replica of the operator acts: a Lease of its own.
//!
//! Promises: a candidate takes over only after a full lease duration, by its own clock, in which the
//! Lease did not change, or when the holder released it; clocks of different machines are never
//! compared. The holder counts from the moment it *sent* its last successful renewal and stops acting
//! well before others may begin. [`Leadership::is_held`] is asked before every change of the world;
//! what slips through is harmless, because every change is idempotent or carries a precondition.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long an unchanged Lease protects its holder.
pub const DURATION: Duration = Duration::from_secs(8);
/// How often it is renewed, and how often others look.
pub const PERIOD: Duration = Duration::from_secs(1);
/// How long after sending its last successful renewal the holder still acts.
pub const ACTING: Duration = Duration::from_secs(5);
/// How long one call may take.
const CALL: Duration = Duration::from_secs(2);

/// Time since boot, sleep included: a machine that was suspended must find its Lease expired.
fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(
        time.tv_sec.max(0).unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// What a look at the Lease means.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is free, or its holder has been silent for too long.
    Take,
    /// Another holds it.
    Wait,
}

/// The Lease as last seen to change.
#[derive(Default)]
struct Observed {
    version: String,
    since: Duration,
}

/// Pure: decides on one look. `version` is the Lease's resourceVersion.
fn judge(
    observed: &mut Observed,
    holder: &str,
    version: &str,
    duration: Duration,
    now: Duration,
) -> Verdict {
    if observed.version != version {
        observed.version = version.to_owned();
        observed.since = now;
    }
    if holder.is_empty() || now.saturating_sub(observed.since) >= duration {
        Verdict::Take
    } else {
        Verdict::Wait
    }
}

/// Says whether this process may act. Cheap to clone and to ask.
#[derive(Clone, Default)]
pub struct Leadership {
    /// Boot time in milliseconds until which it may; 0 before it ever held.
    until: Arc<AtomicU64>,
}

impl Leadership {
    /// Whether this process may act now.
    pub fn is_held(&self) -> bool {
        millis(now()) < self.until.load(Ordering::Acquire)
    }

    fn extend(&self, sent: Duration) {
        self.until.store(millis(sent + ACTING), Ordering::Release);
    }

    fn end(&self) {
        self.until.store(0, Ordering::Release);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The elector of one process.
pub struct Elector {
    api: Api<Lease>,
    name: String,
    identity: String,
    leadership: Leadership,
    observed: Observed,
}

impl Elector {
    /// `client` should have short time limits and no retries of its own.
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        identity: &str,
        leadership: Leadership,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            leadership,
            observed: Observed::default(),
        }
    }

    /// Waits until this process holds the Lease.
    pub async fn acquire(&mut self, mut on_look: impl FnMut(bool)) -> Lease {
        let mut tick = tokio::time::interval(PERIOD);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            match self.try_acquire().await {
                Ok(held) => {
                    on_look(true);
                    if let Some(lease) = held {
                        return lease;
                    }
                }
                Err(error) => {
                    on_look(false);
                    tracing::warn!(lease = %self.name, %error, "cannot read or take the operator's Lease");
                }
            }
        }
    }

    async fn try_acquire(&mut self) -> Result<Option<Lease>, kube::Error> {
        let seen = within(self.api.get_opt(&self.name)).await?;
        let Some(seen) = seen else {
            let lease = self.record(None);
            return self.write(lease, true).await;
        };
        let spec = seen.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let version = seen
            .metadata
            .resource_version
            .as_deref()
            .unwrap_or_default();
        let seconds = spec
            .lease_duration_seconds
            .unwrap_or(0)
            .max(1)
            .unsigned_abs();
        let duration = Duration::from_secs(u64::from(seconds)).max(DURATION);
        match judge(&mut self.observed, holder, version, duration, now()) {
            Verdict::Wait => Ok(None),
            Verdict::Take => {
                let lease = self.record(Some(&seen));
                self.write(lease, false).await
            }
        }
    }

    /// Renews until that fails for so long that this process must not act any more, and says why.
    pub async fn hold(&mut self, mut lease: Lease) -> String {
        loop {
            tokio::time::sleep(PERIOD).await;
            let next = self.record(Some(&lease));
            match self.write(next, false).await {
                Ok(Some(renewed)) => lease = renewed,
                Ok(None) => {
                    // A conflict may be our own renewal whose answer was lost: look.
                    match within(self.api.get_opt(&self.name)).await {
                        Ok(Some(seen)) if is_older(&seen, &lease) => {
                            self.leadership.end();
                            return "the API server's data was put back to an older state, and watches begun before \
                                    tell nothing any more: beginning anew"
                                .to_owned();
                        }
                        Ok(Some(seen)) if self.holds(&seen) => lease = seen,
                        Ok(_) => {
                            self.leadership.end();
                            return "another replica took the Lease, or it was deleted".to_owned();
                        }
                        Err(error) => tracing::warn!(%error, "cannot read the operator's Lease"),
                    }
                }
                Err(error) => tracing::warn!(%error, "cannot renew the operator's Lease"),
            }
            if !self.leadership.is_held() {
                return format!("the Lease could not be renewed for {ACTING:?}");
            }
        }
    }

    /// Gives the Lease up, so that another replica acts at once. Call it when nothing acts any more.
    pub async fn release(&mut self) {
        self.leadership.end();
        let Ok(Some(mut lease)) = within(self.api.get_opt(&self.name)).await else {
            return;
        };
        if !self.holds(&lease) {
            return;
        }
        if let Some(spec) = lease.spec.as_mut() {
            spec.holder_identity = Some(String::new());
        }
        if let Err(error) =
            within(self.api.replace(&self.name, &PostParams::default(), &lease)).await
        {
            tracing::warn!(%error, "could not release the operator's Lease; others wait until it expires");
        }
    }

    fn holds(&self, lease: &Lease) -> bool {
        lease
            .spec
            .as_ref()
            .and_then(|spec| spec.holder_identity.as_ref())
            == Some(&self.identity)
    }

    /// The record to write over `old`: uid and resourceVersion are the precondition.
    fn record(&self, old: Option<&Lease>) -> Lease {
        let at = Some(MicroTime(Timestamp::now()));
        let old_spec = old.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let same = old_spec.holder_identity.as_ref() == Some(&self.identity);
        let transitions = old_spec.lease_transitions.unwrap_or(0);
        Lease {
            metadata: match old {
                Some(old) => ObjectMeta {
                    managed_fields: None,
                    ..old.metadata.clone()
                },
                None => ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: if same {
                    old_spec.acquire_time
                } else {
                    at.clone()
                },
                renew_time: at,
                lease_transitions: Some(if same {
                    transitions
                } else {
                    transitions.saturating_add(1)
                }),
                ..LeaseSpec::default()
            }),
        }
    }

    /// Writes `lease`; `None` if its precondition failed.
    async fn write(&self, lease: Lease, create: bool) -> Result<Option<Lease>, kube::Error> {
        let sent = now();
        let params = PostParams::default();
        let written = if create {
            within(self.api.create(&params, &lease)).await
        } else {
            within(self.api.replace(&self.name, &params, &lease)).await
        };
        match written {
            Ok(lease) => {
                self.leadership.extend(sent);
                Ok(Some(lease))
            }
            // Nothing can be created where there is no namespace: that is an error, not a conflict.
            Err(kube::Error::Api(status))
                if status.code == 409 || (status.code == 404 && !create) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether `seen` is of a time before `known`: then etcd was restored from an older copy. The API server takes
/// watches that begin in its future and is silent until it gets there, so they would look well for ever.
/// Versions may be compared as numbers (KEP-5504).
fn is_older(seen: &Lease, known: &Lease) -> bool {
    let version =
        |lease: &Lease| -> Option<u64> { lease.metadata.resource_version.as_deref()?.parse().ok() };
    matches!((version(seen), version(known)), (Some(seen), Some(known)) if seen < known)
}

async fn within<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    tokio::time::timeout(CALL, call).await.unwrap_or_else(|_| {
        let late = std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            format!("no answer within {CALL:?}"),
        );
        Err(kube::Error::Service(late.into()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_is_taken_only_after_a_full_duration_without_a_change() {
        let mut observed = Observed::default();
        let ten = at(10);
        assert_eq!(judge(&mut observed, "a", "1", ten, at(100)), Verdict::Wait);
        assert_eq!(judge(&mut observed, "a", "1", ten, at(109)), Verdict::Wait);
        assert_eq!(
            judge(&mut observed, "a", "2", ten, at(109)),
            Verdict::Wait,
            "a renewal starts the wait anew"
        );
        assert_eq!(judge(&mut observed, "a", "2", ten, at(118)), Verdict::Wait);
        assert_eq!(judge(&mut observed, "a", "2", ten, at(119)), Verdict::Take);
    }

    #[test]
    fn a_lease_of_an_older_time_tells_of_a_restored_etcd() {
        let lease = |version: &str| Lease {
            metadata: ObjectMeta {
                resource_version: Some(version.to_owned()),
                ..ObjectMeta::default()
            },
            spec: None,
        };
        assert!(is_older(&lease("999"), &lease("1000")));
        assert!(!is_older(&lease("1000"), &lease("999")));
        assert!(!is_older(&lease("1000"), &lease("1000")));
        assert!(!is_older(&lease("opaque"), &lease("1000")));
    }

    #[test]
    fn a_released_lease_is_taken_at_once() {
        assert_eq!(
            judge(&mut Observed::default(), "", "1", at(10), at(100)),
            Verdict::Take
        );
    }

    #[test]
    fn the_holder_stops_acting_before_others_begin_and_within_twenty_seconds() {
        assert!(ACTING + CALL < DURATION);
        assert!(DURATION + PERIOD + CALL < at(20));
        let leadership = Leadership::default();
        assert!(!leadership.is_held());
        leadership.extend(now());
        assert!(leadership.is_held());
        leadership.extend(now().saturating_sub(ACTING));
        assert!(!leadership.is_held());
    }
}
