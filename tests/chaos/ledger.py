"""What became of each job, as its client saw it; and of the lives it was offered to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

KILLED: Final = "killed by us"
DRAINED: Final = "drained by us"
BY_ITSELF: Final = "by itself"


@dataclass
class Life:
    """One life of the program under test.

    Args:
        name: which one; part of the ids of its pool's jobs.
        began_at: when it was started, on the monotonic clock, in seconds.
        ended: how it ended; empty as long as it lives.
    """

    name: str
    began_at: float
    ended: str = ""


@dataclass(slots=True)
class Entry:
    """One job.

    Args:
        life: who it was offered to.
        deed: what it was to do.
        offered_at: seconds on the monotonic clock; the same clock for all times here.
        answer: ``"accepted"``, why it was not, or empty if no answer came.
        status: of its outcome, as the client was told; empty if it was not.
        told_at: when the client was told.
    """

    life: str
    deed: str
    offered_at: float
    answer: str = ""
    status: str = ""
    told_at: float = 0.0


@dataclass
class Runs:
    """What jobs really did, by the lines that they wrote into the journal themselves.

    Args:
        begun: when each began; more than once if it ran more than once.
        pids: the process that it first ran in.
        parents: who was the parent of the process that it first ran in.
        ended: those whose function came to its end.
    """

    begun: dict[str, list[float]] = field(default_factory=dict)
    pids: dict[str, int] = field(default_factory=dict)
    parents: dict[str, int] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)

    def take(self, lines: Iterable[list[str]]) -> None:
        """Enter what jobs wrote into the journal; pass over the rest."""
        for kind, job, *rest in lines:
            if kind == "b":
                self.begun.setdefault(job, []).append(float(rest[2]))
                self.pids.setdefault(job, int(rest[0]))
                self.parents.setdefault(job, int(rest[1]))
            elif kind == "e":
                self.ended.add(job)


@dataclass
class Ledger:
    """All jobs and all lives."""

    jobs: dict[str, Entry] = field(default_factory=dict)
    lives: dict[str, Life] = field(default_factory=dict)

    def life_of(self, job: str) -> Life:
        """Return the life that *job* was offered to."""
        return self.lives[self.jobs[job].life]

    def take(self, lines: Iterable[list[str]]) -> None:
        """Enter what the pool beside the server wrote into the journal; pass over the rest."""
        for kind, job, *rest in lines:
            if kind == "o":
                life = job.split("-")[1]
                self.jobs[job] = Entry(life, "", float(rest[0]))
            elif kind == "a":
                self.jobs[job].answer = "accepted"
            elif kind == "f":
                entry = self.jobs[job]
                entry.status, entry.told_at = rest[0], float(rest[1])
