"""Who insists on a signal, and when that ends the process."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from typing import NoReturn

import pytest

from supervisor import clock, unheard as unheard_module
from supervisor.unheard import Unheard


class Ended(BaseException):
    """In the place of the process's end."""


class Clock:
    def __init__(self) -> None:
        self.now = 100.0


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    time = Clock()

    def end(status: int) -> NoReturn:
        raise Ended(status)

    monkeypatch.setattr(clock, "monotonic", lambda: time.now)
    monkeypatch.setattr(os, "_exit", end)
    return time


@pytest.fixture
def said(time: Clock, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []

    def write(fd: int, data: bytes) -> int:
        said.append(data.decode())
        return len(data)

    monkeypatch.setattr(os, "write", write)
    return said


def test_after_a_second_the_place_is_told_and_the_next_signal_ends_the_process(
    time: Clock, said: list[str]
) -> None:
    unheard = Unheard()
    unheard.came(signal.SIGTERM, sys._getframe())
    time.now += 3.0
    unheard.came(signal.SIGTERM, sys._getframe())
    (text,) = said
    assert text.startswith(
        "greenroom: SIGTERM again, and the event loop has been blocked for 3.0 s"
    )
    assert "test_after_a_second_the_place_is_told" in text
    with pytest.raises(Ended, match=str(128 + signal.SIGINT)):
        unheard.came(signal.SIGINT, None)
    assert len(said) == 1


def test_a_signal_that_comes_while_the_place_is_told_waits_for_that(
    time: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    unheard = Unheard()
    told: list[bytes] = []

    def write(fd: int, data: bytes) -> int:
        unheard.came(signal.SIGTERM, None)
        told.append(data)
        return len(data)

    monkeypatch.setattr(os, "write", write)
    unheard.came(signal.SIGTERM, None)
    time.now += 2.0
    unheard.came(signal.SIGTERM, None)
    assert len(told) == 1
    with pytest.raises(Ended):
        unheard.came(signal.SIGTERM, None)


def test_of_a_deep_stack_the_end_is_told(time: Clock, said: list[str]) -> None:
    unheard = Unheard()

    def deeper(levels: int) -> None:
        if levels:
            deeper(levels - 1)
        else:
            the_deepest()

    def the_deepest() -> None:
        unheard.came(signal.SIGINT, sys._getframe())

    unheard.came(signal.SIGINT, None)
    time.now += 2.0
    deeper(200)
    (text,) = said
    assert "in the_deepest" in text
    assert text.startswith("greenroom: SIGINT again")
    assert len(text.encode()) <= select.PIPE_BUF


def test_a_pipe_that_is_full_and_not_read_holds_nobody_up(
    time: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(65536))
    os.set_blocking(writer, True)
    monkeypatch.setattr(unheard_module, "_STDERR", writer)
    unheard = Unheard()
    unheard.came(signal.SIGTERM, None)
    time.now += 2.0
    unheard.came(signal.SIGTERM, None)
    with pytest.raises(Ended):
        unheard.came(signal.SIGTERM, None)
    os.close(reader)
    os.close(writer)


def test_signals_in_quick_succession_are_no_reason(time: Clock, said: list[str]) -> None:
    unheard = Unheard()
    for _ in range(20):
        unheard.came(signal.SIGINT, None)
        time.now += 0.04
    assert said == []


def test_a_loop_that_comes_to_a_signal_begins_anew(time: Clock, said: list[str]) -> None:
    unheard = Unheard()
    for _ in range(5):
        unheard.came(signal.SIGINT, None)
        time.now += 3.0
        unheard.came(signal.SIGINT, None)
        unheard.heard()
    assert len(said) == 5


def test_without_a_reader_of_what_it_says_it_ends_all_the_same(
    time: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(fd: int, data: bytes) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(os, "write", nobody)
    unheard = Unheard()
    unheard.came(signal.SIGTERM, None)
    time.now += 2.0
    unheard.came(signal.SIGTERM, None)
    with pytest.raises(Ended):
        unheard.came(signal.SIGTERM, None)
