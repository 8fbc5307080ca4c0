"""Stops and starts brokers while a suite runs, for tests that want one gone.

Promise: a file `stop-ID` or `start-ID` that a suite puts into the folder is gone once it is done; a broker that was not
stopped this way and has ended is a failure.
"""

import threading
import time

from harness import peers


class Control(threading.Thread):
    """`processes` are the brokers in the order of `cluster.ids`, where they are processes of their own."""

    def __init__(self, cluster, processes, folder):
        super().__init__(daemon=True)
        self.cluster, self.processes, self.folder = cluster, list(processes), folder
        self.stopped = set()
        folder.mkdir()
        # Suites may run as a user of their own.
        folder.chmod(0o777)
        if cluster.first != 0:
            self.start()

    def run(self):
        while True:
            for wish in sorted(self.folder.iterdir()):
                what, _, broker = wish.name.partition("-")
                {"stop": self.stop, "start": self.begin}[what](int(broker))
                wish.unlink()
            time.sleep(0.05)

    def stop(self, broker):
        process = self.processes[broker - self.cluster.first]
        self.stopped.add(process)
        process.terminate()
        process.wait()

    def begin(self, broker):
        index = broker - self.cluster.first
        process = self.processes[index]
        if process in self.stopped:
            self.processes[index] = peers.spawn(process.args, self.cluster.folder / f"{broker}.log")

    def ended(self):
        """How brokers ended that nobody stopped."""
        return [process.returncode for process in self.processes if process not in self.stopped and process.poll() is not None]
