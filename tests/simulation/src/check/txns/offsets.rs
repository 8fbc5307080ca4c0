//! Offsets that are committed in transactions (X7): one shows if its transaction is committed, and only then; and it is not
//! taken back by an older one.
//!
//! An offset is the number of its transaction, of which those of one transactional id come one after the other. So what may be
//! read is known without a look at what a coordinator stores. Only of the leader that the metadata names, from the question
//! to the answer, it is demanded that it knows the newest.

use super::TxnId;
use crate::check::Checker;
use leasehold_types::LeaderEpoch;

/// What was known when somebody asked for the offset of a transactional id's group.
#[derive(Debug)]
pub struct OffsetAsked {
    id: &'static str,
    /// In which epoch the broker that was asked leads, if there is no newer one.
    leads: Option<LeaderEpoch>,
    /// The newest transaction with an offset of which somebody was told that it is committed, or whose offset was read.
    newest: Option<TxnId>,
}

impl Checker {
    /// An offset is acknowledged as part of that transaction.
    pub fn txn_offset_acked(&mut self, txn: TxnId) {
        if let Some(known) = self.txns.all.get_mut(txn) {
            known.has_offset = true;
        }
    }

    /// A question comes to a broker.
    pub fn txn_offset_asked(&self, id: &'static str, leads: Option<LeaderEpoch>) -> OffsetAsked {
        let all = self.txns.all.iter().enumerate();
        let told = all.filter(|(_, txn)| txn.id == id && txn.has_offset && txn.told == Some(true));
        let told = told.map(|(number, _)| number).max();
        OffsetAsked {
            id,
            leads,
            newest: told.max(self.txns.offsets_read.get(id).copied()),
        }
    }

    /// It gives an offset, or that there is none.
    pub fn txn_offset_read(
        &mut self,
        group: &str,
        node: usize,
        (asked, leads): (&OffsetAsked, Option<LeaderEpoch>),
        offset: Option<i64>,
    ) {
        if self.home(group).is_none_or(|home| self.is_lossy(home)) {
            return;
        }
        let says = format!("broker {node} gives {offset:?} as the offset of {group}");
        let txn = offset.and_then(|offset| TxnId::try_from(offset).ok());
        let wrong = match txn.and_then(|txn| self.txns.all.get(txn)) {
            None => offset.map(|_| "of which nobody began a transaction"),
            Some(known) if known.id != asked.id => Some("of another's transaction"),
            Some(known) if known.told == Some(false) || known.ended == Some(false) => {
                Some("of a transaction that is aborted")
            }
            Some(known) if !known.asked => Some("of a transaction that nobody asked to commit"),
            Some(_) => None,
        };
        if let Some(wrong) = wrong {
            self.broke(format!("X7 {says}, {wrong}"));
        }
        let knows_all = asked.leads.is_some() && asked.leads == leads;
        if knows_all && txn < asked.newest {
            self.broke(format!("X7 {says}, and {:?} was committed", asked.newest));
        }
        if let Some(txn) = txn {
            let newest = self.txns.offsets_read.entry(asked.id).or_insert(txn);
            *newest = txn.max(*newest);
            self.txns.counts[3] += 1;
        }
    }
}
