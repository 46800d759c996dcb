"""What a process and its descendants take from the machine. Linux: read from /proc."""

from __future__ import annotations

from pathlib import Path

import psutil


def tree(pid: int) -> list[int]:
    """Return *pid* and its descendants that are alive now."""
    root = psutil.Process(pid)
    return [pid, *(child.pid for child in root.children(recursive=True))]


def pss_bytes(pids: list[int]) -> int:
    """Return what the processes take together: a page that n share counts 1/n for each."""
    return sum(_pss(pid) for pid in pids)


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it has ended meanwhile
    for line in lines:
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0  # a process on its way out has no memory any more


def cpu_seconds(pids: list[int]) -> float:
    """Return the CPU time of all threads of the processes, in the scheduler's nanoseconds.

    ``getrusage`` of a process that sleeps most of the time is no finer, but does
    not tell of others; ``/proc/PID/stat`` counts in hundredths of a second.
    """
    spent = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                spent += int(task.read_text("ascii").split()[0])
            except (FileNotFoundError, ProcessLookupError):
                continue  # a thread that has ended meanwhile
    return spent / 1e9
