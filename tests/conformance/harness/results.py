"""One line per case: `passed|failed|skipped<TAB>name<TAB>reason`. The same form comes out of every suite, is kept in
`results/PEER/SUITE.tsv`, and is what the table is made of.

A file begins with `# version TEXT`, and with `# ended TEXT` where the suite did not come to its own end.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

OUTCOMES = ("passed", "failed", "skipped")


@dataclass(frozen=True)
class Case:
    """What came of one case. `reason` is empty where it passed."""

    outcome: str
    name: str
    reason: str = ""


@dataclass
class Results:
    """What came of one suite on one peer."""

    version: str = ""
    ended: str = ""
    cases: dict[str, Case] = field(default_factory=dict)

    def count(self, outcome):
        return sum(1 for case in self.cases.values() if case.outcome == outcome)

    def add(self, case):
        """A case that is reported twice counts as what was worse of the two."""
        before = self.cases.get(case.name)
        if before is None or OUTCOMES.index(case.outcome) == 1 or before.outcome == "skipped":
            self.cases[case.name] = case


def one_line(text, limit=300):
    """Text as it fits into a line: what differs from run to run (times, addresses, random names) is left to the log."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    text = re.sub(r"\s+", " ", text).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def line(outcome, name, reason=""):
    """A line of the form above."""
    if outcome not in OUTCOMES:
        raise ValueError(f"{outcome} of {name}: not one of {OUTCOMES}")
    return f"{outcome}\t{one_line(name)}\t{one_line(reason) if outcome != 'passed' else ''}".rstrip("\t")


def parse(text):
    """What such lines say. A line that is none is an error of the suite's, not to be passed over."""
    results = Results()
    for number, raw in enumerate(text.splitlines(), 1):
        if raw.startswith("# version "):
            results.version = raw.removeprefix("# version ")
        elif raw.startswith("# ended "):
            results.ended = raw.removeprefix("# ended ")
        elif raw.strip():
            outcome, _, rest = raw.partition("\t")
            name, _, reason = rest.partition("\t")
            if outcome not in OUTCOMES or not name:
                raise ValueError(f"line {number} is no result: {raw!r}")
            results.add(Case(outcome, name, reason))
    return results


def render(results):
    head = [f"# version {results.version}"]
    if results.ended:
        head.append(f"# ended {results.ended}")
    cases = sorted(results.cases.values(), key=lambda case: case.name)
    return "\n".join(head + [line(case.outcome, case.name, case.reason) for case in cases]) + "\n"


def load(path: Path):
    """What a file holds, or None where there is none."""
    return parse(path.read_text()) if path.exists() else None
