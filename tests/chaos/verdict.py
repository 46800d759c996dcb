"""What the evidence says: a pure function of the ledger and the journal.

The words, exactly:

accepted   a client was told so: by the answer to its request, or by a handle.
fell       accepted by a supervisor that was then killed with SIGKILL, and without
           an outcome by then. Nobody was left who could tell one.
lost       accepted by a supervisor that lived on, or that left by itself or by a
           drain, and without an outcome; or offered to one that lived on and
           never answered. Must be 0.
run twice  began more than once, by the jobs' own lines in the journal. Must be 0.
untrue     reported as SUCCEEDED, but its function did not come to its end by the
           journal; or refused, and yet it ran. Must be 0.
leftover   a process that lived on: two seconds after its job had its outcome, or
           after its supervisor had been killed or had left. Must be 0.
recovery   from a fault (from its end, if it lasts) to the beginning of the first
           job that was offered after it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from tests.chaos.ledger import BY_ITSELF, DRAINED, KILLED, Entry, Ledger, Runs

NOT_POSSIBLE: Final = "not possible here"


@dataclass(frozen=True)
class Injected:
    """A fault that was carried out.

    Args:
        kind: which.
        until: when it was over, in seconds on the monotonic clock.
    """

    kind: str
    until: float


@dataclass
class Evidence:
    """All that a run has to show.

    Args:
        ledger: what clients saw.
        runs: what jobs really did.
        injected: the faults, without those that jobs commit themselves.
        leftovers: a sentence for each.
        out_of_reach: the same, where the documentation says that nobody can help: the
            fork server was killed within a second before the supervisor; or, without
            control groups, a worker crashed whose fork server was dead.
        wrong: what else must not have happened: a sentence each.
        gone_after: seconds from each SIGKILL of a supervisor until nothing was left.
        seconds: how long the load went on.
    """

    ledger: Ledger
    runs: Runs
    injected: list[Injected]
    leftovers: list[str]
    out_of_reach: list[str]
    wrong: list[str]
    gone_after: list[float]
    seconds: float


@dataclass
class Verdict:
    """The summary of a run."""

    offered: int = 0
    accepted: int = 0
    seconds: float = 0.0
    refused: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    deeds: Counter[str] = field(default_factory=Counter)
    recoveries: dict[str, float] = field(default_factory=dict)
    lives: Counter[str] = field(default_factory=Counter)
    fell: int = 0
    lost: list[str] = field(default_factory=list)
    run_twice: list[str] = field(default_factory=list)
    untrue: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    out_of_reach: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    gone_after: float = 0.0
    begin_p50: float = 0.0
    begin_p99: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost, run twice, left behind or untrue."""
        return not (self.lost or self.run_twice or self.untrue or self.leftovers or self.wrong)


