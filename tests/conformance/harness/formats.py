"""Turns what test runners print into lines of results: `python3 -m harness.formats go|pytest|cargo < output >> $RESULTS`."""

import json
import re
import sys
import xml.etree.ElementTree

from harness.results import line, one_line


def go(text):
    """`go test -json`: the tests that have no subtests. The reason is the last thing that a test said."""
    said, ended, parents = {}, {}, set()
    for raw in text.splitlines():
        if not raw.startswith("{"):
            continue
        event = json.loads(raw)
        name = event.get("Test")
        if name is None:
            continue
        if "/" in name:
            parents.add(name.rsplit("/", 1)[0])
        if event["Action"] == "output":
            said.setdefault(name, []).append(event["Output"])
        elif event["Action"] == "run":
            ended.setdefault(name, "run")
        elif event["Action"] in ("pass", "fail", "skip"):
            ended[name] = event["Action"]
    for name, action in ended.items():
        if name in parents and not (action == "fail" and not any(ended.get(n) == "fail" for n in ended if n.startswith(name + "/"))):
            continue
        reason = go_reason(said.get(name, []))
        if action == "run":
            yield line("failed", name, f"did not end. {reason}")
        else:
            yield line({"pass": "passed", "fail": "failed", "skip": "skipped"}[action], name, reason)


def go_reason(said):
    told = [text.strip() for text in said if not re.match(r"\s*(===|---|\[(DEBUG|INFO|WARN|ERROR)\])", text)]
    marked = [text for text in told if re.match(r"\S+_test\.go:\d+: ", text)]
    return re.sub(r"^\S+_test\.go:\d+: ", "", " ".join((marked or told)[-1:]))


def pytest(text):
    """`pytest --junitxml`."""
    for case in xml.etree.ElementTree.fromstring(text).iter("testcase"):
        module = case.get("classname", "").rsplit(".", 1)[-1]
        name = f"{module}::{case.get('name')}"
        found = {child.tag: child for child in case}
        for tag, outcome in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
            if tag in found:
                yield line(outcome, name, pytest_reason(found[tag].get("message", "")))
                break
        else:
            yield line("passed", name)


def pytest_reason(message):
    return one_line(message.split("\n", 1)[0])


def cargo(text):
    """`cargo test` with the standard harness: `test NAME ... ok`, and the panic's message of those that failed."""
    panics = dict(re.findall(r"---- (\S+) stdout ----\n(?:.*\n)*?thread '[^']*'[^\n]*panicked at [^\n]*\n([^\n]*)", text))
    for name, said in re.findall(r"^test (\S+) \.\.\. (ok|FAILED|ignored[^\n]*)", text, re.MULTILINE):
        if said == "ok":
            yield line("passed", name)
        elif said == "FAILED":
            yield line("failed", name, panics.get(name, "see the log"))
        else:
            yield line("skipped", name, said)


if __name__ == "__main__":
    for result in {"go": go, "pytest": pytest, "cargo": cargo}[sys.argv[1]](sys.stdin.read()):
        print(result)
