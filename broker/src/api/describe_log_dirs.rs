//! DescribeLogDirs: how much of its log directory each replica on this broker takes.
//!
//! A directory that is offline is told with its error, and nothing of what is in it. A replica whose log is not open (yet) is not told, as it is not in
//! Kafka; a partition that is asked for and not here is left out.

use super::call::Call;
use super::context::Shared;
use super::convert::{text, topic_name};
use crate::replica::LogSize;
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::describe_log_dirs_request::DescribableLogDirTopic;
use leasehold_wire::kafka::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use leasehold_wire::kafka::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The version from which on a reply tells the size of the disk.
const DISK_SIZES: i16 = 4;

pub(super) async fn answer(
    shared: Arc<Shared>,
    call: Call,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let mut sizes = shared.replicas.log_sizes();
    let disks = shared.replicas.disks().status();
    let online = disks.iter().filter(|disk| disk.online);
    let paths: Vec<PathBuf> = online.map(|disk| disk.path.clone()).collect();
    // A disk that hangs must not hold an async worker.
    let asked = tokio::task::spawn_blocking(move || {
        let sizes = paths.into_iter().map(|path| (disk_size(&path), path));
        sizes.map(|(size, path)| (path, size)).collect::<Vec<_>>()
    });
    let mut known: HashMap<PathBuf, io::Result<DiskSize>> =
        asked.await.unwrap_or_default().into_iter().collect();
    let mut results = Vec::new();
    for disk in disks {
        let mut result = DescribeLogDirsResult::default().with_log_dir(text(shown(&disk.path)));
        match known.remove(&disk.path) {
            Some(Ok(size)) => {
                let here = |size: &LogSize| Some(size.directory) == disk.id;
                let here = sizes.extract_if(.., |size| here(size)).collect();
                result.topics = topics(here, request.topics.as_deref());
                if call.version >= DISK_SIZES {
                    result.total_bytes = size.total;
                    result.usable_bytes = size.usable;
                }
            }
            // Offline, or about to be found so.
            asked => {
                if let Some(Err(error)) = asked {
                    tracing::error!(path = %disk.path.display(), %error, "cannot ask for the size of the log directory's disk");
                }
                result.error_code = ErrorCode::KafkaStorageError.code();
            }
        }
        results.push(result);
    }
    DescribeLogDirsResponse::default().with_results(results)
}

/// Kafka's tools match directories by their absolute path.
pub(super) fn shown(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    absolute.display().to_string()
}

struct DiskSize {
    total: i64,
    usable: i64,
}

/// Blocks.
fn disk_size(path: &Path) -> io::Result<DiskSize> {
    let disk = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(disk.f_frsize));
    Ok(DiskSize {
        total: bytes(disk.f_blocks).unwrap_or(i64::MAX),
        // What is left to one who is not root.
        usable: bytes(disk.f_bavail).unwrap_or(i64::MAX),
    })
}

fn topics(
    sizes: Vec<LogSize>,
    wanted: Option<&[DescribableLogDirTopic]>,
) -> Vec<DescribeLogDirsTopic> {
    let wanted: Option<HashSet<(&str, i32)>> = wanted.map(|topics| {
        let pairs = topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|n| (topic.topic.as_str(), *n)));
        pairs.collect()
    });
    let is_wanted = |size: &LogSize| {
        wanted
            .as_ref()
            .is_none_or(|wanted| wanted.contains(&(&*size.topic, size.partition)))
    };
    let mut topics: BTreeMap<Arc<str>, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for size in sizes.iter().filter(|size| is_wanted(size)) {
        let partition = DescribeLogDirsPartition::default()
            .with_partition_index(size.partition)
            .with_partition_size(i64::try_from(size.bytes).unwrap_or(i64::MAX))
            .with_offset_lag(size.offset_lag)
            .with_is_future_key(size.is_future);
        topics
            .entry(size.topic.clone())
            .or_default()
            .push(partition);
    }
    topics
        .into_iter()
        .map(|(name, mut partitions)| {
            partitions.sort_by_key(|partition| partition.partition_index);
            DescribeLogDirsTopic::default()
                .with_name(topic_name(&name))
                .with_partitions(partitions)
        })
        .collect()
}
