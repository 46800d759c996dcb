"""Percentiles, medians of rounds, ratios. Pure: numbers in, numbers out."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least *share* of *values* do not exceed.

    The nearest-rank definition: always a value that was measured, never one between two.

    Raises:
        ValueError: no values, or a share outside 0 to 1.
    """
    if not values or not 0 <= share <= 1:
        raise ValueError(f"no percentile {share} of {len(values)} values")
    ordered = sorted(values)
    rank = -(-round(share * len(ordered) * 1e9) // 10**9)  # ceil, without float dust
    return ordered[max(0, rank - 1)]


@dataclass(frozen=True)
class Summary:
    """Percentiles of a sample, in the sample's unit."""

    n: int
    p50: float
    p90: float
    p99: float
    worst: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        """Return the summary of *values*, which must not be empty."""
        p50, p90, p99 = (percentile(values, share) for share in (0.50, 0.90, 0.99))
        return cls(len(values), p50, p90, p99, max(values))


@dataclass(frozen=True)
class Spread:
    """One figure a round: the median of the rounds, and how far they lie apart."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Spread:
        """Return the spread of *rounds*, which must not be empty."""
        return cls(statistics.median(rounds), min(rounds), max(rounds))

    def text(self, scale: float = 1.0, *, digits: int = 0, unit: str = "") -> str:
        """Return the median with its *unit*, and the extremes behind it, each times *scale*."""
        median, low, high = (
            f"{figure * scale:.{digits}f}" for figure in (self.median, self.low, self.high)
        )
        return f"{median}{unit} ({low}–{high})"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return ours / theirs round by round; rounds that only one of them has are left out."""
    return [a / b for a, b in zip(ours, theirs, strict=False) if b > 0]


def fastest(medians: Mapping[str, float], *, among: Sequence[str]) -> str | None:
    """Return whose median is the smallest, of those named that have one."""
    there = [name for name in among if name in medians]
    return min(there, key=lambda name: medians[name], default=None)


def per_second(count: int, seconds: float) -> float:
    """Return how many a second that is."""
    return count / seconds
