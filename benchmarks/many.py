"""Does a hand-over take longer when 512 workers live?

508 of them run a job that stays and four are idle, against four alone: the same
four, the same pause. Only one of the two pools is alive at a time, since what the
many do in the background is part of the question. 512 idle ones are told as well.
"""

from __future__ import annotations

from benchmarks.contest import Field, opened
from benchmarks.effort import Effort
from benchmarks.figures import Spread, Summary, ratios
from benchmarks.handover import PAUSE, micros
from benchmarks.results import Result
from benchmarks.table import Row, Target

IDLE = 4
LIVE = 512
SAMPLES = 40  # a round

LABELS = {
    "few": f"{IDLE} idle",
    "busy": f"{LIVE - IDLE} running, {IDLE} idle",
    "idle": f"{LIVE} idle",
}
Rounds = dict[str, list[list[float]]]  # seconds, by name of the pool, then by round


def run(effort: Effort) -> Result:
    """Measure and judge."""
    field = Field(["ours"])
    taken: Rounds = {}
    live = effort.count(LIVE, at_least=IDLE + 2)
    count = effort.count(SAMPLES, at_least=3)
    pools = {"few": (IDLE, 0), "busy": (IDLE, live - IDLE), "idle": (live, 0)}
    for _ in range(effort.rounds):
        for name, (idle, running) in pools.items():
            with field.turn("ours"):
                taken.setdefault(name, []).append(sample(idle, running, count, effort.pause(PAUSE)))
    p50s = {name: [Summary.of(each).p50 for each in rounds] for name, rounds in taken.items()}
    row = Row.judged(
        f"hand-over p50 with {LIVE} live workers",
        Target(1.3),
        Spread.of(ratios(p50s["busy"], p50s["few"])).median,
        ours=micros(Spread.of(p50s["busy"]).median),
        against=f"own with {IDLE} {micros(Spread.of(p50s['few']).median)}",
    )
    return Result(
        name="many",
        question=f"hand-over of a plain function, one job every {PAUSE:g} s, "
        f"{LIVE} live workers against {IDLE}",
        rows=[row],
        detail=detail(taken, p50s),
        samples=taken,
        out=field.out,
    )


def sample(idle: int, running: int, count: int, pause: float) -> list[float]:
    """Return *count* hand-overs of a pool with so many workers."""
    with opened("ours", idle=idle, ceiling=running + IDLE) as pool:
        if running:
            pool.ask("call", method="occupy", count=running)
        pool.ask("warm_up", kind="plain", pause=pause)
        samples: list[float] = pool.ask("handover", kind="plain", count=count, pause=pause)
        return samples


def detail(taken: Rounds, p50s: dict[str, list[float]]) -> list[list[str]]:
    """Return a line for each pool, head first."""
    lines = [["", "p50 (rounds)", "p99", "n", f"× {LABELS['few']}"]]
    for name, rounds in taken.items():
        pooled = Summary.of([each for part in rounds for each in part])
        lines.append(
            [
                LABELS[name],
                Spread.of(p50s[name]).text(1e6, unit=" µs"),
                micros(pooled.p99),
                str(pooled.n),
                f"{Spread.of(ratios(p50s[name], p50s['few'])).median:.2f}",
            ]
        )
    return lines
