"""Waiting for what a pool or a server says of itself, and for what the kernel says of a process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import resource
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from supervisor import AgentServer, ProcessPool
from supervisor.events import WorkerExited, WorkerWarm
from tests.integration.conftest import PATIENCE, soon

EVENTS = ("worker_warm", "job_started", "job_ended", "worker_exited")


class Watch(logging.Handler):
    """What a pool or a server announced and logged so far, and waiting for more of it."""

    def __init__(self, source: ProcessPool | AgentServer) -> None:
        super().__init__(logging.DEBUG)
        self.source = source
        self.warm: list[int] = []
        self.exits: list[WorkerExited] = []
        self.messages: list[str] = []
        self._wakers: set[asyncio.Event] = set()
        for event in EVENTS:
            source.on(event, self._announced)
        self._logger = logging.getLogger("greenroom")

    def __enter__(self) -> Watch:
        self._logger.addHandler(self)
        self._logger.setLevel(logging.INFO)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.setLevel(logging.NOTSET)
        self._logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        self._wake()

    def _announced(self, value: object) -> None:
        if isinstance(value, WorkerWarm):
            assert value.pid is not None
            self.warm.append(value.pid)
        elif isinstance(value, WorkerExited):
            self.exits.append(value)
        self._wake()

    def _wake(self) -> None:
        # On the next turn: an event is announced in the middle of the change it tells of.
        with contextlib.suppress(RuntimeError):  # logged outside the loop
            asyncio.get_running_loop().call_soon(self._set)

    def _set(self) -> None:
        for waker in self._wakers:
            waker.set()

    async def until(self, condition: Callable[[], object]) -> None:
        """Return when *condition* holds; looked at after each event and each log record."""

        async def holds() -> None:
            waker = asyncio.Event()
            self._wakers.add(waker)
            while not condition():
                await waker.wait()
                waker.clear()
            self._wakers.discard(waker)

        await soon(holds())

    async def until_logged(self, text: str) -> str:
        """Return the first log record that holds *text*, also one from before the call."""
        await self.until(lambda: self.logged(text))
        return self.logged(text)[0]

    def logged(self, text: str) -> list[str]:
        """Return the log records so far that hold *text*."""
        return [message for message in self.messages if text in message]

    async def until_idle(self, count: int = 1) -> None:
        """Return when *count* workers are idle."""
        await self.until(lambda: self.source.stats().idle >= count)

    async def until_exited(self, pid: int | None) -> WorkerExited:
        """Return how the worker *pid* ended, when it has."""
        await self.until(lambda: any(each.pid == pid for each in self.exits))
        return next(each for each in self.exits if each.pid == pid)


async def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Return once *condition* holds; for facts of the kernel, and files that jobs write."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"not within {seconds} s: {condition}"
        await asyncio.sleep(0.005)


def is_gone(pid: int) -> bool:
    """Return whether the process has ended; a zombie has."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def is_stopped(pid: int) -> bool:
    """Return whether the process is stopped by a signal."""
    return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)


def all_gone(pids: Iterable[int]) -> bool:
    """Return whether every one of these processes has ended."""
    return all(is_gone(pid) for pid in pids)


def read_pids(path: Path) -> list[int]:
    """Return the numbers that a job wrote into *path*, one a line."""
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def forkserver_of(pool: ProcessPool) -> int:
    """Return the process id of the pool's fork server."""
    assert pool._workers is not None
    pid = pool._workers.forkserver_pid
    assert pid is not None
    return pid


def make_server(entrypoint: Callable[..., object], **options: Any) -> AgentServer:
    """Return a server whose admission lets everything through, unless told otherwise."""
    on_request = options.pop("on_request", None)
    options.setdefault("num_idle_processes", 1)
    options.setdefault("load_threshold", math.inf)
    options.setdefault("port", None)
    server = AgentServer(**options)
    server.rtc_session(entrypoint, on_request=on_request)
    return server


@contextlib.asynccontextmanager
async def running(
    server: AgentServer, socket_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Watch]:
    """Run *server* for the block; what runs at its end is stopped."""
    monkeypatch.setenv("GREENROOM_SOCKET", os.fspath(socket_directory / "s"))
    started = asyncio.Event()
    server.on("started", lambda _: started.set())
    with Watch(server) as watch:
        life = asyncio.ensure_future(server.run())
        starting = asyncio.ensure_future(started.wait())
        await soon(asyncio.wait({life, starting}, return_when=asyncio.FIRST_COMPLETED))
        starting.cancel()
        if life.done():
            life.result()
        try:
            yield watch
        finally:
            await soon(server.aclose())
            await soon(life)


@contextlib.contextmanager
def without_descriptors() -> Iterator[None]:
    """Let this process open nothing more while the block lasts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