def judge(evidence: Evidence) -> Verdict:
    """Return what *evidence* says."""
    begun, ended = evidence.runs.begun, evidence.runs.ended
    ledger = evidence.ledger
    verdict = Verdict(
        offered=len(ledger.jobs),
        seconds=evidence.seconds,
        leftovers=evidence.leftovers,
        out_of_reach=evidence.out_of_reach,
        wrong=list(evidence.wrong),
        lives=Counter(life.ended for life in ledger.lives.values()),
        faults=Counter(each.kind for each in evidence.injected),
        gone_after=max(evidence.gone_after, default=0.0),
    )
    for job, entry in ledger.jobs.items():
        _judge_job(verdict, job, entry, ledger, ran=job in begun, to_its_end=job in ended)
    for job, times in begun.items():
        if len(times) > 1:
            verdict.run_twice.append(f"{job} began {len(times)} times, at {times}")
        if job not in ledger.jobs:
            verdict.untrue.append(f"{job} ran, and nobody had offered it")
    first = {job: times[0] for job, times in begun.items() if job in ledger.jobs}
    verdict.recoveries = _recoveries(evidence.injected, ledger, first)
    waits = sorted(began - ledger.jobs[job].offered_at for job, began in first.items())
    if waits:
        verdict.begin_p50 = waits[len(waits) // 2]
        verdict.begin_p99 = waits[int(len(waits) * 0.99)]
    return verdict


def _judge_job(
    verdict: Verdict, job: str, entry: Entry, ledger: Ledger, *, ran: bool, to_its_end: bool
) -> None:
    ended = ledger.lives[entry.life].ended
    if entry.deed not in ("", "returns") and ran:
        verdict.deeds[f"a job {entry.deed}"] += 1
    if entry.answer == "accepted":
        verdict.accepted += 1
        if entry.status:
            verdict.statuses[entry.status] += 1
        elif ended == KILLED:
            verdict.fell += 1
        else:
            verdict.lost.append(f"{job} ({entry.deed}): accepted, no outcome, supervisor {ended}")
    elif entry.answer:
        verdict.refused[entry.answer] += 1
        if ran:
            verdict.untrue.append(f"{job} ({entry.deed}): refused ({entry.answer}), and it ran")
    elif ended in (KILLED, DRAINED):
        # Nobody knows whether the request was read before the end.
        verdict.unanswered += 1
    else:
        verdict.lost.append(f"{job} ({entry.deed}): no answer, supervisor {ended or 'alive'}")
    if entry.status == "succeeded" and not to_its_end:
        verdict.untrue.append(f"{job} ({entry.deed}): succeeded, but did not come to its end")
    if ended == BY_ITSELF and not verdict.wrong:
        verdict.wrong.append("a supervisor ended by itself")


def _recoveries(
    injected: Iterable[Injected], ledger: Ledger, begun: dict[str, float]
) -> dict[str, float]:
    """Return the worst recovery for each kind, in seconds."""
    pairs = sorted((ledger.jobs[job].offered_at, began) for job, began in begun.items())
    offered = [pair[0] for pair in pairs]
    # The earliest beginning among the jobs offered at a moment or later.
    soonest = [pair[1] for pair in pairs]
    for index in range(len(soonest) - 2, -1, -1):
        soonest[index] = min(soonest[index], soonest[index + 1])
    worst: dict[str, float] = {}
    for fault in injected:
        index = bisect_left(offered, fault.until)
        if index < len(offered):  # a fault at the very end has nothing after it
            seconds = soonest[index] - fault.until
            worst[fault.kind] = max(worst.get(fault.kind, 0.0), seconds)
    return worst


def describe(verdict: Verdict, head: str) -> str:
    """Return the summary for people: a table of Markdown."""
    rows: list[tuple[str, str]] = [
        ("jobs offered", f"{verdict.offered:,}"),
        ("accepted", f"{verdict.accepted:,} ({verdict.accepted / verdict.seconds:.0f} a second)"),
        *((f"refused: {why}", f"{n:,}") for why, n in verdict.refused.most_common()),
        *((f"outcome {status}", f"{n:,}") for status, n in verdict.statuses.most_common()),
        *((f"supervisors {how}", f"{n:,}") for how, n in verdict.lives.most_common()),
        ("accepted, and fell with a supervisor that was killed", f"{verdict.fell:,}"),
        ("no answer from one that was killed or left", f"{verdict.unanswered:,}"),
        ("offered to beginning, median", f"{verdict.begin_p50 * 1e3:.1f} ms"),
        ("offered to beginning, 99 %", f"{verdict.begin_p99 * 1e3:.1f} ms"),
        ("from SIGKILL of the supervisor to nothing left, worst", f"{verdict.gone_after:.2f} s"),
        ("worst recovery", f"{max(verdict.recoveries.values(), default=0.0):.2f} s"),
        ("**lost**", f"**{len(verdict.lost)}**"),
        ("**run twice**", f"**{len(verdict.run_twice)}**"),
        ("**untrue outcomes**", f"**{len(verdict.untrue)}**"),
        ("**leftovers**", f"**{len(verdict.leftovers)}**"),
        ("left where nobody could reach, see below", f"{len(verdict.out_of_reach)}"),
        ("**anything else wrong**", f"**{len(verdict.wrong)}**"),
    ]
    lines = [head, "", *_table(("what", "figure"), rows), ""]
    faults = [
        (kind, f"{n:,}", f"{verdict.recoveries[kind]:.3f} s" if kind in verdict.recoveries else "")
        for kind, n in sorted(verdict.faults.items())
    ]
    faults += [(deed, f"{n:,}", "") for deed, n in sorted(verdict.deeds.items())]
    lines += _table(("fault", "times", "worst recovery"), faults)
    lines += [f"out of reach: {each}" for each in verdict.out_of_reach[:20]]
    for name in ("lost", "run_twice", "untrue", "leftovers", "wrong"):
        for sentence in getattr(verdict, name)[:20]:
            lines.append(f"{name}: {sentence}")
    return "\n".join(lines)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    marks = ["---", *("---:" for _ in head[1:])]
    return [f"| {' | '.join(row)} |" for row in (head, tuple(marks), *rows)]
