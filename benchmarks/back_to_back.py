"""How long from submit to result, when each job follows the last without a pause?

One caller who waits for each result and calls again: jobs arrive as fast as they
are done, and soon faster than processes are born.
"""

from __future__ import annotations

from benchmarks.contest import Field, opened
from benchmarks.drivers.registry import PEERS, REGISTRY
from benchmarks.effort import Effort
from benchmarks.figures import Spread, Summary, fastest, ratios
from benchmarks.results import Result
from benchmarks.table import Row, Target

IDLE = 4
SECONDS = 1.0  # that a measure should take about
TRIAL = 12  # jobs, not counted: they meet the workers that had been idle
FEWEST, MOST = 12, 150

EVERYBODY = ("floor", "ours", *PEERS)
Rounds = dict[str, list[list[float]]]  # seconds, by contestant, then by round


def measure(effort: Effort) -> tuple[Rounds, Field]:
    """Return each round's samples."""
    field = Field(effort.field(EVERYBODY))
    taken: Rounds = {}
    for _ in range(effort.rounds):
        for name in field.left:
            with field.turn(name), opened(name, idle=IDLE) as contestant:
                trial = contestant.ask("one_by_one", count=effort.count(TRIAL, at_least=4))
                count = int(effort.seconds(SECONDS) / Summary.of(trial).p50)
                count = max(effort.count(FEWEST, at_least=3), min(effort.count(MOST), count))
                taken.setdefault(name, []).append(contestant.ask("one_by_one", count=count))
    return taken, field


def run(effort: Effort) -> Result:
    """Measure and judge."""
    taken, field = measure(effort)
    p50s = {name: [Summary.of(each).p50 for each in rounds] for name, rounds in taken.items()}
    medians = {name: Spread.of(each).median for name, each in p50s.items()}
    best = fastest(medians, among=[peer for peer in PEERS if REGISTRY[peer].isolates])
    row = Row.judged(
        "back to back, submit to result, median",
        Target(5.0, at_least=True),
        Spread.of(ratios(p50s[best], p50s["ours"])).median if best else None,
        ours=millis(medians["ours"]),
        against=f"{REGISTRY[best].label} {millis(medians[best])}" if best else "",
    )
    return Result(
        name="back_to_back",
        question=f"submit to result of an empty job, one after the other, {IDLE} idle",
        rows=[row],
        detail=detail(taken, p50s),
        samples=taken,
        out=field.out,
    )


def detail(taken: Rounds, p50s: dict[str, list[float]]) -> list[list[str]]:
    """Return a line for each contestant, head first."""
    lines = [["", "median (rounds)", "p99", "worst", "n", "ours is faster by"]]
    for name, rounds in taken.items():
        pooled = Summary.of([each for part in rounds for each in part])
        lines.append(
            [
                REGISTRY[name].label,
                Spread.of(p50s[name]).text(1e3, digits=2, unit=" ms"),
                millis(pooled.p99),
                millis(pooled.worst),
                str(pooled.n),
                f"{Spread.of(ratios(p50s[name], p50s['ours'])).median:.2f} ×",
            ]
        )
    return lines


def millis(seconds: float) -> str:
    """Return seconds as text."""
    return f"{seconds * 1e3:.2f} ms"
