//! Where the replicas of a broker lie, and having them lie elsewhere, spoken by hand: client libraries that are at hand here
//! know neither.

use crate::wire::connect;
use anyhow::ensure;
use leasehold_wire::StrBytes;
use leasehold_wire::kafka::messages::alter_replica_log_dirs_request::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic,
};
use leasehold_wire::kafka::messages::{
    AlterReplicaLogDirsRequest, DescribeLogDirsRequest, TopicName,
};
use std::collections::BTreeMap;

/// What a broker tells of its replicas of one topic.
#[derive(Debug, Default)]
pub struct Lie {
    /// The directory of each partition.
    pub now: BTreeMap<i32, String>,
    /// Where copies are being made.
    pub future: BTreeMap<i32, String>,
    /// All directories.
    pub directories: Vec<String>,
}

/// Asks the broker at `address`.
pub async fn describe(address: &str, topic: &str) -> anyhow::Result<Lie> {
    let client = connect(address).await?;
    let all = DescribeLogDirsRequest::default().with_topics(None);
    let reply = client.call(&all, 4).await?;
    let mut lie = Lie::default();
    for dir in reply.results {
        let path = dir.log_dir.to_string();
        let topics = dir.topics.iter().filter(|one| one.name.as_str() == topic);
        for partition in topics.flat_map(|one| &one.partitions) {
            let all = match partition.is_future_key {
                true => &mut lie.future,
                false => &mut lie.now,
            };
            all.insert(partition.partition_index, path.clone());
        }
        lie.directories.push(path);
    }
    Ok(lie)
}

/// Has these partitions' replicas on the broker at `address` lie in other directories.
pub async fn alter(
    address: &str,
    topic: &str,
    wishes: &BTreeMap<i32, String>,
) -> anyhow::Result<()> {
    let client = connect(address).await?;
    let dir = |(partition, path): (&i32, &String)| {
        let topic = AlterReplicaLogDirTopic::default()
            .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
            .with_partitions(vec![*partition]);
        AlterReplicaLogDir::default()
            .with_path(StrBytes::from_string(path.clone()))
            .with_topics(vec![topic])
    };
    let request = AlterReplicaLogDirsRequest::default().with_dirs(wishes.iter().map(dir).collect());
    let reply = client.call(&request, 2).await?;
    for topic in &reply.results {
        for partition in &topic.partitions {
            ensure!(partition.error_code == 0, "{partition:?}");
        }
    }
    Ok(())
}
