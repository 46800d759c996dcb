"""One printed line for each target: measure, ours, against what, ratio, target, met or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

HEAD = ("measure", "ours", "against", "ratio", "target", "met")


@dataclass(frozen=True)
class Target:
    """What a figure has to be: at most, or at least, so much."""

    bound: float
    at_least: bool = False
    unit: str = "×"

    def holds(self, figure: float) -> bool:
        """Return whether *figure* meets it."""
        return figure >= self.bound if self.at_least else figure <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g} {self.unit}"


@dataclass(frozen=True)
class Row:
    """One line of the table. Texts carry their units."""

    measure: str
    ours: str
    against: str  # the floor or the peer, with its figure
    ratio: str
    target: str
    met: bool | None  # None: there was nothing to compare with

    @classmethod
    def judged(
        cls,
        measure: str,
        target: Target,
        figure: float | None,
        *,
        ours: str,
        against: str,
        missing: str = "nobody to compare with",
    ) -> Row:
        """Return the line for *figure*, the number that *target* is about."""
        if figure is None:
            return cls(measure, ours, against or missing, "-", str(target), None)
        ratio = f"{figure:.2f} {target.unit}".strip()
        return cls(measure, ours, against, ratio, str(target), target.holds(figure))

    def cells(self) -> tuple[str, ...]:
        """Return its texts, in the order of HEAD."""
        met = {True: "yes", False: "NO", None: "-"}[self.met]
        return (self.measure, self.ours, self.against, self.ratio, self.target, met)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def lines(rows: Sequence[Sequence[str]], head: Sequence[str] = HEAD) -> list[str]:
    """Return the table as text, columns aligned."""
    everything = [tuple(head), *map(tuple, rows)]
    widths = [max(len(row[column]) for row in everything) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        return "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()

    return [
        line(everything[0]),
        line(["─" * width for width in widths]),
        *map(line, everything[1:]),
    ]


def markdown(rows: Sequence[Sequence[str]], head: Sequence[str] = HEAD) -> list[str]:
    """Return the table for a README."""
    divider = "| " + " | ".join("---" for _ in head) + " |"
    return (
        ["| " + " | ".join(row) + " |" for row in [head]]
        + [divider]
        + ["| " + " | ".join(row) + " |" for row in rows]
    )
