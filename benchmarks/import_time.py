"""What does importing it cost?

Whole interpreters, started one after the other in turns: one that imports asyncio,
and one for each library. The difference is what the import adds.
"""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.effort import Effort
from benchmarks.figures import Spread
from benchmarks.results import Result
from benchmarks.table import Row, Target

STARTS = 5  # of each, a round

BARE = "import asyncio"
OURS = "import supervisor"
STATEMENTS = (
    BARE,
    OURS,
    "from supervisor import ProcessPool",
    "from supervisor import ProcessPoolExecutor",
    "from supervisor import AgentServer, cli",
    "from concurrent.futures import ProcessPoolExecutor",
    "import pebble",
    "import loky",
    "import deadpool",
    "import warmpool",
    "import livekit.agents",
)


def run(effort: Effort) -> Result:
    """Measure and judge."""
    out = {each: "not installed" for each in STATEMENTS if seconds(each) is None}
    left = [each for each in STATEMENTS if each not in out]
    taken: dict[str, list[float]] = {each: [] for each in left}
    for _ in range(effort.rounds * effort.count(STARTS)):
        for each in left:
            took = seconds(each)
            assert took is not None, f"it could be imported before: {each}"
            taken[each].append(took)
    medians = {each: Spread.of(figures).median for each, figures in taken.items()}
    rows = [
        Row.judged(
            f"`{each}` over a bare interpreter's asyncio",
            Target(100.0, unit="ms"),
            (medians[each] - medians[BARE]) * 1e3,
            ours=f"{medians[each] * 1e3:.0f} ms",
            against=f"{BARE} {medians[BARE] * 1e3:.0f} ms",
        )
        for each in (OURS, "from supervisor import AgentServer, cli")
    ]
    return Result(
        name="import_time",
        question="a whole interpreter that imports this and ends",
        rows=rows,
        detail=detail(taken, medians),
        samples=taken,
        out=out,
    )


def seconds(statement: str) -> float | None:
    """Return how long an interpreter takes that does this and ends; None if it fails."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", statement], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return time.monotonic() - began if done.returncode == 0 else None


def detail(taken: dict[str, list[float]], medians: dict[str, float]) -> list[list[str]]:
    """Return a line for each statement, head first."""
    lines = [["", "ms (starts)", "over asyncio"]]
    for each, figures in taken.items():
        lines.append(
            [
                each,
                Spread.of(figures).text(1e3),
                f"{(medians[each] - medians[BARE]) * 1e3:+.0f} ms",
            ]
        )
    return lines
