"""What a lifecycle drives: a pool or a server, real, behind one face.

Every method runs on the loop of the lifecycle, which turns only inside its steps.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final

from supervisor.handle import JobHandle
from supervisor.pool import ProcessPool
from supervisor.server import AgentServer
from supervisor.stats import PoolStats
from supervisor.testing import ledger
from supervisor.testing.deeds import Deed
from supervisor.testing.dispatcher import FakeDispatcher
from supervisor.testing.running import socket_of_its_own, soon
from supervisor.workers import Workers

# How long a server's jobs have when it drains with a deadline. Seconds.
_DRAIN_SECONDS: Final = 0.3

# Silence is noticed after the ping timeout; long enough that a busy machine is not silence.
DEFAULTS: Final[dict[str, Any]] = {
    "ping_interval": 0.2,
    "ping_timeout": 1.5,
    "shutdown_process_timeout": 0.5,
}


class Subject(ABC):
    """A pool or a server.

    Args:
        setup_fnc: the user's, or none.
        options: the user's.
        path: where jobs leave their evidence.
    """

    is_server = False

    def __init__(
        self, setup_fnc: Callable[..., Any] | None, options: dict[str, Any], path: str
    ) -> None:
        self._ledger = path
        self._options = {
            **DEFAULTS,
            **options,
            "setup_fnc": functools.partial(ledger.warm_and_note, setup_fnc),
        }

    @property
    @abstractmethod
    def target(self) -> ProcessPool | AgentServer:
        """What the user would have."""

    @property
    @abstractmethod
    def workers(self) -> Workers:
        """Its workers."""

    @abstractmethod
    async def start(self) -> None:
        """Start it; return when its idle workers are warm."""

    @abstractmethod
    async def submit(self, deed: Deed, job: str, timeout: float | None) -> JobHandle[Any] | None:
        """Submit a job; None if it was not admitted."""

    @abstractmethod
    async def close(self, *, cancel: bool) -> None:
        """Let the jobs end, or ask them to; return when nothing is left."""

    def on(self, event: str, callback: Callable[[Any], None]) -> None:
        """Have *callback* told of *event*."""
        self.target.on(event, callback)

    def stats(self) -> PoolStats:
        """Return its figures."""
        return self.target.stats()

    def update_options(self, **changes: Any) -> None:
        """Change options while it runs."""
        self.target.update_options(**changes)


class PoolSubject(Subject):
    """A pool of functions."""

    def __init__(
        self, setup_fnc: Callable[..., Any] | None, options: dict[str, Any], path: str
    ) -> None:
        super().__init__(setup_fnc, options, path)
        self._pool = ProcessPool(**self._options)

    @property
    def target(self) -> ProcessPool:
        return self._pool

    async def start(self) -> None:
        await self.target.start()

    @property
    def workers(self) -> Workers:
        workers = self.target._workers
        assert workers is not None
        return workers

    async def submit(self, deed: Deed, job: str, timeout: float | None) -> JobHandle[Any] | None:
        assert deed.function is not None, f"{deed.name} has no function"
        return self.target.schedule(
            ledger.run_and_note,
            (self._ledger, job, deed.function, deed.args),
            timeout=timeout,
            memory_limit_mb=deed.memory_limit_mb,
            job_id=job,
        )

    async def close(self, *, cancel: bool) -> None:
        await self.target.aclose(cancel=cancel)


class ServerSubject(Subject):
    """A server with an entrypoint; jobs are offered to it as by a dispatcher."""

    is_server = True

    def __init__(
        self,
        entrypoint: Callable[..., Any],
        setup_fnc: Callable[..., Any] | None,
        options: dict[str, Any],
        path: str,
    ) -> None:
        super().__init__(setup_fnc, options, path)
        self._options.setdefault("port", None)
        self._options.setdefault("load_threshold", math.inf)
        self._server = AgentServer(**self._options)
        self._server.rtc_session(functools.partial(ledger.enter_and_note, path, entrypoint))
        self._dispatcher = FakeDispatcher(self._server)
        self._stack = contextlib.ExitStack()
        self._life: asyncio.Task[int] | None = None

    @property
    def target(self) -> AgentServer:
        return self._server

    async def start(self) -> None:
        self._stack.enter_context(socket_of_its_own())
        started = asyncio.Event()
        self.target.on("started", lambda event: started.set())
        self._life = asyncio.ensure_future(self.target.run())
        waiting = asyncio.ensure_future(started.wait())
        either: set[asyncio.Future[Any]] = {self._life, waiting}
        await soon(asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED))
        if not started.is_set():
            waiting.cancel()
            await self._life

    @property
    def workers(self) -> Workers:
        assert self.target._serving is not None
        return self.target._serving.workers

    async def submit(self, deed: Deed, job: str, timeout: float | None) -> JobHandle[Any] | None:
        offered = await self._dispatcher.offer(deed.room, metadata=deed.metadata, job_id=job)
        return offered.handle

    async def close(self, *, cancel: bool) -> None:
        try:
            if cancel and self.target.draining:
                await self.target.aclose()
            status = await self.target.drain(_DRAIN_SECONDS if cancel else None)
            assert self._life is not None
            await self._life
            assert status in (0, 124), f"exit status {status}"
        finally:
            self._stack.close()
