"""How much of everything: the full measure, or a small one that only shows that it runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from benchmarks.drivers.registry import REGISTRY, Kind


@dataclass(frozen=True)
class Effort:
    """What the command line said.

    Args:
        rounds: how often each contestant is asked.
        scale: 1 for the full counts of jobs and seconds, less for a trial.
        only: peers to keep; None for all. Ours and the floor always take part.
    """

    rounds: int = 5
    scale: float = 1.0
    only: Collection[str] | None = None

    def count(self, full: int, *, at_least: int = 1) -> int:
        """Return how many, where *full* would be the measure."""
        return max(at_least, round(full * self.scale))

    def seconds(self, full: float) -> float:
        """Return how long, where *full* would be the measure."""
        return full * self.scale

    def pause(self, full: float) -> float:
        """Return how long to wait, where *full* lets every pool become idle."""
        return full if self.scale >= 1 else full / 10

    def field(self, names: Iterable[str]) -> list[str]:
        """Return who of *names* takes part."""
        return [
            name
            for name in names
            if self.only is None or name in self.only or REGISTRY[name].kind is not Kind.PEER
        ]


FULL = Effort()
QUICK = Effort(rounds=1, scale=0.02)
