//! AlterReplicaLogDirs: which log directory of this broker its replicas shall lie in (KIP-113).
//!
//! An answer without an error says that the move is begun, or that there is nothing to move; how far it is, DescribeLogDirs
//! tells. A directory is named as it is shown there.

use super::call::Call;
use super::context::Shared;
use super::describe_log_dirs::shown;
use crate::replica::DiskStatus;
use leasehold_metadata::Image;
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use leasehold_wire::kafka::messages::{
    AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, TopicName,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

pub(super) async fn answer(
    shared: Arc<Shared>,
    _: Call,
    request: AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    let image = shared.image();
    let disks = shared.replicas.disks().status();
    // Of several wishes for one replica the last one counts, as in Kafka.
    let mut wishes: BTreeMap<TopicName, BTreeMap<i32, Option<&DiskStatus>>> = BTreeMap::new();
    for dir in request.dirs {
        let disk = disk_at(&disks, &dir.path);
        for topic in dir.topics {
            let partitions = topic.partitions.into_iter().map(|index| (index, disk));
            wishes.entry(topic.name).or_default().extend(partitions);
        }
    }
    let mut results = Vec::with_capacity(wishes.len());
    for (name, partitions) in wishes {
        let result = |(index, disk)| {
            let error = alter(&shared, &image, (&name, index), disk);
            AlterReplicaLogDirPartitionResult::default()
                .with_partition_index(index)
                .with_error_code(error.code())
        };
        let partitions = partitions.into_iter().map(result).collect();
        let topic = AlterReplicaLogDirTopicResult::default().with_partitions(partitions);
        results.push(topic.with_topic_name(name));
    }
    AlterReplicaLogDirsResponse::default().with_results(results)
}

fn disk_at<'a>(disks: &'a [DiskStatus], path: &str) -> Option<&'a DiskStatus> {
    let path = shown(Path::new(path));
    disks.iter().find(|disk| shown(&disk.path) == path)
}

fn alter(
    shared: &Shared,
    image: &Image,
    (name, index): (&TopicName, i32),
    disk: Option<&DiskStatus>,
) -> ErrorCode {
    let Some(disk) = disk else {
        return ErrorCode::LogDirNotFound;
    };
    let Some(to) = disk.id.filter(|_| disk.online) else {
        return ErrorCode::KafkaStorageError;
    };
    let Some(topic) = image.topic_by_name(name) else {
        return ErrorCode::UnknownTopicOrPartition;
    };
    shared.replicas.alter_log_dir((topic.id, index), to)
}
