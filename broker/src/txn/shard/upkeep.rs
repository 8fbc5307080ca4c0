//! What time brings: transactions that run for too long, ids that nobody uses any more.

use super::{Output, Shard, Waits};
use crate::coordinator::Now;
use crate::txn::state::Transaction;
use crate::txn::store::encode_key;
use std::sync::Arc;

impl Shard {
    pub(super) fn abort_timed_out(&mut self, now: Now, out: &mut Output) {
        // A transaction times out behind its deadline, not at it.
        let before = u64::try_from(now.wall.saturating_sub(1)).unwrap_or(0);
        let mut busy = Vec::new();
        while let Some(id) = self.deadlines.pop_due(before) {
            let Some(transaction) = self.transactions.get(&id) else {
                continue;
            };
            match transaction.time_out(now.wall) {
                Some(next) => {
                    tracing::info!(transactional_id = %id, "the transaction has timed out; it is aborted");
                    self.store(&id, next, Waits::Nobody, now, out);
                }
                // Something is on its way: looked at again next time.
                None => busy.push(id),
            }
        }
        for id in busy {
            self.set_deadline(&id);
        }
    }

    pub(super) fn forget_expired(&mut self, now: Now, out: &mut Output) {
        let expired = |(_, t): &(&Arc<str>, &Transaction)| {
            t.is_expired(self.settings.expiration_ms, now.wall)
        };
        let expired = self.transactions.iter().filter(expired);
        let ids: Vec<Arc<str>> = expired.map(|(id, _)| id.clone()).collect();
        for id in ids {
            let (Ok(key), Some(transaction)) = (encode_key(&id), self.transactions.get_mut(&id))
            else {
                continue;
            };
            transaction.expire();
            self.write(&id, vec![(key, None)], Waits::Nobody, now, out);
        }
    }
}
