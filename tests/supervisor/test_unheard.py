"""Who insists on a signal, and when that ends the process."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

import pytest

from supervisor import clock
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
def said(time: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> list[str]:
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
