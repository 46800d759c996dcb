"""Workers that are forked before all others, and tell what a worker's life takes.

One tells which code it runs, another which pages of memory it writes to. Each runs one job that
does nothing, and nothing of the user's but what they have asked to be called at a fork.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Final

import msgspec

from ipc import fds
from ipc.channel import BlockingChannel
from ipc.errors import IpcError
from ipc.frames import Need
from ipc.mark import make_mark
from ipc.messages import Decoder, FromWorker, Ready
from supervisor.child import isolate
from supervisor.child.birth import Birth
from supervisor.child.boot import Ends
from supervisor.child.context import JobProcess
from supervisor.child.forks import fork_worker
from supervisor.child.pagemap import its_own
from supervisor.child.pinned import new_ring
from supervisor.child.rehearsal import rehearsals, rehearsed

logger = logging.getLogger("greenroom.forkserver")

# How long the worker on trial may take. It needs milliseconds; only a user's hook at
# fork could hold it up, and would hold up every worker.
_TRIAL_SECONDS: Final = 2.0

_NUMBER_BYTES: Final = 8


def _nothing(number: int) -> None:
    """Where nothing is to be done."""


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
    """Return the ``id`` of all code that a worker runs. Nothing, where the one on trial failed."""
    if sys.getprofile() is not None:
        return set()  # somebody watches already, and there is one place to watch from
    return set(_numbers(_told_by_a_life(trial, while_it_lives=_telling_code)))


def pages_of_a_life(trial: Birth, ranges: Sequence[tuple[int, int]]) -> list[int]:
    """Return the addresses of the pages in *ranges* that an idle worker has of its own.

    They are those that it wrote to. None, where the kernel does not tell, or does not pin pages
    (``pinned.py``), or the worker on trial failed.
    """
    pages: list[int] = []

    def look(pid: int) -> None:
        try:
            pages.extend(its_own(pid, ranges))
        except OSError as exc:
            logger.debug("pages are not pinned: %s", exc)

    may_pin = _told_by_a_life(trial, when_idle=look, at_its_end=_ask_for_a_ring)
    return pages if may_pin else []


def _ask_for_a_ring(writer: int) -> None:
    """Tell of it if there is one to be had. A filter of system calls may kill who asks."""
    try:
        os.close(new_ring())
    except OSError as exc:
        logger.debug("pages are not pinned: %s", exc)
    else:
        _tell(writer, 1)


def pages_of_a_birth(ranges: Sequence[tuple[int, int]]) -> int:
    """Fork; return how many pages in *ranges* are the child's own at once, some of its own making.

    Raises:
        OSError: there is no process or no descriptor, or the kernel does not tell.
        TimeoutError: a hook at fork of the user's holds it up.
    """
    reader, writer = os.pipe()
    with (
        _usual_child_signal(),
        open(reader, "rb", buffering=0) as told,
        open(writer, "wb", buffering=0) as teller,
    ):
        pid = fork_worker()
        if pid == 0:
            try:
                _tell(writer, len(its_own(os.getpid(), ranges)))
            finally:
                os._exit(0)
        teller.close()
        poll = select.poll()
        poll.register(told.fileno(), select.POLLIN)
        in_time = poll.poll(_TRIAL_SECONDS * 1000)
        if not in_time:
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if not in_time or (count := next(_numbers(told.readall()), None)) is None:
            raise TimeoutError("a process on trial did not tell what it has copied")
        return count


def _told_by_a_life(
    trial: Birth,
    *,
    while_it_lives: Callable[[int], AbstractContextManager[object]] = nullcontext,
    when_idle: Callable[[int], None] = _nothing,
    at_its_end: Callable[[int], None] = _nothing,
) -> bytes:
    """Fork a worker that runs one job that does nothing; return what it wrote.

    Nothing, where it failed: then workers are slower, and their own failure is told.

    Args:
        while_it_lives: what is around its life, given a descriptor to write to.
        when_idle: called here with its process id, when it waits for its job.
        at_its_end: called in the worker with that descriptor, when it leaves.
    """
    reader, writer = os.pipe()

    def shed() -> None:
        isolate.die_with_parent()
        # What user code wants done at the exit is not for a worker that never was.
        atexit._clear()
        atexit.register(at_its_end, teller.fileno())
        ours.close()
        trial.forwarder.disconnect()

    with (
        _usual_child_signal(),
        open(reader, "rb", buffering=0) as told,
        open(writer, "wb", buffering=0) as teller,
        new_ends() as (ends, ours),
    ):
        try:
            with while_it_lives(teller.fileno()):
                pid = fork_worker()
                if pid == 0:
                    trial.become_worker(0, ends.all, shed)
        finally:
            fds.close_all(ends.all)
        teller.close()
        channel = BlockingChannel(ours, Decoder[FromWorker](FromWorker))
        job = msgspec.structs.replace(rehearsals(trial.hooks)[-1], last=True)

        def is_ready() -> None:
            when_idle(pid)
            channel.send(job)

        try:
            return _follow(pid, told.fileno(), channel, is_ready)
        except BaseException:
            os.kill(pid, signal.SIGKILL)  # it may wait for the job for ever
            raise
        finally:
            os.waitpid(pid, 0)


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
def _telling_code(writer: int) -> Iterator[None]:
    """Write the ``id`` of each code object that runs from now on, here and in forks."""
    seen: set[int] = set()

    def tell(frame: FrameType, event: str, argument: object) -> None:
        code = id(frame.f_code)
        if code not in seen:
            seen.add(code)
            _tell(writer, code)

    sys.setprofile(tell)
    try:
        yield
    finally:
        sys.setprofile(None)


def _tell(writer: int, *numbers: int) -> None:
    written = b"".join(number.to_bytes(_NUMBER_BYTES, sys.byteorder) for number in numbers)
    while written:
        written = written[os.write(writer, written) :]


def _numbers(written: bytes) -> Iterator[int]:
    for start in range(0, len(written) - _NUMBER_BYTES + 1, _NUMBER_BYTES):
        yield int.from_bytes(written[start : start + _NUMBER_BYTES], sys.byteorder)


def _follow(
    pid: int, told: int, channel: BlockingChannel[FromWorker], is_ready: Callable[[], None]
) -> bytes:
    """Return what process *pid* tells until it ends; call *is_ready* when it is ready for its job."""
    written = bytearray()
    poll = select.poll()
    poll.register(told, select.POLLIN)
    poll.register(channel.fileno(), select.POLLIN)
    deadline = time.monotonic() + _TRIAL_SECONDS
    while ready := dict(poll.poll(max(0.0, deadline - time.monotonic()) * 1000)):
        if channel.fileno() in ready and not _answer(channel, is_ready):
            poll.unregister(channel.fileno())
        if told in ready:
            data = os.read(told, 65536)
            if not data:
                break
            written += data
    else:
        logger.warning("a worker on trial did not end within %g s", _TRIAL_SECONDS)
        os.kill(pid, signal.SIGKILL)
    return bytes(written)


def _answer(channel: BlockingChannel[FromWorker], is_ready: Callable[[], None]) -> bool:
    """Read once; answer READY with *is_ready*. Return whether there is more to come."""
    try:
        channel.fill()
        while not isinstance(taken := channel.next_buffered(), Need):
            if isinstance(taken[0], Ready):
                is_ready()
    except IpcError:
        return False  # it has died: the end of what it tells says so as well
    return taken is not Need.NOTHING
