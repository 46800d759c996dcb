"""Work that blocks, awaited: each in a thread of its own that ends with it.

Why not the loop's executor: its threads stay, and belong to the host program.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def attempt(work: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    """Return what *work* returns, or what it raises, as a future can carry it."""
    try:
        return work(), None
    except StopIteration as exc:  # the one exception that a future refuses
        return None, RuntimeError(repr(exc))
    except BaseException as exc:  # noqa: BLE001 - handed to whoever awaits
        return None, exc


async def in_thread(work: Callable[[], T], name: str) -> T:
    """Run *work* in a thread called *name*, and return its result or raise what it raises.

    Cancelled: the work goes on to its end; its result is dropped.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(value)  # type: ignore[arg-type]  # T where there is no error

    def run() -> None:
        value, error = attempt(work)
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(settle, value, error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        return await asyncio.shield(done)
    finally:
        if done.done():
            thread.join()
