"""The load: clients of the control socket, each with one job at a time.

They offer as fast as they are answered. A refusal is answered with a short pause,
a connection that breaks with waiting until there is a server again.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.chaos.ledger import Entry, Ledger, Life
from tests.chaos.plan import deed_of

# Two CPUs are busy with half of that; the rest keeps the server's queue from running dry.
CLIENTS: Final = 8

# Every so many jobs the answer and the outcome are asked for one after the other;
# otherwise one request brings both.
TWO_STEPS: Final = 4

# A server that does not answer a request within this is stuck: a job takes up to
# four seconds, its worker's warm-up three.
PATIENCE: Final = 60.0


class Clients:
    """Offer jobs until told to stop.

    Runs on: the harness's loop.
    """

    def __init__(self, ledger: Ledger, socket: Path, seed: int) -> None:
        self._ledger = ledger
        self._socket = socket
        self._seed = seed
        self._numbers = itertools.count()
        self._life: asyncio.Future[Life] = asyncio.get_running_loop().create_future()
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self.last_told_at = time.monotonic()

    def start(self) -> None:
        """Begin; nothing is offered before there is a server."""
        self._tasks = [asyncio.ensure_future(self._client()) for _ in range(CLIENTS)]

    def there_is(self, life: Life) -> None:
        """Offer to *life* from now on."""
        self.last_told_at = time.monotonic()
        self._life.set_result(life)

    def there_is_none(self) -> None:
        """Offer nothing to anybody."""
        if self._life.done():
            self._life = asyncio.get_running_loop().create_future()

    async def stop(self) -> None:
        """Return when each has got the answers that it waits for."""
        self._stopping = True
        if not self._life.done():
            self._life.cancel()
        # A client raises only by a mistake of its own: that must end the run.
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    @property
    def failed(self) -> BaseException | None:
        """What a client ended with that should have gone on."""
        ended = [task for task in self._tasks if task.done() and not task.cancelled()]
        return next((error for task in ended if (error := task.exception())), None)

    async def _client(self) -> None:
        while not self._stopping:
            life = await asyncio.shield(self._life)
            connector = aiohttp.UnixConnector(str(self._socket), limit=1)
            timeout = aiohttp.ClientTimeout(total=PATIENCE)
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
                while not self._stopping and self._is_now(life):
                    if not await self._one(session, life):
                        break
            # Whoever is to blame, the harness finds out; until then there is no hurry.
            if not self._stopping and self._is_now(life):
                await asyncio.sleep(0.05)

    def _is_now(self, life: Life) -> bool:
        return self._life.done() and not self._life.cancelled() and self._life.result() is life

    async def _one(self, session: aiohttp.ClientSession, life: Life) -> bool:
        """Offer one job and learn what became of it; False if the connection broke."""
        number = next(self._numbers)
        job, deed = f"s-{number}", deed_of(self._seed, number)
        entry = self._ledger.jobs[job] = Entry(life.name, deed, time.monotonic())
        at_once = number % TWO_STEPS != 0
        try:
            order = {"room": deed, "job_id": job, "wait": at_once}
            status, told = await self._ask(session, "POST", "/jobs", order)
            if status != 202:
                entry.answer = str(told.get("reason") or status)
                await asyncio.sleep(random.uniform(0.0, 0.02))
                return True
            entry.answer = "accepted"
            job_told = told["jobs"][0]
            if not at_once:
                _, job_told = await self._ask(session, "GET", f"/jobs/{job}?wait={PATIENCE}")
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError):
            return False
        if job_told.get("outcome"):
            entry.status = job_told["status"]
            self.last_told_at = entry.told_at = time.monotonic()
        return True

    async def _ask(
        self, session: aiohttp.ClientSession, method: str, path: str, body: Any = None
    ) -> tuple[int, dict[str, Any]]:
        data = None if body is None else json.dumps(body)
        async with session.request(method, f"http://server{path}", data=data) as response:
            return response.status, json.loads(await response.read())
