"""What each worker will do, done beforehand in the process that workers are forked from.

Each page that a worker writes to is one that it no longer shares. Some writes are
needed only once, and done here they are done for all workers:

* A worker on trial is forked and lives through one job that does nothing. It tells
  which code ran, and that code is laid together (``layout.py``).
* The parts of a worker's life that leave nothing behind are gone through in this very
  process. The interpreter rewrites a function's code during its first calls (since
  Python 3.11), and remembers where it found attributes.
"""

from __future__ import annotations

import asyncio
import atexit
import dataclasses
import gc
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Final

import msgspec

from ipc import fds
from ipc.channel import BlockingChannel
from ipc.errors import IpcError
from ipc.frames import Need
from ipc.mark import make_mark
from ipc.messages import Decoder, FromWorker, Ready, RunJob
from supervisor.child import hugepages, isolate, layout
from supervisor.child.birth import Birth
from supervisor.child.boot import Ends, Hooks
from supervisor.child.context import JobProcess
from supervisor.child.rehearsal import REHEARSED, rehearsals
from supervisor.child.strays import has_children
from supervisor.child.worker import Worker, say_hello

logger = logging.getLogger("greenroom.forkserver")

# More than the interpreter's warm-up of any instruction; in all some ten milliseconds.
ROUNDS: Final = 20

# How long the worker on trial may take. It needs milliseconds; only a user's hook at
# fork could hold it up, and would hold up every worker.
_TRIAL_SECONDS: Final = 2.0

_ID_BYTES: Final = 8


def settle(birth: Birth) -> None:
    """Make this process ready to be forked: once, when user code was loaded.

    It has one thread. Afterwards its forwarder has to be connected again.
    """
    trial = _without_user_code(birth)
    gc.collect()
    try:
        used = _code_of_a_life(trial)
        layout.fill_holes()
        layout.lay_together(used)
        gc.freeze()
        if not has_children():  # they would lose what they share with this process
            hugepages.collapse()
        for _ in range(ROUNDS):
            _live(trial)
    except Exception:  # noqa: BLE001 - signal handlers and audit hooks of the user run here
        # Mostly no process or no descriptor to be had. Workers are only slower for it;
        # that they cannot be made either is said where they are.
        logger.debug("workers will be slower", exc_info=True)
    gc.collect()
    layout.fill_holes()
    gc.freeze()


def _without_user_code(birth: Birth) -> Birth:
    """Return the birth of a worker that nobody waits for and that runs nothing of the user's."""
    hooks = Hooks() if birth.hooks.entrypoint is None else REHEARSED
    settings = dataclasses.replace(birth.settings, cgroup=None, job_limits=None, titles=False)
    return Birth(hooks, settings, JobProcess(), birth.forwarder)


@contextmanager
def _ends() -> Iterator[tuple[Ends, socket.socket]]:
    """Give a worker's ends, to be taken over, and the supervisor's end of its channel."""
    ours, channel = socket.socketpair()
    log_reader, logs = socket.socketpair()
    with ours, log_reader:
        yield Ends(channel.detach(), logs.detach(), make_mark()), ours


def _live(trial: Birth) -> None:
    """Go through a worker's life in this process, without what would change it."""
    with _ends() as (ends, _):
        worker = Worker(
            trial.hooks, trial.settings, say_hello(ends), ends, JobProcess(), trial.forwarder
        )
        try:
            worker.rehearse()
        finally:
            worker.close()
            asyncio.set_event_loop(None)


# ── the worker on trial ──────────────────────────────────────────────────────


def _code_of_a_life(trial: Birth) -> set[int]:
    """Fork a worker that runs one job that does nothing; return the ``id`` of all code it ran.

    Nothing, where it failed: then workers are slower, and their own failure is told.
    """
    if sys.getprofile() is not None:
        return set()  # somebody watches already, and there is one place to watch from
    reader, writer = os.pipe()

    def shed() -> None:
        isolate.die_with_parent()
        # What user code wants done at the exit is not for a worker that never was.
        atexit._clear()
        ours.close()
        trial.forwarder.disconnect()

    with (
        _usual_child_signal(),
        open(reader, "rb", buffering=0) as told,
        open(writer, "wb", buffering=0) as teller,
        _ends() as (ends, ours),
    ):
        try:
            with _told_to(teller.fileno()):
                pid = isolate.fork_worker()
                if pid == 0:
                    trial.become_worker(0, ends.all, shed)
        finally:
            fds.close_all(ends.all)
        teller.close()
        channel = BlockingChannel(ours, Decoder[FromWorker](FromWorker))
        job = msgspec.structs.replace(rehearsals(trial.hooks)[-1], last=True)
        ids = _follow(pid, told.fileno(), channel, job)
        os.waitpid(pid, 0)
    return ids


@contextmanager
def _usual_child_signal() -> Iterator[None]:
    """Keep the end of a child from a handler of the user's."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        if before is not None:  # None: it was set below Python, and cannot be set from here
            signal.signal(signal.SIGCHLD, before)


@contextmanager
def _told_to(writer: int) -> Iterator[None]:
    """Write the ``id`` of each code object that runs from now on, here and in forks."""
    seen: set[CodeType] = set()

    def tell(frame: FrameType, event: str, argument: object) -> None:
        if frame.f_code not in seen:
            seen.add(frame.f_code)
            os.write(writer, id(frame.f_code).to_bytes(_ID_BYTES, sys.byteorder))

    sys.setprofile(tell)
    try:
        yield
    finally:
        sys.setprofile(None)


def _follow(pid: int, told: int, channel: BlockingChannel[FromWorker], job: RunJob) -> set[int]:
    """Return what process *pid* tells until it ends; give it *job* when it is ready for one."""
    ids = bytearray()
    poll = select.poll()
    poll.register(told, select.POLLIN)
    poll.register(channel.fileno(), select.POLLIN)
    deadline = time.monotonic() + _TRIAL_SECONDS
    while ready := dict(poll.poll(max(0.0, deadline - time.monotonic()) * 1000)):
        if channel.fileno() in ready and not _answer(channel, job):
            poll.unregister(channel.fileno())
        if told in ready:
            data = os.read(told, 65536)
            if not data:
                break
            ids += data
    else:
        logger.warning("a worker on trial did not end within %g s", _TRIAL_SECONDS)
        os.kill(pid, signal.SIGKILL)
    return {
        int.from_bytes(ids[start : start + _ID_BYTES], sys.byteorder)
        for start in range(0, len(ids), _ID_BYTES)
    }


def _answer(channel: BlockingChannel[FromWorker], job: RunJob) -> bool:
    """Read once; answer READY with *job*. Return whether there is more to come."""
    try:
        channel.fill()
        while not isinstance(taken := channel.next_buffered(), Need):
            if isinstance(taken[0], Ready):
                channel.send(job)
    except IpcError:
        return False  # it has died: the end of what it tells says so as well
    return taken is not Need.NOTHING
