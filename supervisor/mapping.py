"""Mapping a function over iterables: in order, in chunks, and only so far ahead."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from supervisor import clock
from supervisor.child.calls import run_chunk
from supervisor.futures import JobFuture

T = TypeVar("T")


def ordered_map(
    submit: Callable[..., Future[Any]],
    fn: Callable[..., T],
    /,
    *iterables: Iterable[Any],
    timeout: float | None = None,
    chunksize: int = 1,
    buffersize: int | None = None,
) -> Iterator[T]:
    """Return an iterator over ``fn(*items)``, in the order of the items.

    The jobs are submitted now; the results are waited for when they are asked for.
    When a call raises, its exception is raised in its place and the iterator ends.
    An iterator that ends early cancels the jobs that have not begun.

    Args:
        submit: the executor's method.
        fn: what to call in the workers.
        iterables: where its arguments come from; the shortest ends all.
        timeout: seconds from now, for the whole; None for as long as it takes.
        chunksize: calls that make up one job. With single-use workers these calls
            share a process.
        buffersize: jobs submitted ahead of the one that is asked for. None: all of
            them at once. With it, *iterables* may be endless.

    Raises:
        ValueError: *chunksize* or *buffersize* is below 1.
        TypeError: *buffersize* is not a whole number.
        TimeoutError: by the iterator, when the time is over.
    """
    if chunksize < 1:
        raise ValueError(f"chunksize must be at least 1, got {chunksize}")
    if buffersize is not None:
        if not isinstance(buffersize, int) or isinstance(buffersize, bool):
            raise TypeError(f"buffersize must be a whole number or None, got {buffersize!r}")
        if buffersize < 1:
            raise ValueError(f"buffersize must be at least 1, got {buffersize}")
    deadline = None if timeout is None else clock.monotonic() + timeout
    calls = zip(*iterables, strict=False)
    jobs: Iterator[Future[Any]]
    if chunksize == 1:
        jobs = (submit(fn, *arguments) for arguments in calls)
    else:
        jobs = (submit(run_chunk, fn, chunk) for chunk in _chunks(calls, chunksize))
    ahead = deque(jobs if buffersize is None else itertools.islice(jobs, buffersize))
    values = _results(ahead, jobs, deadline)
    return values if chunksize == 1 else _one_by_one(values)


def _chunks(calls: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while chunk := list(itertools.islice(calls, size)):
        yield chunk


def _results(
    ahead: deque[Future[T]], jobs: Iterator[Future[T]], deadline: float | None
) -> Iterator[T]:
    try:
        while ahead:
            # In a list of one: a name of ours would still hold the value while its
            # consumer works on it.
            value = [_next(ahead, deadline)]
            # The next job is on its way before the consumer has this value; without
            # a buffer size there is none left.
            ahead.extend(itertools.islice(jobs, 1))
            yield value.pop()
    finally:
        for future in ahead:
            # Those that run may be half through something; they are let be, as the
            # standard library's would be.
            assert isinstance(future, JobFuture)
            future.cancel_waiting()


def _next(ahead: deque[Future[T]], deadline: float | None) -> T:
    if deadline is None:
        return ahead.popleft().result()
    # Left in its place until it is there: one that times out is cancelled above.
    value = ahead[0].result(deadline - clock.monotonic())
    ahead.popleft()
    return value


def _one_by_one(chunks: Iterator[list[T]]) -> Iterator[T]:
    for chunk in chunks:
        chunk.reverse()
        while chunk:
            yield chunk.pop()
