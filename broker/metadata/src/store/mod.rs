//! Where one cluster's metadata objects live: a small trait and its three implementations.
//!
//! The objects are the **head** (one map of keys to text, changed only by conditional writes), immutable
//! **chunks**, and the **Lease**. What every store promises, and [`suite`] checks:
//! - a head write happens only if the head still has the expected uid and nonce; there is no other way to write it;
//! - a Lease write happens only if the Lease is still at the expected uid and version;
//! - head and Lease reads are quorum reads: they never show less than what any finished write wrote;
//! - a write whose outcome the store cannot know says so ([`PatchError::InDoubt`]); it may still happen later;
//! - a chunk, once created, never changes; creating it again reports [`StoreError::Exists`].
//!
//! No store retries anything by itself, and every call ends within [`CALL_TIMEOUT`].

pub mod directory;
pub mod kubernetes;
pub mod simulated;
pub mod suite;

use async_trait::async_trait;
use leasehold_types::{ClusterId, ControllerEpoch};
use std::collections::BTreeMap;
use std::time::Duration;

/// The longest that one call of a store may take before it reports failure or doubt.
pub const CALL_TIMEOUT: Duration = Duration::from_millis(1_200);

/// The key of the head under which the nonce of its current content stands.
pub const NONCE: &str = "nonce";

/// The head as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadObject {
    /// Changes when the object is deleted and created anew.
    pub uid: String,
    pub data: BTreeMap<String, String>,
}

/// One change of the head. The nonce is part of it: every content has its own.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct HeadPatch {
    /// The new content's nonce.
    pub nonce: String,
    /// Keys to add or replace. Never holds [`NONCE`].
    pub set: BTreeMap<String, String>,
    /// Keys to remove; each must exist.
    pub remove: Vec<String>,
}

/// What a chunk holds: JSON lines as text while small, zstd-compressed lines once large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChunkBody {
    Lines(String),
    Zstd(Vec<u8>),
}

/// An immutable chunk, named after its writer's epoch and a nonce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// `<epoch>-<nonce>`; a store may put its own prefix before it.
    pub name: String,
    pub cluster: ClusterId,
    pub epoch: ControllerEpoch,
    pub body: ChunkBody,
}

/// What a listing tells about a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkInfo {
    pub name: String,
    pub cluster: ClusterId,
    pub epoch: ControllerEpoch,
}

/// The Lease as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct LeaseRecord {
    /// Empty in a record that was never written.
    pub uid: String,
    /// Changes at every write. Opaque.
    pub version: String,
    /// `<broker id>/<incarnation>`, or nobody.
    pub holder: Option<String>,
    /// The holder's internal address, `host:port`.
    pub address: Option<String>,
    pub duration: Duration,
    /// How often the holder changed.
    pub transitions: u32,
    /// When the holder took it, told as [`Self::renewed_at_ms`].
    pub taken_at_ms: i64,
    /// Milliseconds since 1970 by the holder's clock. For people: nobody compares it with a clock.
    pub renewed_at_ms: i64,
}

/// Why a read, or the creation or deletion of an object, failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("{what} did not succeed, the store cannot be reached: {why}")]
    Unreachable { what: String, why: String },
    #[error("{what} was refused: {why}")]
    Denied { what: String, why: String },
    #[error("{what} is not what Leasehold wrote: {why}")]
    Malformed { what: String, why: String },
    #[error("{what} exists already")]
    Exists { what: String },
}

/// Why a head write is not known to be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The test of uid and nonce failed. Still no proof that this change is not in: the refused copy
    /// may be a second one, whose first was applied.
    #[error("refused (422): the head's uid or nonce is not the expected one")]
    Refused,
    #[error("the head is gone")]
    Gone,
    /// The request surely never reached the store.
    #[error("the head write was not sent: {0}")]
    NotSent(String),
    /// It may have been applied, or may yet be.
    #[error("the head write's outcome is unknown: {0}")]
    InDoubt(String),
}

/// Why a Lease write is not known to be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    #[error("the Lease changed since it was read")]
    Conflict,
    #[error("the Lease write was not sent: {0}")]
    NotSent(String),
    #[error("the Lease write's outcome is unknown: {0}")]
    InDoubt(String),
}

/// One cluster's metadata objects. See the module for what is promised.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Where this is, for logs and errors.
    fn describe(&self) -> String;

    /// The newest head; `None` if there is none.
    async fn read_head(&self) -> Result<Option<HeadObject>, StoreError>;

    /// Creates the head; only at genesis, by the operator or by `dev`. [`StoreError::Exists`] if there is one.
    async fn create_head(&self, data: &BTreeMap<String, String>) -> Result<HeadObject, StoreError>;

    /// Applies `patch` if the head still has this uid and nonce.
    async fn patch_head(&self, uid: &str, nonce: &str, patch: &HeadPatch)
    -> Result<(), PatchError>;

    /// Creates an immutable chunk.
    async fn create_chunk(&self, chunk: &Chunk) -> Result<(), StoreError>;

    /// Reads a chunk; `None` if it is not there.
    async fn read_chunk(&self, name: &str) -> Result<Option<ChunkBody>, StoreError>;

    /// All chunks in this place; those of a former cluster of the same name too.
    async fn list_chunks(&self) -> Result<Vec<ChunkInfo>, StoreError>;

    /// Deletes a chunk; fine if it is gone already.
    async fn delete_chunk(&self, name: &str) -> Result<(), StoreError>;

    /// The newest Lease; `None` if there is none.
    async fn read_lease(&self) -> Result<Option<LeaseRecord>, StoreError>;

    /// Writes the Lease if it is still at `expected` (uid, version), or creates it if `None` is expected.
    /// Ignores `uid` and `version` of `record`; returns the record as it now stands.
    async fn write_lease(
        &self,
        expected: Option<(&str, &str)>,
        record: &LeaseRecord,
    ) -> Result<LeaseRecord, LeaseError>;

    /// Returns when the Lease may differ from version `known`. May return early, and may miss a change
    /// where the underlying watch stalls: callers bound the wait.
    async fn lease_changed(&self, known: Option<&str>);
}

/// 128 random bits in hexadecimal: a nonce, or a part of a name.
pub fn random_nonce() -> String {
    format!("{:032x}", leasehold_types::seams::random_u128())
}
