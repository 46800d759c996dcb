"""What does one more idle worker cost, with 200 MB preloaded?

PSS over the pool's whole process tree, the process that owns it included, with one
idle worker and with nine; the difference, divided by eight.
"""

from __future__ import annotations

import time

from benchmarks.contest import Field, opened
from benchmarks.drivers.registry import PEERS, REGISTRY
from benchmarks.effort import Effort
from benchmarks.figures import Spread, fastest, ratios
from benchmarks.processes import pss_bytes, tree
from benchmarks.results import Result
from benchmarks.table import Row, Target

HEAVY_MB = 200
MORE = 8
SETTLE = 0.5  # seconds, for pools that go on starting something after they say they are ready

# warmpool has one spare, whatever is asked for.
EVERYBODY = ("ours", *(peer for peer in PEERS if peer != "warmpool"))
Rounds = dict[str, list[float]]  # MB for each additional worker, by contestant, then by round


def run(effort: Effort) -> Result:
    """Measure and judge."""
    field = Field(effort.field(EVERYBODY))
    taken: Rounds = {}
    heavy_mb = effort.count(HEAVY_MB, at_least=4)
    for _ in range(effort.rounds):
        for name in field.left:
            with field.turn(name):
                one, many = (
                    total_mb(name, idle, heavy_mb, effort.pause(SETTLE)) for idle in (1, 1 + MORE)
                )
                taken.setdefault(name, []).append((many - one) / MORE)
    medians = {name: Spread.of(each).median for name, each in taken.items()}
    best = fastest(medians, among=PEERS)
    row = Row.judged(
        f"PSS per additional idle worker, {HEAVY_MB} MB preloaded",
        Target(3.0, unit="MB"),
        medians["ours"],
        ours=mb(medians["ours"]),
        against=f"{REGISTRY[best].label} {mb(medians[best])}" if best else "",
    )
    return Result(
        name="memory",
        question=f"PSS of the whole tree per additional idle worker, {HEAVY_MB} MB preloaded",
        rows=[row],
        detail=detail(taken),
        samples=taken,
        out=field.out,
    )


def total_mb(name: str, idle: int, heavy_mb: int, settle: float) -> float:
    """Return the PSS of *name*'s tree with so many idle workers, in MB (2**20 bytes)."""
    with opened(name, idle=idle, heavy_mb=heavy_mb) as contestant:
        time.sleep(settle)
        return pss_bytes(tree(contestant.pid)) / 2**20


def detail(taken: Rounds) -> list[list[str]]:
    """Return a line for each contestant, head first."""
    lines = [["", "MB per worker (rounds)", "× ours"]]
    for name, rounds in taken.items():
        lines.append(
            [
                REGISTRY[name].label,
                Spread.of(rounds).text(digits=2),
                f"{Spread.of(ratios(rounds, taken['ours'])).median:.1f}",
            ]
        )
    return lines


def mb(figure: float) -> str:
    """Return megabytes as text."""
    return f"{figure:.2f} MB"
