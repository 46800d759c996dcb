"""How much of the churn is left when the fork server holds 200 MB?

``fork`` copies page tables, so its cost follows the heap. Each pool has the table by
the cheapest means it offers: ours by ``preload_fnc``, those on the standard library's
fork server by importing it there, fork's by inheriting it, and those that preload
nothing build it anew in each process.
"""

from __future__ import annotations

from benchmarks.churn import Rates, against_best, detail, measure, rate
from benchmarks.drivers.registry import PEERS
from benchmarks.effort import Effort
from benchmarks.figures import Spread, ratios
from benchmarks.results import Result
from benchmarks.table import Row, Target

HEAVY_MB = 200
MEASURE = f"churn, {HEAVY_MB} MB preloaded"


def run(effort: Effort) -> Result:
    """Measure and judge. Ours with nothing preloaded is taken once more, for the ratio."""
    heavy: Rates = {}
    empty: Rates = {}
    out: dict[str, str] = {}
    for _ in range(effort.rounds):
        one = Effort(1, effort.scale, effort.only)
        for into, names, megabytes in (
            (empty, ["ours"], 0),
            (heavy, ["floor", "ours", *PEERS], effort.count(HEAVY_MB, at_least=4)),
        ):
            left = [name for name in names if name not in out]
            rates, field = measure(one, left, heavy_mb=megabytes)
            out |= field.out
            for name, figures in rates.items():
                into.setdefault(name, []).extend(figures)
    return Result(
        name="preloaded",
        question=f"single-use empty jobs a second, 4 idle, {HEAVY_MB} MB preloaded",
        rows=judge(empty, heavy),
        detail=detail(heavy),
        samples={"empty": empty, "heavy": heavy},
        out=out,
    )


def judge(empty: Rates, heavy: Rates) -> list[Row]:
    """Return the target table's lines."""
    against_itself = Row.judged(
        MEASURE,
        Target(0.5, at_least=True),
        Spread.of(ratios(heavy["ours"], empty["ours"])).median,
        ours=rate(heavy["ours"]),
        against=f"own with nothing preloaded {rate(empty['ours'])}",
    )
    return [against_itself, against_best(MEASURE, Target(10.0, at_least=True), heavy)]
