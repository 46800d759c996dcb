"""How long from the call to the first line of the user's function, with workers idle?

Both moments are read from CLOCK_MONOTONIC, the second by the job itself. The pause
before each call lets every pool refill, as in a server that is not overrun. The
floor's child, forked anew for each sample, waits in ``recv`` for that long too. Beside
it the least that carries a call over in Python, with nothing of a pool around it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.contest import Field, opened
from benchmarks.drivers.registry import PEERS, REGISTRY
from benchmarks.effort import Effort
from benchmarks.figures import Spread, Summary, ratios
from benchmarks.results import Result
from benchmarks.table import Row, Target

IDLE = 4
PAUSE = 0.1
SAMPLES = 40  # of each, a round
PEER_SAMPLES = 10

# Name of the sample: who, and which kind of job.
OURS = {"plain": ("ours", "plain"), "async": ("ours", "async"), "server": ("server", "async")}
LABELS = {
    "floor": "floor (a): a forked child is woken",
    "call": "the same with a call: pickled, sent, opened",
    "plain": "ProcessPool, plain function",
    "async": "ProcessPool, coroutine function",
    "server": "AgentServer, async entrypoint",
}

FLOORS = ("floor", "call")

Rounds = dict[str, list[list[float]]]  # by name of the sample, then by round


def measure(effort: Effort) -> tuple[Rounds, Field]:
    """Return the samples of every round."""
    field = Field(effort.field(PEERS))
    taken: Rounds = {}
    for _ in range(effort.rounds):
        pause = effort.pause(PAUSE)
        for name, sample in one_round(effort.count(SAMPLES, at_least=3), pause).items():
            taken.setdefault(name, []).append(sample)
        for peer in field.left:
            with field.turn(peer), opened(peer, idle=IDLE) as contestant:
                contestant.ask("warm_up", kind="plain", pause=pause)
                count = effort.count(PEER_SAMPLES, at_least=3)
                sample = contestant.ask("handover", kind="plain", count=count, pause=pause)
                taken.setdefault(peer, []).append(sample)
    return taken, field


def one_round(count: int, pause: float) -> dict[str, list[float]]:
    """Return the floor's samples and ours, taken in turns of one sample each.

    Idle, these wake for next to nothing, so they may be alive together.
    """
    samples: dict[str, list[float]] = {name: [] for name in LABELS}
    with (
        opened("floor") as floor,
        opened("ours", idle=IDLE) as pool,
        opened("server", idle=IDLE) as server,
    ):
        floor.ask("call", method="wait_idle", seconds=pause)
        by_name = {"ours": pool, "server": server}
        for who, kind in OURS.values():
            by_name[who].ask("warm_up", kind=kind, pause=pause)
        for _ in range(count):
            samples["floor"] += floor.ask("handover", kind="plain", count=1, pause=0)
            samples["call"] += floor.ask("handover", kind="call", count=1, pause=0)
            for name, (who, kind) in OURS.items():
                samples[name] += by_name[who].ask("handover", kind=kind, count=1, pause=pause)
    return samples


def run(effort: Effort) -> Result:
    """Measure and judge."""
    taken, field = measure(effort)
    p50s = {name: [Summary.of(each).p50 for each in rounds] for name, rounds in taken.items()}
    return Result(
        name="handover",
        question=f"from the call to the job's first line, {IDLE} idle, one job every {PAUSE:g} s",
        rows=judge(taken, p50s),
        detail=detail(taken, p50s),
        samples=taken,
        out=field.out,
    )


def judge(taken: Rounds, p50s: Mapping[str, Sequence[float]]) -> list[Row]:
    """Return the target table's lines."""
    floor = Spread.of(p50s["floor"]).median
    rows = []
    for name, bound in (("plain", 1.5), ("server", 2.2)):
        ours = Spread.of(p50s[name]).median
        ratio = Spread.of(ratios(p50s[name], p50s["floor"])).median
        rows.append(
            Row.judged(
                f"hand-over p50, {LABELS[name]}",
                Target(bound),
                ratio,
                ours=micros(ours),
                against=f"floor (a) {micros(floor)}",
            )
        )
    rows.append(against_livekit(p50s))
    for name in ("plain", "server"):
        pooled = Summary.of([each for part in taken[name] for each in part])
        rows.append(
            Row.judged(
                f"hand-over p99, {LABELS[name]}",
                Target(5.0),
                pooled.p99 / pooled.p50,
                ours=micros(pooled.p99),
                against=f"own p50 {micros(pooled.p50)}",
            )
        )
    return rows


def against_livekit(p50s: Mapping[str, Sequence[float]]) -> Row:
    """Return the line that compares an entrypoint through the server with LiveKit's pool."""
    ours = p50s["server"]
    theirs = p50s.get("livekit", [])
    return Row.judged(
        "hand-over p50, async entrypoint",
        Target(10.0, at_least=True),
        Spread.of(ratios(theirs, ours)).median if theirs else None,
        ours=micros(Spread.of(ours).median),
        against=f"LiveKit ProcPool {micros(Spread.of(theirs).median)}" if theirs else "",
        missing="LiveKit ProcPool: not there",
    )


def detail(taken: Rounds, p50s: Mapping[str, Sequence[float]]) -> list[list[str]]:
    """Return a line for each contestant, head first."""
    lines = [["", "p50 (rounds)", "p90", "p99", "worst", "n", "× floor"]]
    for name, rounds in taken.items():
        pooled = Summary.of([each for part in rounds for each in part])
        lines.append(
            [
                LABELS.get(name) or REGISTRY[name].label,
                Spread.of(p50s[name]).text(1e6, unit=" µs"),
                *map(micros, (pooled.p90, pooled.p99, pooled.worst)),
                str(pooled.n),
                f"{Spread.of(ratios(p50s[name], p50s['floor'])).median:.2f}",
            ]
        )
    return lines


def micros(seconds: float) -> str:
    """Return seconds as text."""
    return f"{seconds * 1e6:.0f} µs"
