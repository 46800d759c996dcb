"""What does one more job cost the supervisor, and does that grow with their number?

CPU time of the process that owns the pool, from the first submit to the last result,
divided by the jobs. All are submitted at once, so that up to 10,000 wait in line:
whatever looks at each of them again and again would show.
"""

from __future__ import annotations

from benchmarks.contest import Contestant, Field, opened
from benchmarks.drivers.registry import REGISTRY
from benchmarks.effort import Effort
from benchmarks.figures import Spread
from benchmarks.results import Result
from benchmarks.table import Row, Target

IDLE = 4
SIZES = (10, 100, 1000, 10_000)
AT_LEAST = 100  # jobs for each figure: small sizes are repeated

# Peers whose supervisor is one process, at the sizes that they get through in the time.
EVERYBODY = ("ours", "pool-forkserver", "futures", "livekit")
MOST = {"pool-forkserver": 1000, "futures": 1000, "livekit": 100}

Costs = dict[str, dict[int, list[float]]]  # seconds a job, by contestant, size, then by round


def run(effort: Effort) -> Result:
    """Measure and judge."""
    field = Field(effort.field(EVERYBODY))
    sizes = [effort.count(size, at_least=4) for size in SIZES]
    costs: Costs = {}
    for _ in range(effort.rounds):
        for name in field.left:
            with field.turn(name), opened(name, idle=IDLE) as contestant:
                contestant.ask("all_at_once", count=IDLE)
                for size in sizes:
                    if size <= MOST.get(name, size):
                        by_size = costs.setdefault(name, {})
                        by_size.setdefault(size, []).append(cost(contestant, size, effort))
    return Result(
        name="supervisor_cost",
        question=f"CPU time of the supervisor for each of n empty jobs submitted at once, {IDLE} idle",
        rows=judge(costs["ours"]),
        detail=detail(costs, sizes),
        samples={name: {str(n): each for n, each in by.items()} for name, by in costs.items()},
        out=field.out,
    )


def cost(contestant: Contestant, size: int, effort: Effort) -> float:
    """Return the seconds of CPU that each of *size* jobs costs."""
    repeats = max(1, effort.count(AT_LEAST) // size)
    before = contestant.ask("cpu")
    for _ in range(repeats):
        contestant.ask("all_at_once", count=size)
    spent: float = contestant.ask("cpu") - before
    return spent / (size * repeats)


def judge(by_size: dict[int, list[float]]) -> list[Row]:
    """Return the target table's lines."""
    medians = {size: Spread.of(each).median for size, each in by_size.items()}
    dearest = max(medians, key=lambda size: medians[size])
    few, most = min(medians), max(medians)
    return [
        Row.judged(
            "supervisor CPU for one more job",
            Target(1.0, unit="ms"),
            medians[dearest] * 1e3,
            ours=cost_text(medians[dearest]),
            against=f"the dearest of {few:,} to {most:,} jobs",
        ),
        Row.judged(
            f"the same, {most:,} jobs against {few:,}",
            Target(1.25),  # what counts as flat here
            medians[most] / medians[few],
            ours=cost_text(medians[most]),
            against=f"{few:,} jobs {cost_text(medians[few])}",
        ),
    ]


def detail(costs: Costs, sizes: list[int]) -> list[list[str]]:
    """Return a line for each contestant, head first."""
    lines = [["", *(f"{size:,} jobs" for size in sizes)]]
    for name, by_size in costs.items():
        cells = [
            cost_text(Spread.of(by_size[size]).median) if size in by_size else "-" for size in sizes
        ]
        lines.append([REGISTRY[name].label, *cells])
    return lines


def cost_text(seconds: float) -> str:
    """Return seconds of CPU as text."""
    return f"{seconds * 1e3:.2f} ms"
