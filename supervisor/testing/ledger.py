"""Evidence that jobs leave: each appends one line before it does anything else.

A line is under PIPE_BUF and written by one ``write`` with O_APPEND, so lines of
processes that write at the same time never mix. It holds what the checks need:
which job, in which process, warmed by which run of ``setup_fnc`` and when.

The functions run in the workers, around the user's own.
"""

from __future__ import annotations

import inspect
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from supervisor import clock
from supervisor.child.context import JobContext, JobProcess, get_job_context

_KEY: Final = "supervisor.testing"


@dataclass(frozen=True)
class Entry:
    """One execution of one job, as the job saw it. Moments in monotonic seconds."""

    job: str
    pid: int
    began_at: float
    setup_pid: int
    setup_done_at: float
    setup_token: str  # one for each run of setup_fnc: a process id may be used again


@dataclass(frozen=True)
class Witness:
    """What the outcome of a job claims: whether it began, and whether it must have run."""

    told: str
    began: bool
    must_have_run: bool


def warm_and_note(setup_fnc: Callable[[JobProcess], Any] | None, proc: JobProcess) -> Any:
    """Run the user's ``setup_fnc`` to its end, and note that it has come to it."""
    result = None if setup_fnc is None else setup_fnc(proc)
    if inspect.isawaitable(result):
        return _note_after(result, proc)
    _note_warm(proc)
    return None


async def _note_after(result: Awaitable[Any], proc: JobProcess) -> None:
    await result
    _note_warm(proc)


def _note_warm(proc: JobProcess) -> None:
    proc.userdata[_KEY] = (os.getpid(), clock.monotonic(), os.urandom(8).hex())


def run_and_note(ledger: str, job: str, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Note that *job* has begun here, and do what it is."""
    _note(ledger, job, get_job_context().proc)
    return function(*args)


def enter_and_note(ledger: str, entrypoint: Callable[[JobContext], Any], ctx: JobContext) -> Any:
    """The same for a server's entrypoint."""
    _note(ledger, ctx.job.id, ctx.proc)
    return entrypoint(ctx)


def _note(ledger: str, job: str, proc: JobProcess) -> None:
    pid, done_at, token = proc.userdata[_KEY]
    line = f"{job} {os.getpid()} {clock.monotonic()} {pid} {done_at} {token}\n"
    fd = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


def read(ledger: str) -> list[Entry]:
    """Return every execution that was noted."""
    entries = []
    with open(ledger, encoding="utf-8") as file:
        for line in file:
            job, pid, began, setup_pid, setup_done, token = line.split()
            entries.append(
                Entry(job, int(pid), float(began), int(setup_pid), float(setup_done), token)
            )
    return entries


def check(path: str, jobs: Mapping[str, Witness], *, single_use: bool) -> None:
    """Compare what was noted with what the outcomes say.

    Args:
        path: the ledger.
        jobs: what is claimed of each job.
        single_use: no worker may have run two.

    Raises:
        AssertionError: a job ran twice, ran without having begun, shared a process, or
            began before its own process was warm.
    """
    entries = read(path)
    runs = Counter(entry.job for entry in entries)
    twice = {job: count for job, count in runs.items() if count > 1}
    assert not twice, f"these jobs ran more than once: {twice}"
    for job, claim in jobs.items():
        assert runs[job] or not claim.must_have_run, f"{claim.told} never ran"
        assert claim.began or not runs[job], (
            f"{claim.told} ran, but its outcome says it never began"
        )
    for entry in entries:
        assert entry.setup_pid == entry.pid, f"not warmed in its own process: {entry}"
        assert entry.setup_done_at <= entry.began_at, f"began before it was warm: {entry}"
    if single_use:
        tokens = Counter(entry.setup_token for entry in entries)
        shared = [entry for entry in entries if tokens[entry.setup_token] > 1]
        assert not shared, f"these jobs shared a process: {shared}"
