"""What is done with each tool. Every scene has topics and groups of its own, named after `t`."""

import json
import re
import subprocess
import time

from tools import BOOTSTRAP, Failed, command, file, run, run_all, run_alone, scene, until, want


def create(t, partitions=3, *more):
    run("topics", "--create", "--topic", t, "--partitions", partitions, *more)


def produce(t, count, *more):
    run("console-producer", "--topic", t, *more, given="".join(f"line {i}\n" for i in range(count)))


def consume(t, count, *more):
    """The lines that were read, sorted by their numbers."""
    said = run("console-consumer", "--topic", t, "--from-beginning", "--timeout-ms", 30000, "--max-messages", count, *more)
    found = sorted(int(n) for n in re.findall(r"^line (\d+)$", said, re.MULTILINE))
    if found != list(range(count)):
        raise Failed(f"read {len(found)} of {count}")


def offsets(t, *more):
    return sorted(re.findall(rf"^{t}:(\d+):(\d+)", run("get-offsets", "--topic", t, *more), re.MULTILINE))


@scene("topics: create, list, describe, alter, delete")
def _(t):
    create(t, 2, "--replication-factor", 3, "--config", "retention.ms=3600000")
    want(run("topics", "--list"), rf"^{t}$")
    described = run("topics", "--describe", "--topic", t)
    want(described, r"PartitionCount: 2\s+ReplicationFactor: 3", "retention.ms=3600000", r"Partition: 1\s+Leader: \d\s+Replicas: \d,\d,\d\s+Isr: \d,\d,\d")
    run("topics", "--alter", "--topic", t, "--partitions", 5)
    want(run("topics", "--describe", "--topic", t), "PartitionCount: 5")
    run("topics", "--delete", "--topic", t)
    want(run("topics", "--describe", "--topic", t, fails=True), "does not exist")


@scene("topics: what is wrong is refused")
def _(t):
    create(t, 1)
    want(run("topics", "--create", "--topic", t, fails=True), "already exists")
    want(run("topics", "--create", "--topic", "a/b", fails=True), "(?i)invalid")
    want(run("topics", "--create", "--topic", t + "x", "--replication-factor", 9, fails=True), "(?i)replication factor")
    want(run("topics", "--create", "--topic", t + "x", "--config", "no.such=1", fails=True), "no.such")
    want(run("topics", "--alter", "--topic", t, "--partitions", 1, fails=True), "(?i)partition")
    run("topics", "--create", "--if-not-exists", "--topic", t)


@scene("topics: replicas by hand, and what is under-replicated")
def _(t):
    run("topics", "--create", "--topic", t, "--replica-assignment", "0:1,1:2")
    want(run("topics", "--describe", "--topic", t), r"Partition: 0\s+Leader: 0\s+Replicas: 0,1", r"Partition: 1\s+Leader: 1\s+Replicas: 1,2")
    if re.search(r"Topic: ", run("topics", "--describe", "--under-replicated-partitions")):
        raise Failed("some partition is under-replicated")
    run("topics", "--describe", "--unavailable-partitions")
    run("topics", "--describe", "--at-min-isr-partitions")


@scene("configs: of a topic")
def _(t):
    create(t, 1)
    run("configs", "--alter", "--entity-type", "topics", "--entity-name", t, "--add-config", "retention.ms=1234567,cleanup.policy=[compact,delete]")
    want(run("configs", "--describe", "--entity-type", "topics", "--entity-name", t), "retention.ms=1234567", "cleanup.policy=compact,delete")
    want(run("configs", "--describe", "--all", "--topic", t), "min.insync.replicas=2", "segment.bytes=1073741824")
    run("configs", "--alter", "--entity-type", "topics", "--entity-name", t, "--delete-config", "retention.ms")
    if "1234567" in run("configs", "--describe", "--entity-type", "topics", "--entity-name", t):
        raise Failed("it is still set")
    run("configs", "--alter", "--topic", t, "--add-config", "no.such=1", fails=True)


