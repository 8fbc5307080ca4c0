"""aiokafka as its users have it: nothing is set but the brokers' addresses."""

import asyncio
import os
import traceback

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.errors import InvalidTopicError, KafkaError, ProducerFenced, TopicAlreadyExistsError, for_code
from harness.results import line

BOOTSTRAP = os.environ["BOOTSTRAP"]
LIMIT = 60
SCENES = []
names = iter(range(10**6))


def scene(name):
    def keep(body):
        SCENES.append((name, body))
        return body

    return keep


class Clients:
    """Clients that are stopped at the end of a scene, whatever came of it."""

    def __init__(self):
        self.started = []

    async def use(self, client):
        await client.start()
        self.started.append(client)
        return client

    async def producer(self, **options):
        return await self.use(AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, **options))

    async def consumer(self, *topics, group=None, **options):
        options.setdefault("auto_offset_reset", "earliest")
        return await self.use(AIOKafkaConsumer(*topics, bootstrap_servers=BOOTSTRAP, group_id=group, **options))

    async def admin(self):
        client = AIOKafkaAdminClient(bootstrap_servers=BOOTSTRAP)
        await client.start()
        self.started.append(client)
        return client

    async def topic(self, partitions=3):
        topic = fresh("t")
        admin = await self.admin()
        answer = await admin.create_topics([NewTopic(topic, partitions, 3)])
        assert answer.topic_errors[0][1] == 0, answer
        return topic

    async def close(self):
        for client in reversed(self.started):
            try:
                await asyncio.wait_for(client.close() if hasattr(client, "close") else client.stop(), 20)
            except Exception:
                traceback.print_exc()


def fresh(what):
    return f"aiokafka-{what}-{next(names)}"


async def send(producer, topic, count, prefix, **options):
    sent = [await producer.send(topic, f"{prefix}{i}".encode(), key=f"k{i}".encode(), **options) for i in range(count)]
    return [await each for each in sent]


async def read(consumer, count):
    """`count` messages, and what else comes within half a second."""
    seen = []
    while len(seen) < count:
        for messages in (await consumer.getmany(timeout_ms=1000)).values():
            seen += messages
    for messages in (await consumer.getmany(timeout_ms=500)).values():
        seen += messages
    return seen


def same(seen, count, prefix):
    assert sorted(m.value for m in seen) == sorted(f"{prefix}{i}".encode() for i in range(count)), [m.value for m in seen][:5]


@scene("produce and consume in a group")
async def _(clients):
    topic = await clients.topic()
    sent = await send(await clients.producer(), topic, 300, "v")
    seen = await read(await clients.consumer(topic, group=fresh("g")), 300)
    same(seen, 300, "v")
    assert {(m.partition, m.offset) for m in seen} == {(m.partition, m.offset) for m in sent}


@scene("a topic is created by writing to it")
async def _(clients):
    topic = fresh("auto")
    await send(await clients.producer(), topic, 5, "v")
    same(await read(await clients.consumer(topic), 5), 5, "v")


@scene("headers, no key and tombstones")
async def _(clients):
    topic = await clients.topic(1)
    producer = await clients.producer()
    await producer.send_and_wait(topic, b"x", headers=[("a", b"b"), ("a", b"c")], timestamp_ms=1234567)
    await producer.send_and_wait(topic, None, key=b"gone")
    seen = await read(await clients.consumer(topic), 2)
    assert seen[0].headers == (("a", b"b"), ("a", b"c")) and seen[0].key is None and seen[0].timestamp == 1234567
    assert seen[1].value is None and seen[1].key == b"gone"


def compressed(codec):
    @scene(f"compression: {codec}")
    async def _(clients):
        topic = await clients.topic()
        await send(await clients.producer(compression_type=codec), topic, 500, "z" * 100)
        same(await read(await clients.consumer(topic), 500), 500, "z" * 100)


def acknowledged(acks):
    @scene(f"acks={acks}")
    async def _(clients):
        topic = await clients.topic()
        await send(await clients.producer(acks=acks), topic, 100, "a")
        same(await read(await clients.consumer(topic), 100), 100, "a")


for each in ("gzip", "snappy", "lz4", "zstd"):
    compressed(each)
for each in (0, 1, "all"):
    acknowledged(each)


@scene("an idempotent producer")
async def _(clients):
    topic = await clients.topic()
    await send(await clients.producer(enable_idempotence=True), topic, 300, "i")
    same(await read(await clients.consumer(topic), 300), 300, "i")


@scene("two members share a topic and one takes over")
async def _(clients):
    topic, group = await clients.topic(6), fresh("g")
    producer = await clients.producer()
    one, two = await clients.consumer(topic, group=group), await clients.consumer(topic, group=group)
    while len(one.assignment()) != 3 or len(two.assignment()) != 3:
        await asyncio.gather(one.getmany(timeout_ms=100), two.getmany(timeout_ms=100))
    await send(producer, topic, 120, "v")
    seen = []
    while len(seen) < 120:
        for got in await asyncio.gather(one.getmany(timeout_ms=100), two.getmany(timeout_ms=100)):
            seen += [m for messages in got.values() for m in messages]
    same(seen, 120, "v")
    await one.stop()
    while len(two.assignment()) != 6:
        await two.getmany(timeout_ms=100)
    await send(producer, topic, 60, "w")
    same(await read(two, 60), 60, "w")


@scene("a group goes on where it committed")
async def _(clients):
    topic, group = await clients.topic(1), fresh("g")
    producer = await clients.producer()
    await send(producer, topic, 10, "first")
    one = await clients.consumer(topic, group=group)
    await read(one, 10)
    await one.stop()
    await send(producer, topic, 10, "second")
    two = await clients.consumer(topic, group=group)
    assert await two.committed(TopicPartition(topic, 0)) == 10
    same(await read(two, 10), 10, "second")


