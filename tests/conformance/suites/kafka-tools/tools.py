"""Kafka's tools by the names of their scripts, and the scenes around them."""

import os
import re
import struct
import subprocess
import threading
import time
import traceback
from pathlib import Path

from harness.results import line

BOOTSTRAP = os.environ["BOOTSTRAP"]
WORK = Path(os.environ["TMPDIR"])
LIMIT = 60
SCENES = []
CLASSES = {
    "topics": "TopicCommand",
    "configs": None,
    "acls": "AclCommand",
    "consumer-groups": "consumer.group.ConsumerGroupCommand",
    "groups": "GroupsCommand",
    "share-groups": "consumer.group.ShareGroupCommand",
    "streams-groups": "streams.StreamsGroupCommand",
    "console-producer": "ConsoleProducer",
    "console-consumer": "consumer.ConsoleConsumer",
    "console-share-consumer": "consumer.ConsoleShareConsumer",
    "reassign-partitions": "reassign.ReassignPartitionsCommand",
    "leader-election": "LeaderElectionCommand",
    "get-offsets": "GetOffsetShell",
    "log-dirs": "LogDirsCommand",
    "delete-records": "DeleteRecordsCommand",
    "transactions": "TransactionsCommand",
    "features": "FeatureCommand",
    "broker-api-versions": "BrokerApiVersionsCommand",
    "cluster": "ClusterTool",
    "metadata-quorum": "MetadataQuorumCommand",
    "client-metrics": "ClientMetricsCommand",
    "producer-perf-test": "ProducerPerformance",
    "consumer-perf-test": "ConsumerPerformance",
    "e2e-latency": "EndToEndLatency",
    "verifiable-producer": "VerifiableProducer",
    "verifiable-consumer": "VerifiableConsumer",
    "transactional-message-copier": "TransactionalMessageCopier",
}
FULL = {"configs": "kafka.admin.ConfigCommand"}


class Failed(Exception):
    """A tool did not do what a scene is about."""


def command(tool, *arguments):
    """The tool as a process of its own."""
    java = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", "-cp", f"{os.environ['KAFKA_JARS']}/*"]
    return [*java, main_class(tool), *map(str, arguments)]


class Java:
    """One Java in which the tools are called one after the other; a new one after a tool that did not end."""

    def __init__(self):
        self.process = None

    def call(self, words):
        if self.process is None:
            java = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m", "-cp", f"{os.environ['KAFKA_JARS']}/*:{os.environ['TOOLS']}", "Tools"]
            self.process = subprocess.Popen(java, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=WORK)
        stuck = threading.Timer(LIMIT, self.process.kill)
        stuck.start()
        try:
            encoded = [word.encode() for word in words]
            self.process.stdin.write(struct.pack(">i", len(encoded)) + b"".join(struct.pack(">i", len(word)) + word for word in encoded))
            self.process.stdin.flush()
            status, length = struct.unpack(">ii", self.process.stdout.read(8))
            return status, self.process.stdout.read(length).decode(errors="replace")
        except (struct.error, OSError) as error:
            self.process.wait()
            self.process = None
            raise Failed(f"{words[0]} did not end within {LIMIT} s") from error
        finally:
            stuck.cancel()


JAVA = Java()


def main_class(tool):
    return FULL.get(tool) or f"org.apache.kafka.tools.{CLASSES[tool]}"


def run(tool, *arguments, given="", fails=False, bootstrap=True):
    """Runs a tool to its end and returns all that it printed. `fails`: it must end with an error."""
    where = ("--bootstrap-server", BOOTSTRAP) if bootstrap else ()
    return judge(tool, arguments, *JAVA.call([main_class(tool), *where, *map(str, arguments), given]), fails)


def run_alone(tool, *arguments):
    """The same in a process of its own, for tools that do things while their process ends."""
    done = subprocess.run(command(tool, *arguments), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, cwd=WORK)
    return judge(tool, arguments, done.returncode, done.stdout + done.stderr, False)


def judge(tool, arguments, status, said, fails):
    """Not every tool ends with an error where it says that there is one."""
    print(f"$ {tool} {' '.join(map(str, arguments))}\n{said}", flush=True)
    wrong = status != 0 or (fails and re.search("(?i)error|exception", said))
    if bool(wrong) is not fails:
        raise Failed(f"{tool} ended with {status}: {essence(said)}")
    return said


def essence(said):
    """Of a stack trace only what it is about."""
    lines = [text for text in said.splitlines() if text.strip() and not re.match(r"\s*(at |\.\.\. \d+ more)", text) and "Tools$Ended" not in text]
    told = [text for text in lines if re.search("Exception|Error|(?i:not support|could not|failed)", text)] or lines[-3:]
    return " ".join(told[-2:])[-400:]


def want(text, *patterns):
    """Every pattern must be found in what a tool said."""
    for pattern in patterns:
        if not re.search(pattern, text, re.MULTILINE):
            raise Failed(f"no {pattern!r} in: {essence(text)}")


def until(what, ask):
    """Asks until there is an answer that is not empty."""
    deadline = time.monotonic() + LIMIT
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise Failed(f"not within {LIMIT} s: {what}")


def file(name, text):
    path = WORK / name
    path.write_text(text)
    return path


def scene(name, fixed=True):
    def keep(body):
        SCENES.append((name, fixed, body))
        return body

    return keep


def run_all():
    for number, (name, fixed, body) in enumerate(SCENES):
        if os.environ["PART"] == "fixed" and not fixed:
            continue
        try:
            body(f"scene-{number}")
            result = line("passed", name)
        except Exception as error:
            traceback.print_exc()
            result = line("failed", name, f"{error}")
        print(result, flush=True)
        with open(os.environ["RESULTS"], "a") as out:
            out.write(result + "\n")