@scene("configs: of all brokers and of one")
def _(t):
    run("configs", "--alter", "--entity-type", "brokers", "--entity-default", "--add-config", "log.retention.ms=7654321")
    want(run("configs", "--describe", "--entity-type", "brokers", "--entity-default"), "log.retention.ms=7654321")
    create(t, 1)
    want(run("configs", "--describe", "--all", "--topic", t), "retention.ms=7654321")
    want(run("configs", "--describe", "--all", "--broker", 0), "node.id=0|broker.id=0", "log.retention.ms=7654321")
    run("configs", "--alter", "--entity-type", "brokers", "--entity-default", "--delete-config", "log.retention.ms")


@scene("configs: of one broker while it runs")
def _(t):
    run("configs", "--alter", "--broker", 1, "--add-config", "log.cleaner.threads=2")
    want(run("configs", "--describe", "--broker", 1), "log.cleaner.threads=2")


@scene("configs: a broker's loggers")
def _(t):
    want(run("configs", "--describe", "--broker-logger", 0), r"root=(INFO|WARN|ERROR)")
    run("configs", "--alter", "--broker-logger", 0, "--add-config", "root=DEBUG")
    want(run("configs", "--describe", "--broker-logger", 0), "root=DEBUG")
    run("configs", "--alter", "--broker-logger", 0, "--add-config", "root=INFO")
    run("configs", "--alter", "--broker-logger", 0, "--add-config", "no.such.logger=INFO", fails=True)


@scene("configs: quotas")
def _(t):
    run("configs", "--alter", "--entity-type", "clients", "--entity-name", t, "--add-config", "producer_byte_rate=1048576")
    want(run("configs", "--describe", "--entity-type", "clients", "--entity-name", t), r"producer_byte_rate=1048576")
    run("configs", "--alter", "--entity-type", "users", "--entity-default", "--entity-type", "clients", "--entity-default", "--add-config", "request_percentage=200")
    want(run("configs", "--describe", "--entity-type", "users", "--entity-default", "--entity-type", "clients", "--entity-default"), "request_percentage=200")
    run("configs", "--alter", "--entity-type", "clients", "--entity-name", t, "--delete-config", "producer_byte_rate")


@scene("configs: of a group")
def _(t):
    run("configs", "--alter", "--group", t, "--add-config", "consumer.session.timeout.ms=50000")
    want(run("configs", "--describe", "--group", t), "consumer.session.timeout.ms=50000")


@scene("configs: of a group, its defaults, its bounds, none again")
def _(t):
    of = ["--entity-type", "groups", "--entity-name", t]
    run("configs", "--alter", *of, "--add-config", "consumer.session.timeout.ms=50000,consumer.heartbeat.interval.ms=7000")
    until("it to be known", lambda: t in run("configs", "--describe", "--entity-type", "groups"))
    described = run("configs", "--describe", *of)
    want(described, "DYNAMIC_GROUP_CONFIG:consumer.heartbeat.interval.ms=7000", "DEFAULT_CONFIG:group.consumer.heartbeat.interval.ms=5000")
    want(run("configs", "--describe", "--entity-type", "groups"), f"Dynamic configs for group {t} are")
    run("configs", "--alter", *of, "--delete-config", "consumer.session.timeout.ms")
    want(run("configs", "--describe", "--all", *of), "consumer.session.timeout.ms=45000", "consumer.heartbeat.interval.ms=7000")
    for wrong in ["consumer.session.timeout.ms=1000", "consumer.heartbeat.interval.ms=60000", "no.such=1"]:
        run("configs", "--alter", *of, "--add-config", wrong, fails=True)
    run("configs", "--alter", *of, "--delete-config", "consumer.heartbeat.interval.ms")
    until("it to be as before", lambda: t not in run("configs", "--describe", "--entity-type", "groups"))


@scene("configs: of client metrics")
def _(t):
    of = ["--entity-type", "client-metrics", "--entity-name", t]
    run("configs", "--alter", *of, "--add-config", "interval.ms=20000,match=[client_id=a.*,client_software_name=b]")
    want(run("configs", "--describe", *of), "interval.ms=20000", r"match=client_id=a\.\*,client_software_name=b")
    run("configs", "--alter", *of, "--add-config", "interval.ms=5", fails=True)
    run("configs", "--alter", *of, "--delete-config", "interval.ms,match")


