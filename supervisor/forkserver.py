"""The supervisor's handle on the fork server."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import os
import signal
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar

from ipc import fds
from ipc.aio import AsyncChannel
from ipc.errors import IpcError, ProtocolError
from ipc.messages import (
    Decoder,
    Exited,
    Fork,
    Forked,
    ForkFailed,
    ForkServerReady,
    FromForkServer,
    Hello,
    KillWorker,
    Preloaded,
    PreloadError,
)
from supervisor.child import forkserver as child, layout
from supervisor.errors import PreloadFailed
from supervisor.familiar import Familiar
from supervisor.inthread import in_thread
from supervisor.job import Exit, ExitReport
from supervisor.launch import (
    Blueprint,
    FreshProcess,
    LaunchEvents,
    SideOfChild,
    kill_by_pidfd,
    make_ends,
    open_pidfd,
    watch_exit,
)
from supervisor.logs import LogReader, OutputReader
from supervisor.options import SPAWN_TIMEOUT
from supervisor.pidinfo import UNKNOWN, pid_of

logger = logging.getLogger("greenroom.forkserver")

# After the channel was closed the fork server kills what is left and goes; its
# own sweep gives up after 5 s.
_CLOSE_SECONDS: Final = 6.0

# include/linux/err.h, MAX_ERRNO; and a wait status is 16 bits.
_HIGHEST_ERRNO: Final = 4095
_HIGHEST_STATUS: Final = 0xFFFF

T = TypeVar("T")

_decoder: Final[Decoder[FromForkServer]] = Decoder(FromForkServer)


class ForkServer:
    """Starts the fork server, asks it for workers, hands its reports on.

    Args:
        loop: the pool's loop.
        blueprint: what it is born with.
        events: who is told what happens.
        preload_timeout: seconds for imports and ``preload_fnc``.
        familiar: what its workers are likely to be asked for.

    Used once: when it is gone, make another.
    Runs on: the pool's loop, every method.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        blueprint: Blueprint,
        events: LaunchEvents,
        preload_timeout: float,
        familiar: Familiar,
    ) -> None:
        self._loop = loop
        self._blueprint = blueprint
        self._events = events
        self._preload_timeout = preload_timeout
        self._familiar = familiar
        self._process: FreshProcess | None = None
        self._pidfd: int | None = None
        self._stop_watching: Callable[[], None] = lambda: None
        self._channel: AsyncChannel[FromForkServer] | None = None
        self._readers: list[LogReader | OutputReader] = []
        self._hello: asyncio.Future[float] = loop.create_future()
        self._preloaded: asyncio.Future[float] = loop.create_future()
        self._ready: asyncio.Future[float] = loop.create_future()
        self._gone: asyncio.Future[Exit] = loop.create_future()
        self._serving = False
        # Workers that it was asked for, and those that it has announced: it may speak
        # of no others.
        self._asked: set[int] = set()
        self._forked: set[int] = set()
        #: Reports of it that have come: as long as that grows, it is at work. To be read only.
        self.reports = 0
        self._abandoned = False
        self._deaf = False  # it broke the protocol: nothing that it says counts any more

    @property
    def pid(self) -> int | None:
        """Its process id, None before it was started."""
        return None if self._process is None else self._process.pid

    @property
    def unborn(self) -> int:
        """How many workers it was asked for and has not announced."""
        return len(self._asked)

    async def start(self) -> float:
        """Start it and wait until it serves; return the seconds that preloading took.

        Raises:
            PreloadFailed: an import, ``preload_fnc``, a thread they left, or the timeout.
            PicklingError, TypeError, AttributeError: a hook cannot travel.
            OSError: no process or no descriptors.
        """
        near, far = make_ends(capture_output=self._blueprint.capture_output)
        try:
            self._channel = AsyncChannel(
                self._loop,
                near.channel,
                _decoder,
                on_message=self._received,
                on_end=self._ended,
            )
            self._readers.append(
                LogReader(self._loop, near.logs, context=self._log_context, on_error=self._ended)
            )
            for fd, stream in ((near.stdout, "stdout"), (near.stderr, "stderr")):
                if fd >= 0:
                    self._readers.append(
                        OutputReader(self._loop, fd, stream, context=self._log_context)
                    )
            os.close(near.mark)  # for workers: a fork server begins no jobs
            process = FreshProcess(
                child.main,
                self._blueprint.boot(far),
                "greenroom-forkserver",
                first=layout.TAKE_ROW,
            )
            cancelled = await _finish(in_thread(process.start, "greenroom-launch"))
        except BaseException:
            self._close_descriptors()
            raise
        finally:
            far.close()
        self._process = process
        self._pidfd = open_pidfd(process.pid)
        self._stop_watching = watch_exit(self._loop, process.pid, self._pidfd, self._exited)
        try:
            if cancelled is not None:
                raise cancelled
            return await self._wait_ready()
        except BaseException:
            await self.close()
            raise

    async def _wait_ready(self) -> float:
        await self._wait_or_fail(self._hello, SPAWN_TIMEOUT, "did not start")
        seconds = await self._wait_or_fail(
            self._preloaded,
            self._preload_timeout,
            f"imports and preload_fnc took longer than "
            f"initialize_process_timeout={self._preload_timeout:g} s",
        )
        # What is left is ours, and has limits of its own.
        await self._wait_or_fail(self._ready, SPAWN_TIMEOUT, "did not become ready")
        return seconds

    async def _wait_or_fail(
        self, wanted: asyncio.Future[float], seconds: float, late: str
    ) -> float:
        either: set[asyncio.Future[Any]] = {wanted, self._gone}
        await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if wanted.done():
            return wanted.result()
        if self._gone.done():
            raise PreloadFailed(
                f"the fork server ended before it was ready: {self._gone.result()}. If it failed "
                "while importing the main script, the traceback is on stderr; a script that "
                "starts a pool or a server needs the guard: if __name__ == '__main__':"
            )
        raise PreloadFailed(f"the fork server {late}")

    # ── asking ───────────────────────────────────────────────────────────────

    def launch(self, worker: int, ends: SideOfChild, *, awaited: bool) -> None:
        """Have *worker* forked. Its ends are closed here: the message carries them.

        Raises:
            OSError: EPIPE, the fork server is gone.
        """
        try:
            assert self._channel is not None, "launch before start"
            self._channel.send(Fork(worker, awaited, self._familiar.names), ends.descriptors)
            self._asked.add(worker)
        except IpcError as exc:
            raise OSError(errno.EPIPE, f"the fork server is gone: {exc}") from exc
        finally:
            ends.close()

    def kill(self, worker: int, pid: int, pidfd: int | None) -> None:
        """Kill the worker's group: by pidfd, or by asking its parent where there is none."""
        if pidfd is not None:
            kill_by_pidfd(pidfd)
        elif self._channel is not None and not self._channel.ended:
            try:
                self._channel.send(KillWorker(worker))
            except IpcError as exc:
                logger.warning("cannot have worker %d (pid %d) killed: %s", worker, pid, exc)

    def catch_up(self) -> None:
        """Hear what it has said by now, before a worker is judged that it speaks of."""
        if self._channel is not None:
            self._channel.drain_received()

    def nudge(self) -> None:
        """Make it go on if it was stopped: it has news that it does not tell."""
        if self._process is not None and not self._gone.done():
            self._process.send_signal(signal.SIGCONT)

    def abandon(self) -> None:
        """Kill it, once: it does not tell its news. The report that it is lost follows."""
        if self._process is not None and not self._gone.done() and not self._abandoned:
            self._abandoned = True
            logger.error("the fork server (pid %s) does not answer and is killed", self.pid)
            self._process.kill_group()

    async def close(self) -> None:
        """End it; it kills and reaps what it still has. Returns when it is gone."""
        self._serving = False
        if self._channel is not None:
            self._channel.close()
        if self._process is not None and not self._gone.done():
            if not self._ready.done():
                self._process.kill_group()  # it is in the user's code and has no workers yet
            self.nudge()
            await asyncio.wait({self._gone}, timeout=_CLOSE_SECONDS)
            if not self._gone.done():
                logger.error("the fork server (pid %s) does not leave; it is killed", self.pid)
                self._process.kill_group()
                await self._gone
        self._close_descriptors()

    # ── hearing ──────────────────────────────────────────────────────────────

    def _received(self, message: FromForkServer, descriptors: list[int]) -> None:
        try:
            if not self._deaf:
                self._hear(message, descriptors)
                self.reports += 1
        except ProtocolError as exc:
            self._deaf = True
            self._ended(exc)
        finally:
            fds.close_strangers(descriptors)

    def _hear(self, message: FromForkServer, descriptors: list[int]) -> None:
        """Act on *message*. Takes what it keeps out of *descriptors*.

        Raises:
            ProtocolError: it speaks of a worker that it has not, or of what cannot be.
        """
        if isinstance(message, Forked):
            _take(self._asked, message.worker)
            _check_pidfd(message.pid, descriptors)
            self._forked.add(message.worker)
            self._events.launched(
                message.worker, message.pid, descriptors.pop() if descriptors else None
            )
        elif isinstance(message, Exited):
            _take(self._forked, message.worker)
            self._events.exited(message.worker, _report(message))
        elif isinstance(message, ForkFailed):
            _take(self._asked, message.worker)
            if not 0 <= message.errno <= _HIGHEST_ERRNO:
                raise ProtocolError(f"there is no errno {message.errno}")
            self._events.launch_failed(
                message.worker, OSError(message.errno, os.strerror(message.errno))
            )
        elif isinstance(message, Hello):
            _set(self._hello, 0.0)
        elif isinstance(message, Preloaded):
            _set(self._preloaded, message.seconds)
        elif isinstance(message, ForkServerReady):
            self._serving = True
            _set(self._ready, 0.0)
        elif isinstance(message, PreloadError):
            error = message.error
            if not self._preloaded.done():
                self._preloaded.set_exception(
                    PreloadFailed(f"{error.type}: {error.message}", error.traceback)
                )

    def _ended(self, error: IpcError | None) -> None:
        # Its exit follows. If it does not, it is alive but mute, and of no use.
        if error is not None and self._process is not None and not self._gone.done():
            logger.error("the fork server does not talk any more and is killed: %s", error)
            self._process.kill_group()

    def _exited(self) -> None:
        assert self._process is not None
        report = self._process.reap()
        assert report is not None, "the kernel said that the fork server ended"
        if self._channel is not None:
            # What it had reported before it died counts.
            self._channel.drain_received()
        for reader in self._readers:
            reader.drain()
        _set(self._gone, report.exit)
        if self._serving:
            self._serving = False
            self._close_descriptors()
            self._events.launcher_lost(report.exit)

    def _log_context(self) -> Mapping[str, object]:
        return {"pid": self.pid}

    def _close_descriptors(self) -> None:
        self._stop_watching()
        self._stop_watching = lambda: None
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        if self._channel is not None:
            self._channel.close()
        for reader in self._readers:
            reader.close()
        self._readers.clear()
        # Nobody will ask any more; an unread exception would be reported as lost.
        for future in (self._hello, self._preloaded, self._ready):
            if future.done() and not future.cancelled():
                future.exception()


