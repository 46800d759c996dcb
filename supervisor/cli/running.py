"""Running a coroutine to its end, with an end that the program's other tasks cannot put off.

``asyncio.run`` cancels what is left and waits for it for ever. A task of the program
that swallows its cancellation (a loop around ``except BaseException``) would keep the
process of a server that has said that it is gone.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

logger = logging.getLogger("greenroom.cli")

# For tasks that were cancelled to come to their end. Seconds.
LAST_WORDS: Final = 1.0


def run_to_its_end(main: Coroutine[Any, Any, T]) -> T:
    """Return what *main* returns, or raise what it raises; what else runs is cancelled then.

    Runs on: the main thread, without a running event loop.
    """
    loop = asyncio.new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        task = loop.create_task(main)
        try:
            return loop.run_until_complete(task)
        finally:
            if not task.done():  # a KeyboardInterrupt has ended the loop under it
                task.cancel()
                loop.run_until_complete(asyncio.wait({task}))
            loop.run_until_complete(_cancel_others())
            for closing in (loop.shutdown_asyncgens(), loop.shutdown_default_executor()):
                ended = asyncio.wait({loop.create_task(closing)}, timeout=LAST_WORDS)
                loop.run_until_complete(ended)
            _name_threads()
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _name_threads() -> None:
    """Say what keeps the process: the interpreter waits for threads that are no daemons."""
    names = [
        thread.name
        for thread in threading.enumerate()
        if thread is not threading.main_thread() and not thread.daemon
    ]
    if names:
        logger.warning("the process ends when these threads have ended: %s", ", ".join(names))


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if not others:
        return
    for task in others:
        task.cancel()
    ended, stubborn = await asyncio.wait(others, timeout=LAST_WORDS)
    for task in ended:
        if not task.cancelled() and (raised := task.exception()) is not None:
            logger.error("a task raised when it was cancelled at the end", exc_info=raised)
    for task in stubborn:
        logger.warning("left behind, as it does not end when it is cancelled: %r", task)
