"""Who is told of a fork, in which order, and whatever the others do."""

from __future__ import annotations

import gc
import os
import sys
from typing import Any

import pytest

from supervisor.child.forks import fork_worker, is_forking, tell_of_forks


class Notes:
    """Writes down what it is told; the child's notes come back by a pipe."""

    def __init__(self, name: str, told: list[str], *, fails: bool = False) -> None:
        self.name, self.told, self.fails = name, told, fails

    def note(self, when: str) -> None:
        self.told.append(f"{self.name} {when}")
        assert is_forking(None)
        if self.fails:
            raise LookupError(when)

    def before_fork(self) -> None:
        self.note("before")

    def after_fork_in_parent(self) -> None:
        self.note("parent")

    def after_fork_in_child(self) -> None:
        self.note("child")


def forked(told: list[str], fork: Any = os.fork) -> list[str]:
    """Return what was noted in the child."""
    reader, writer = os.pipe()
    pid = fork()
    if pid == 0:
        os.write(writer, ",".join(told).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        noted = pipe.read().decode()
    os.waitpid(pid, 0)
    assert not is_forking(None)
    return noted.split(",") if noted else []


def test_the_last_comes_first_before_a_fork_and_last_after_it() -> None:
    told: list[str] = []
    everybody = [Notes("a", told), Notes("b", told)]
    for each in everybody:
        tell_of_forks(each)
    in_child = forked(told)
    assert told == ["b before", "a before", "a parent", "b parent"]
    assert in_child == ["b before", "a before", "a child", "b child"]


def test_nobody_is_told_where_a_worker_is_made() -> None:
    told: list[str] = []
    notes = Notes("a", told)
    tell_of_forks(notes)
    assert forked(told, fork_worker) == []
    assert told == []
    assert forked(told) == ["a before", "a child"]


def test_who_raises_after_a_fork_keeps_nobody_from_being_told(monkeypatch: Any) -> None:
    raised: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: raised.append(str(what.exc_value)))
    told: list[str] = []
    first = Notes("a", told)
    tell_of_forks(first)
    second = Notes("b", told)
    tell_of_forks(second)
    first.fails = True
    in_child = forked(told)
    assert told == ["b before", "a before", "a parent", "b parent"]
    assert in_child[-2:] == ["a child", "b child"]
    assert raised == ["before", "parent"]


def test_who_is_gone_is_not_told() -> None:
    told: list[str] = []
    notes = Notes("a", told)
    tell_of_forks(notes)
    del notes
    gc.collect()
    assert forked(told) == []
    assert told == []


def test_a_fork_that_fails_leaves_no_trace(monkeypatch: Any) -> None:
    told: list[str] = []
    notes = Notes("a", told)
    tell_of_forks(notes)

    def refuse() -> int:
        raise BlockingIOError(11, "no process")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fork", refuse)
        with pytest.raises(BlockingIOError):
            fork_worker()
    assert not is_forking(None)
    assert forked(told) == ["a before", "a child"]
