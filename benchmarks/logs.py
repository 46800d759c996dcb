"""What does a flood of log lines do to the hand-over, and is any line lost?

A real server under ``start``, its stdout read through a pipe. First quietly, then
while eight jobs log 100,000 lines between them as fast as they can (once a round), short jobs are submitted over the control socket one after the other.
The hand-over is what each job's outcome says: from the ``send`` in the supervisor to
the first line of the job.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks.effort import Effort
from benchmarks.figures import Summary
from benchmarks.results import Result
from benchmarks.table import Row, Target
from supervisor.cli.client import ControlClient

LINES = 100_000
FLOODERS = 8
QUIET_JOBS = 200
# A short pause lets the pool refill, as between the jobs of a server that is not overrun.
PAUSE = 0.03

PROGRAM = """
import logging
from supervisor import AgentServer, JobContext, cli

server = AgentServer(num_idle_processes=4, load_threshold=float("inf"), port=None)


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    logger = logging.getLogger("flood")
    for number in range(int(ctx.job.metadata or 0)):
        logger.info("line %d of a job that has a lot to say about what it does", number)


if __name__ == "__main__":
    cli.run_app(server)
"""


class Reader:
    """Reads a server's log to its end, and counts the flood's lines for each job."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.counts: Counter[str] = Counter()
        self.in_order = True
        self.bytes = 0
        self.serving = threading.Event()
        self._process = process
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.bytes += len(line)
            # Parsed only where it must be: the reader shares the CPUs with what is measured.
            if b'"logger":"flood"' in line:
                self._count(json.loads(line))
            elif b"serving as" in line:
                self.serving.set()
        self.serving.set()

    def _count(self, record: dict[str, str]) -> None:
        job = record["job_id"]
        number = int(record["message"].split()[1])
        self.in_order &= number == self.counts[job]
        self.counts[job] += 1


@contextlib.contextmanager
def running_server() -> Iterator[tuple[ControlClient, Reader]]:
    """A server for the block; at its end it drains."""
    with tempfile.TemporaryDirectory(prefix="gr-") as name:
        script, path = Path(name, "agent.py"), Path(name, "s")
        script.write_text(PROGRAM, encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, str(script), "start", "--socket", str(path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )
        reader = Reader(process)
        try:
            reader.serving.wait()
            yield ControlClient(path), reader
        finally:
            process.terminate()
            process.wait()
            reader.thread.join()


def submit(client: ControlClient, room: str, lines: int = 0) -> str:
    """Submit a job that logs so many lines, and return its id."""
    body = {"room": room, "metadata": str(lines)}
    job_id: str = client.request("POST", "/jobs", body)["jobs"][0]["id"]
    return job_id


def hand_over(client: ControlClient) -> float:
    """Run a short job and return what its hand-over took, in seconds."""
    outcome = client.job(submit(client, "short"), wait=30)["outcome"]
    return float(outcome["handover_seconds"])


def measure(effort: Effort) -> tuple[list[float], list[float], float, Reader]:
    """Return hand-overs in quiet and in the flood, the flood's seconds, and the reader."""
    quiet, flooded = [], []
    lines = effort.count(LINES // FLOODERS)
    with running_server() as (client, reader):
        for _ in range(effort.count(QUIET_JOBS)):
            time.sleep(PAUSE)
            quiet.append(hand_over(client))
        began = time.monotonic()
        for _ in range(effort.rounds):
            jobs = [submit(client, "flood", lines) for _ in range(FLOODERS)]
            flooded.append(hand_over(client))  # one at least, however short the flood
            while any(client.job(each)["outcome"] is None for each in jobs):
                time.sleep(PAUSE)
                flooded.append(hand_over(client))
        seconds = time.monotonic() - began
    return quiet, flooded, seconds, reader


def run(effort: Effort) -> Result:
    """Measure and judge."""
    quiet, flooded, seconds, reader = measure(effort)
    before, meanwhile = Summary.of(quiet), Summary.of(flooded)
    written = effort.rounds * FLOODERS * effort.count(LINES // FLOODERS)
    arrived = sum(reader.counts.values())
    rows = [
        Row.judged(
            f"hand-over p50 while {FLOODERS} jobs flood the log",
            Target(2.0),
            meanwhile.p50 / before.p50,
            ours=f"{meanwhile.p50 * 1e6:.0f} µs",
            against=f"quiet {before.p50 * 1e6:.0f} µs",
        ),
        Row.judged(
            "log lines that arrived, in each job's order",
            Target(1.0, at_least=True),
            arrived / written if reader.in_order else 0.0,
            ours=f"{arrived} lines, {arrived / seconds:.0f} a second",
            against=f"written {written}",
        ),
    ]
    return Result(
        name="logs",
        question=f"{LINES} log lines of {FLOODERS} jobs at once, read through a pipe",
        rows=rows,
        samples={"quiet": [quiet], "flooded": [flooded]},
    )
