"""What every benchmark here needs: the floor, percentiles, and a line that says what was measured.

Absolute figures of a shared machine say little. So each benchmark takes the
machine's own floor in the same run, turn by turn with ours, and quotes the
median of both and their ratio.
"""

from __future__ import annotations

import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

# The size of the message that wakes the floor's child: about a small job's.
MESSAGE_BYTES = 256


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
        ordered = sorted(values)

        def at(share: float) -> float:
            return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

        return cls(len(ordered), statistics.median(ordered), at(0.90), at(0.99), ordered[-1])

    def microseconds(self) -> str:
        """Return it as text, from seconds."""
        return (
            f"p50 {self.p50 * 1e6:7.0f} µs   p90 {self.p90 * 1e6:7.0f} µs   "
            f"p99 {self.p99 * 1e6:7.0f} µs   worst {self.worst * 1e6:7.0f} µs   n {self.n}"
        )


def machine() -> str:
    """Return what the figures were taken on."""
    return (
        f"{platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def wake_floor(rounds: int) -> list[float]:
    """Return seconds from a send to the first line of a child that was blocked in ``recv``.

    A fresh fork for each round: no pool can hand a job to a single-use process
    faster than the kernel wakes one.
    """
    return [_wake_once() for _ in range(rounds)]


def _wake_once() -> float:
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        theirs.recv(MESSAGE_BYTES)
        theirs.send(repr(time.monotonic()).encode())
        os._exit(0)
    try:
        # The child has to be in recv before it is woken; nothing tells us when.
        time.sleep(0.005)
        sent = time.monotonic()
        ours.send(b"x" * MESSAGE_BYTES)
        return float(ours.recv(64)) - sent
    finally:
        os.waitpid(pid, 0)
        ours.close()
        theirs.close()


class FloorProcess:
    """Takes the wake floor in a process of its own.

    A fork write-protects every page of the process that forks. Done in the process
    that is measured, it would make ours pay for the floor.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.measure"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wake(self) -> float:
        """Return one round of :func:`wake_floor`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def fork_floor(rounds: int) -> list[float]:
    """Return seconds for ``fork``, ``_exit`` and ``waitpid`` at this process's heap size."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        taken.append(time.perf_counter() - began)
    return taken


if __name__ == "__main__":
    for _line in sys.stdin:
        print(wake_floor(1)[0], flush=True)
