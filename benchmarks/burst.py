"""64 jobs at once on four idle workers: how long until the last has begun?

Twice. With jobs that end at once, a pool of four passes them through its four
places. With jobs that stay, as calls do, each needs a process beside the others: a
test for pools that grow, given a ceiling of 64.
"""

from __future__ import annotations

from benchmarks.back_to_back import millis
from benchmarks.contest import Field, opened
from benchmarks.drivers.registry import PEERS, REGISTRY
from benchmarks.effort import Effort
from benchmarks.figures import Spread, fastest, ratios
from benchmarks.results import Result
from benchmarks.table import Row, Target

IDLE = 4
JOBS = 64
HOLD = 1.5  # seconds that a job stays; longer than the slowest contestant needs to begin the last
PAUSE = 0.5  # for the pool to be full

EVERYBODY = ("floor", "ours", "server", *PEERS)
Rounds = dict[str, list[float]]  # seconds, by contestant, then by round


def measure(effort: Effort, *, stay: bool) -> tuple[Rounds, Field]:
    """Return each round's figure."""
    names = [name for name in EVERYBODY if REGISTRY[name].grows or not stay]
    field = Field(effort.field(names))
    taken: Rounds = {}
    jobs = effort.count(JOBS, at_least=8)
    for _ in range(effort.rounds):
        for name in field.left:
            # A place for each job where the pool grows; the others have what is idle.
            ceiling = jobs if REGISTRY[name].grows and (stay or name == "ours") else None
            with field.turn(name), opened(name, idle=IDLE, ceiling=ceiling) as contestant:
                hold = max(0.3, effort.seconds(HOLD)) if stay else 0.0
                taken.setdefault(name, []).append(
                    contestant.ask("burst", count=jobs, hold=hold, pause=effort.pause(PAUSE))
                )
    return taken, field


def run(effort: Effort) -> Result:
    """Measure and judge."""
    brief, field = measure(effort, stay=False)
    staying, staying_field = measure(effort, stay=True)
    return Result(
        name="burst",
        question=f"{JOBS} jobs at once on {IDLE} idle, until the last has begun",
        rows=[
            judge(f"burst of {JOBS}, jobs end at once", brief),
            judge(f"burst of {JOBS}, jobs stay", staying),
        ],
        detail=detail(brief, staying),
        samples={"brief": brief, "staying": staying},
        out={**field.out, **staying_field.out},
    )


def judge(measure: str, taken: Rounds) -> Row:
    """Return the target table's line: ours against the best peer that isolates each job."""
    medians = {name: Spread.of(each).median for name, each in taken.items()}
    best = fastest(medians, among=[peer for peer in PEERS if REGISTRY[peer].isolates])
    return Row.judged(
        measure,
        Target(3.0, at_least=True),
        Spread.of(ratios(taken[best], taken["ours"])).median if best else None,
        ours=millis(medians["ours"]),
        against=f"{REGISTRY[best].label} {millis(medians[best])}" if best else "",
    )


def detail(brief: Rounds, staying: Rounds) -> list[list[str]]:
    """Return a line for each contestant, head first."""
    lines = [
        ["", "jobs end at once (rounds)", "ours is faster by", "jobs stay", "ours is faster by"]
    ]
    for name in EVERYBODY:
        if name not in brief and name not in staying:
            continue
        cells = [REGISTRY[name].label]
        for taken in (brief, staying):
            if name not in taken:
                cells += ["-", "-"]
                continue
            spread = Spread.of(taken[name])
            cells.append(
                f"{millis(spread.median)} ({spread.low * 1e3:.0f}–{spread.high * 1e3:.0f})"
            )
            cells.append(f"{Spread.of(ratios(taken[name], taken['ours'])).median:.2f} ×")
        lines.append(cells)
    return lines
