"""The command line: which suites against whom, one after the other, and what is said at the end."""

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from harness import inside, results, suites, table

PEERS = ("leasehold", "kafka")
# A suite is run so often at most where the machine stands still while it runs.
TRIES = 3


def main(arguments):
    if arguments[:1] == ["--inside"]:
        return inside.main(*arguments[1:])
    parser = argparse.ArgumentParser(prog="tests/conformance/run", description="Others' suites and clients against Leasehold and Kafka.")
    parser.add_argument("--all", action="store_true", help="every suite whole, and both peers unless --peer says otherwise")
    parser.add_argument("--fixed", action="store_true", help="of the suites that are named only what CI runs")
    parser.add_argument("--peer", choices=[*PEERS, "both"])
    parser.add_argument("--record", action="store_true", help="keep what came of it and make the table anew (--all does)")
    parser.add_argument("--table", action="store_true", help="only print the table from what is recorded")
    parser.add_argument("--prepare", action="store_true", help="only download and build")
    parser.add_argument("--jobs", type=int, default=None, help="so many suites at once: by default 2 of the fixed part, else 1")
    parser.add_argument("suites", nargs="*", metavar="SUITE", choices=[[], *suites.all_names()], help="of these: " + ", ".join(suites.all_names()))
    options = parser.parse_args(arguments)
    if options.table:
        sys.stdout.write(table.render())
        return 0
    return run(options)


def run(options):
    part = "all" if options.all or (options.suites and not options.fixed) else "fixed"
    peers = {"both": PEERS, None: PEERS if options.all else ("leasehold",)}.get(options.peer, (options.peer,))
    names = options.suites or suites.all_names()
    chosen = [suite for suite in map(suites.load, names) if part == "all" or suite.fixed]
    logs = suites.cache() / "conformance" / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    os.environ["LEASEHOLD_BROKER"] = str(broker()) if "leasehold" in peers else ""
    os.environ["KAFKA_JARS"] = made_present("kafka-tools")
    versions = {suite.name: prepared(suite, logs) for suite in chosen}
    missing = [f"{name} could not be made present" for name, version in versions.items() if version is None]
    if options.prepare:
        return 1 if missing else 0
    chosen = [suite for suite in chosen if versions[suite.name]]
    # Most of a suite's time it waits. What takes longest begins first.
    jobs = options.jobs or (2 if part == "fixed" else 1)
    with ThreadPoolExecutor(jobs) as pool:
        record = options.record or options.all
        ordered = sorted(chosen, key=lambda suite: -suite.minutes) if jobs > 1 else chosen
        running = [pool.submit(run_one, suite, peer, part, versions[suite.name], logs, record) for suite in ordered for peer in peers]
        worse = missing + [each for future in running for each in future.result()]
    if options.record or options.all:
        (suites.REPOSITORY / "docs/compatibility.md").write_text(table.render())
    for each in worse:
        say(f"worse than recorded: {each}")
    return 1 if worse else 0


def prepared(suite, logs):
    """Makes the suite present; its version, or None where that could not be done."""
    begun = time.monotonic()
    path = logs / f"{suite.name}.prepare.log"
    with path.open("w") as log:
        version = suite.prepare(log)
    if version is None:
        say(f"{suite.name} could not be made present ({path}): {results.one_line(path.read_text()[-300:])}")
        return None
    say(f"{suite.name}: {version}, made present in {time.monotonic() - begun:.0f} s")
    return version


def run_one(suite, peer, part, version, logs, record):
    """Runs one suite against one peer. Returns the cases that are worse than what is recorded."""
    log = logs / f"{suite.name}.{peer}.log"
    out = logs / f"{suite.name}.{peer}.tsv"
    out.unlink(missing_ok=True)
    # A network and processes of its own: nothing collides with this port, and nothing outlives the suite.
    # Nor does it outlive this process, however that ends.
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.getuid() != 0:
        command.append("--map-root-user")
    for _ in range(TRIES):
        begun = time.monotonic()
        with log.open("w") as file:
            ended = subprocess.run([*command, sys.executable, sys.argv[0], "--inside", suite.name, peer, part, out], stdout=file, stderr=file, check=False)
        if ended.returncode != inside.STOOD_STILL:
            break
        say(f"{suite.name} on {peer}: the machine stood still meanwhile, so it is run again")
    came = results.load(out) or results.Results(ended="it did not begin: " + results.one_line(log.read_text()[-300:]))
    came.version = version
    print_result(suite, peer, came, time.monotonic() - begun, log)
    recorded = results.load(suite.recorded(peer))
    if record and came.cases:
        suite.recorded(peer).parent.mkdir(parents=True, exist_ok=True)
        # Of a part only that part is new.
        kept = recorded.cases if recorded and part == "fixed" else {}
        suite.recorded(peer).write_text(results.render(replace(came, cases=kept | came.cases)))
    return list(worse_than(suite, peer, recorded, came))


def worse_than(suite, peer, recorded, came):
    """What passed when it was recorded and does not now."""
    if came.ended:
        yield f"{suite.name} on {peer}: {came.ended}"
    if not came.cases:
        yield f"{suite.name} on {peer}: no case was run"
    for case in came.cases.values():
        before = recorded.cases.get(case.name) if recorded else None
        if case.outcome == "failed" and not suite.is_flaky(case.name) and (before is None or before.outcome == "passed"):
            yield f"{suite.name} on {peer}: {case.name}: {case.reason}"


def print_result(suite, peer, came, seconds, log):
    counts = ", ".join(f"{came.count(outcome)} {outcome}" for outcome in results.OUTCOMES)
    told = [f"{suite.name} on {peer}: {counts} ({seconds:.0f} s; {log})"]
    told += [f"    {case.name}: {case.reason}" for case in came.cases.values() if case.outcome == "failed"]
    told += [f"    {came.ended}"] if came.ended else []
    say("\n".join(told))


def broker():
    """The broker that is tested: LEASEHOLD_BROKER, or the release build."""
    path = os.environ.get("LEASEHOLD_BROKER")
    if path is None:
        target = os.environ.get("CARGO_TARGET_DIR", suites.REPOSITORY / "target")
        path = Path(target) / "release/leasehold-broker"
    if not Path(path).exists():
        raise SystemExit(f"{path} is not there: cargo build --release -p leasehold-broker")
    return Path(path).resolve()


def made_present(name):
    done = subprocess.run([suites.REPOSITORY / "tests/lib" / name], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def say(text):
    print(text, flush=True)
