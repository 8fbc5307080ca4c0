"""What happens within a suite's own network and processes: the cluster comes up, the suite's `cases` run, all ends."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from harness import control, peers, results, suites

# How this process ends where the machine stood still for longer than STALL seconds: what came of it says nothing.
STOOD_STILL = 75
STALL = 4


class Watch(threading.Thread):
    """Notes for how long nothing ran at all: a paused virtual machine, or a frozen group of processes."""

    def __init__(self):
        super().__init__(daemon=True)
        self.longest = 0.0
        self.start()

    def run(self):
        before = time.monotonic()
        while True:
            time.sleep(0.25)
            now = time.monotonic()
            self.longest = max(self.longest, now - before)
            before = now


def main(name, peer, part, out):
    watch = Watch()
    suite = suites.load(name)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    scratch = Path(tempfile.mkdtemp(prefix=f"conformance-{name}-{peer}-"))
    try:
        run(suite, peer, part, Path(out), scratch)
        return STOOD_STILL if watch.longest > STALL else 0
    finally:
        keep_logs(scratch, Path(out).with_suffix(".brokers"))
        shutil.rmtree(scratch, ignore_errors=True)


def run(suite, peer, part, out, scratch):
    cluster = peers.Cluster(scratch / "cluster", suite.config, **suite.cluster)
    brokers = control.Control(cluster, peers.start(peer, cluster, os.environ["KAFKA_JARS"]), scratch / "control")
    lines = scratch / "results"
    lines.touch()
    work = scratch / "work"
    work.mkdir()
    environment = os.environ | {
        "BOOTSTRAP": cluster.bootstrap,
        "CONTROL": str(brokers.folder),
        "PEER": peer,
        "PART": part,
        "RESULTS": str(lines),
        "TOOLS": str(suite.tools()),
        "CONFORMANCE": str(suites.ROOT),
        "PYTHONPATH": str(suites.ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(work),
    }
    ended = ""
    try:
        done = subprocess.run([suite.folder / "cases"], cwd=work, env=environment, stdin=subprocess.DEVNULL, timeout=suite.minutes * 60, check=False)
        if done.returncode != 0:
            ended = f"ended with status {done.returncode}"
    except subprocess.TimeoutExpired:
        ended = f"ended after {suite.minutes} minutes"
    came = results.parse(lines.read_text())
    for status in brokers.ended():
        came.add(results.Case("failed", "the cluster lives on", f"a process ended with {status}"))
    came.ended = ended
    out.write_text(results.render(came))
    sys.stdout.flush()


def keep_logs(scratch, to):
    """What the brokers said, beside the suite's own log."""
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir()
    for log in [*scratch.glob("cluster/*.log"), *scratch.glob("cluster/data/broker-*/broker.log")]:
        shutil.copy(log, to / "-".join(log.relative_to(scratch / "cluster").parts))
