"""Reads what the conductor asks for, asks the driver, answers. One line of JSON each way."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import resource
import socket
import time
import traceback
from typing import Any

from benchmarks.drivers.base import Driver, Workload
from benchmarks.drivers.registry import REGISTRY

# Hand-overs before the first that counts: what a pool imports or caches at its first use is paid then.
WARM_UP = 4


class Session:
    """The commands, one method each."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._expect_objects = 0

    async def open(self, **workload: Any) -> None:
        """Start the pool and check that what was to be preloaded is there."""
        wanted = Workload(**workload)
        await self._driver.open(wanted)
        if wanted.heavy_mb:
            found = await self._driver.heavy_objects()
            if found < wanted.heavy_mb * 1024:
                raise RuntimeError(f"a job found {found} preloaded objects")

    async def warm_up(self, kind: str, pause: float) -> None:
        """Do what the first jobs pay for."""
        await self.handover(kind, WARM_UP, pause)

    async def handover(self, kind: str, count: int, pause: float) -> list[float]:
        """Return *count* hand-overs, each after a pause."""
        taken = []
        for _ in range(count):
            await asyncio.sleep(pause)
            await self._driver.settle()
            taken.append(await self._driver.handover(kind))
        return taken

    async def one_by_one(self, count: int) -> list[float]:
        """Return *count* round trips that follow each other without a pause."""
        return [await self._driver.round_trip() for _ in range(count)]

    async def all_at_once(self, count: int) -> float:
        """Return seconds for *count* empty jobs."""
        return await self._driver.all_at_once(count)

    async def burst(self, count: int, hold: float, pause: float) -> float:
        """Return seconds until the last of *count* jobs has begun, the pool being full before."""
        await asyncio.sleep(pause)
        await self._driver.settle()
        return await self._driver.burst(count, hold)

    async def cpu(self) -> float:
        """Return the seconds of CPU that this process has used, its children's not counted."""
        return time.process_time()

    async def idle(self, seconds: float) -> float:
        """Return the seconds of CPU that this process uses while nothing happens."""
        before = time.process_time()
        await asyncio.sleep(seconds)
        return time.process_time() - before

    async def call(self, method: str, **arguments: Any) -> Any:
        """Ask the driver for something that only it can do."""
        return await getattr(self._driver, method)(**arguments)

    async def close(self) -> None:
        """End the pool."""
        await self._driver.close()


async def serve(name: str, conductor: socket.socket) -> None:
    """Answer the conductor until it hangs up."""
    loop = asyncio.get_running_loop()
    entry = REGISTRY[name]

    async def answer(**said: Any) -> None:
        await loop.sock_sendall(conductor, json.dumps(said).encode() + b"\n")

    try:
        module = importlib.import_module(f"benchmarks.drivers.{entry.module}")
        driver: Driver = getattr(module, entry.driver)()
    except ImportError as exc:
        await answer(missing=str(exc))
        return
    session = Session(driver)
    await answer(value=None)
    received = b""
    while chunk := await loop.sock_recv(conductor, 65536):
        received += chunk
        while b"\n" in received:
            line, _, received = received.partition(b"\n")
            command = json.loads(line)
            try:
                value = await getattr(session, command.pop("do"))(**command)
            except ImportError as exc:
                await answer(missing=str(exc))
            except NotImplementedError:
                await answer(cannot=f"{name} has no such thing")
            except Exception:  # noqa: BLE001 - said to the conductor, which stops us
                await answer(error=traceback.format_exc())
            else:
                await answer(value=value)


def main(name: str, fd: int) -> int:
    """Drive *name* for the conductor at the other end of the socket *fd*."""
    os.set_inheritable(fd, False)
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with socket.socket(fileno=fd) as conductor:
        conductor.setblocking(False)
        asyncio.run(serve(name, conductor))
    # What a peer leaves behind, threads that wait for ever included, must not hold us up.
    os._exit(0)
