"""A time limit that never swallows a cancellation."""

from __future__ import annotations

import asyncio

import pytest

from supervisor.within import within


async def forever(ended: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("ended")


async def test_what_is_done_in_time_is_returned() -> None:
    async def seven() -> int:
        return 7

    assert await within(10.0, seven()) == 7


async def test_what_is_raised_in_time_is_raised() -> None:
    async def fails() -> None:
        raise LookupError("no")

    with pytest.raises(LookupError):
        await within(10.0, fails())


async def test_what_takes_too_long_has_ended_when_the_error_comes() -> None:
    ended: list[str] = []
    with pytest.raises(asyncio.TimeoutError):
        await within(0.01, forever(ended))
    assert ended == ["ended"]


async def test_a_result_that_comes_in_spite_of_the_limit_counts() -> None:
    async def stubborn() -> int:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return 7
        return 0

    assert await within(0.01, stubborn()) == 7


async def test_a_cancellation_ends_what_is_awaited() -> None:
    ended: list[str] = []
    task = asyncio.ensure_future(within(10.0, forever(ended)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert ended == ["ended"]


async def test_a_cancellation_in_the_instant_of_the_end_is_not_swallowed() -> None:
    event = asyncio.Event()
    task = asyncio.ensure_future(within(10.0, event.wait()))
    for _ in range(3):
        await asyncio.sleep(0)
    event.set()
    await asyncio.sleep(0)  # the event has woken what waits for it, and nobody else yet
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
