//! A client that costs nearly nothing: frames made beforehand, one blocking connection.

use crate::wire::{self, name};
use anyhow::{Context as _, bail};
use bytes::{Buf as _, Bytes, BytesMut};
use leasehold_wire::kafka::messages::create_topics_request::CreatableTopic;
use leasehold_wire::kafka::messages::join_group_request::JoinGroupRequestProtocol;
use leasehold_wire::kafka::messages::sync_group_request::SyncGroupRequestAssignment;
use leasehold_wire::kafka::messages::{
    BrokerId, CreateTopicsRequest, FetchRequest, FetchResponse, FindCoordinatorRequest, GroupId,
    HeartbeatRequest, JoinGroupRequest, MetadataRequest, ProduceRequest, ProduceResponse,
    SyncGroupRequest,
};
use leasehold_wire::kafka::protocol::{Decodable, HeaderVersion, Request};
use leasehold_wire::{OutFrame, StrBytes, decode, encode_request};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Versions that both speak and that name topics by name.
const PRODUCE: i16 = 9;
const FETCH: i16 = 12;
const CREATE_TOPICS: i16 = 5;
const FIND_COORDINATOR: i16 = 3;
/// The last that takes a member without asking it to come again with its name.
const JOIN_GROUP: i16 = 3;
const SYNC_GROUP: i16 = 3;
const HEARTBEAT: i16 = 3;

/// Answers of one kind of request: its version and header.
fn body<R: Request>(mut reply: Bytes, version: i16) -> anyhow::Result<R::Response>
where
    R::Response: Decodable + HeaderVersion,
{
    reply.advance(4);
    if R::Response::header_version(version) >= 1 {
        reply.advance(1);
    }
    Ok(decode(reply, version)?)
}

/// One connection, one thread.
pub struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Connection {
    pub fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self {
            stream,
            buffer: BytesMut::new(),
        })
    }

    pub fn send(&mut self, frame: &Bytes) -> anyhow::Result<()> {
        Ok(self.stream.write_all(frame)?)
    }

    /// The next answer, without its length.
    pub fn receive(&mut self) -> anyhow::Result<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        self.buffer.resize(length, 0);
        self.stream.read_exact(&mut self.buffer)?;
        Ok(self.buffer.split().freeze())
    }

    fn call<R: Request>(&mut self, request: &R, version: i16) -> anyhow::Result<R::Response>
    where
        R::Response: Decodable + HeaderVersion,
    {
        self.send(&frame(request, version)?)?;
        body::<R>(self.receive()?, version)
    }

    /// How many brokers the metadata shows.
    pub fn brokers(&mut self) -> anyhow::Result<usize> {
        let request = MetadataRequest::default().with_topics(Some(Vec::new()));
        Ok(self.call(&request, 9)?.brokers.len())
    }

    /// Who leads a partition.
    pub fn leader(&mut self, topic: &str, partition: usize) -> anyhow::Result<BrokerId> {
        use leasehold_wire::kafka::messages::metadata_request::MetadataRequestTopic;
        let asked = MetadataRequestTopic::default().with_name(Some(name(topic)));
        let request = MetadataRequest::default().with_topics(Some(vec![asked]));
        let reply = self.call(&request, 9)?;
        let topic = reply.topics.first().context("a topic")?;
        let partition = topic.partitions.get(partition).context("a partition")?;
        if partition.leader_id.0 < 0 {
            bail!("no leader yet");
        }
        Ok(partition.leader_id)
    }

    /// Asks who coordinates a group, until that is known.
    pub fn coordinator(&mut self, group: &str) -> anyhow::Result<BrokerId> {
        let request = FindCoordinatorRequest::default().with_key(StrBytes::from(group.to_owned()));
        let reply = self.call(&request, FIND_COORDINATOR)?;
        match reply.error_code {
            0 => Ok(reply.node_id),
            code => bail!("FindCoordinator: {code}"),
        }
    }

    /// Creates topics with so many partitions and replicas each.
    pub fn create(
        &mut self,
        topics: &[&str],
        partitions: i32,
        replicas: i16,
    ) -> anyhow::Result<()> {
        self.ask_to_create(topics, partitions, replicas)?;
        self.created()
    }

    /// Sends the wish of [`Self::create`]; [`Self::created`] takes the answer.
    pub fn ask_to_create(
        &mut self,
        topics: &[&str],
        partitions: i32,
        replicas: i16,
    ) -> anyhow::Result<()> {
        let wish = |topic: &&str| {
            CreatableTopic::default()
                .with_name(name(topic))
                .with_num_partitions(partitions)
                .with_replication_factor(replicas)
        };
        let request = CreateTopicsRequest::default()
            .with_topics(topics.iter().map(wish).collect())
            .with_timeout_ms(60_000);
        self.send(&frame(&request, CREATE_TOPICS)?)
    }

    /// The answer to a CreateTopics, checked.
    pub fn created(&mut self) -> anyhow::Result<()> {
        let reply = body::<CreateTopicsRequest>(self.receive()?, CREATE_TOPICS)?;
        match reply.topics.iter().find(|topic| topic.error_code != 0) {
            Some(topic) => bail!("{:?}: {}", topic.name, topic.error_code),
            None => Ok(()),
        }
    }

    /// The answer to a Produce, checked.
    pub fn produced(&mut self) -> anyhow::Result<i64> {
        let reply: ProduceResponse = body::<ProduceRequest>(self.receive()?, PRODUCE)?;
        let answer = &reply.responses[0].partition_responses[0];
        match answer.error_code {
            0 => Ok(answer.base_offset),
            code => bail!("Produce: {code}"),
        }
    }

    /// The records of the answer to a Fetch, checked.
    pub fn fetched(&mut self) -> anyhow::Result<Bytes> {
        let reply: FetchResponse = body::<FetchRequest>(self.receive()?, FETCH)?;
        let Some(answer) = reply.responses.first().and_then(|t| t.partitions.first()) else {
            bail!("Fetch: {}", reply.error_code);
        };
        match answer.error_code {
            0 => Ok(answer.records.clone().unwrap_or_default()),
            code => bail!("Fetch: {code}"),
        }
    }
}

