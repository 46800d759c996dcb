"""The jobs that every contestant runs. Imports next to nothing: spawned children import it anew."""

from __future__ import annotations

import socket
import sys
import time
from typing import Any


def nothing() -> None:
    """Do nothing: birth, hand-over and end of the process are all there is."""


def stamp() -> float:
    """Return when this began, on CLOCK_MONOTONIC, which all processes share."""
    return time.monotonic()


async def stamp_async() -> float:
    """The same as a coroutine."""
    return time.monotonic()


def hold(until: float) -> float:
    """Return when this began; stay until *until*, a moment on CLOCK_MONOTONIC."""
    began = time.monotonic()
    time.sleep(max(0.0, until - began))
    return began


def heavy_objects() -> int:
    """Return how many objects of ``benchmarks.heavy`` this process was born with."""
    heavy = sys.modules.get("benchmarks.heavy")
    return 0 if heavy is None else len(heavy.TABLE)


def report(address: str, began: float) -> None:
    """Send *began* and what was preloaded to whoever waits at *address*, an abstract socket.

    For entrypoints: what they return goes nowhere, in any product.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(f"{began!r} {heavy_objects()}".encode(), "\0" + address)


async def entrypoint(ctx: Any) -> None:
    """The entrypoint of an agent that needs no connection: stamps, reports, ends.

    The room's name is the address to report to, and until when to stay.
    """
    began = time.monotonic()
    address, _, until = ctx.job.room.name.partition(" ")
    report(address, began)
    if until:
        time.sleep(max(0.0, float(until) - began))
    ctx.shutdown("done")