async def _finish(launch: Coroutine[None, None, None]) -> asyncio.CancelledError | None:
    """Await *launch* to its end; return the cancellation that came meanwhile.

    Its thread cannot be stopped: it needs our descriptors, and leaves a process
    that has to be ended and reaped.
    """
    launching = asyncio.ensure_future(launch)
    cancelled = None
    try:
        await asyncio.shield(launching)
    except asyncio.CancelledError as exc:
        cancelled = exc
        await asyncio.wait({launching})
        launching.result()
    return cancelled


def _take(workers: set[int], worker: int) -> None:
    if worker not in workers:
        raise ProtocolError(f"the fork server speaks of worker {worker}, which it has not")
    workers.remove(worker)


def _check_pidfd(pid: int, descriptors: list[int]) -> None:
    """Check that what came beside a pid is its pidfd: signals will be sent through it.

    Raises:
        ProtocolError: it is not.
    """
    if pid <= 0 or len(descriptors) > 1:
        raise ProtocolError(f"the fork server announced pid {pid}, {len(descriptors)} descriptors")
    if descriptors and pid_of(descriptors[0]) not in (pid, UNKNOWN):
        raise ProtocolError(f"the fork server sent no pidfd of pid {pid}")


def _report(message: Exited) -> ExitReport:
    if not 0 <= message.status <= _HIGHEST_STATUS:
        raise ProtocolError(f"there is no wait status {message.status}")
    if not (0.0 <= message.cpu_seconds < math.inf and message.max_rss_bytes >= 0):
        raise ProtocolError(f"no process uses {message.cpu_seconds} s, {message.max_rss_bytes} B")
    return ExitReport(
        Exit.from_wait_status(message.status), message.cpu_seconds, message.max_rss_bytes
    )


def _set(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)
