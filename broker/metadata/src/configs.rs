//! Kafka's topic configuration keys.

/// Replicas that must be in sync before acks=all is granted.
pub const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
/// Whether a replica that is not in sync may lead when no other is left.
pub const UNCLEAN_LEADER_ELECTION_ENABLE: &str = "unclean.leader.election.enable";

/// A topic key as it is documented and described to clients.
#[derive(Clone, Copy, Debug)]
pub struct TopicKey {
    pub name: &'static str,
    pub default: Option<&'static str>,
}

/// The key of that name, supported or refused; `None` if Kafka has none such.
pub fn find(_name: &str) -> Option<&'static TopicKey> {
    None
}
