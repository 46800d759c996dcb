"""64 stuck jobs and a drain: how long from the deadline to the exit?

A real server gets SIGTERM. Its jobs ignore every request, so the whole grace is used
and their groups are killed at its end. What is measured is what comes on top, up to
the moment when the kernel hands over the server's exit status. Judged is the command
line; a program of its own around ``AgentServer.run`` is printed beside it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time

from benchmarks.effort import Effort
from benchmarks.figures import Spread
from benchmarks.results import Result
from benchmarks.table import Row, Target

JOBS = 64
DRAIN_TIMEOUT = 1.0
GRACE = 1.0
ENFORCED = 124  # the exit status that says that the deadline was

# How the server is run, and what says the deadlines there.
WAYS = {
    "`start`": (
        *("start", "--drain-timeout", f"{DRAIN_TIMEOUT:g}"),
        *("--shutdown-process-timeout", f"{GRACE:g}"),
    ),
    "`AgentServer.run`": (f"{DRAIN_TIMEOUT:g}", f"{GRACE:g}"),
}
JUDGED = "`start`"


def run(effort: Effort) -> Result:
    """Measure and judge."""
    jobs = effort.count(JOBS, at_least=2)
    over: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(effort.rounds):
        for way, arguments in WAYS.items():
            over[way].append(over_the_grace(jobs, arguments))
    spreads = {way: Spread.of(each) for way, each in over.items()}
    median = spreads[JUDGED].median
    row = Row.judged(
        f"drain, deadline to exit, {JOBS} stuck jobs: over the grace",
        Target(200.0, unit="ms"),
        median * 1e3,
        ours=f"{median * 1e3:.0f} ms",
        against=f"grace {GRACE:g} s",
    )
    return Result(
        name="drain",
        question=f"from the deadline of a drain to the server's exit, {JOBS} stuck jobs, "
        f"a grace of {GRACE:g} s",
        rows=[row],
        detail=[
            ["", "over the grace (rounds)"],
            *([way, each.text(1e3, unit=" ms")] for way, each in spreads.items()),
        ],
        samples={"over": over},
    )


def over_the_grace(jobs: int, arguments: tuple[str, ...]) -> float:
    """Return seconds from the deadline and the grace to the exit.

    Raises:
        RuntimeError: the server did something else than drain.
    """
    reader, writer = os.pipe()
    with (
        tempfile.TemporaryDirectory(prefix="greenroom-bench-") as directory,
        open(reader, encoding="ascii") as told,
    ):
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.stuck_agent", str(jobs), str(writer), *arguments],
            env={**os.environ, "GREENROOM_SOCKET": os.path.join(directory, "control.sock")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[writer],
        )
        os.close(writer)
        with process:
            if told.readline() != "stuck\n":
                raise RuntimeError(f"the server ended with {process.wait()} before it was drained")
            asked = time.monotonic()
            process.send_signal(signal.SIGTERM)
            status = process.wait()
            gone = time.monotonic()
    if status != ENFORCED:
        raise RuntimeError(f"the drain was to be enforced, but the exit status is {status}")
    return gone - asked - DRAIN_TIMEOUT - GRACE
