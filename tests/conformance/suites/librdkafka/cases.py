"""Each of librdkafka's tests in a process of its own, so that one that aborts or hangs does not keep the others from
being run. Those that only wait for their mock brokers or for the test's own proxies are not run: there is no broker in them."""

import os
import re
import subprocess
from pathlib import Path

from harness.results import line

TESTS = Path(os.environ["TOOLS"]) / "source/tests"
WORK = Path(os.environ["TMPDIR"])
SECONDS = 150
# A part of them that covers producing, consuming, groups, administration and transactions in little time.
FIXED = (
    "0001 0002 0005 0007 0008 0011 0012 0013 0014 0015 0017 0019 0022 0026 0029 0030 0031 0034 0039 0041 0044 0045 0048 0050 0051 "
    "0052 0054 0061 0067 0070 0073 0082 0085 0086 0090 0098 0099 0109 0118 0122 0130 0132 0137 0140"
).split()


def names():
    """Number and name of every test that talks to a broker, from the table in test.c."""
    table = (TESTS / "test.c").read_text()
    for number, name, flags in re.findall(r"^\s+_TEST\(\s*(\d{4})_(\w+),\s*([^,)]*)", table, re.MULTILINE):
        if "LOCAL" not in flags and "MANUAL" not in flags and "SOCKEM" not in flags and "mock" not in name:
            yield number, name


def parts(number, name):
    """The parts of a test that would end with its first one that fails, from its source."""
    all_of_them = (TESTS / f"{number}-{name}.c").read_text().partition("static void do_test_apis(")[2].partition("\n}\n")[0]
    return dict.fromkeys(re.findall(r"^ +do_test_(\w+)\(", all_of_them, re.MULTILINE))


def run(number, part):
    only = {"SUBTESTS": f"do_test_{part}:"} if part else {}
    environment = os.environ | only | {"TESTS": number, "LD_LIBRARY_PATH": f"{TESTS}/../src:{TESTS}/../src-cpp", "TEST_KAFKA_VERSION": "4.3.1"}
    environment |= {"RDKAFKA_TEST_CONF": str(WORK / "test.conf"), "CLASSPATH": f"{os.environ['KAFKA_JARS']}/*"}
    environment |= {"KAFKA_PATH": str(WORK), "BROKERS": os.environ["BOOTSTRAP"]}
    log = WORK / f"{number}.log"
    try:
        with log.open("w") as out:
            command = [TESTS / "test-runner", "-Q", "-L", "-E", "-K", "-p1", "-V", "4.3.1"]
            done = subprocess.run(command, cwd=WORK, env=environment, stdout=out, stderr=out, timeout=SECONDS)
        said = log.read_text(errors="replace")
        return done.returncode, said
    except subprocess.TimeoutExpired:
        return None, log.read_text(errors="replace")


def judge(number, name, part=None):
    status, said = run(number, part)
    test = f"{number}_{name}"
    case = f"{test}: {part}" if part else test
    print(f"== {case}: {status}\n{said[-6000:]}", flush=True)
    summary = re.search(rf"\|\s*{test}\s*\|\s*(\w+)", re.sub(r"\x1b\[[0-9;]*m", "", said))
    outcome = summary.group(1) if summary else None
    if status == 0 and outcome == "PASSED" and (part is None or re.search(rf"do_test_{part}:.*: PASS", said)):
        return line("passed", case)
    if status == 0:
        why = re.search(r"(?:SKIPPING TEST|Skipp?ing|SKIP: )[^\n]*", said)
        return line("skipped", case, why.group(0) if why else "the test does not say why")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", said)
    # What the runner says of itself, in the end, is only that threads of the failed test are left.
    failed = re.findall(r'### Test "(?!<MAIN>)[^"]*" failed at (\S+?)\(\) at [^\n]*\n([^\n]*)', plain)
    why = "; ".join(f"{place}: {text.strip()}" for place, text in failed[:1]) or plain.strip()[-200:]
    late = f"not within {SECONDS} s; " if status is None else ""
    return line("failed", case, late + why.replace(f"{WORK}/", ""))


def tools():
    """Some of the tests call Kafka's tools by the names of their scripts."""
    for name, program in {"kafka-topics.sh": "TopicCommand", "kafka-acls.sh": "AclCommand"}.items():
        script = WORK / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f'#!/bin/sh\nexec java -XX:TieredStopAtLevel=1 org.apache.kafka.tools.{program} "$@"\n')
        script.chmod(0o755)


def main():
    tools()
    (WORK / "test.conf").write_text(f"bootstrap.servers={os.environ['BOOTSTRAP']}\ntest.topic.random=true\n")
    for number, name in names():
        if os.environ["PART"] == "fixed" and number not in FIXED:
            continue
        # Administration is one test of many parts, and some of them ask for what a broker may not have.
        for part in [None, *parts(number, name)] if name == "admin" else [None]:
            result = judge(number, name, part)
            print(result, flush=True)
            with open(os.environ["RESULTS"], "a") as out:
                out.write(result + "\n")


main()