@scene("configs: a user's SCRAM credentials")
def _(t):
    run("configs", "--alter", "--user", t, "--add-config", "SCRAM-SHA-256=[password=secret]")
    want(run("configs", "--describe", "--user", t), "SCRAM-SHA-256")


@scene("acls: add, list, remove")
def _(t):
    run("acls", "--add", "--allow-principal", "User:a", "--operation", "Read", "--topic", t)
    want(run("acls", "--list", "--topic", t), "User:a")


@scene("console producer and consumer: by default")
def _(t):
    create(t)
    produce(t, 500)
    consume(t, 500)


@scene("console producer and consumer: keys, headers, partitions, offsets")
def _(t):
    create(t, 1)
    run("console-producer", "--topic", t, "--reader-property", "parse.key=true", "--reader-property", "parse.headers=true", given="a:1,b:2\tk\tv\n")
    shown = [x for n in ("key", "headers", "partition", "offset", "timestamp") for x in ("--formatter-property", f"print.{n}=true")]
    said = run("console-consumer", "--topic", t, "--partition", 0, "--offset", 0, "--max-messages", 1, "--timeout-ms", 30000, *shown)
    want(said, r"^CreateTime:\d+\tPartition:0\tOffset:0\ta:1,b:2\tk\tv$")


def by_codec(codec):
    @scene(f"console producer and consumer: {codec}")
    def _(t):
        create(t)
        produce(t, 500, "--compression-codec", codec)
        consume(t, 500)


for codec in ("gzip", "snappy", "lz4", "zstd"):
    by_codec(codec)


def by_protocol(protocol):
    @scene(f"consumer-groups: a group of the {protocol} protocol")
    def _(t):
        create(t, 2)
        produce(t, 10)
        consume(t, 10, "--group", t, "--consumer-property", f"group.protocol={protocol}")
        want(run("consumer-groups", "--list", "--state", "--type"), rf"^{t}\s+\S+\s+Empty")
        described = run("consumer-groups", "--describe", "--group", t)
        if sum(int(n) for n in re.findall(rf"^{t}\s+{t}\s+\d\s+(\d+)\s+\d+\s+0\s", described, re.MULTILINE)) != 10:
            raise Failed(described)
        want(run("consumer-groups", "--describe", "--group", t, "--state"), rf"{t}.*Empty\s+0")
        run("consumer-groups", "--describe", "--group", t, "--members", "--verbose")
        run("consumer-groups", "--reset-offsets", "--group", t, "--topic", t, "--to-earliest", "--execute")
        consume(t, 10, "--group", t, "--consumer-property", f"group.protocol={protocol}")
        run("consumer-groups", "--delete-offsets", "--group", t, "--topic", t)
        want(run("consumer-groups", "--delete", "--group", t), "successful")
        want(run("consumer-groups", "--describe", "--group", t, fails=True), "does not exist|not found")


for protocol in ("classic", "consumer"):
    by_protocol(protocol)


def by_time(t):
    return ["--group", t, "--topic", t, "--dry-run", "--reset-offsets"]


@scene("consumer-groups: every way to reset offsets")
def _(t):
    create(t, 1)
    produce(t, 10)
    consume(t, 10, "--group", t)
    for way, offset in (
        (["--to-offset", 4], 4), (["--shift-by", -3], 7), (["--to-latest"], 10), (["--to-current"], 10),
        (["--to-datetime", "2020-01-01T00:00:00.000"], 0), (["--by-duration", "PT1H"], 0), (["--from-file", file("reset.csv", f"{t},0,6\n")], 6),
    ):
        want(run("consumer-groups", *by_time(t), *way), rf"{t}\s+{t}\s+0\s+{offset}\b")


