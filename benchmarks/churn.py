"""How many single-use jobs a second go through four idle workers?

Empty jobs, all submitted together: what is measured is the birth, the hand-over and
the end of a process. The floor is ``fork`` + ``_exit`` + ``waitpid``, one after the
other, in a process that has imported what our fork server has; preloaded, it holds
the same table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.contest import Field, opened
from benchmarks.drivers.registry import PEERS, REGISTRY
from benchmarks.effort import Effort
from benchmarks.figures import Spread, per_second, ratios
from benchmarks.results import Result
from benchmarks.table import Row, Target

IDLE = 4
HEAVY_MB = 200
SECONDS = 1.0  # that a measure should take about; a contestant's count of jobs follows from it
FEWEST, MOST = 16, 600

EVERYBODY = ("floor", "ours", *PEERS)
Rates = dict[str, list[float]]  # jobs a second, by contestant, then by round


def measure(effort: Effort, heavy_mb: int) -> tuple[Rates, Field]:
    """Return the rate of each contestant in each round."""
    field = Field(effort.field(EVERYBODY))
    rates: Rates = {}
    counts: dict[str, int] = {}
    for _ in range(effort.rounds):
        for name in field.left:
            with field.turn(name), opened(name, idle=IDLE, heavy_mb=heavy_mb) as contestant:
                fewest = effort.count(FEWEST, at_least=4)
                trial = per_second(fewest, contestant.ask("all_at_once", count=fewest))
                if name not in counts:
                    most = effort.count(MOST, at_least=fewest)
                    counts[name] = min(most, max(fewest, int(trial * effort.seconds(SECONDS))))
                seconds = contestant.ask("all_at_once", count=counts[name])
                rates.setdefault(name, []).append(per_second(counts[name], seconds))
    return rates, field


def run(effort: Effort) -> Result:
    """Measure with nothing preloaded, then with HEAVY_MB, and judge."""
    empty, field = measure(effort, 0)
    heavy, heavy_field = measure(effort, effort.count(HEAVY_MB, at_least=4))
    return Result(
        name="churn",
        question=f"single-use empty jobs a second, {IDLE} idle",
        rows=judge(empty, heavy),
        detail=detail(empty, heavy),
        samples={"empty": empty, "heavy": heavy},
        out={**field.out, **heavy_field.out},
    )


def judge(empty: Rates, heavy: Rates) -> list[Row]:
    """Return the target table's lines."""
    rows = []
    floor = ratios(empty["ours"], empty.get("floor", []))
    rows.append(
        Row.judged(
            "churn, empty job",
            Target(0.8, at_least=True),
            Spread.of(floor).median if floor else None,
            ours=rate(empty["ours"]),
            against=f"floor (b) {rate(empty['floor'])}" if floor else "",
        )
    )
    rows.append(against_best("churn, empty job", Target(1.5, at_least=True), empty))
    before, after = (Spread.of(rates["ours"]).median for rates in (empty, heavy))
    rows.append(
        Row.judged(
            f"churn, {HEAVY_MB} MB preloaded",
            Target(0.5, at_least=True),
            after / before,
            ours=rate(heavy["ours"]),
            against=f"own with nothing preloaded {rate(empty['ours'])}",
        )
    )
    rows.append(against_best(f"churn, {HEAVY_MB} MB preloaded", Target(10.0, at_least=True), heavy))
    return rows


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


def detail(empty: Rates, heavy: Rates) -> list[list[str]]:
    """Return a line for each contestant, head first."""
    lines = [["", "jobs/s (rounds)", "ours is", f"with {HEAVY_MB} MB (rounds)", "ours is"]]
    for name in EVERYBODY:
        if name not in empty and name not in heavy:
            continue
        cells = [REGISTRY[name].label]
        for rates in (empty, heavy):
            if name not in rates:
                cells += ["-", "-"]
                continue
            spread = Spread.of(rates[name])
            cells.append(f"{spread.median:.0f} ({spread.low:.0f}–{spread.high:.0f})")
            cells.append(f"{Spread.of(ratios(rates['ours'], rates[name])).median:.2f} ×")
        lines.append(cells)
    return lines


def rate(rates: Sequence[float]) -> str:
    """Return a rate as text."""
    return f"{Spread.of(rates).median:.0f}/s"
