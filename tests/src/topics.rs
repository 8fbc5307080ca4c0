//! Topics as a client sees and makes them: librdkafka's admin calls and metadata.

use crate::wait;
use anyhow::{Context as _, bail};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::metadata::MetadataTopic;
use std::collections::BTreeMap;
use std::time::Duration;

/// A partition as Metadata describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Broker id of the leader; -1 without one.
    pub leader: i32,
    /// Broker ids of the assignment, in order.
    pub replicas: Vec<i32>,
    /// Broker ids in sync.
    pub isr: Vec<i32>,
}

/// Looks at a cluster through one long-lived client.
pub struct Viewer(BaseConsumer);

impl Viewer {
    /// A viewer of the cluster behind `bootstrap`.
    pub fn new(bootstrap: &str) -> Self {
        let consumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("log_level", "0")
            .create()
            .expect("librdkafka accepts the configuration");
        Self(consumer)
    }

    /// The partitions of `topic`, in order.
    pub fn partitions(&self, topic: &str) -> anyhow::Result<Vec<Seen>> {
        let metadata = self.0.fetch_metadata(Some(topic), Duration::from_secs(5))?;
        let topic = metadata
            .topics()
            .first()
            .context("no topic in the answer")?;
        seen(topic)
    }

    /// All topics, internal ones included.
    pub fn topics(&self) -> anyhow::Result<BTreeMap<String, Vec<Seen>>> {
        let metadata = self.0.fetch_metadata(None, Duration::from_secs(5))?;
        let topics = metadata.topics().iter();
        topics
            .map(|topic| Ok((topic.name().to_owned(), seen(topic)?)))
            .collect()
    }

    /// Waits until every partition of `topic` has a leader and all its replicas in sync.
    pub fn wait_in_sync(&self, topic: &str, limit: Duration) -> Vec<Seen> {
        wait::until(&format!("every replica of {topic} in sync"), limit, || {
            let seen = self.partitions(topic)?;
            let whole = |p: &Seen| p.leader >= 0 && p.isr.len() == p.replicas.len();
            if seen.is_empty() || !seen.iter().all(whole) {
                bail!("{seen:?}");
            }
            anyhow::Ok(seen)
        })
    }
}

fn seen(topic: &MetadataTopic) -> anyhow::Result<Vec<Seen>> {
    if let Some(error) = topic.error() {
        bail!("{}: {error:?}", topic.name());
    }
    let mut partitions: Vec<_> = topic.partitions().iter().collect();
    partitions.sort_by_key(|partition| partition.id());
    let seen = partitions.into_iter().map(|partition| Seen {
        leader: partition.leader(),
        replicas: partition.replicas().to_vec(),
        isr: partition.isr().to_vec(),
    });
    Ok(seen.collect())
}

/// Creates `topic` and waits until all its replicas are in sync.
pub async fn create(
    bootstrap: &str,
    topic: &str,
    partitions: i32,
    replication: i32,
    config: &[(&str, &str)],
) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()?;
    let mut wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(replication));
    for (key, value) in config {
        wanted = wanted.set(key, value);
    }
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(10)));
    for result in admin.create_topics([&wanted], &options).await? {
        if let Err((name, code)) = result {
            bail!("{name} was not created: {code}");
        }
    }
    Ok(())
}