/// The only member of a group, over a connection of its own.
pub struct Membership {
    connection: Connection,
    heartbeat: Bytes,
}

impl Membership {
    /// Joins, and takes all of the topic.
    pub fn join(address: SocketAddr, group: &str, topic: &str) -> anyhow::Result<Self> {
        let mut connection = Connection::open(address)?;
        let group = || GroupId(StrBytes::from(group.to_owned()));
        // What a member says of itself, and what it is given, is the clients' own affair.
        let opaque = Bytes::from(topic.as_bytes().to_vec());
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str("range"))
            .with_metadata(opaque.clone());
        let request = JoinGroupRequest::default()
            .with_group_id(group())
            .with_session_timeout_ms(45_000)
            .with_rebalance_timeout_ms(300_000)
            .with_protocol_type(StrBytes::from_static_str("consumer"))
            .with_protocols(vec![protocol]);
        let joined = connection.call(&request, JOIN_GROUP)?;
        anyhow::ensure!(joined.error_code == 0, "JoinGroup: {}", joined.error_code);
        let given = SyncGroupRequestAssignment::default()
            .with_member_id(joined.member_id.clone())
            .with_assignment(opaque);
        let request = SyncGroupRequest::default()
            .with_group_id(group())
            .with_generation_id(joined.generation_id)
            .with_member_id(joined.member_id.clone())
            .with_assignments(vec![given]);
        let synced = connection.call(&request, SYNC_GROUP)?;
        anyhow::ensure!(synced.error_code == 0, "SyncGroup: {}", synced.error_code);
        let beat = HeartbeatRequest::default()
            .with_group_id(group())
            .with_generation_id(joined.generation_id)
            .with_member_id(joined.member_id);
        Ok(Self {
            connection,
            heartbeat: frame(&beat, HEARTBEAT)?,
        })
    }

    /// Says that it is there.
    pub fn heartbeat(&mut self) -> anyhow::Result<()> {
        self.connection.send(&self.heartbeat)?;
        match body::<HeartbeatRequest>(self.connection.receive()?, HEARTBEAT)?.error_code {
            0 => Ok(()),
            code => bail!("Heartbeat: {code}"),
        }
    }
}

fn frame<R: Request>(request: &R, version: i16) -> anyhow::Result<Bytes> {
    let client = Some(StrBytes::from_static_str("bench"));
    let mut frame: OutFrame = encode_request(1, client, request, version)?;
    Ok(frame.copy_to_bytes(frame.remaining()))
}

/// A Produce of one batch, acks=all.
pub fn produce(topic: &str, partition: i32, batch: &Bytes) -> anyhow::Result<Bytes> {
    let request = wire::produce(topic, partition, batch.clone(), 30_000);
    frame(&request, PRODUCE)
}

/// A Fetch that waits for a first byte.
pub fn fetch(topic: &str, partition: i32, offset: i64, bytes: i32) -> anyhow::Result<Bytes> {
    frame(&wire::fetch(topic, partition, offset, bytes, 500), FETCH)
}

/// A Fetch of partition 0 that waits so long for a first byte.
pub fn parked_fetch(topic: &str, wait: Duration) -> anyhow::Result<Bytes> {
    let wait = i32::try_from(wait.as_millis())?;
    frame(&wire::fetch(topic, 0, 0, 1 << 20, wait), FETCH)
}

/// A batch of `records` records with values of `size` bytes; `tag` makes it differ from others.
pub fn batch(records: i64, size: usize, tag: u64) -> anyhow::Result<Bytes> {
    let mut value = tag.to_be_bytes().to_vec();
    value.resize(size, b'x');
    wire::batch(records, &Bytes::from(value), 1_700_000_000_000)
}
