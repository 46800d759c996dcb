"""What a type checker says about submitting: arguments are checked, results keep their type.

mypy reads this file with the others; ``assert_type`` and the unused-ignore check are
the assertions. Nothing of it needs a running pool.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING

from supervisor import JobHandle, ProcessPool, ProcessPoolExecutor

if TYPE_CHECKING:
    from typing_extensions import assert_type


def length(text: str, *, times: int = 1) -> int:
    return len(text) * times


async def length_later(text: str) -> int:
    return len(text)


def pool_keeps_types(pool: ProcessPool) -> None:
    assert_type(pool.submit(length, "a", times=2), JobHandle[int])
    assert_type(pool.submit(length_later, "a"), JobHandle[int])
    assert_type(pool.schedule(length, ("a",), timeout=1.0), JobHandle[int])
    assert_type(pool.schedule(length_later, ("a",)), JobHandle[int])
    assert_type(pool.map(length, ["a"]), AsyncGenerator[JobHandle[int], None])
    pool.submit(length, 5)  # type: ignore[call-overload]
    pool.submit(length, "a", twice=2)  # type: ignore[call-arg, arg-type]


def executor_keeps_types(executor: ProcessPoolExecutor) -> None:
    assert_type(executor.submit(length, "a", times=2), Future[int])
    assert_type(executor.submit(length_later, "a"), Future[int])
    assert_type(executor.map(length, ["a"]), Iterator[int])
    assert_type(executor.map(length_later, ["a"]), Iterator[int])
    executor.submit(length, 5)  # type: ignore[call-overload]


def test_the_functions_above_are_read_not_run() -> None:
    assert callable(pool_keeps_types)
    assert callable(executor_keeps_types)
