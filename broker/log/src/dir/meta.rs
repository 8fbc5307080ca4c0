//! Whose directory it is: written once, compared at every start.

use crate::{LogError, disk};
use leasehold_types::seams::taken_out;
use leasehold_types::{BrokerId, ClusterId, DirectoryId};
use serde::{Deserialize, Serialize};
use std::path::Path;

pub(crate) const META: &str = "meta";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Meta {
    version: u32,
    cluster_id: ClusterId,
    broker_id: BrokerId,
    /// Absent in a directory of an earlier release, until its next start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    directory_id: Option<DirectoryId>,
}

/// Whose a directory is, and which of theirs.
pub(crate) type Owner = (ClusterId, BrokerId, Option<DirectoryId>);

/// Whose it is, by the file's content; or the byte at which it is damaged, and how.
pub(crate) fn parse(content: &[u8]) -> Result<Owner, (u64, String)> {
    match serde_json::from_slice::<Meta>(content) {
        Ok(meta) if meta.version == VERSION => {
            Ok((meta.cluster_id, meta.broker_id, meta.directory_id))
        }
        Ok(meta) => Err((0, format!("its version is {}, not {VERSION}", meta.version))),
        Err(e) => Err((e.column().saturating_sub(1) as u64, e.to_string())),
    }
}

/// Refuses a directory of another cluster, broker or format; makes an empty one ours. Returns its id, which
/// it keeps wherever it is mounted.
pub(super) fn check(
    folder: &Path,
    cluster: &ClusterId,
    broker: BrokerId,
    holds_logs: bool,
) -> Result<DirectoryId, LogError> {
    let path = folder.join(META);
    let unreadable = |reason: String| LogError::Unreadable {
        path: path.clone(),
        reason,
    };
    let id = DirectoryId::random();
    let ours = Meta {
        version: VERSION,
        cluster_id: cluster.clone(),
        broker_id: broker,
        directory_id: Some(id),
    };
    let json = serde_json::to_vec(&ours).map_err(|e| unreadable(e.to_string()))?;
    let Some(content) = disk::read_if_there(&path)? else {
        if holds_logs {
            return Err(unreadable(
                "it is missing, and there are partitions beside it".into(),
            ));
        }
        disk::write_durably(&path, &json)?;
        return Ok(id);
    };
    let meta: Meta = serde_json::from_slice(&content).map_err(|e| unreadable(e.to_string()))?;
    if meta.version != VERSION {
        let reason = format!(
            "its version is {}, this program's is {VERSION}",
            meta.version
        );
        return Err(unreadable(reason));
    }
    let foreign = meta.cluster_id != *cluster || meta.broker_id != broker;
    if foreign && !taken_out("a-foreign-volume-is-refused") {
        return Err(LogError::Foreign {
            path: folder.to_owned(),
            found: format!("{} of cluster {}", meta.broker_id, meta.cluster_id),
            wanted: format!("{broker} of cluster {cluster}"),
        });
    }
    match meta.directory_id {
        Some(id) => Ok(id),
        None => disk::write_durably(&path, &json).map(|()| id),
    }
}
