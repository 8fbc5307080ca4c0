//! DescribeLogDirs: how much of the log directory each replica on this broker takes.
//!
//! There is one log directory. A replica whose log is not open (yet) is not told, as it is not in
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
use std::collections::{BTreeMap, HashSet};
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
    let path = shared.replicas.log_dir().path().to_owned();
    let asked = path.clone();
    // A disk that hangs must not hold an async worker.
    let disk = tokio::task::spawn_blocking(move || disk_size(&asked))
        .await
        .unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
    let disk = match disk {
        Ok(disk) => disk,
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "cannot ask for the size of the log directory's disk");
            return reply(failed(&path));
        }
    };
    let topics = topics(shared.replicas.log_sizes(), request.topics.as_deref());
    let mut result = DescribeLogDirsResult::default()
        .with_log_dir(text(shown(&path)))
        .with_topics(topics);
    if call.version >= DISK_SIZES {
        result.total_bytes = disk.total;
        result.usable_bytes = disk.usable;
    }
    reply(result)
}

fn reply(result: DescribeLogDirsResult) -> DescribeLogDirsResponse {
    DescribeLogDirsResponse::default().with_results(vec![result])
}

fn failed(path: &Path) -> DescribeLogDirsResult {
    DescribeLogDirsResult::default()
        .with_log_dir(text(shown(path)))
        .with_error_code(ErrorCode::KafkaStorageError.code())
}

/// Kafka's tools match directories by their absolute path.
fn shown(path: &Path) -> String {
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
            .with_offset_lag(size.offset_lag);
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
