"""The two clusters, by default of three brokers on 127.0.0.1:9092, 9093 and 9094 of a network of its own.

Promise: both are asked for the same (replication factor 3, two in sync, no wait for a group's first rebalance), and
all else is each one's own default. Brokers of a cluster whose ids begin elsewhere than at 0 have their id for a rack, and
can be stopped and started (`control.py`).
"""

import os
import signal
import socket
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

HTTP_PORT = 8080
CONTROLLER_PORT = 9080
PATIENCE = 300
CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qg"

# What `leasehold-broker dev` sets by itself, for Kafka too.
SAME = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "group.initial.rebalance.delay.ms": "0",
}


@dataclass(frozen=True)
class Cluster:
    """How many brokers, the first one's port and id, how many log directories each has, and what both peers are configured with."""

    folder: Path
    config: dict
    brokers: int = 3
    port: int = 9092
    first: int = 0
    disks: int = 1

    @property
    def bootstrap(self):
        return ",".join(map(self.address, self.ids))

    @property
    def ids(self):
        return range(self.first, self.first + self.brokers)

    def address(self, broker):
        return f"127.0.0.1:{self.port + broker - self.first}"


def start(peer, cluster, kafka_jars):
    """Starts it and returns its processes once every broker answers."""
    cluster.folder.mkdir(parents=True)
    return {"leasehold": leasehold, "kafka": kafka}[peer](cluster, kafka_jars)


def leasehold(cluster, _jars):
    folder, config = cluster.folder, dict(cluster.config)
    if cluster.disks > 1:
        config["log.dirs"] = ",".join(f"disk-{disk}" for disk in range(cluster.disks))
    if cluster.first != 0:
        return leasehold_apart(cluster)
    arguments = [os.environ["LEASEHOLD_BROKER"], "dev", "--brokers", str(cluster.brokers), "--port", str(cluster.port)]
    arguments += ["--http-port", str(HTTP_PORT), "--data", str(folder / "data")]
    if config:
        file = folder / "config.yaml"
        file.write_text("".join(f'{key}: "{value}"\n' for key, value in config.items()))
        arguments += ["--config", str(file)]
    processes = [spawn(arguments, folder / "dev.log")]
    for broker in range(cluster.brokers):
        wait(processes, lambda b=broker: answers(b))
    return processes


def leasehold_apart(cluster):
    """As `dev` does it, but with other ids: only the metadata to begin with is made by a `dev`, whose own broker 0 then goes."""
    folder, data = cluster.folder, cluster.folder / "data"
    dev = spawn([os.environ["LEASEHOLD_BROKER"], "dev", "--brokers", "1", "--port", str(cluster.port), "--http-port", str(HTTP_PORT), "--data", str(data)], folder / "dev.log")
    wait([dev], lambda: answers(0))
    dev.send_signal(signal.SIGTERM)
    dev.wait(PATIENCE)
    config = folder / "config.yaml"
    config.write_text("".join(f'{key}: "{value}"\n' for key, value in (SAME | cluster.config).items()))
    processes = []
    for broker in cluster.ids:
        rack = folder / f"{broker}.rack"
        rack.write_text(str(broker))
        arguments = ["--id", broker, "--store", "directory", "--store-dir", data / "metadata", "--data", data / f"broker-{broker}/data", "--config", config]
        arguments += ["--client-listen", cluster.address(broker), "--advertise", cluster.address(broker), "--internal-listen", "127.0.0.1:0"]
        arguments += ["--http-listen", f"127.0.0.1:{HTTP_PORT + broker}", "--rack-file", rack]
        processes.append(spawn([os.environ["LEASEHOLD_BROKER"], "run", *map(str, arguments)], folder / f"{broker}.log"))
    for broker in cluster.ids:
        wait(processes, lambda b=broker: answers(b))
    return processes


def answers(broker):
    return urllib.request.urlopen(f"http://127.0.0.1:{HTTP_PORT + broker}/readyz", timeout=2).read()


def kafka(cluster, jars):
    processes, formatting, folder = [], [], cluster.folder
    for broker in cluster.ids:
        properties = folder / f"{broker}.properties"
        properties.write_text(kafka_properties(cluster, broker))
        java = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{jars}/*", "kafka.tools.StorageTool"]
        formatting.append(spawn([*java, "format", "-t", CLUSTER_ID, "-c", str(properties)], folder / f"{broker}.format.log"))
    for process in formatting:
        if process.wait(PATIENCE) != 0:
            raise RuntimeError(f"{process.args[-1]} could not be formatted")
    heap = "1g" if cluster.brokers <= 3 else "600m"
    for broker in cluster.ids:
        java = ["java", f"-Xmx{heap}", "-Xms512m", "-XX:+UseG1GC", "-cp", f"{jars}/*"]
        processes.append(spawn([*java, "kafka.Kafka", str(folder / f"{broker}.properties")], folder / f"{broker}.log"))
    wait(processes, lambda: all_registered(cluster, jars))
    return processes


def kafka_properties(cluster, broker):
    address = f"PLAINTEXT://{cluster.address(broker)}"
    # One controller is enough where none is stopped.
    voters = {voter: f"127.0.0.1:{CONTROLLER_PORT + voter}" for voter in cluster.ids[: 1 if cluster.first == 0 else 3]}
    roles, controller = ("broker,controller", f",CONTROLLER://{voters[broker]}") if broker in voters else ("broker", "")
    keys = {
        "process.roles": roles,
        "node.id": broker,
        "controller.quorum.voters": ",".join(f"{voter}@{at}" for voter, at in voters.items()),
        "listeners": address + controller,
        "advertised.listeners": address,
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": ",".join(str(cluster.folder / f"logs-{broker}-{disk}") for disk in range(cluster.disks)),
        **({"broker.rack": broker} if cluster.first != 0 else {}),
        **SAME,
        **cluster.config,
    }
    return "".join(f"{key}={value}\n" for key, value in keys.items())


def all_registered(cluster, jars):
    """Every broker listens, and each is known."""
    for index in range(cluster.brokers):
        socket.create_connection(("127.0.0.1", cluster.port + index), timeout=2).close()
    listed = subprocess.run(
        ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*", "org.apache.kafka.tools.BrokerApiVersionsCommand", "--bootstrap-server", cluster.bootstrap],
        check=True, capture_output=True, text=True, timeout=30,
    ).stdout
    seen = sum(1 for line in listed.splitlines() if "(id: " in line)
    if seen != cluster.brokers:
        raise ConnectionError(f"{seen} brokers")


def spawn(arguments, log):
    out = log.open("a")
    return subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=out)


def wait(processes, ready):
    """Asks until it is so. Looks at the processes too: what has ended will never be ready."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return ready()
        except (OSError, subprocess.SubprocessError) as error:
            for process in processes:
                if process.poll() is not None:
                    raise RuntimeError(f"{process.args[0]} ended with {process.returncode}") from error
            if time.monotonic() > deadline:
                raise RuntimeError(f"the cluster was not ready in {PATIENCE} s: {error}") from error
            time.sleep(0.05)
