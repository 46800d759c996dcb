"""Jobs for a stream of items: only so many ahead of who consumes them.

The number in flight counts from acceptance until the consumer takes the handle, so
a consumer that is slow slows down the source, and neither items nor results pile
up. Handles come in the order of their items, each ended when it comes. An error of
the source, or of submitting, has its place in that order: it is raised after the
handles of the items before it, however many of them are in flight.

A consumer that leaves early, by an error or by being cancelled, leaves no job
behind: what is in flight is cancelled when the generator is closed. ``async for``
does not close it at a ``break``; ``contextlib.aclosing`` does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
)
from typing import Any, TypeVar

from supervisor.handle import JobHandle

A = TypeVar("A")
T = TypeVar("T")


def stream(
    submit: Callable[[A], JobHandle[T]],
    items: Iterable[A] | AsyncIterable[A],
    max_in_flight: int,
) -> AsyncGenerator[JobHandle[T], None]:
    """Return the handles of the items' jobs, in order, each ended.

    Args:
        submit: makes an item a job.
        items: read only as far as jobs may be in flight.
        max_in_flight: jobs that were accepted and whose handles were not taken yet.

    Runs on: the pool's loop.
    """
    window: deque[JobHandle[T]] = deque()
    if isinstance(items, AsyncIterable):
        return _from_async(submit, items, max_in_flight, window)
    return _from_plain(submit, items, max_in_flight, window)


async def _from_plain(
    submit: Callable[[A], JobHandle[T]],
    items: Iterable[A],
    max_in_flight: int,
    window: deque[JobHandle[T]],
) -> AsyncGenerator[JobHandle[T], None]:
    source: Iterator[A] | None = iter(items)
    failure: BaseException | None = None
    try:
        while True:
            while source is not None and len(window) < max_in_flight:
                try:
                    window.append(submit(next(source)))
                except StopIteration:
                    source = None
                except KeyboardInterrupt:
                    raise
                except BaseException as exc:  # noqa: BLE001 - raised when its turn has come
                    source, failure = None, exc
            if not window:
                break
            await window[0].wait()
            yield window.popleft()
        if failure is not None:
            raise failure
    finally:
        _cancel(window)


async def _from_async(
    submit: Callable[[A], JobHandle[T]],
    items: AsyncIterable[A],
    max_in_flight: int,
    window: deque[JobHandle[T]],
) -> AsyncGenerator[JobHandle[T], None]:
    # The next item and the end of the first job are waited for side by side: a
    # source that pauses must not hold back results that are there.
    source: AsyncIterator[A] | None = items.__aiter__()
    failure: BaseException | None = None
    coming: asyncio.Task[Callable[[], A]] | None = None
    ending: asyncio.Task[Any] | None = None
    try:
        while True:
            if coming is None and source is not None and len(window) < max_in_flight:
                coming = asyncio.ensure_future(_next(source))
            if ending is None and window:
                ending = asyncio.ensure_future(window[0].wait())
            awaited = {task for task in (coming, ending) if task is not None}
            if not awaited:
                break
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            if coming is not None and coming.done():
                try:
                    window.append(submit(coming.result()()))
                except StopAsyncIteration:
                    source = None
                except BaseException as exc:  # noqa: BLE001 - raised when its turn has come
                    source, failure = None, exc
                coming = None
            if ending is not None and ending.done():
                ending = None
                yield window.popleft()
        if failure is not None:
            raise failure
    finally:
        for task in (coming, ending):
            if task is not None:
                task.cancel()
        _cancel(window)


async def _next(source: AsyncIterator[A]) -> Callable[[], A]:
    """Return what returns the next item, or raises what came instead.

    Not raised in this task: asyncio hands a SystemExit on to the loop, which would end the
    program behind the consumer's back, and takes a CancelledError for its own.
    """
    try:
        item = await source.__anext__()
    except BaseException as exc:  # noqa: BLE001 - see above
        failure = exc

        def fail() -> A:
            raise failure

        return fail
    return lambda: item


def _cancel(window: deque[JobHandle[T]]) -> None:
    for handle in window:
        handle.cancel("nobody takes it any more")