@scene("seek, positions, offsets by time")
async def _(clients):
    topic = await clients.topic(1)
    producer = await clients.producer()
    for i in range(10):
        await producer.send_and_wait(topic, b"v%d" % i, timestamp_ms=1000 * (i + 1))
    consumer = await clients.consumer(topic)
    at = TopicPartition(topic, 0)
    assert await consumer.beginning_offsets([at]) == {at: 0}
    assert await consumer.end_offsets([at]) == {at: 10}
    found = await consumer.offsets_for_times({at: 4500})
    assert (found[at].offset, found[at].timestamp) == (4, 5000)
    consumer.seek(at, 8)
    assert [m.offset for m in await read(consumer, 2)] == [8, 9]
    await consumer.seek_to_end(at)
    assert await consumer.position(at) == 10


@scene("a committed and an aborted transaction")
async def _(clients):
    topic = await clients.topic()
    producer = await clients.producer(transactional_id=fresh("x"))
    async with producer.transaction():
        await send(producer, topic, 20, "kept")
    await producer.begin_transaction()
    await send(producer, topic, 20, "dropped")
    await producer.abort_transaction()
    async with producer.transaction():
        await send(producer, topic, 1, "last")
    seen = await read(await clients.consumer(topic, isolation_level="read_committed"), 21)
    assert len(seen) == 21 and not any(m.value.startswith(b"dropped") for m in seen)
    assert len(await read(await clients.consumer(topic), 41)) == 41


@scene("offsets are committed in a transaction")
async def _(clients):
    topic, group = await clients.topic(1), fresh("g")
    at = TopicPartition(topic, 0)
    producer = await clients.producer(transactional_id=fresh("x"))
    async with producer.transaction():
        await send(producer, topic, 1, "v")
        await producer.send_offsets_to_transaction({at: 7}, group)
    await producer.begin_transaction()
    await producer.send_offsets_to_transaction({at: 9}, group)
    await producer.abort_transaction()
    assert await (await clients.consumer(group=group)).committed(at) == 7


@scene("a second producer fences the first")
async def _(clients):
    topic, x = await clients.topic(), fresh("x")
    first = await clients.producer(transactional_id=x)
    await first.begin_transaction()
    await send(first, topic, 1, "old")
    second = await clients.producer(transactional_id=x)
    async with second.transaction():
        await send(second, topic, 1, "new")
    try:
        await send(first, topic, 1, "zombie")
        await first.commit_transaction()
    except ProducerFenced:
        return
    raise AssertionError("the first was not fenced")


@scene("admin: topics and partitions")
async def _(clients):
    topic, admin = await clients.topic(2), await clients.admin()
    assert topic in await admin.list_topics()
    await admin.create_partitions({topic: NewPartitions(5)})
    described = (await admin.describe_topics([topic]))[0]
    assert len(described["partitions"]) == 5 and len(described["partitions"][0]["replicas"]) == 3, described
    producer = await clients.producer()
    for i in range(10):
        await producer.send_and_wait(topic, b"v", partition=0)
    assert (await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=4)}))[TopicPartition(topic, 0)] == 4
    await admin.delete_topics([topic])
    while topic in await admin.list_topics():
        await asyncio.sleep(0.05)


@scene("admin: a topic that is there, a bad name")
async def _(clients):
    topic, admin = await clients.topic(2), await clients.admin()
    for name, error in ((topic, TopicAlreadyExistsError), ("bad/name", InvalidTopicError)):
        answer = await admin.create_topics([NewTopic(name, 1, 1)])
        assert for_code(answer.topic_errors[0][1]) is error, answer


@scene("admin: configuration")
async def _(clients):
    topic, admin = await clients.topic(1), await clients.admin()
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs={"retention.ms": "123456"})])
    for left in reversed(range(50)):
        answer = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs={"retention.ms": None})])
        if answer[0].resources[0][4][0][:2] == ("retention.ms", "123456"):
            break
        # Another broker than the one that changed it may answer, and hears of it a moment later.
        assert left, answer
        await asyncio.sleep(0.1)
    brokers = await admin.describe_configs([ConfigResource(ConfigResourceType.BROKER, "0")])
    assert len(brokers[0].resources[0][4]) > 50


@scene("admin: groups")
async def _(clients):
    topic, group, admin = await clients.topic(1), fresh("g"), await clients.admin()
    await send(await clients.producer(), topic, 9, "v")
    consumer = await clients.consumer(topic, group=group)
    await read(consumer, 9)
    await consumer.commit()
    assert group in {found[0] for found in await admin.list_consumer_groups()}
    described = await admin.describe_consumer_groups([group])
    assert described[0].groups[0][2] == "Stable", described
    assert (await admin.list_consumer_group_offsets(group))[TopicPartition(topic, 0)].offset == 9


@scene("admin: the cluster")
async def _(clients):
    admin = await clients.admin()
    described = await admin.describe_cluster()
    assert len(described["brokers"]) == 3 and described["cluster_id"], described


async def main():
    for name, body in SCENES:
        clients = Clients()
        try:
            await asyncio.wait_for(body(clients), LIMIT)
            result = line("passed", name)
        except (Exception, asyncio.CancelledError) as error:
            traceback.print_exc()
            result = line("failed", name, f"{type(error).__name__}: {error}")
        finally:
            await clients.close()
        print(result, flush=True)
        with open(os.environ["RESULTS"], "a") as out:
            out.write(result + "\n")


asyncio.run(main())
