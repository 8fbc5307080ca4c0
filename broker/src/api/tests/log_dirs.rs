//! Which log directory a replica lies in, and having it lie in another.

use super::data::{name, put};
use super::stage::*;
use leasehold_metadata::features::Level;
use leasehold_wire::kafka::messages::alter_replica_log_dirs_request::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic,
};
use leasehold_wire::kafka::messages::*;
use leasehold_wire::kafka::protocol::StrBytes;
use leasehold_wire::{ApiKey, ErrorCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn wish(path: &str, topic: &str, partitions: Vec<i32>) -> AlterReplicaLogDir {
    let topic = AlterReplicaLogDirTopic::default()
        .with_name(name(topic))
        .with_partitions(partitions);
    AlterReplicaLogDir::default()
        .with_path(StrBytes::from_string(path.to_owned()))
        .with_topics(vec![topic])
}

async fn codes(stage: &Stage, dirs: Vec<AlterReplicaLogDir>, version: i16) -> Vec<(i32, i16)> {
    let request = AlterReplicaLogDirsRequest::default().with_dirs(dirs);
    let reply = stage.ask(&request, version).await;
    let partitions = reply.results.iter().flat_map(|topic| &topic.partitions);
    partitions
        .map(|partition| (partition.partition_index, partition.error_code))
        .collect()
}

/// The directories in their order, and which of them has the one partition of "a".
async fn described(stage: &Stage) -> (Vec<String>, usize) {
    let all = DescribeLogDirsRequest::default().with_topics(None);
    let reply = stage.ask(&all, 4).await;
    let paths = reply.results.iter().map(|dir| dir.log_dir.to_string());
    let has = |dir: &describe_log_dirs_response::DescribeLogDirsResult| {
        let mut partitions = dir.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.any(|partition| partition.partition_index == 0 && !partition.is_future_key)
    };
    let at = reply.results.iter().position(has).unwrap();
    (paths.collect(), at)
}

#[tokio::test]
async fn wishes_for_directories_are_answered_per_partition_in_every_version() {
    let stage = Stage::up().await;
    stage.image.send_modify(|image| {
        Arc::make_mut(image).metadata_version = Some(Level::NAMED);
    });
    stage.add_topic("a", &[Some(ME), Some(OTHER)]);
    put(&stage, "a", 0, b"first").await;
    for version in versions(ApiKey::AlterReplicaLogDirs) {
        let (paths, at) = described(&stage).await;
        let (here, there) = (&paths[at], &paths[1 - at]);
        for (path, topic, partitions, expected) in [
            (
                "/no/such",
                "a",
                vec![0],
                vec![(0, ErrorCode::LogDirNotFound)],
            ),
            ("", "a", vec![0], vec![(0, ErrorCode::LogDirNotFound)]),
            (
                "/no/such",
                "missing",
                vec![0],
                vec![(0, ErrorCode::LogDirNotFound)],
            ),
            (
                here,
                "missing",
                vec![0],
                vec![(0, ErrorCode::UnknownTopicOrPartition)],
            ),
            (
                here,
                "a",
                vec![7],
                vec![(7, ErrorCode::UnknownTopicOrPartition)],
            ),
            (
                here,
                "a",
                vec![-1],
                vec![(-1, ErrorCode::UnknownTopicOrPartition)],
            ),
            // Partition 1 is another broker's.
            (
                here,
                "a",
                vec![1, 0, 0],
                vec![(0, ErrorCode::None), (1, ErrorCode::ReplicaNotAvailable)],
            ),
        ] {
            let expected: Vec<_> = expected.iter().map(|(n, code)| (*n, code.code())).collect();
            let dirs = vec![wish(path, topic, partitions)];
            assert_eq!(
                codes(&stage, dirs, version).await,
                expected,
                "{path} {topic}"
            );
        }
        // The last wish counts.
        let dirs = vec![wish(here, "a", vec![0]), wish(there, "a", vec![0])];
        assert_eq!(codes(&stage, dirs, version).await, [(0, 0)]);
        let start = Instant::now();
        while described(&stage).await.1 == at {
            assert!(start.elapsed() < Duration::from_secs(20), "it never moved");
            tokio::task::yield_now().await;
        }
    }
    let (paths, at) = described(&stage).await;
    stage.break_log_dir(&paths[1 - at]).await;
    let dirs = vec![wish(&paths[1 - at], "a", vec![0])];
    let failed = ErrorCode::KafkaStorageError.code();
    assert_eq!(codes(&stage, dirs, 2).await, [(0, failed)]);
}
