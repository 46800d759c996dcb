"""How many single-use jobs a second go through four idle workers?

Empty jobs, all submitted together: what is measured is the birth, the hand-over and
the end of a process. The floor is ``fork`` + ``_exit`` + ``waitpid``, one after the
other, in a process that has imported what our fork server has. Beside it the least that
serves a call in a process of its own, with nothing of a pool around it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.contest import Contestant, Field, opened
from benchmarks.drivers.registry import PEERS, REGISTRY
from benchmarks.effort import Effort
from benchmarks.figures import Spread, per_second, ratios
from benchmarks.results import Result
from benchmarks.table import Row, Target

IDLE = 4
SECONDS = 1.0  # that a measure should take about; a contestant's count of jobs follows from it
FEWEST, MOST = 16, 600

EVERYBODY = ("floor", "life", "ours", *PEERS)
Rates = dict[str, list[float]]  # jobs a second, by contestant, then by round


def measure(effort: Effort, names: Iterable[str], *, heavy_mb: int) -> tuple[Rates, Field]:
    """Return the rate of each contestant in each round."""
    field = Field(effort.field(names))
    rates: Rates = {}
    counts: dict[str, int] = {}
    for _ in range(effort.rounds):
        for name in field.left:
            with field.turn(name), opened(name, idle=IDLE, heavy_mb=heavy_mb) as contestant:
                rates.setdefault(name, []).append(one_rate(effort, contestant, counts))
    return rates, field


def one_rate(effort: Effort, contestant: Contestant, counts: dict[str, int]) -> float:
    """Return jobs a second. A trial comes first, and settles how many jobs each round has."""
    fewest = effort.count(FEWEST, at_least=4)
    trial = per_second(fewest, contestant.ask("all_at_once", count=fewest))
    wanted = int(trial * effort.seconds(SECONDS))
    most = effort.count(MOST, at_least=fewest)
    count = counts.setdefault(contestant.name, min(most, max(fewest, wanted)))
    return per_second(count, contestant.ask("all_at_once", count=count))


def run(effort: Effort) -> Result:
    """Measure and judge."""
    rates, field = measure(effort, EVERYBODY, heavy_mb=0)
    floor = ratios(rates["ours"], rates.get("floor", []))
    against_floor = Row.judged(
        "churn, empty job",
        Target(0.8, at_least=True),
        Spread.of(floor).median if floor else None,
        ours=rate(rates["ours"]),
        against=f"floor (b) {rate(rates['floor'])}" if floor else "",
    )
    return Result(
        name="churn",
        question=f"single-use empty jobs a second, {IDLE} idle",
        rows=[against_floor, against_best("churn, empty job", Target(1.5, at_least=True), rates)],
        detail=detail(rates),
        samples=rates,
        out=field.out,
    )


def against_best(measure: str, target: Target, rates: Rates) -> Row:
    """Return the line that compares ours with the best peer that isolates each job."""
    best = best_peer(rates)
    if best is None:
        return Row.judged(measure, target, None, ours=rate(rates["ours"]), against="")
    return Row.judged(
        measure,
        target,
        Spread.of(ratios(rates["ours"], rates[best])).median,
        ours=rate(rates["ours"]),
        against=f"{REGISTRY[best].label} {rate(rates[best])}",
    )


def best_peer(rates: Mapping[str, Sequence[float]]) -> str | None:
    """Return which peer that gives each job a process of its own has the highest median."""
    there = [peer for peer in PEERS if peer in rates and REGISTRY[peer].isolates]
    return max(there, key=lambda peer: Spread.of(rates[peer]).median, default=None)


def detail(rates: Rates) -> list[list[str]]:
    """Return a line for each contestant, head first."""
    lines = [["", "jobs/s (rounds)", "ours is"]]
    for name, each in rates.items():
        lines.append(
            [
                REGISTRY[name].label,
                Spread.of(each).text(),
                f"{Spread.of(ratios(rates['ours'], each)).median:.2f} ×",
            ]
        )
    return lines


def rate(rates: Sequence[float]) -> str:
    """Return a rate as text."""
    return f"{Spread.of(rates).median:.0f}/s"
