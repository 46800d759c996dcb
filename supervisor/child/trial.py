"""A worker that is forked before all others, and tells which code runs in its life.

It runs one job that does nothing, and nothing of the user's but what they have asked
to be called at a fork.
"""

from __future__ import annotations

import atexit
import dataclasses
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

import msgspec

from ipc import fds
from ipc.channel import BlockingChannel
from ipc.errors import IpcError
from ipc.frames import Need
from ipc.mark import make_mark
from ipc.messages import Decoder, FromWorker, Ready, RunJob
from supervisor.child import isolate
from supervisor.child.birth import Birth
from supervisor.child.boot import Ends
from supervisor.child.context import JobProcess
from supervisor.child.forks import fork_worker
from supervisor.child.rehearsal import rehearsals, rehearsed

logger = logging.getLogger("greenroom.forkserver")

# How long the worker on trial may take. It needs milliseconds; only a user's hook at
# fork could hold it up, and would hold up every worker.
_TRIAL_SECONDS: Final = 2.0

_ID_BYTES: Final = 8


def without_user_code(birth: Birth) -> Birth:
    """Return the birth of a worker that nobody waits for and that runs nothing of the user's."""
    hooks = rehearsed(birth.hooks)
    settings = dataclasses.replace(birth.settings, cgroup=None, job_limits=None, titles=False)
    return Birth(hooks, settings, JobProcess(), birth.forwarder)


@contextmanager
def new_ends() -> Iterator[tuple[Ends, socket.socket]]:
    """Give a worker's ends, to be taken over, and the supervisor's end of its channel."""
    ours, channel = socket.socketpair()
    log_reader, logs = socket.socketpair()
    with ours, log_reader:
        yield Ends(channel.detach(), logs.detach(), make_mark()), ours


def code_of_a_life(trial: Birth) -> set[int]:
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
        new_ends() as (ends, ours),
    ):
        try:
            with _told_to(teller.fileno()):
                pid = fork_worker()
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
    seen: set[int] = set()

    def tell(frame: FrameType, event: str, argument: object) -> None:
        code = id(frame.f_code)
        if code not in seen:
            seen.add(code)
            os.write(writer, code.to_bytes(_ID_BYTES, sys.byteorder))

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
