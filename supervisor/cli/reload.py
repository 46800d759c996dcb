"""The reloader of ``dev``: watches the files, and lets a new server take over from the old.

It is the process that the user started. It runs no job and none of the new code:
it starts the user's command again as a server (``generation.py``), and once more
for each change. How one server follows another is told in supervisor.succession.

What the user sees of it:

* New code that does not start (a syntax error, a failed import, a setup that
  fails) changes nothing: its error is shown and the old server goes on.
* A change while a new server starts makes that one obsolete; another is started.
* The server that serves decides: when it ends, by a drain or a crash, so does
  the reloader, with its status.
* Ctrl-C, SIGTERM, SIGHUP: the server drains as it would by itself, and so do the
  second and the third. The fourth kills the server, which does not listen then.
* Killed itself, it takes the servers with it: see ``tether.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from supervisor import clock
from supervisor.cli.generation import Generation
from supervisor.cli.watching import Sources, changed_files, forget_bytecode, saved_at
from supervisor.dispatch.sockets import listen, prepare_path
from supervisor.signals import route_signals

logger = logging.getLogger("greenroom.reload")

# Beyond the grace of the jobs: the rest of a server's way out.
LEAVING_SECONDS: Final = 5.0
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Reloader:
    """See the head of this file.

    Args:
        command: the user's command, to be run as a server.
        environment: for it.
        sources: which files count.
        grace: seconds that jobs have when they are asked to stop.
        socket_path: where the control socket shall be; None for the usual place.

    Runs on: an asyncio loop in the main thread, every method.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        sources: Sources,
        *,
        grace: float,
        socket_path: str | None = None,
    ) -> None:
        self._command = command
        self._environment = environment
        self._sources = sources
        self._patience = grace + LEAVING_SECONDS
        self._wanted_path = socket_path
        self._generations: list[Generation] = []
        self._changed: asyncio.Queue[set[Path]] = asyncio.Queue()
        self._signals: list[int] = []

    async def run(self) -> int:
        """Serve until the server ends; return its exit status.

        Raises:
            SupervisorError: the control socket cannot be made.
        """
        self._path = path = prepare_path(self._wanted_path)
        self._stopping: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with contextlib.ExitStack() as stack:
            self._listener = stack.enter_context(listen(path))
            stack.callback(path.unlink, missing_ok=True)
            loop = asyncio.get_running_loop()
            routes: dict[signal.Signals, Callable[[], None]] = {
                each: functools.partial(self._signal, each) for each in SIGNALS
            }
            stack.enter_context(route_signals(loop, routes))
            stack.callback(self._close)
            async with self._watching():
                return await self._serve()

    # ── one server after another ─────────────────────────────────────────────

    async def _serve(self) -> int:
        server = await self._first()
        if not server.warm.done() or self._over(server):
            return await self._end_of(server)
        server.take_over(None)
        logger.info("reloads when a file changes under %s", self._sources.root)
        while True:
            changes = asyncio.ensure_future(self._changed.get())
            changed = await self._until(changes, server)
            if not changed:
                changes.cancel()
                return await self._end_of(server)
            successor = await self._make_successor(changes.result(), server)
            if successor is None:
                continue
            server = await self._replace(server, successor)

    async def _first(self) -> Generation:
        """Return the first server, which is warm or has ended; or the user wants an end."""
        while True:
            server = self._start(first=True)
            changes = asyncio.ensure_future(self._changed.get())
            await self._first_of({server.warm, changes}, server)
            if not changes.done() or self._over(server):
                changes.cancel()
                return server
            files = changes.result()
            logger.info("%s changed: starting again", self._named(files))
            forget_bytecode(files)
            await self._discard(server)

    async def _make_successor(
        self, files: set[Path], server: Generation
    ) -> tuple[Generation, float, float] | None:
        """Return a warm server of the new code, when it was saved, when it was warm; or None."""
        while True:
            saved = saved_at(files, clock.wall())
            logger.info("%s changed: starting the new code", self._named(files))
            forget_bytecode(files)
            successor = self._start(first=False)
            changes = asyncio.ensure_future(self._changed.get())
            waited: set[asyncio.Future[Any]] = {changes, successor.warm, successor.ended}
            await self._first_of(waited, server)
            is_good = successor.warm.done() and not successor.ended.done()
            if is_good and not changes.done() and not self._over(server):
                changes.cancel()
                return successor, saved, clock.wall()
            await self._discard(successor)
            if not changes.done():
                changes.cancel()
                if not self._over(server):
                    logger.error(
                        "the new code does not start (exit status %d, reason above): "
                        "the old server goes on until the next change",
                        successor.ended.result(),
                    )
                return None
            files = changes.result()

    async def _replace(
        self, server: Generation, made: tuple[Generation, float, float]
    ) -> Generation:
        successor, saved, warm = made
        server.step_down()
        news: set[asyncio.Future[Any]] = {server.left, server.ended}
        await asyncio.wait(news, timeout=self._patience, return_when=asyncio.FIRST_COMPLETED)
        if not (server.left.done() or server.ended.done()):
            logger.error("the old server did not step down and is killed")
            server.kill()
            await server.ended
        successor.take_over(server)
        await self._first_of({successor.serving, successor.ended}, None)
        resumed = f"; jobs resumed: {server.jobs}" if server.jobs else ""
        if not successor.ended.done():
            logger.info(
                "reloaded in %.2f s: from save to warm%s; the switch took %.2f s",
                warm - saved,
                resumed,
                clock.wall() - warm,
            )
        await server.end(self._patience)
        self._forget(server)
        return successor

    def _start(self, *, first: bool) -> Generation:
        made = Generation(
            self._command, self._environment, self._listener, str(self._path), first=first
        )
        self._generations.append(made)
        return made

    async def _discard(self, generation: Generation) -> None:
        generation.kill()
        await generation.ended
        self._forget(generation)

    def _forget(self, generation: Generation) -> None:
        generation.close()
        self._generations.remove(generation)

    def _named(self, files: set[Path]) -> str:
        first, *more = sorted(files)
        root = self._sources.root
        name = first.relative_to(root) if first.is_relative_to(root) else first
        return f"{name} and {len(more)} more" if more else str(name)

    # ── waiting ──────────────────────────────────────────────────────────────

    async def _until(self, wanted: asyncio.Future[Any], server: Generation) -> bool:
        """Wait; return True for *wanted*, False if the server ended or the user wants an end."""
        await self._first_of({wanted}, server)
        return wanted.done() and not self._over(server)

    async def _first_of(self, futures: set[asyncio.Future[Any]], server: Generation | None) -> None:
        waited: set[asyncio.Future[Any]] = {*futures, self._stopping}
        if server is not None:
            waited.add(server.ended)
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)

    def _over(self, server: Generation) -> bool:
        return server.ended.done() or self._stopping.done()

    @contextlib.asynccontextmanager
    async def _watching(self) -> AsyncIterator[None]:
        tasks = [
            asyncio.ensure_future(self._watch(recursive=recursive)) for recursive in (True, False)
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, *, recursive: bool) -> None:
        try:
            async for files in changed_files(self._sources, recursive=recursive):
                self._changed.put_nowait(files)
        except (OSError, RuntimeError) as exc:  # too many files, a directory that is gone
            logger.error("cannot watch for changes any more: %s", exc)

    # ── ending ───────────────────────────────────────────────────────────────

    def _signal(self, number: int) -> None:
        self._signals.append(number)
        if len(self._signals) > 3:
            for generation in self._generations:
                generation.kill()
        elif len(self._signals) > 1 and self._generations:
            self._generations[0].signal(number)
        # The first is passed on where the main line stands, once a successor that
        # was being made is out of the way.
        if not self._stopping.done():
            self._stopping.set_result(None)

    async def _end_of(self, server: Generation) -> int:
        """Return the exit status of *server* once it has ended; tell it to, if the user wants it."""
        if not server.ended.done() and self._signals:
            server.signal(self._signals[0])
        status = await server.end()
        self._forget(server)
        return status

    def _close(self) -> None:
        for generation in self._generations:
            generation.kill()
            generation.close()


def own_command(arguments: Sequence[str]) -> list[str]:
    """Return the command that this process was started with, to start it again.

    Args:
        arguments: what stands behind the script, ``sys.argv[1:]``, secrets hidden.
    """
    count = len(sys.orig_argv) - len(sys.argv[1:])
    return [sys.executable, *sys.orig_argv[1:count], *arguments]
