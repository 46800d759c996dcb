"""The functions that were called last."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given, strategies as st

from ipc.messages import Name
from supervisor import byname
from supervisor.familiar import Familiar
from tests.integration import jobs


def packed(function: Any, *args: Any, **kwargs: Any) -> bytes:
    made = byname.pack(function, args, kwargs)
    assert made is not None
    return made


def name(function: Any) -> Name:
    return Name(function.__module__, function.__name__)


def test_nobody_is_familiar_at_first() -> None:
    assert Familiar().names == ()


def test_a_function_is_remembered_once_whatever_it_is_called_with() -> None:
    familiar = Familiar()
    for call in (packed(jobs.double, 1), packed(jobs.double, number=2), packed(jobs.double)):
        familiar.saw(call)
    assert familiar.names == (name(jobs.double),)


def test_the_last_four_are_remembered() -> None:
    familiar = Familiar()
    functions = [jobs.double, jobs.pid, jobs.identity, jobs.get_mark, jobs.set_mark]
    for function in functions:
        familiar.saw(packed(function))
    assert familiar.names == tuple(map(name, functions[1:]))
    familiar.saw(packed(jobs.double))
    assert familiar.names == (*map(name, functions[2:]), name(jobs.double))


@given(st.sampled_from([jobs.double, jobs.double_later, jobs.pid]), st.lists(st.text()))
def test_a_call_begins_as_all_calls_of_its_function_do_and_no_other(
    function: Any, args: list[str]
) -> None:
    found, beginning = byname.name_of(packed(function, *args))
    assert found == name(function)
    for other in (jobs.double, jobs.double_later, jobs.pid):
        assert packed(other, 1).startswith(beginning) == (other is function)


def test_what_is_named_is_found_without_importing_anything() -> None:
    assert byname.find(jobs.__name__, "double") is jobs.double
    assert byname.find(jobs.__name__, "nobody") is None
    assert byname.find("no.such.module", "nobody") is None


def test_a_name_that_is_longer_than_names_are_is_not_taken_along_to_each_birth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def long() -> None:
        pass

    long.__qualname__ = "x" * 2000
    monkeypatch.setattr(sys.modules[__name__], long.__qualname__, long, raising=False)
    familiar = Familiar()
    familiar.saw(packed(long))
    assert familiar.names == ()


def test_arguments_are_not_opened_to_learn_a_name() -> None:
    """A gigabyte would stop the supervisor's loop: broken ones show that nobody looks."""
    call = packed(jobs.identity, "é" * 100)
    broken = call.replace("é".encode(), b"\xff\xff")
    assert broken != call
    familiar = Familiar()
    familiar.saw(broken)
    assert familiar.names == (name(jobs.identity),)
