"""What ``on_request`` says, and that whatever it does, there is an answer in time."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from enum import Enum
from typing import Any

import pytest

from supervisor.errors import OptionError
from supervisor.job import AcceptArguments, JobInfo, Room
from supervisor.request import JobRequest, Rejected, RequestHook
from tests.integration.conftest import soon

JOB = JobInfo("J-1", room=Room("studio"))

# Longer than any test; and so short that it is over at once.
LONG = 600.0
SHORT = 0.01


class Stop(BaseException):
    """No ``Exception``."""


class Voice(str, Enum):
    """Text that is more than text."""

    ALTO = "alto"


class Mute(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise LookupError


async def awaits_what_is_cancelled(request: JobRequest) -> None:
    lookup = asyncio.get_running_loop().create_future()
    lookup.cancel()
    await lookup


def raises(error: BaseException) -> Callable[[JobRequest], None]:
    def on_request(request: JobRequest) -> None:
        raise error

    return on_request


def raises_later(error: BaseException) -> Callable[[JobRequest], Any]:
    async def on_request(request: JobRequest) -> None:
        raise error

    return on_request


@pytest.mark.parametrize(
    ("on_request", "complaint"),
    [
        (awaits_what_is_cancelled, "on_request raised CancelledError"),
        (raises(asyncio.CancelledError()), "on_request raised CancelledError"),
        (raises(StopIteration()), "on_request raised RuntimeError: StopIteration()"),
        (raises(Stop("now")), "on_request raised Stop: now"),
        (raises_later(Stop("now")), "on_request raised Stop: now"),
        (raises(Mute()), "on_request raised Mute: <its __str__ raised LookupError>"),
        (raises(SystemExit(3)), "on_request raised RuntimeError: it called sys.exit(3)"),
        (
            raises(KeyboardInterrupt()),
            "on_request raised RuntimeError: it raised KeyboardInterrupt",
        ),
        (
            raises_later(KeyboardInterrupt()),
            "on_request raised RuntimeError: it raised KeyboardInterrupt",
        ),
    ],
)
async def test_whatever_it_raises_is_a_rejection_and_is_logged(
    on_request: Callable[[JobRequest], Any], complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert await soon(RequestHook(on_request).ask(JOB, LONG)) == Rejected(detail=complaint)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert "job J-1, which is rejected" in record.getMessage()
    assert vars(record)["greenroom"] == {"job_id": "J-1", "room": "studio"}


async def test_one_that_does_not_end_when_it_is_cancelled_delays_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked_to_end = asyncio.Event()
    may_end = asyncio.Event()

    async def on_request(request: JobRequest) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            asked_to_end.set()
            await may_end.wait()
            raise ValueError("too late") from None

    answer = await soon(RequestHook(on_request).ask(JOB, SHORT))
    assert answer == Rejected(detail="on_request did not answer within 0.01 s")
    await soon(asked_to_end.wait())
    may_end.set()
    while not any("when nobody waited" in each.message for each in caplog.records):
        await asyncio.sleep(0)
    assert caplog.records[-1].exc_info is not None


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_an_answer_counts_at_once_and_the_function_goes_on(kind: str) -> None:
    go_on = threading.Event()
    ended = threading.Event()

    async def later(request: JobRequest) -> None:
        await request.accept(identity="me")
        await asyncio.to_thread(go_on.wait)
        ended.set()

    def plainly(request: JobRequest) -> None:
        request.accept(identity="me")
        go_on.wait()
        ended.set()

    hook = RequestHook(later if kind == "async" else plainly)
    answer = await soon(hook.ask(JOB, LONG))
    assert answer == AcceptArguments(identity="me", attributes={})
    go_on.set()
    await soon(asyncio.to_thread(ended.wait))
    while hook._going_on:
        await asyncio.sleep(0)


async def test_what_goes_on_ends_with_the_server() -> None:
    cancelled = asyncio.Event()

    async def on_request(request: JobRequest) -> None:
        await request.reject(terminate=True)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    hook = RequestHook(on_request)
    assert await soon(hook.ask(JOB, LONG)) == Rejected(terminate=True)
    assert not cancelled.is_set()
    hook.close()
    await soon(cancelled.wait())


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_what_is_raised_after_the_answer_is_logged_and_changes_nothing(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def later(request: JobRequest) -> None:
        await request.accept()
        await request.accept()

    def plainly(request: JobRequest) -> None:
        request.accept()
        request.reject()

    hook = RequestHook(later if kind == "async" else plainly)
    answer = await soon(hook.ask(JOB, LONG))
    assert isinstance(answer, AcceptArguments)
    while not caplog.records:
        await asyncio.sleep(0)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert "was answered before" in str(record.exc_info[1])
    assert vars(record)["greenroom"] == {"job_id": "J-1", "room": "studio"}


async def test_who_asks_can_be_cancelled_and_so_is_the_function() -> None:
    asked = asyncio.Event()
    cancelled = asyncio.Event()

    async def on_request(request: JobRequest) -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    asking = asyncio.ensure_future(RequestHook(on_request).ask(JOB, LONG))
    await soon(asked.wait())
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(asking)
    await soon(cancelled.wait())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"name": 7}, "name=7: expected a string"),
        ({"identity": b"me"}, "identity=b'me': expected a string"),
        ({"metadata": "\ud800"}, r"metadata='\\ud800': expected a string without lone surrogates"),
        ({"attributes": 5}, "attributes=5: expected a dict of strings"),
        ({"attributes": {1: "a"}}, "a name in attributes=1: expected a string"),
        ({"attributes": {"a": 1}}, r"attributes\['a'\]=1: expected a string"),
        ({"attributes": {"a": "\ud800"}}, "lone surrogates"),
    ],
)
def test_what_accept_is_given_must_be_text(arguments: dict[str, Any], complaint: str) -> None:
    request = JobRequest(JOB)
    with pytest.raises(OptionError, match=complaint):
        request.accept(**arguments)
    request.reject()  # it was not answered


async def test_what_accept_is_given_travels_as_plain_text() -> None:
    def on_request(request: JobRequest) -> None:
        request.accept(name=Voice.ALTO, attributes={Voice.ALTO: Voice.ALTO})

    answer = await soon(RequestHook(on_request).ask(JOB, LONG))
    assert isinstance(answer, AcceptArguments)
    (pair,) = answer.attributes.items()
    assert [type(each) for each in (answer.name, *pair)] == [str, str, str]
    assert (answer.name, answer.identity, pair) == ("alto", "agent-J-1", ("alto", "alto"))
