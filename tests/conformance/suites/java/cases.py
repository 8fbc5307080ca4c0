"""Kafka Streams counts words, Kafka Connect copies files, MirrorMaker 2 copies topics: each is started, given something,
stopped in the middle or killed, started again, and what came out is compared."""

import json
import os
import subprocess
import sys
import time
import traceback
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(os.environ["CONFORMANCE"]) / "suites/kafka-tools"))
os.environ["TOOLS_OF_THIS"] = os.environ["TOOLS"]
os.environ["TOOLS"] = str(Path(os.environ["TOOLS"]).parent / "kafka-tools")

import tools  # noqa: E402
from tools import BOOTSTRAP, WORK, Failed, file, run, run_all, scene, until  # noqa: E402

# A worker of Connect takes half a minute to start where the machine is busy.
tools.LIMIT = 120

TOOLS = os.environ["TOOLS_OF_THIS"]
REST = "http://127.0.0.1:8083"


class Program:
    """A Java program in the background, with its output in a file of this name."""

    def __init__(self, log, *arguments):
        self.log = WORK / log
        java = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m", "-cp", f"{TOOLS}/classes:{TOOLS}/jars/*"]
        with self.log.open("a") as out:
            self.process = subprocess.Popen([*java, *map(str, arguments)], stdin=subprocess.PIPE, stdout=out, stderr=out)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        print(self.log.read_text(errors="replace")[-20000:])

    def alive(self):
        if self.process.poll() is not None:
            raise Failed(f"it ended with {self.process.returncode}: {last_error(self.log)}")

    def stop(self):
        self.process.stdin.close()
        self.process.terminate() if self.process.args[-1].endswith(".properties") else None
        self.process.wait(60)


def last_error(log):
    lines = [text for text in log.read_text(errors="replace").splitlines() if "Exception" in text or "ERROR" in text]
    return lines[0] if lines else log.read_text(errors="replace")[-300:]


def read(topic, count, *more):
    """All of a topic that is committed, as lines `key<TAB>value`."""
    options = ["--formatter-property", "print.key=true", "--isolation-level", "read_committed", *more]
    said = run("console-consumer", "--topic", topic, "--from-beginning", "--timeout-ms", 8000, "--max-messages", count, *options)
    return [text for text in said.splitlines() if "\t" in text]


LONGS = ("--value-deserializer", "org.apache.kafka.common.serialization.LongDeserializer")


def counts(topic):
    return {word: int(n) for word, n in (text.split("\t") for text in read(topic, 1_000_000, *LONGS)) if n.strip().isdigit()}


def streams(guarantee, protocol):
    @scene(f"Streams: {guarantee}, the {protocol} protocol, killed in the middle")
    def _(t):
        for topic in (f"{t}-in", f"{t}-out"):
            run("topics", "--create", "--topic", topic, "--partitions", 3)
        lines = [f"the {i % 7} quick {i % 5} fox" for i in range(500)]
        expected = Counter(word for text in lines * 2 for word in text.split())
        arguments = ("Words", BOOTSTRAP, t, guarantee, WORK / t, protocol)
        run("console-producer", "--topic", f"{t}-in", given="\n".join(lines) + "\n")
        with Program(f"{t}.log", *arguments) as first:

            def some():
                first.alive()
                return counts(f"{t}-out").get("fox", 0) > 0

            until("the first counts", some)
            run("console-producer", "--topic", f"{t}-in", given="\n".join(lines) + "\n")
        with Program(f"{t}.log", *arguments) as second:

            def all_counted():
                second.alive()
                found = counts(f"{t}-out")
                return all(found.get(word, 0) >= n for word, n in expected.items())

            until("all counts", all_counted)
            second.stop()
        found = counts(f"{t}-out")
        if guarantee == "exactly_once_v2" and found != dict(expected):
            raise Failed(f"{found} and not {dict(expected)}")


for guarantee in ("at_least_once", "exactly_once_v2"):
    streams(guarantee, "classic")
streams("exactly_once_v2", "streams")


def ask(method, path, body=None):
    request = urllib.request.Request(REST + path, method=method, data=json.dumps(body).encode() if body else None, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
            return json.loads(text) if text else {}
    except urllib.error.HTTPError as error:
        raise Failed(f"{method} {path}: {error.read().decode()}") from error


def worker(t, **more):
    config = {
        "bootstrap.servers": BOOTSTRAP, "group.id": t, "listeners": "http://127.0.0.1:8083",
        "config.storage.topic": f"{t}-configs", "offset.storage.topic": f"{t}-offsets", "status.storage.topic": f"{t}-status",
        "key.converter": "org.apache.kafka.connect.storage.StringConverter", "value.converter": "org.apache.kafka.connect.storage.StringConverter",
        "offset.flush.interval.ms": 500, "plugin.path": TOOLS + "/jars", "plugin.discovery": "service_load",
        **{key.replace("_", "."): value for key, value in more.items()},
    }
    return file(f"{t}.properties", "".join(f"{key}={value}\n" for key, value in config.items()))


def ready():
    try:
        ask("GET", "/connectors")
        return True
    except (OSError, Failed):
        return False


def running(name, program):
    def look():
        program.alive()
        status = ask("GET", f"/connectors/{name}/status")
        failed = [task["trace"] for task in status["tasks"] if task["state"] == "FAILED"]
        if failed:
            raise Failed(failed[0][:500])
        return status["tasks"] and all(task["state"] == "RUNNING" for task in status["tasks"])

    until(f"{name} to run", lambda: _answered(look))


def _answered(look):
    try:
        return look()
    except Failed as error:
        if "No status found" in str(error) or "rebalance" in str(error):
            return False
        raise


def connect(name, **config):
    @scene(name)
    def _(t):
        source, sink = WORK / f"{t}.in", WORK / f"{t}.out"
        source.write_text("".join(f"a {i}\n" for i in range(1000)))
        properties = worker(t, **config)
        files = {
            "source": {"connector.class": "org.apache.kafka.connect.file.FileStreamSourceConnector", "file": source, "topic": t, "batch.size": 100},
            "sink": {"connector.class": "org.apache.kafka.connect.file.FileStreamSinkConnector", "file": sink, "topics": t},
        }
        expected = 1000
        for turn in ("first", "second"):
            with Program(f"{t}.log", "org.apache.kafka.connect.cli.ConnectDistributed", properties) as program:
                until("the worker", lambda: (program.alive(), ready())[1])
                if turn == "first":
                    for each, its in files.items():
                        until(f"{each} taken", lambda: _posted(f"{t}-{each}", its))
                for each in files:
                    running(f"{t}-{each}", program)
                if turn == "second":
                    with source.open("a") as more:
                        more.writelines(f"b {i}\n" for i in range(1000))
                    expected = 2000
                until("all lines", lambda: sink.exists() and len(set(sink.read_text().splitlines())) >= expected)
                if turn == "first":
                    until("the offsets kept", lambda: ask("GET", f"/connectors/{t}-source/offsets")["offsets"])
                program.stop()
        found = sink.read_text().splitlines()
        if set(found) != {f"{x} {i}" for x in "ab" for i in range(1000)}:
            raise Failed(f"{len(set(found))} different lines")
        if config and len([text for text in read(t, 1_000_000, "--formatter-property", "print.key=true")]) != 2000:
            raise Failed("the source was not exactly once")


def _posted(name, its):
    try:
        ask("POST", "/connectors", {"name": name, "config": {key: str(value) for key, value in its.items()}})
        return True
    except Failed as error:
        if "rebalance" in str(error) or "409" in str(error):
            return False
        raise


connect("Connect: files in and out, stopped and started")
connect("Connect: a source with exactly once", exactly_once_source_support="enabled")


@scene("MirrorMaker 2: topics, configuration and group offsets")
def _(t):
    run("topics", "--create", "--topic", t, "--partitions", 2, "--config", "retention.ms=7654321")
    run("console-producer", "--topic", t, given="".join(f"k{i}\tline {i}\n" for i in range(500)))
    run("console-consumer", "--topic", t, "--group", f"{t}-group", "--from-beginning", "--max-messages", 500, "--timeout-ms", 20000)
    properties = file(
        f"{t}.properties",
        f"clusters=here,there\nhere.bootstrap.servers={BOOTSTRAP}\nthere.bootstrap.servers={BOOTSTRAP}\nhere->there.enabled=true\n"
        f"here->there.topics={t}\nhere->there.groups={t}-group\nrefresh.topics.interval.seconds=2\nrefresh.groups.interval.seconds=2\n"
        "emit.checkpoints.interval.seconds=2\nsync.group.offsets.enabled=true\nemit.heartbeats.interval.seconds=1\n"
        "replication.factor=3\ndedicated.mode.enable.internal.rest=false\n",
    )
    with Program(f"{t}.log", "org.apache.kafka.connect.mirror.MirrorMaker", properties) as program:
        copy = f"here.{t}"

        def copied():
            program.alive()
            listed = run("topics", "--list")
            return copy in listed and len(run("console-consumer", "--topic", copy, "--from-beginning", "--timeout-ms", 5000, "--max-messages", 500).split("line ")) > 500

        until("the copy", copied)
        if "retention.ms=7654321" not in run("configs", "--describe", "--topic", copy):
            until("its configuration", lambda: "retention.ms=7654321" in run("configs", "--describe", "--topic", copy))
        until("checkpoints", lambda: "here.checkpoints.internal" in run("topics", "--list"))
        until("a heartbeat", lambda: "heartbeats" in run("topics", "--list"))


run_all()
