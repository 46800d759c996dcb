"""A pool or a server in the test's own process, for as long as a block lasts."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from supervisor.job import ServerType
from supervisor.pool import ProcessPool
from supervisor.server import AgentServer
from supervisor.testing.leaks import PATIENCE

T = TypeVar("T")


async def soon(awaitable: Awaitable[T], seconds: float = PATIENCE) -> T:
    """Await with a limit in seconds that only matters when the test fails.

    Raises:
        asyncio.TimeoutError: it did.
    """
    return await asyncio.wait_for(awaitable, seconds)


@contextlib.asynccontextmanager
async def running_pool(**options: Any) -> AsyncIterator[ProcessPool]:
    """Run a pool for the block; what still runs at its end is cancelled.

    Args:
        options: as for ProcessPool; one idle worker unless said otherwise.
    """
    options.setdefault("num_idle_processes", 1)
    pool = ProcessPool(**options)
    await soon(pool.start())
    try:
        yield pool
    finally:
        await soon(pool.aclose(cancel=True))


@contextlib.asynccontextmanager
async def running_server(
    server: AgentServer | Callable[..., Any],
    *,
    agent_name: str = "",
    type: ServerType = ServerType.ROOM,
    on_request: Callable[..., Any] | None = None,
    on_session_end: Callable[..., Any] | None = None,
    on: Mapping[str, Callable[..., Any]] | None = None,
    **options: Any,
) -> AsyncIterator[AgentServer]:
    """Run a server for the block; jobs that still run at its end are stopped.

    Args:
        server: yours, as it is, or an entrypoint for a server that is made here: then
            the other arguments are those of ``rtc_session`` and of ``AgentServer``, and
            unless said otherwise it has one idle worker, no port, and takes any load.
        on: events and who is called with them.
    """
    if not isinstance(server, AgentServer):
        options = {"port": None, "num_idle_processes": 1, "load_threshold": math.inf, **options}
        entrypoint, server = server, AgentServer(**options)
        server.rtc_session(
            entrypoint,
            agent_name=agent_name,
            type=type,
            on_request=on_request,
            on_session_end=on_session_end,
        )
    started = asyncio.Event()
    server.on("started", lambda event: started.set())
    for name, callback in (on or {}).items():
        server.on(name, callback)
    with socket_of_its_own():
        running = asyncio.ensure_future(server.run())
        waiting = asyncio.ensure_future(started.wait())
        await soon(asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED))
        if not started.is_set():
            waiting.cancel()
            await running
        try:
            yield server
        finally:
            await soon(server.aclose())
            await soon(running)


@contextlib.contextmanager
def socket_of_its_own() -> Iterator[None]:
    """Have a server that starts in the block listen where no other does.

    ``GREENROOM_SOCKET`` is left alone where it is set.
    """
    if os.environ.get("GREENROOM_SOCKET"):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="greenroom-test-") as directory:
        os.environ["GREENROOM_SOCKET"] = os.fspath(Path(directory) / "s")
        try:
            yield
        finally:
            del os.environ["GREENROOM_SOCKET"]
