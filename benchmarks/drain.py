"""64 stuck jobs and a drain: how long from the deadline to the exit?

A real server gets SIGTERM. Its jobs ignore every request, so the whole grace is used
and their groups are killed at its end. What is measured is what comes on top, up to
the moment when the kernel hands over the server's exit status.
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


def run(effort: Effort) -> Result:
    """Measure and judge."""
    jobs = effort.count(JOBS, at_least=2)
    over = [over_the_grace(jobs) for _ in range(effort.rounds)]
    spread = Spread.of(over)
    row = Row.judged(
        f"drain, deadline to exit, {JOBS} stuck jobs: over the grace",
        Target(200.0, unit="ms"),
        spread.median * 1e3,
        ours=f"{spread.median * 1e3:.0f} ms",
        against=f"grace {GRACE:g} s",
    )
    return Result(
        name="drain",
        question=f"from the deadline of a drain to the server's exit, {JOBS} stuck jobs, "
        f"a grace of {GRACE:g} s",
        rows=[row],
        detail=[
            ["", "over the grace (rounds)"],
            [
                "AgentServer",
                spread.text(1e3, unit=" ms"),
            ],
        ],
        samples={"over": over},
    )


def over_the_grace(jobs: int) -> float:
    """Return seconds from the deadline and the grace to the exit.

    Raises:
        RuntimeError: the server did something else than drain.
    """
    with tempfile.TemporaryDirectory(prefix="greenroom-bench-") as directory:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.stuck_agent"]
            + [str(each) for each in (jobs, DRAIN_TIMEOUT, GRACE)],
            env={**os.environ, "GREENROOM_SOCKET": os.path.join(directory, "control.sock")},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        with process:
            assert process.stdout is not None
            if process.stdout.readline() != "stuck\n":
                raise RuntimeError(f"the server ended with {process.wait()} before it was drained")
            asked = time.monotonic()
            process.send_signal(signal.SIGTERM)
            status = process.wait()
            gone = time.monotonic()
    if status != ENFORCED:
        raise RuntimeError(f"the drain was to be enforced, but the exit status is {status}")
    return gone - asked - DRAIN_TIMEOUT - GRACE
