"""What an executor has its workers call besides the user's function itself.

Light on imports and known to the fork server: a worker's first job must not pay
for them.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

# Where the standard library's executor logs in its workers. Programs, and its own
# tests, put a handler there to hear why an initializer failed.
_standard_logger = logging.getLogger("concurrent.futures")


def is_coroutine_function(function: object) -> bool:
    """Return whether calling *function* gives a coroutine and runs nothing of it yet."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object with an async __call__
    )


def run_chunk(function: Callable[..., Any], chunk: Iterable[tuple[Any, ...]]) -> Any:
    """Return what *function* returns for each tuple of arguments, one call after the other.

    For a coroutine function: a coroutine, which the worker awaits like any other.
    """
    if inspect.iscoroutinefunction(function):
        return _run_chunk_async(function, chunk)
    return [function(*arguments) for arguments in chunk]


async def _run_chunk_async(
    function: Callable[..., Awaitable[Any]], chunk: Iterable[tuple[Any, ...]]
) -> list[Any]:
    return [await function(*arguments) for arguments in chunk]


def run_initializer(initializer: Callable[..., object], initargs: tuple[Any, ...]) -> None:
    """Call the initializer; tell the standard library's logger if it raises.

    Only where somebody has put a handler on that logger: everybody else reads the
    traceback in the exception of the futures.
    """
    try:
        initializer(*initargs)
    except BaseException:
        if _standard_logger.handlers:
            _standard_logger.critical("the initializer raised", exc_info=True)
        raise
