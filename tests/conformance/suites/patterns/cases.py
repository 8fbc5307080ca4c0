"""A schema registry keeps all it knows in one compacted topic of one partition: it writes with acks=all and one request at a
time, reads its own writes back before it answers, and reads everything from the beginning when it starts. Large
messages: 10 MB, where topic and clients allow them, and the refusal where they do not."""

import hashlib
import json
import os
import random
import time
import traceback

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType
from harness.results import line

BOOTSTRAP = {"bootstrap.servers": os.environ["BOOTSTRAP"]}
ADMIN = AdminClient(BOOTSTRAP)
LIMIT = 60
MB = 1024 * 1024
LARGE = 11 * MB


def create(name, partitions=1, **config):
    wanted = NewTopic(name, partitions, 3, config={key.replace("_", "."): value for key, value in config.items()})
    ADMIN.create_topics([wanted])[name].result(30)


class Registry:
    """One instance: a writer, a reader of its own topic, and what it knows."""

    def __init__(self, topic):
        self.topic = topic
        self.producer = Producer(BOOTSTRAP | {"acks": "all", "max.in.flight.requests.per.connection": 1, "enable.idempotence": False})
        self.consumer = Consumer(BOOTSTRAP | {"group.id": f"{topic}-reader", "enable.auto.commit": False, "auto.offset.reset": "earliest"})
        self.consumer.assign([TopicPartition(topic, 0, 0)])
        self.known = {}
        self.read_to = 0
        self.read_until(self.consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=LIMIT)[1])

    def read_until(self, offset):
        """Reads until the offset is behind it; a compacted topic has gaps, so the position tells, not the messages."""
        deadline = time.monotonic() + LIMIT
        while self.read_to < offset:
            message = self.consumer.poll(1)
            if message is not None:
                if message.error():
                    raise KafkaException(message.error())
                self.read_to = message.offset() + 1
                if message.value() is None:
                    self.known.pop(message.key(), None)
                else:
                    self.known[message.key()] = message.value()
            if time.monotonic() > deadline:
                raise AssertionError(f"read to {self.read_to}, not to {offset}")

    def put(self, key, value):
        """Stored, read back, known."""
        stored = []
        self.producer.produce(self.topic, value, key, partition=0, on_delivery=lambda error, message: stored.append((error, message)))
        assert self.producer.flush(LIMIT) == 0, "not delivered"
        error, message = stored[0]
        if error:
            raise KafkaException(error)
        self.read_until(message.offset() + 1)
        assert self.known.get(key) == value

    def close(self):
        self.consumer.close()


def registry(topic):
    create(topic, cleanup_policy="compact")
    one = Registry(topic)
    for schema in range(50):
        key = json.dumps({"keytype": "SCHEMA", "subject": f"s{schema % 10}", "version": schema // 10}).encode()
        one.put(key, json.dumps({"id": schema, "schema": '"string"'}).encode())
    one.put(b"NOOP", b"")
    gone = sorted(one.known)[0]
    one.put(gone, None)
    two = Registry(topic)
    assert two.known == one.known, (len(two.known), len(one.known))
    two.put(b"late", b"x")
    one.read_until(two.read_to)
    assert one.known == two.known
    one.close()
    two.close()


def compacted(topic):
    """The same state is read after the log was compacted, with fewer records."""
    create(topic, cleanup_policy="compact", segment_ms="100", min_cleanable_dirty_ratio="0.01", segment_bytes="1048576")
    one = Registry(topic)
    state = random.Random(7)
    for turn in range(120):
        one.put(f"k{state.randrange(5)}".encode(), f"v{turn}".encode())
    deadline = time.monotonic() + LIMIT
    while True:
        counted = records(topic)
        # Writes go on, so that segments are closed.
        one.put(b"tick", str(counted).encode())
        if counted < 100:
            break
        assert time.monotonic() < deadline, f"{counted} records: not compacted"
        time.sleep(0.5)
    two = Registry(topic)
    assert two.known == one.known
    one.close()
    two.close()


def records(topic):
    consumer = Consumer(BOOTSTRAP | {"group.id": "count", "enable.auto.commit": False, "auto.offset.reset": "earliest", "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, 0, 0)])
    count = 0
    while True:
        message = consumer.poll(LIMIT)
        assert message is not None, "nothing more came"
        if message.error():
            assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
            consumer.close()
            return count
        count += 1


def no_key(topic):
    """A record without a key is refused by a compacted topic."""
    create(topic, cleanup_policy="compact")
    assert send(topic, [b"x"]) == [KafkaError.INVALID_RECORD]


def send(topic, values, **config):
    """The error codes of what was not stored."""
    failed = []
    producer = Producer(BOOTSTRAP | {key.replace("_", "."): value for key, value in config.items()})
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: failed.append(error.code()) if error else None)
    assert producer.flush(LIMIT) == 0, "not delivered"
    return failed


def large(codec):
    def body(topic):
        create(topic, max_message_bytes=str(LARGE))
        values = [random.Random(seed).randbytes(10 * 1000 * 1000) for seed in range(4)]
        assert send(topic, values, message_max_bytes=LARGE, compression_type=codec, enable_idempotence=True) == []
        consumer = Consumer(BOOTSTRAP | {"group.id": topic, "auto.offset.reset": "earliest", "fetch.message.max.bytes": MB})
        consumer.subscribe([topic])
        found = []
        deadline = time.monotonic() + LIMIT
        while len(found) < 4:
            message = consumer.poll(1)
            if message is not None and not message.error():
                found.append(hashlib.sha256(message.value()).digest())
            assert time.monotonic() < deadline, f"{len(found)} of 4 were read"
        consumer.close()
        assert found == [hashlib.sha256(value).digest() for value in values]

    return body


def too_large(topic):
    """By default a topic takes a batch of a little more than 1 MiB."""
    create(topic)
    assert send(topic, [bytes(2 * MB)], message_max_bytes=LARGE) == [KafkaError.MSG_SIZE_TOO_LARGE]
    assert send(topic, [random.Random(1).randbytes(1_000_000)], message_max_bytes=LARGE) == []
    entry = ConfigEntry("max.message.bytes", str(LARGE), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    ADMIN.incremental_alter_configs([resource])[resource].result(30)
    deadline = time.monotonic() + LIMIT
    while send(topic, [bytes(2 * MB)], message_max_bytes=LARGE):
        assert time.monotonic() < deadline, "still refused"


SCENES = {
    "schema registry: what one instance writes the other knows": registry,
    "schema registry: the same after compaction": compacted,
    "schema registry: a record without a key is refused": no_key,
    "large messages: 10 MB": large("none"),
    "large messages: 10 MB, zstd": large("zstd"),
    "large messages: refused until the topic allows them": too_large,
}

for number, (name, body) in enumerate(SCENES.items()):
    try:
        body(f"patterns-{number}")
        result = line("passed", name)
    except Exception as error:
        traceback.print_exc()
        result = line("failed", name, f"{type(error).__name__}: {error}")
    print(result, flush=True)
    with open(os.environ["RESULTS"], "a") as out:
        out.write(result + "\n")
