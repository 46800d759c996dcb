"""Run benchmarks; print their figures and, at the end, the table of targets.

Each writes NAME.json, and a plot where matplotlib is installed. ``table`` runs
nothing: it prints the table from what is there, and writes it into the README.
``warm_start`` measures your own hooks; see ``warm_start --help``.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
from pathlib import Path

from benchmarks import results, summary, table
from benchmarks.arguments import count, peers
from benchmarks.drivers.registry import PEERS
from benchmarks.effort import FULL, QUICK, Effort
from benchmarks.noise import Moment, Noise
from benchmarks.results import Result
from benchmarks.summary import NAMES


def run(name: str, effort: Effort, directory: Path) -> Result:
    """Run one benchmark, print its detail, write its results."""
    print(f"\n{name}: {results.machine_line()}", flush=True)
    before = Moment.now()
    result: Result = importlib.import_module(f"benchmarks.{name}").run(effort)
    after = Moment.now()
    noise = Noise.between(before, after, os.cpu_count() or 1)
    print(f"{result.question}; {effort.rounds} rounds, {after.at - before.at:.0f} s; {noise}\n")
    if result.detail:
        print(*table.lines(result.detail[1:], result.detail[0]), sep="\n", end="\n\n")
    print(*table.lines([row.cells() for row in result.rows]), sep="\n", flush=True)
    result.write(directory, noise)
    draw(name, directory)
    return result


def draw(name: str, directory: Path) -> None:
    """Draw the plot of what was written, if it can be drawn."""
    from benchmarks import plots

    content = results.read(name, directory)
    assert content is not None, "it was just written"
    try:
        plots.draw(content, directory)
    except ImportError as exc:
        print(f"no plot: {exc}", file=sys.stderr)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join((*NAMES, 'table'))}; all unless given"
    )
    parser.add_argument("--rounds", type=count, help=f"{FULL.rounds} unless given")
    parser.add_argument("--quick", action="store_true", help="tiny counts: shows that it runs")
    parser.add_argument(
        "--only",
        type=peers,
        metavar="PEERS",
        help=f"peers to keep, separated by commas, of {', '.join(PEERS)}; or none",
    )
    parser.add_argument("--results", type=Path, default=results.RESULTS, metavar="DIRECTORY")
    given = parser.parse_args(arguments)
    for name in given.names:
        if name not in (*NAMES, "table"):
            parser.error(f"no benchmark {name!r}; there are: {', '.join((*NAMES, 'table'))}")
    return given


def main(arguments: list[str]) -> int:
    """Run what the command line names; return the exit status."""
    if arguments[:1] == ["warm_start"]:
        # A process of its own: functions travel faster from a main module that children import.
        command = [sys.executable, "-m", "benchmarks.warm_start", *arguments[1:]]
        return subprocess.call(command)
    given = parse(arguments)
    base = QUICK if given.quick else FULL
    effort = Effort(given.rounds or base.rounds, base.scale, given.only)
    for name in given.names or NAMES:
        if name != "table":
            run(name, effort, given.results)
    if not given.names or "table" in given.names:
        print("", *summary.printed(given.results), sep="\n")
        summary.write(given.results)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
