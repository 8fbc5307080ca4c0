//! Which sessions are kept. Pure.
//!
//! The rules are Kafka's (`max.incremental.fetch.session.cache.slots`, KIP-227): when all slots are
//! taken, a session that was not used for two minutes goes; else, where a bigger one wants in, the
//! smallest of those that are two minutes old. Leasehold bounds the partitions of all sessions, too.
//! Of a follower one session is kept: it has one fetcher per leader, and its newest request counts.

use super::session::{NoRoom, Owner, Session};
use leasehold_types::seams::{self, HashMap};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much may be kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sessions; with 0 there are none.
    pub slots: usize,
    /// Partitions of all sessions together.
    pub partitions: usize,
    /// How long a session has its slot for sure.
    pub evict_after: Duration,
}

impl Limits {
    /// Kafka's two minutes, and partitions for some 30 MiB.
    pub fn with_slots(slots: usize) -> Self {
        Self {
            slots,
            partitions: 200_000,
            evict_after: Duration::from_secs(120),
        }
    }

    /// Of followers, who are as many as there are other brokers: no more than any cluster has.
    pub fn of_followers() -> Self {
        Self {
            slots: 1_000,
            partitions: 4_000_000,
            evict_after: Duration::from_secs(120),
        }
    }
}

struct Slot {
    session: Arc<Mutex<Session>>,
    owner: Owner,
    partitions: usize,
    opened: Instant,
    used: Instant,
}

/// The sessions.
pub struct Cache {
    limits: Limits,
    slots: HashMap<i32, Slot>,
    /// Of all slots.
    partitions: usize,
}

impl Cache {
    /// None yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            slots: HashMap::default(),
            partitions: 0,
        }
    }

    /// How many sessions there are, and of how many partitions.
    pub fn size(&self) -> (usize, usize) {
        (self.slots.len(), self.partitions)
    }

    /// The session of that id.
    pub fn get(&self, id: i32) -> Option<Arc<Mutex<Session>>> {
        Some(self.slots.get(&id)?.session.clone())
    }

    /// It is kept no more.
    pub fn remove(&mut self, id: i32) {
        if let Some(slot) = self.slots.remove(&id) {
            self.partitions -= slot.partitions;
        }
    }

    /// The session was used, and may have grown.
    pub fn used(&mut self, id: i32, now: Instant) -> Result<(), NoRoom> {
        let Some(slot) = self.slots.get_mut(&id) else {
            return Ok(());
        };
        slot.used = now;
        let partitions = slot.session.lock().len();
        self.partitions = self.partitions - slot.partitions + partitions;
        slot.partitions = partitions;
        match self.partitions > self.limits.partitions {
            true => Err(NoRoom),
            false => Ok(()),
        }
    }

    /// Keeps a new session, if there is room or someone makes room. Gives its id.
    pub fn open(&mut self, mut session: Session, now: Instant) -> Option<i32> {
        let (owner, partitions) = (session.owner(), session.len());
        if let Owner::Follower { replica, .. } = owner {
            let former = |slot: &Slot| matches!(slot.owner, Owner::Follower { replica: r, .. } if r == replica);
            let former = self.slots.iter().find(|(_, slot)| former(slot));
            if let Some(id) = former.map(|(id, _)| *id) {
                self.remove(id);
            }
        }
        if self.limits.slots == 0 || partitions > self.limits.partitions {
            return None;
        }
        while self.slots.len() >= self.limits.slots
            || self.partitions + partitions > self.limits.partitions
        {
            let goes = self.least_worth(partitions, now)?;
            self.remove(goes);
        }
        let id = self.free_id();
        session.named(id);
        self.partitions += partitions;
        let slot = Slot {
            session: Arc::new(Mutex::new(session)),
            owner,
            partitions,
            opened: now,
            used: now,
        };
        self.slots.insert(id, slot);
        Some(id)
    }

    /// Who makes room for a session of `partitions` partitions.
    fn least_worth(&self, partitions: usize, now: Instant) -> Option<i32> {
        let old = |since: Instant| now.saturating_duration_since(since) > self.limits.evict_after;
        let stale = self.slots.iter().min_by_key(|(id, slot)| (slot.used, **id));
        if let Some((id, slot)) = stale
            && old(slot.used)
        {
            return Some(*id);
        }
        let secure = self.slots.iter().filter(|(_, slot)| old(slot.opened));
        let (id, smallest) = secure.min_by_key(|(id, slot)| (slot.partitions, **id))?;
        (smallest.partitions < partitions).then_some(*id)
    }

    fn free_id(&self) -> i32 {
        loop {
            // Hard to guess: who knows the id of a consumer's session may use it.
            let id = (seams::random_u128() as i32) & i32::MAX;
            if id != 0 && !self.slots.contains_key(&id) {
                return id;
            }
        }
    }
}
