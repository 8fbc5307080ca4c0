//! Produce and Fetch spoken by hand, to see every error code that an answer on the wire carries.
//!
//! A client library hides what it retries: a failed Produce that succeeds a moment later is no failed
//! delivery. Here each answer is looked at. Nothing is retried and no leader is looked up a second time.

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use leasehold_wire::kafka::messages::fetch_request::{FetchPartition, FetchTopic};
use leasehold_wire::kafka::messages::find_coordinator_request::FindCoordinatorRequest;
use leasehold_wire::kafka::messages::metadata_request::MetadataRequestTopic;
use leasehold_wire::kafka::messages::produce_request::{PartitionProduceData, TopicProduceData};
use leasehold_wire::kafka::messages::{
    BrokerId, FetchRequest, MetadataRequest, ProduceRequest, TopicName,
};
use leasehold_wire::kafka::records::{
    Compression, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, Record, RecordBatchEncoder,
    RecordEncodeOptions, TimestampType,
};
use leasehold_wire::{Client, ClientOptions, StrBytes};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Versions that need no topic ids.
const PRODUCE: i16 = 9;
const FETCH: i16 = 12;
const METADATA: i16 = 9;

/// How many answers of Produce and of Fetch carried which error code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Codes {
    pub produce: BTreeMap<i16, u64>,
    pub fetch: BTreeMap<i16, u64>,
    /// Requests that got no answer, and why.
    pub unanswered: Vec<String>,
}

