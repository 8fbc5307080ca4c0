//! What the metadata image says about one partition, cut down to what its replica needs.
//!
//! A [`View`] is one snapshot: the ISR and the incarnations in it come from the same image, so a
//! follower's eligibility and the incarnation that goes into a proposal are judged together.

use super::throttle::Named;
use leasehold_types::{BrokerId, Incarnation, LeaderEpoch, PartitionEpoch};

/// A registered broker as one image shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    pub id: BrokerId,
    pub incarnation: Incarnation,
    /// Unfenced, not shutting down, and its log in service: the controller would take it into an ISR.
    pub may_join: bool,
}

/// One partition in one image.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    pub leader: Option<BrokerId>,
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: PartitionEpoch,
    pub replicas: Vec<BrokerId>,
    /// The committed ISR.
    pub isr: Vec<BrokerId>,
    /// min(min.insync.replicas, replication factor).
    pub effective_min: usize,
    /// Whether the topic allows an election outside ISR and ELR.
    pub unclean: bool,
    /// The controller moves it on its own account: newcomers are sent no more than it allows.
    pub moves: bool,
    /// Leaders that hold back followers which are not in sync.
    pub throttled_leaders: Named,
    /// Followers that hold themselves back while they are not in sync.
    pub throttled_followers: Named,
    /// The registered ones among the replicas.
    pub members: Vec<Member>,
}

impl View {
    /// The registered broker `id`, if it is one of the replicas.
    pub fn member(&self, id: BrokerId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// The incarnation under which `id` is registered.
    pub fn incarnation(&self, id: BrokerId) -> Option<Incarnation> {
        self.member(id).map(|member| member.incarnation)
    }

    /// Whether `id` is in the committed ISR.
    pub fn in_sync(&self, id: BrokerId) -> bool {
        self.isr.contains(&id)
    }
}
