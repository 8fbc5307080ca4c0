//! Watches the holder of the controller Lease, and reports its death to the elector: a candidate that
//! knows better than the Lease's time need not wait for it.

use super::find::{address_of, holder_of};
use crate::internal::peer::{Peer, death_of};
use leasehold_metadata::lease::{Evidence, Holder};
use leasehold_metadata::store::LeaseRecord;
use leasehold_types::ClusterId;
use tokio::sync::watch;

/// Runs until the elector is gone.
pub async fn holder(
    cluster_id: ClusterId,
    me: Holder,
    mut lease: watch::Receiver<Option<LeaseRecord>>,
    evidence: Evidence,
) {
    loop {
        let watched = lease.borrow_and_update().as_ref().and_then(holder_of);
        let Some((holder, internal)) = watched.clone().filter(|(h, _)| h.broker != me.broker)
        else {
            if lease.changed().await.is_err() {
                return;
            }
            continue;
        };
        let peer = Peer {
            cluster_id: cluster_id.clone(),
            broker: holder.broker,
            incarnation: holder.incarnation,
            address: address_of(&internal),
        };
        // Renewals change the Lease every second; only another holder ends the watch.
        let mut another = std::pin::pin!(async {
            let differs =
                |lease: &Option<LeaseRecord>| lease.as_ref().and_then(holder_of) != watched;
            lease.wait_for(differs).await.is_ok()
        });
        tokio::select! {
            // A holder that is none any more need not be buried.
            biased;
            alive = &mut another => {
                if !alive {
                    return;
                }
            }
            what = death_of(&peer) => {
                tracing::info!(%holder, evidence = what, "the controller is gone");
                evidence.dead(&holder.to_string());
                // If it lives after all, it goes on renewing: look at it again after a while.
                let again = tokio::time::timeout(leasehold_metadata::lease::DURATION, another);
                if matches!(again.await, Ok(false)) {
                    return;
                }
            }
        }
    }
}
