"""A server's loop is run to its end, which nothing of the program can put off."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator

import pytest

from supervisor.cli import running
from supervisor.cli.running import run_to_its_end


def test_what_it_returns_comes_back_and_no_loop_stays() -> None:
    async def main() -> int:
        return 7

    assert run_to_its_end(main()) == 7
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


def test_what_it_raises_comes_out() -> None:
    async def main() -> None:
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        run_to_its_end(main())


def test_other_tasks_are_cancelled_and_have_a_moment() -> None:
    told: list[str] = []

    async def other() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            told.append("ended")

    async def main() -> asyncio.Task[None]:
        task = asyncio.ensure_future(other())
        await asyncio.sleep(0)
        return task

    assert run_to_its_end(main()).cancelled()
    assert told == ["ended"]


def test_what_another_task_raises_at_the_end_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def other() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise LookupError("late")

    async def main() -> asyncio.Task[None]:
        task = asyncio.ensure_future(other())
        await asyncio.sleep(0)
        return task

    run_to_its_end(main())
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)


def test_a_task_that_swallows_its_cancellation_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(running, "LAST_WORDS", 0.05)

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    async def main() -> asyncio.Task[None]:
        task = asyncio.ensure_future(stubborn())
        await asyncio.sleep(0)
        return task

    assert not run_to_its_end(main()).done()
    assert any(
        record.levelno == logging.WARNING and "stubborn" in record.getMessage()
        for record in caplog.records
    )


def test_a_thread_that_keeps_the_process_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(running, "LAST_WORDS", 0.05)
    go_on = threading.Event()

    async def main() -> None:
        asyncio.get_running_loop().run_in_executor(None, go_on.wait)

    try:
        run_to_its_end(main())
        assert any("asyncio_0" in record.getMessage() for record in caplog.records)
    finally:
        go_on.set()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    caplog.clear()
    run_to_its_end(asyncio.sleep(0))
    assert caplog.records == []


def test_an_async_generator_that_does_not_end_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running, "LAST_WORDS", 0.05)

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.Event().wait()

    async def main() -> AsyncIterator[int]:
        stream = numbers()
        await stream.__anext__()
        return stream

    assert run_to_its_end(main()) is not None


def test_an_interrupt_cancels_it_and_waits_for_its_end() -> None:
    told: list[str] = []

    async def main() -> None:
        asyncio.get_running_loop().call_soon(interrupt)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            told.append("ended")

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_to_its_end(main())
    assert told == ["ended"]
