"""What does a supervisor with 64 idle workers use while nothing happens?

CPU time of the process that owns the pool, over some seconds, as a share of one
core. The whole tree's is printed beside it: a pool may leave the work to others.
"""

from __future__ import annotations

import time

from benchmarks.contest import Contestant, Field, opened
from benchmarks.drivers.registry import PEERS, REGISTRY
from benchmarks.effort import Effort
from benchmarks.figures import Spread
from benchmarks.processes import cpu_seconds, tree
from benchmarks.results import Result
from benchmarks.table import Row, Target

IDLE = 64
SECONDS = 6.0
SETTLE = 1.0

EVERYBODY = ("ours", "server", *(peer for peer in PEERS if peer != "warmpool"))
Rounds = dict[str, list[float]]  # per cent of one core, by contestant, then by round


def run(effort: Effort) -> Result:
    """Measure and judge."""
    field = Field(effort.field(EVERYBODY))
    own: Rounds = {}
    whole: Rounds = {}
    for _ in range(effort.rounds):
        for name in field.left:
            with field.turn(name), opened(name, idle=effort.count(IDLE, at_least=2)) as contestant:
                time.sleep(effort.seconds(SETTLE))
                share, of_tree = shares(contestant, effort.seconds(SECONDS))
                own.setdefault(name, []).append(share)
                whole.setdefault(name, []).append(of_tree)
    medians = {name: Spread.of(each).median for name, each in own.items()}
    # The one peer that watches its workers as ours does; the others are blind while idle.
    rival = "livekit" if "livekit" in medians else None
    rows = [
        Row.judged(
            f"supervisor CPU with {IDLE} idle workers, {REGISTRY[name].label}",
            Target(0.3, unit="%"),
            medians[name],
            ours=percent(medians[name]),
            against=f"{REGISTRY[rival].label} {percent(medians[rival])}" if rival else "",
        )
        for name in ("ours", "server")
        if name in medians
    ]
    return Result(
        name="idle_cpu",
        question=f"CPU of the process that owns {IDLE} idle workers, nothing happening, "
        f"over {SECONDS:g} s",
        rows=rows,
        detail=detail(own, whole),
        samples={"own": own, "tree": whole},
        out=field.out,
    )


def shares(contestant: Contestant, seconds: float) -> tuple[float, float]:
    """Return the per cent of one core that the owner, and its whole tree, use."""
    others = tree(contestant.pid)[1:]
    before = cpu_seconds(others)
    own: float = contestant.ask("idle", seconds=seconds)
    # Threads that have ended took their count with them.
    theirs = max(0.0, cpu_seconds(others) - before)
    return 100 * own / seconds, 100 * (own + theirs) / seconds


def detail(own: Rounds, whole: Rounds) -> list[list[str]]:
    """Return a line for each contestant, head first."""
    lines = [["", "% of one core (rounds)", "whole tree %"]]
    for name, rounds in own.items():
        lines.append(
            [
                REGISTRY[name].label,
                Spread.of(rounds).text(digits=3),
                f"{Spread.of(whole[name]).median:.3f}",
            ]
        )
    return lines


def percent(figure: float) -> str:
    """Return a share of one core as text."""
    return f"{figure:.3f} %"
