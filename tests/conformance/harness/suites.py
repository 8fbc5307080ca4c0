"""A suite is a folder: `suite.toml` says what it is, `prepare` makes it present, `cases` runs it."""

import fnmatch
import os
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPOSITORY = ROOT.parent.parent
SUITES = ROOT / "suites"
RESULTS = ROOT / "results"


def cache():
    """Where everything that is downloaded or built lies."""
    return Path(os.environ.get("LEASEHOLD_CACHE", Path.home() / ".cache/leasehold"))


@dataclass
class Suite:
    """`fixed`: part of what CI runs. `minutes`: after so long it is ended, and what is missing has failed."""

    name: str
    title: str
    what: str
    fixed: bool
    minutes: int
    cluster: dict
    config: dict
    notes: dict
    flaky: list

    @property
    def folder(self):
        return SUITES / self.name

    def tools(self):
        return cache() / "conformance" / self.name

    def note(self, case):
        """What is known about this case, by the first pattern that fits."""
        return next((note for pattern, note in self.notes.items() if fnmatch.fnmatchcase(case, pattern)), "")

    def is_flaky(self, case):
        """Whether this case is known to fail now and then for a reason of its own."""
        return any(fnmatch.fnmatchcase(case, pattern) for pattern in self.flaky)

    def recorded(self, peer):
        return RESULTS / peer / f"{self.name}.tsv"

    def prepare(self, log):
        """Downloads and builds. The last line of what it prints is the version of what was made; None if it failed."""
        self.tools().mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"TOOLS": str(self.tools()), "CONFORMANCE": str(ROOT)}
        done = subprocess.run([self.folder / "prepare"], env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
        said = done.stdout.strip().splitlines()
        return said[-1] if done.returncode == 0 and said else None


def load(name):
    text = tomllib.loads((SUITES / name / "suite.toml").read_text())
    notes_file = SUITES / name / "notes.toml"
    notes = tomllib.loads(notes_file.read_text()) if notes_file.exists() else {}
    return Suite(
        name=name,
        title=text["title"],
        what=text["what"],
        fixed=text["fixed"],
        minutes=text["minutes"],
        cluster=text.get("cluster", {}),
        config=text.get("config", {}),
        notes=notes.get("notes", {}),
        flaky=notes.get("flaky", []),
    )


def all_names():
    return sorted(path.parent.name for path in SUITES.glob("*/suite.toml"))
