"""Pictures of the results: one PNG for each benchmark that has something to show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import handover, many
from benchmarks.drivers.registry import PEERS, REGISTRY, Kind
from benchmarks.figures import Spread, Summary

OURS = "#c0392b"
FLOOR = "#27ae60"
PEER = "#8fa3b5"
# In curves peers have to be told apart; muted, so that ours and the floor stand out.
PEER_CURVES = dict(
    zip(
        PEERS,
        ("#34495e", "#2980b9", "#8e44ad", "#b7950b", "#bdc3c7", "#7f8c8d", "#d3a26a", "#16a085"),
        strict=True,
    )
)

Content = Mapping[str, Any]
Lines = Sequence[tuple[str, Sequence[float], str]]  # label, sample, colour


def draw(content: Content, directory: Path) -> Path | None:
    """Draw what *content*, a benchmark's JSON, says; return the file, None if there is none to draw.

    Raises:
        ImportError: matplotlib is not installed.
    """
    drawer = DRAWERS.get(content["benchmark"])
    if drawer is None:
        return None
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 4.2), layout="constrained")
    drawer(axes, content)
    axes.spines[["top", "right"]].set_visible(False)
    about = content["machine"]
    axes.set_title(
        f"{about['cpu']}, {about['cpus']} CPUs, Python {about['python']}, {content['taken'][:10]}",
        loc="right",
        fontsize=7,
        color="gray",
    )
    path = directory / f"{content['benchmark']}.png"
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
    return path


def colour(name: str) -> str:
    """Return whose colour that is, as a bar."""
    if name in handover.OURS:
        return OURS
    if name in handover.FLOORS:
        return FLOOR
    return {Kind.FLOOR: FLOOR, Kind.OURS: OURS, Kind.PEER: PEER}[REGISTRY[name].kind]


def curve_colour(name: str) -> str:
    """Return the same for a curve."""
    return PEER_CURVES.get(name) or colour(name)


def label(name: str) -> str:
    """Return what a contestant is called."""
    return REGISTRY[name].label


def short(figure: float) -> str:
    """Return a number with three digits, or all before the point."""
    return f"{figure:.0f}" if abs(figure) >= 100 else f"{figure:.3g}"


# ── shapes ───────────────────────────────────────────────────────────────────


def cdf(axes: Any, lines: Lines, unit: str) -> None:
    """Draw the share of samples at or below each value."""
    dashes = ["-", "--", ":", "-."]
    drawn: dict[str, int] = {}
    for text, sample, tint in lines:
        nth = drawn[tint] = drawn.get(tint, -1) + 1
        ordered = sorted(sample)
        shares = [(rank + 1) / len(ordered) for rank in range(len(ordered))]
        axes.step(ordered, shares, where="post", color=tint, ls=dashes[nth % 4], label=text)
    axes.set_xscale("log")
    axes.set_xlabel(unit)
    axes.set_ylabel("share of samples")
    axes.grid(alpha=0.3, which="both")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def bars(axes: Any, rounds: Mapping[str, Sequence[float]], unit: str, *, log: bool = False) -> None:
    """Draw the median of the rounds for each contestant; a whisker from the least to the most."""
    names = list(rounds)[::-1]
    spreads = [Spread.of(rounds[name]) for name in names]
    axes.barh(
        [label(name) for name in names],
        [spread.median for spread in spreads],
        color=[colour(name) for name in names],
        xerr=[
            [spread.median - spread.low for spread in spreads],
            [spread.high - spread.median for spread in spreads],
        ],
        error_kw={"lw": 1, "ecolor": "#333"},
    )
    for at, spread in enumerate(spreads):
        axes.text(spread.high, at, f"  {short(spread.median)}", va="center", fontsize=8)
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.12)
    axes.set_xlabel(unit)
    axes.tick_params(labelsize=8)


# ── one for each benchmark ───────────────────────────────────────────────────


def _pooled(rounds: Sequence[Sequence[float]], factor: float) -> list[float]:
    return [each * factor for part in rounds for each in part]


def _scaled(taken: Mapping[str, Sequence[float]], factor: float) -> dict[str, list[float]]:
    return {name: [each * factor for each in rounds] for name, rounds in taken.items()}


def _handover(axes: Any, content: Content) -> None:
    lines = [
        (handover.LABELS.get(name) or label(name), _pooled(rounds, 1e6), curve_colour(name))
        for name, rounds in content["samples"].items()
    ]
    cdf(axes, lines, "µs from the call to the job's first line")


def _churn(axes: Any, content: Content) -> None:
    bars(axes, content["samples"], "single-use jobs a second, empty job", log=True)


def _preloaded(axes: Any, content: Content) -> None:
    bars(axes, content["samples"]["heavy"], "single-use jobs a second, 200 MB preloaded", log=True)


def _back_to_back(axes: Any, content: Content) -> None:
    medians = {
        name: [Summary.of(each).p50 * 1e3 for each in rounds]
        for name, rounds in content["samples"].items()
    }
    bars(axes, medians, "ms from submit to result, one job after the other", log=True)


def _burst(axes: Any, content: Content) -> None:
    taken = _scaled(content["samples"]["brief"], 1e3)
    bars(axes, taken, "ms until the last of 64 jobs has begun", log=True)


def _memory(axes: Any, content: Content) -> None:
    bars(
        axes, content["samples"], "MB (PSS) per additional idle worker, 200 MB preloaded", log=True
    )


def _idle_cpu(axes: Any, content: Content) -> None:
    bars(axes, content["samples"]["own"], "% of one core, supervisor of 64 idle workers")


def _many(axes: Any, content: Content) -> None:
    tints = {"few": FLOOR, "busy": OURS, "idle": PEER}
    lines = [
        (many.LABELS[name], _pooled(rounds, 1e6), tints[name])
        for name, rounds in content["samples"].items()
    ]
    cdf(axes, lines, "µs from the call to the job's first line")


def _supervisor_cost(axes: Any, content: Content) -> None:
    for name, by_size in content["samples"].items():
        sizes = sorted(map(int, by_size))
        medians = [Spread.of(by_size[str(size)]).median * 1e3 for size in sizes]
        axes.plot(sizes, medians, marker="o", color=curve_colour(name), label=label(name))
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("jobs submitted at once")
    axes.set_ylabel("ms of supervisor CPU for each job")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _import_time(axes: Any, content: Content) -> None:
    taken = _scaled(content["samples"], 1e3)
    names = list(taken)[::-1]
    axes.barh(
        names,
        [Spread.of(taken[name]).median for name in names],
        color=[OURS if "supervisor" in name else PEER for name in names],
    )
    axes.set_xlabel("ms for a whole interpreter that imports this and ends")
    axes.tick_params(labelsize=8)


DRAWERS: Mapping[str, Callable[[Any, Content], None]] = {
    "handover": _handover,
    "churn": _churn,
    "preloaded": _preloaded,
    "back_to_back": _back_to_back,
    "burst": _burst,
    "memory": _memory,
    "idle_cpu": _idle_cpu,
    "many": _many,
    "supervisor_cost": _supervisor_cost,
    "import_time": _import_time,
}
