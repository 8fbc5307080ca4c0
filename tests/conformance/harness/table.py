"""docs/compatibility.md, from what is recorded: a line per suite, and by name why each case that did not pass did not."""

from collections import defaultdict

from harness import results, suites

HEAD = """# Compatibility

Suites and clients that no one here wrote, each against a cluster of three brokers of Leasehold (`leasehold-broker dev`)
and, for comparison, of Apache Kafka 4.3.1, both with replication factor 3 and two in sync, all else by default. Made by
`tests/conformance/run --all`; what is told below is recorded in `tests/conformance/results`.

*Only on Kafka* counts the cases that pass there and do not on Leasehold; they are listed by name below, as is all
else that did not pass on Leasehold.

| Suite | Version | Cases | Leasehold: passed | Kafka: passed | Only on Kafka | Only on Leasehold |
|---|---|---|---|---|---|---|
"""


def render():
    rows, details = [], []
    for name in suites.all_names():
        suite = suites.load(name)
        ours, theirs = (results.load(suite.recorded(peer)) for peer in ("leasehold", "kafka"))
        if ours is None:
            rows.append(f"| {suite.title} | | not run yet | | | | |\n")
            continue
        rows.append(row(suite, ours, theirs))
        details.append(detail(suite, ours, theirs))
    return HEAD + "".join(rows) + "\n" + "\n".join(details)


def passed(cases):
    return {case.name for case in cases.cases.values() if case.outcome == "passed"} if cases else set()


def row(suite, ours, theirs):
    cases = set(ours.cases) | (set(theirs.cases) if theirs else set())
    here, there = passed(ours), passed(theirs)
    # What was not run on Kafka may well pass there.
    kafka = [len(there), len(there - here), len((here & set(theirs.cases)) - there)] if theirs else ["not run", "", ""]
    cells = [f"[{suite.title}](#{suite.name})", ours.version, len(cases), len(here), *kafka]
    return "| " + " | ".join(map(str, cells)) + " |\n"


def detail(suite, ours, theirs):
    """Cases with the same reason on the same terms stand together."""
    text = [f"## {suite.name}\n\n{suite.what}\n"]
    if ours.ended:
        text.append(f"\nOn Leasehold it was {ours.ended}.\n" if ours.ended.startswith("stopped") else f"\nOn Leasehold it {ours.ended}.\n")
    groups = defaultdict(list)
    for case in sorted(ours.cases.values(), key=lambda case: case.name):
        if case.outcome == "passed":
            continue
        other = theirs.cases.get(case.name) if theirs else None
        groups[(case.outcome, other.outcome if other else "not run", suite.note(case.name) or escape(case.reason))].append(case.name)
    missing = sorted(set(theirs.cases if theirs else ()) - set(ours.cases))
    if missing:
        groups[("not run", "run", ours.ended or "not reported")] = missing
    if not groups:
        return "".join(text) + "\nAll passed.\n"
    text.append("\n| Case | Leasehold | Kafka | Why |\n|---|---|---|---|\n")
    for (here, there, why), names in sorted(groups.items(), key=lambda item: (item[0][1] != "passed", item[0][0], item[1])):
        text.append(f"| {'<br>'.join(f'`{name}`' for name in names)} | {here} | {there} | {why} |\n")
    return "".join(text)


def escape(reason):
    return reason.replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
