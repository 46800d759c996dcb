"""The program that chaos is done to: a server and, beside it, a pool.

Run: python -m tests.chaos.subject DIRECTORY LIFE SEED

Jobs reach the server over its control socket, as they do in earnest. The pool's
jobs are submitted here, by a few callers, and recorded in the journal before and
after. Orders for the saboteur come on standard input; SIGTERM drains.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import itertools
import logging
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from supervisor import (
    AgentServer,
    JobContext,
    JobProcess,
    PoolClosed,
    ProcessPool,
    ResourceLimits,
    SetupFailed,
)
from supervisor.cli.logging import configure_logging
from tests.chaos import deeds, weather
from tests.chaos.journal import Journal
from tests.chaos.plan import deed_of
from tests.chaos.saboteur import Saboteur

logger = logging.getLogger("chaos")

# Enough that two CPUs are never idle; more would only queue.
POOL_CALLERS: Final = 2

# Deeds that end a pool's worker by way of its options, which are the server's:
# the pool's jobs have no memory limit, and would wait for their timeout.
SERVER_ONLY: Final = ("hogs memory", "is a fork bomb", "swallows its cancellation")

OPTIONS: Final[dict[str, Any]] = {
    "initialize_process_timeout": 3.0,
    "shutdown_process_timeout": 1.0,
    "job_timeout": 3.0,
    "job_memory_warn_mb": 0.0,
    "ping_interval": 0.5,
    "ping_timeout": 4.0,
    "preload_modules": ["tests.chaos.deeds", "tests.chaos.weather"],
}


def set_up(proc: JobProcess) -> None:
    weather.set_up(proc.user_arguments["weather"])


def entrypoint(ctx: JobContext) -> None:
    """Do what the room is called."""
    deeds.run(ctx.proc.user_arguments["journal"], ctx.job.id, ctx.room.name)


class Subject:
    """One life of the program."""

    def __init__(self, directory: Path, life: str, seed: int) -> None:
        self._journal_path = os.fspath(directory / "journal")
        self._journal = Journal(self._journal_path, held=True)
        self._life = life
        self._seed = seed
        self._numbers = itertools.count()
        self._told = {
            "journal": self._journal_path,
            "weather": os.fspath(directory / "weather"),
        }
        self._leaving = asyncio.Event()
        self._saboteur = Saboteur(self._journal)

        # Empty: none could be made.
        self._options = {**OPTIONS, "cgroup": os.environ["CHAOS_CGROUP"] or None}

    async def run(self) -> int:
        """Serve until drained; return the exit status."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, self._saboteur.tell_all)
        server = AgentServer(
            num_idle_processes=4,
            setup_fnc=set_up,
            load_fnc=weather.Load(self._told["weather"]),
            load_threshold=0.7,
            job_memory_limit_mb=200.0,
            job_limits=ResourceLimits(processes=_process_limit(), core_dumps=False),
            user_arguments=self._told,
            drain_timeout=30.0,
            port=None,
            **self._options,
        )
        server.rtc_session(entrypoint, agent_name="chaos")
        server.on("started", lambda _: self._started(server))
        server.on("draining", lambda _: self._leaving.set())
        beside = asyncio.ensure_future(self._use_a_pool())
        serving = asyncio.ensure_future(server.run())
        # The pool's side ends early only by an error that it should not have met:
        # raised here, it ends the life, and the harness tells.
        await asyncio.wait({beside, serving}, return_when=asyncio.FIRST_COMPLETED)
        if beside.done() and not self._leaving.is_set():
            beside.result()
        status: int = await serving
        self._leaving.set()
        await beside
        return status

    def _started(self, server: AgentServer) -> None:
        assert server._serving is not None
        self._saboteur.watch(server._serving.workers)
        self._saboteur.listen(sys.stdin.fileno())

    # ── the pool beside it ───────────────────────────────────────────────────

    async def _use_a_pool(self) -> None:
        """Use one pool until it breaks, then the next: a pool that cannot warm up is broken."""
        while not self._leaving.is_set():
            async with self._pool() as pool:
                callers = (self._call(pool) for _ in range(POOL_CALLERS))
                await asyncio.gather(*callers)

    @contextlib.asynccontextmanager
    async def _pool(self) -> AsyncIterator[ProcessPool | None]:
        pool = ProcessPool(
            num_idle_processes=2,
            max_jobs_per_process=3,
            setup_fnc=set_up,
            user_arguments=self._told,
            capture_output=True,
            **self._options,
        )
        try:
            await pool.start()
        except (SetupFailed, OSError) as exc:  # OSError: no descriptors
            logger.warning("the pool beside the server does not start: %s", exc)
            yield None
            return
        assert pool._run is not None
        self._saboteur.watch(pool._run.workers)
        try:
            yield pool
        finally:
            await pool.aclose()

    async def _call(self, pool: ProcessPool | None) -> None:
        while pool is not None and not self._leaving.is_set():
            number = next(self._numbers)
            job = f"p-{self._life}-{number}"
            deed = deed_of(self._seed, number)
            if deed in SERVER_ONLY:
                continue
            self._journal.now("o", job)
            try:
                handle = pool.schedule(deeds.run, (self._journal_path, job, deed), job_id=job)
            except (PoolClosed, SetupFailed):
                return
            self._journal.now("a", job)
            outcome = await handle.wait()
            self._journal.now("f", job, outcome.status.value)


def _process_limit() -> int:
    """Return a limit that holds a fork bomb and nobody else.

    Root's bombs become another user, which has no other processes; anybody else's
    count together with all that the user runs.
    """
    if os.geteuid() == 0:
        return 64
    import psutil

    mine = [each for each in psutil.process_iter(["uids"]) if each.info["uids"].real == os.getuid()]
    threads: int = sum(each.num_threads() for each in mine)
    return 300 + threads


def main(directory: str, life: str, seed: str) -> int:
    """Run one life."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    configure_logging("INFO", readable=False)
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # when the harness finds it stuck

    async def live() -> int:
        return await Subject(Path(directory), life, int(seed)).run()

    return asyncio.run(live())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