@scene("consumer-groups: a running member is shown and protects its group")
def _(t):
    create(t, 2)
    consumer = subprocess.Popen(command("console-consumer", "--bootstrap-server", BOOTSTRAP, "--topic", t, "--group", t), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        members = ["consumer-groups", "--describe", "--group", t, "--members", "--verbose"]
        until("a member with both partitions", lambda: re.search(r"\(0,1\)|:0,1", _try(*members)))
        want(run("consumer-groups", "--delete", "--group", t, fails=True), "(?i)not empty|failed")
        run("consumer-groups", "--reset-offsets", "--group", t, "--topic", t, "--to-earliest", "--execute", fails=True)
    finally:
        consumer.kill()
        consumer.wait()


def _try(*arguments):
    try:
        return run(*arguments)
    except Failed as error:
        return str(error)


@scene("groups: list")
def _(t):
    create(t, 1)
    produce(t, 1)
    consume(t, 1, "--group", t)
    want(run("groups", "--list"), rf"^{t}\s+Classic\s+consumer")


@scene("get-offsets: earliest, latest, by time, largest timestamp")
def _(t):
    create(t, 2)
    run("console-producer", "--topic", t, "--sync", given="".join(f"line {i}\n" for i in range(7)))
    if sum(int(o) for _, o in offsets(t)) != 7:
        raise Failed("latest")
    if [o for _, o in offsets(t, "--time", "earliest")] != ["0", "0"]:
        raise Failed("earliest")
    offsets(t, "--time", "max-timestamp")
    offsets(t, "--time", str(int(time.time() * 1000) - 3600_000))
    offsets(t, "--time", "earliest-local")
    offsets(t, "--time", "latest-tiered")


@scene("delete-records")
def _(t):
    create(t, 1)
    produce(t, 10)
    run("delete-records", "--offset-json-file", file("delete.json", json.dumps({"partitions": [{"topic": t, "partition": 0, "offset": 4}]})))
    if offsets(t, "--time", "earliest") != [("0", "4")]:
        raise Failed("not deleted")


@scene("reassign-partitions: generate, execute, verify")
def _(t):
    run("topics", "--create", "--topic", t, "--replica-assignment", "0:1,1:0")
    produce(t, 100)
    listed = file("topics.json", json.dumps({"version": 1, "topics": [{"topic": t}]}))
    want(run("reassign-partitions", "--topics-to-move-json-file", listed, "--broker-list", "1,2", "--generate"), "Proposed partition reassignment")
    plan = file("plan.json", json.dumps({"version": 1, "partitions": [{"topic": t, "partition": p, "replicas": [2, 1]} for p in (0, 1)]}))
    run("reassign-partitions", "--reassignment-json-file", plan, "--execute")
    until("the end of it", lambda: "still in progress" not in run("reassign-partitions", "--reassignment-json-file", plan, "--verify", "--preserve-throttles"))
    want(run("topics", "--describe", "--topic", t), r"Partition: 0.*Replicas: 2,1", r"Partition: 1.*Replicas: 2,1")
    run("reassign-partitions", "--list")
    consume(t, 100)


@scene("reassign-partitions: with a throttle, which --verify takes away")
def _(t):
    run("topics", "--create", "--topic", t, "--replica-assignment", "0:1")
    produce(t, 10)
    plan = file("plan.json", json.dumps({"version": 1, "partitions": [{"topic": t, "partition": 0, "replicas": [2, 1]}]}))
    run("reassign-partitions", "--reassignment-json-file", plan, "--throttle", 50_000_000, "--execute")
    want(run("configs", "--describe", "--topic", t), "leader.replication.throttled.replicas=0:[01]", "follower.replication.throttled.replicas=0:2")
    want(run("configs", "--describe", "--broker", 2), "follower.replication.throttled.rate=50000000")
    until("the end of it", lambda: "still in progress" not in run("reassign-partitions", "--reassignment-json-file", plan, "--verify"))
    for left in (run("configs", "--describe", "--topic", t), run("configs", "--describe", "--broker", 2)):
        if "throttled" in left:
            raise Failed(left)


@scene("reassign-partitions: to other log directories, within a limit")
def _(t):
    run("topics", "--create", "--topic", t, "--replica-assignment", "0:1")
    produce(t, 100)
    lies = directories(t)
    there = {broker: next(d for d in of_broker if not lies[broker] == d) for broker, of_broker in directories().items() if broker < 2}
    plan = file("plan.json", json.dumps({"version": 1, "partitions": [{"topic": t, "partition": 0, "replicas": [0, 1], "log_dirs": [there[0], there[1]]}]}))
    run("reassign-partitions", "--reassignment-json-file", plan, "--replica-alter-log-dirs-throttle", 50_000_000, "--execute")
    want(run("configs", "--describe", "--broker", 0), "replica.alter.log.dirs.io.max.bytes.per.second=50000000")
    done = lambda: len(re.findall("completed successfully", run("reassign-partitions", "--reassignment-json-file", plan, "--verify")))
    until("the end of it", lambda: done() >= 2)
    if directories(t) != there:
        raise Failed(f"{directories(t)}, not {there}")
    if "alter.log.dirs" in run("configs", "--describe", "--broker", 0):
        raise Failed("the limit is still there")
    consume(t, 100)


@scene("leader-election: preferred")
def _(t):
    create(t, 3)
    run("leader-election", "--election-type", "preferred", "--all-topic-partitions")
    run("leader-election", "--election-type", "preferred", "--topic", t, "--partition", 0)


@scene("leader-election: unclean, where none is needed")
def _(t):
    create(t, 1)
    run("leader-election", "--election-type", "unclean", "--topic", t, "--partition", 0)


def directories(topic=None):
    """Where each broker's replica lies, or which directories each has."""
    said = run("log-dirs", "--describe", *(("--topic-list", topic) if topic else ()))
    brokers = json.loads(next(text for text in said.splitlines() if text.startswith("{")))["brokers"]
    if topic is None:
        return {b["broker"]: [d["logDir"] for d in b["logDirs"]] for b in brokers}
    return {b["broker"]: d["logDir"] for b in brokers for d in b["logDirs"] for p in d["partitions"] if not p["isFuture"]}


@scene("log-dirs: describe")
def _(t):
    create(t, 1)
    produce(t, 10)
    said = run("log-dirs", "--describe", "--topic-list", t)
    found = json.loads(next(text for text in said.splitlines() if text.startswith("{")))
    sizes = [p["size"] for b in found["brokers"] for d in b["logDirs"] for p in d["partitions"]]
    if len(sizes) != 3 or min(sizes) <= 0:
        raise Failed(f"sizes {sizes}")


@scene("broker-api-versions")
def _(t):
    said = run("broker-api-versions")
    if len(re.findall(r"\(id: \d rack: .*\) -> \(", said)) != 3:
        raise Failed(said)


@scene("features: describe")
def _(t):
    want(_features("describe"), r"Feature: transaction.version")


@scene("features: upgrade to what is there already")
def _(t):
    _features("upgrade", "--feature", "group.version=1")


def _features(*arguments):
    return run("features", "--bootstrap-server", BOOTSTRAP, *arguments, bootstrap=False)


@scene("cluster: its id and its endpoints")
def _(t):
    want(run("cluster", "cluster-id", "--bootstrap-server", BOOTSTRAP, bootstrap=False), r"Cluster ID: \S+")
    want(run("cluster", "list-endpoints", "--bootstrap-server", BOOTSTRAP, bootstrap=False), r"127.0.0.1\s+9092", r"127.0.0.1\s+9094")


@scene("metadata-quorum: describe")
def _(t):
    run("metadata-quorum", "--bootstrap-server", BOOTSTRAP, "describe", "--status", bootstrap=False)


@scene("client-metrics: alter, list")
def _(t):
    run("client-metrics", "--alter", "--name", t, "--metrics", "org.apache.kafka.", "--interval", 10000)
    until("the subscription to be known", lambda: t in run("client-metrics", "--list"))


@scene("client-metrics: describe, delete")
def _(t):
    run("client-metrics", "--alter", "--name", t, "--metrics", "org.apache.kafka.,x.y", "--interval", 10000, "--match", "client_id=a.*")
    # Any broker may be asked, and one may hear of it later than another.
    until("the subscription to be known", lambda: t in run("client-metrics", "--list"))
    want(run("client-metrics", "--describe", "--name", t), "interval.ms=10000", r"metrics=org\.apache\.kafka\.,x\.y", "match=client_id=a")
    run("client-metrics", "--alter", "--name", t, "--interval", 1, fails=True)
    run("client-metrics", "--delete", "--name", t)
    until("the subscription to be gone", lambda: t not in run("client-metrics", "--list"))


@scene("share-groups: list")
def _(t):
    run("share-groups", "--list")


@scene("console-share-consumer")
def _(t):
    create(t, 1)
    run("configs", "--alter", "--group", t, "--add-config", "share.auto.offset.reset=earliest")
    produce(t, 10)
    said = run("console-share-consumer", "--topic", t, "--group", t, "--max-messages", 10, "--timeout-ms", 30000)
    want(said, "^line 9$")


@scene("streams-groups: list")
def _(t):
    run("streams-groups", "--list")


@scene("verifiable producer and consumer")
def _(t):
    create(t)
    said = run_alone("verifiable-producer", "--bootstrap-server", BOOTSTRAP, "--topic", t, "--max-messages", 2000)
    if said.count('"name":"producer_send_success"') != 2000:
        raise Failed(said[-500:])
    for protocol in ("classic", "consumer"):
        more = ("--group-protocol", protocol)
        said = run_alone("verifiable-consumer", "--bootstrap-server", BOOTSTRAP, "--topic", t, "--group-id", f"{t}-{protocol}", "--max-messages", 2000, "--reset-policy", "earliest", *more)
        if sum(int(n) for n in re.findall(r'"name":"records_consumed".*?"count":(\d+)|"count":(\d+).*?"name":"records_consumed"', said) for n in n if n) < 2000:
            raise Failed(said[-500:])


@scene("transactional-message-copier")
def _(t):
    create(t, 1)
    create(t + "-out", 1)
    run_alone("verifiable-producer", "--bootstrap-server", BOOTSTRAP, "--topic", t, "--max-messages", 1000)
    said = run_alone(
        "transactional-message-copier", "--broker-list", BOOTSTRAP, "--input-topic", t, "--input-partition", 0, "--output-topic", t + "-out",
        "--transaction-size", 100, "--transactional-id", t, "--consumer-group", t, "--max-messages", 1000, "--enable-random-aborts",
    )
    want(said, '"consumed":1000')
    out = run("console-consumer", "--topic", t + "-out", "--from-beginning", "--max-messages", 1000, "--timeout-ms", 20000, "--isolation-level", "read_committed")
    if sorted(int(n) for n in re.findall(r"^(\d+)$", out, re.MULTILINE)) != list(range(1000)):
        raise Failed("not each once")


@scene("transactions: list, describe, producers, hanging ones")
def _(t):
    create(t, 1)
    run("producer-perf-test", "--topic", t, "--num-records", 100, "--record-size", 10, "--throughput", -1, "--transactional-id", t, "--transaction-duration-ms", 10)
    want(_transactions("list"), rf"^{t}\s+\d\s+\d+\s+CompleteCommit")
    want(_transactions("describe", "--transactional-id", t), "CompleteCommit")
    want(_transactions("describe-producers", "--topic", t, "--partition", 0), r"^\d+\s+\d+\s")
    _transactions("find-hanging", "--topic", t)


def _transactions(*arguments):
    return run("transactions", "--bootstrap-server", BOOTSTRAP, *arguments, bootstrap=False)


@scene("performance tests of producer, consumer and both ends")
def _(t):
    create(t)
    want(run("producer-perf-test", "--topic", t, "--num-records", 5000, "--record-size", 100, "--throughput", -1), r"^5000 records sent")
    run("consumer-perf-test", "--topic", t, "--num-records", 5000)
    want(run("e2e-latency", "--topic", t, "--num-records", 100, "--producer-acks", "all", "--record-size", 100), "(?i)percentiles")


run_all()