/// Produces to and fetches from every partition of a topic until it is stopped.
pub struct WireLoad {
    codes: Arc<Mutex<Codes>>,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl WireLoad {
    /// Starts with the leaders of now.
    pub fn start(bootstrap: &str, topic: &str) -> Self {
        let (codes, stop) = (Arc::<Mutex<Codes>>::default(), Arc::<AtomicBool>::default());
        let runtime = tokio::runtime::Runtime::new().expect("runtime");
        let leaders = runtime
            .block_on(leaders(bootstrap, topic))
            .expect("the leaders of the topic");
        let thread = std::thread::spawn({
            let (codes, stop, topic) = (codes.clone(), stop.clone(), topic.to_owned());
            move || {
                let all = leaders.into_iter().map(|(partition, address)| {
                    let (codes, stop, topic) = (codes.clone(), stop.clone(), topic.clone());
                    async move {
                        if let Err(error) = one(&address, &topic, partition, &codes, &stop).await {
                            let text = format!("{topic}-{partition} at {address}: {error:#}");
                            codes.lock().expect("codes").unanswered.push(text);
                        }
                    }
                });
                runtime.block_on(futures::future::join_all(all));
            }
        });
        Self {
            codes,
            stop,
            thread,
        }
    }

    /// Ends and gives what was seen.
    pub fn stop(self) -> Codes {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the thread");
        std::mem::take(&mut *self.codes.lock().expect("codes"))
    }
}

/// Each partition's leader, as `host:port`.
async fn leaders(bootstrap: &str, topic: &str) -> anyhow::Result<Vec<(i32, String)>> {
    let client = connect(bootstrap.split(',').next().context("an address")?).await?;
    let asked = MetadataRequestTopic::default().with_name(Some(name(topic)));
    let request = MetadataRequest::default().with_topics(Some(vec![asked]));
    let reply = client.call(&request, METADATA).await?;
    let addresses: BTreeMap<BrokerId, String> = reply
        .brokers
        .iter()
        .map(|broker| (broker.node_id, format!("{}:{}", broker.host, broker.port)))
        .collect();
    let topic = reply.topics.first().context("no topic in the answer")?;
    let leader = |id: &BrokerId| addresses.get(id).cloned().context("a leader's address");
    topic
        .partitions
        .iter()
        .map(|p| Ok((p.partition_index, leader(&p.leader_id)?)))
        .collect()
}

/// Each broker's rack as Metadata tells it.
pub async fn racks(bootstrap: &str) -> anyhow::Result<BTreeMap<i32, Option<String>>> {
    let client = connect(bootstrap.split(',').next().context("an address")?).await?;
    let reply = client
        .call(
            &MetadataRequest::default().with_topics(Some(vec![])),
            METADATA,
        )
        .await?;
    let rack = |rack: &Option<StrBytes>| rack.as_ref().map(ToString::to_string);
    let brokers = reply.brokers.iter();
    Ok(brokers.map(|b| (b.node_id.0, rack(&b.rack))).collect())
}

/// The id of a group's coordinator.
pub async fn coordinator(bootstrap: &str, group: &str) -> anyhow::Result<i32> {
    let client = connect(bootstrap.split(',').next().context("an address")?).await?;
    let request =
        FindCoordinatorRequest::default().with_key(StrBytes::from_string(group.to_owned()));
    let reply = client.call(&request, 3).await?;
    if reply.error_code != 0 {
        bail!("FindCoordinator of {group}: error {}", reply.error_code);
    }
    Ok(reply.node_id.0)
}

pub(crate) async fn connect(address: &str) -> anyhow::Result<Client> {
    let client = Client::connect(address, ClientOptions::default()).await;
    client.with_context(|| format!("cannot connect to {address}"))
}

async fn one(
    address: &str,
    topic: &str,
    partition: i32,
    codes: &Mutex<Codes>,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let client = connect(address).await?;
    while !stop.load(Ordering::Relaxed) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let records = batch(1, &Bytes::from_static(b"by hand"), now.as_millis() as i64)?;
        let reply = client
            .call(&produce(topic, partition, records, 5_000), PRODUCE)
            .await?;
        let answer = &reply.responses[0].partition_responses[0];
        let offset = answer.base_offset;
        count(&mut codes.lock().expect("codes").produce, answer.error_code);
        let reply = client
            .call(&fetch(topic, partition, offset.max(0), 1 << 20, 100), FETCH)
            .await?;
        count(&mut codes.lock().expect("codes").fetch, reply.error_code);
        for answer in reply.responses.iter().flat_map(|topic| &topic.partitions) {
            count(&mut codes.lock().expect("codes").fetch, answer.error_code);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn count(counts: &mut BTreeMap<i16, u64>, code: i16) {
    *counts.entry(code).or_default() += 1;
}

pub(crate) fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

/// A Produce of `records` to one partition, acks=all.
pub(crate) fn produce(
    topic: &str,
    partition: i32,
    records: Bytes,
    timeout_ms: i32,
) -> ProduceRequest {
    let data = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(records));
    let topic = TopicProduceData::default()
        .with_name(name(topic))
        .with_partition_data(vec![data]);
    ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(timeout_ms)
        .with_topic_data(vec![topic])
}

/// A Fetch of one partition that waits for a first byte.
pub(crate) fn fetch(
    topic: &str,
    partition: i32,
    offset: i64,
    bytes: i32,
    wait_ms: i32,
) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(bytes);
    let topic = FetchTopic::default()
        .with_topic(name(topic))
        .with_partitions(vec![partition]);
    FetchRequest::default()
        .with_max_wait_ms(wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(bytes)
        .with_topics(vec![topic])
}

/// A batch of `records` records of one value, of no idempotent producer.
pub(crate) fn batch(records: i64, value: &Bytes, timestamp: i64) -> anyhow::Result<Bytes> {
    let record = |offset| Record {
        transactional: false,
        control: false,
        delete_horizon_ms: None,
        partition_leader_epoch: -1,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        timestamp_type: TimestampType::Creation,
        offset,
        sequence: NO_SEQUENCE,
        timestamp,
        key: None,
        value: Some(value.clone()),
        headers: Vec::new(),
    };
    let all: Vec<Record> = (0..records).map(record).collect();
    let options = RecordEncodeOptions {
        version: 2,
        compression: Compression::None,
    };
    let mut bytes = BytesMut::new();
    RecordBatchEncoder::encode(&mut bytes, &all, &options)?;
    Ok(bytes.freeze())
}
