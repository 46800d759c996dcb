"""Reads the list of tests that do not pass, and compares it with what happened."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "executor-compat.md"

# How the document says it, and how the runner reports it.
ENDS = {"fails": "failed", "skips": "skipped", "not run": "not run"}
WORKERS = {"both": ("SingleUse", "Reusing"), "single-use": ("SingleUse",), "reusing": ("Reusing",)}

_ROW = re.compile(r"^\| `(\w+)\.(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$")


@dataclass(frozen=True)
class Deviation:
    """One row: a test, for which workers and Pythons it counts, and what it does instead."""

    tests: str
    name: str
    workers: tuple[str, ...]
    pythons: tuple[str, ...]  # empty: all
    end: str
    reason: str

    def counts_for(self, adapter: str, python: str) -> bool:
        """Return whether the row speaks about these workers on this Python."""
        return adapter in self.workers and (not self.pythons or python in self.pythons)


def read(text: str) -> list[Deviation]:
    """Return the rows of the document.

    Raises:
        ValueError: a row that cannot be understood; none may go unseen.
    """
    found = []
    for line in text.splitlines():
        if not line.startswith("| `") or "Test" not in line.split("|")[1]:
            continue
        row = _ROW.match(line)
        if row is None or row[3] not in WORKERS or row[5] not in ENDS or not row[6].strip():
            raise ValueError(f"a row that the runner cannot read: {line}")
        pythons = () if row[4] == "all" else tuple(row[4].split(", "))
        found.append(Deviation(row[1], row[2], WORKERS[row[3]], pythons, ENDS[row[5]], row[6]))
    return found


def complaints(listed: Iterable[Deviation], ends: dict[str, str]) -> list[str]:
    """Return a sentence for each test that did not end as it is listed.

    Args:
        listed: the rows for this class, these workers and this Python.
        ends: how each test of the class ended, by name.
    """
    expected = {row.name: row.end for row in listed}
    said = []
    for name, end in sorted(ends.items()):
        wanted = expected.get(name, "passed")
        if end != wanted:
            what = f"is listed as {wanted}" if name in expected else "is not listed"
            said.append(f"{name} {end}, and {what}")
    said += [
        f"{name} is listed, and there is no such test" for name in expected.keys() - ends.keys()
    ]
    return said
