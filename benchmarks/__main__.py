"""``python -m benchmarks [NAME …]``: run the benchmarks named, or all, and print the target table."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

from benchmarks import results, table
from benchmarks.effort import FULL, QUICK, Effort
from benchmarks.results import Result

NAMES = ("handover", "churn", "back_to_back", "burst")


def run(name: str, effort: Effort, directory: Path) -> Result:
    """Run one benchmark, print its detail, write its JSON."""
    print(f"\n{name}: {results.machine_line()}", flush=True)
    began = time.monotonic()
    result: Result = importlib.import_module(f"benchmarks.{name}").run(effort)
    print(f"{result.question}; {effort.rounds} rounds, {time.monotonic() - began:.0f} s\n")
    if result.detail:
        print(*table.lines(result.detail[1:], result.detail[0]), sep="\n", end="\n\n")
    result.write(directory)
    return result


def main(arguments: list[str]) -> int:
    """Run what the command line names; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--rounds", type=int, help=f"{FULL.rounds} unless given")
    parser.add_argument("--quick", action="store_true", help="tiny counts: shows that it runs")
    parser.add_argument("--only", default="", help="contestants, separated by commas")
    parser.add_argument("--results", type=Path, default=results.RESULTS, metavar="DIRECTORY")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.names if name not in NAMES]
    if unknown:
        print(f"no benchmark {unknown[0]!r}; there are: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    base = QUICK if given.quick else FULL
    only = tuple(filter(None, given.only.split(",")))
    effort = Effort(given.rounds or base.rounds, base.scale, only)
    done = [run(name, effort, given.results) for name in given.names or NAMES]
    rows = [row for result in done for row in result.rows]
    print(*table.lines([row.cells() for row in rows]), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
