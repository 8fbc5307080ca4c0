//! The keys of the head's data. Each is readable with `kubectl get configmap <cluster>-metadata -o yaml`.

use leasehold_types::Seq;

/// The cluster id. Never changes.
pub const CLUSTER_ID: &str = "clusterId";
/// Raised by one at every claim.
pub const EPOCH: &str = "controllerEpoch";
/// JSON: who claimed last, and where its internal listener is.
pub const CONTROLLER: &str = "controller";
/// The last claim's id.
pub const CLAIM_ID: &str = "claimId";
/// The level of `metadata.version`, once it is recorded: whoever does not know it reads no further.
pub const METADATA_VERSION: &str = "metadataVersion";
/// The number of the last head write.
pub const SEQ: &str = "seq";
/// The nonce of this content.
pub const NONCE: &str = crate::store::NONCE;
/// JSON: the snapshot before the segments, if there is one.
pub const SNAPSHOT: &str = "snapshot";
/// JSON lines: the segments between snapshot and tail, oldest first.
pub const SEGMENTS: &str = "segments";
/// JSON lines: the most recent claims. The image holds all of them.
pub const CLAIMS: &str = "claims";

const ENTRY_PREFIX: &str = "entry-";

/// The key of the tail's entry `seq`; keys sort as their numbers.
pub fn entry(seq: Seq) -> String {
    format!("{ENTRY_PREFIX}{:020}", seq.0)
}

/// Whether `key` is that of an entry.
pub fn is_entry(key: &str) -> bool {
    key.starts_with(ENTRY_PREFIX)
}
