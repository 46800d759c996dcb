"""Calls that go by name: what arrives is what was sent, and what cannot is left to pickle."""

from __future__ import annotations

import functools
import importlib
import math
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from supervisor import byname, travel


def a_function(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    return args, kwargs


async def a_coroutine_function() -> None:
    pass


@functools.wraps(a_function)
def wraps_a_function() -> None:
    pass


def replaced() -> None:
    pass


the_one_before = replaced


def replaced() -> None:  # type: ignore[no-redef]  # noqa: F811 - a module may do so
    pass


class Number(int):
    pass


class Text(str):
    __slots__ = ()


def of_a_function() -> Any:
    def inside() -> None:
        pass

    return inside


def made_by(number: int) -> Any:
    def kept() -> int:
        return number

    return kept


kept = made_by(7)  # another process may have another one there


class Class:
    @staticmethod
    def static() -> None:
        pass

    def method(self) -> None:
        pass


_THERE = "def there():\n    return needed\n"

plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.text(),  # without surrogates
    st.binary(),
)


def typed(value: Any) -> Any:
    """Return *value* with the class of each part: ``True`` is not ``1``, ``-0.0`` not ``0.0``."""
    if isinstance(value, (tuple, list)):
        return type(value), [typed(each) for each in value]
    if isinstance(value, dict):
        return {key: typed(each) for key, each in value.items()}
    sign = math.copysign(1.0, value) if isinstance(value, float) else None
    return type(value), value, sign


@given(st.lists(plain), st.dictionaries(st.text(), plain))
def test_plain_arguments_arrive_as_what_they_were(args: list[Any], kwargs: dict[str, Any]) -> None:
    packed = byname.pack(a_function, tuple(args), kwargs)
    assert packed is not None
    function, *arrived = byname.open_call(packed)
    assert function is a_function
    assert typed(arrived) == typed([tuple(args), kwargs])


def test_a_number_that_is_none_arrives_as_one() -> None:
    packed = byname.pack(a_function, (math.nan,), {})
    assert packed is not None
    assert math.isnan(byname.open_call(packed)[1][0])


@given(st.lists(plain), st.dictionaries(st.text(), plain))
def test_a_call_is_opened_as_it_was_packed(args: list[Any], kwargs: dict[str, Any]) -> None:
    for function in (a_function, of_a_function, len, Class.static):
        kind, body = travel.pack_call(function, tuple(args), kwargs)
        assert (kind == travel.NAMED) == (function in (a_function, of_a_function))
        assert travel.OPENERS[kind](body) == (function, tuple(args), kwargs)


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda: None, id="a lambda"),
        pytest.param(of_a_function(), id="a function of a function"),
        pytest.param(Class.static, id="a function of a class"),
        pytest.param(Class().method, id="a method"),
        pytest.param(kept, id="a closure that its module keeps under its name"),
        pytest.param(len, id="one of C"),
        pytest.param(functools.partial(a_function), id="a partial"),
        pytest.param(Class, id="a class"),
        pytest.param(the_one_before, id="one that its module has replaced"),
        pytest.param(wraps_a_function, id="one that has the name of another"),
    ],
)
def test_what_is_not_where_its_name_says_is_pickled(function: Any) -> None:
    assert byname.pack(function, (), {}) is None


@pytest.mark.parametrize(
    "value",
    [
        pytest.param([1], id="a list"),
        pytest.param((1,), id="a tuple"),
        pytest.param(Number(1), id="a kind of number"),
        pytest.param(Text("1"), id="a kind of text"),
        pytest.param(bytearray(b"1"), id="bytes that change"),
        pytest.param(2**64, id="a number of more than 64 bits"),
        pytest.param(-(2**63) - 1, id="and one below zero"),
        pytest.param("\ud800", id="half a character"),
    ],
)
def test_what_would_arrive_as_something_else_is_pickled(value: Any) -> None:
    assert byname.pack(a_function, (value,), {}) is None
    assert byname.pack(a_function, (), {"key": value}) is None
    kind, body = travel.pack_call(a_function, (value,), {"key": value})
    _, (first,), kwargs = travel.OPENERS[kind](body)
    assert typed((first, kwargs)) == typed((value, {"key": value}))


@pytest.mark.parametrize("key", [1, None, b"a", ("a",), Text("a")])
def test_keywords_that_are_no_text_are_left_to_pickle(key: Any) -> None:
    assert byname.pack(a_function, (), {key: 1}) is None


@pytest.mark.parametrize("module", [None, 5, [], Text(__name__)])
def test_a_module_that_is_no_name_is_left_to_pickle(module: Any) -> None:
    def function() -> None:
        pass

    function.__qualname__ = "a_function"
    function.__module__ = module
    assert byname.pack(function, (), {}) is None


def test_a_coroutine_function_goes_by_name() -> None:
    assert travel.pack_call(a_coroutine_function, (), {})[0] == travel.NAMED


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that can be imported and has not been."""
    (tmp_path / "greenroom_by_name.py").write_text("def there():\n    return 42\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "greenroom_by_name", raising=False)
    return "greenroom_by_name"


def packed_from(module: str, name: str) -> bytes:
    found = getattr(importlib.import_module(module), name)
    packed = byname.pack(found, (), {})
    assert packed is not None
    return packed


def test_a_module_that_is_not_imported_yet_is_imported(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = packed_from(module, "there")
    monkeypatch.delitem(sys.modules, module)
    assert byname.open_call(packed)[0]() == 42


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("", _THERE, id="without the function yet"),
        pytest.param(_THERE, "", id="with the function, and without what that needs"),
    ],
)
def test_a_module_that_another_thread_is_importing_is_waited_for(
    before: str, after: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = packed_from(module, "there")
    monkeypatch.delitem(sys.modules, module)
    importlib.invalidate_caches()
    # 1. A thread is in the middle of the module: it is in sys.modules, and only half there.
    (tmp_path / f"{module}.py").write_text(
        "import threading\n" + before + "half = threading.current_thread().half\n"
        "half[0].set()\n"
        "half[1].wait(60)\n"
        "needed = 43\n" + after
    )
    half = threading.Event(), threading.Event()
    importing = threading.Thread(target=importlib.import_module, args=(module,))
    importing.half = half  # type: ignore[attr-defined]
    importing.start()
    assert half[0].wait(60)
    # 2. The call is opened meanwhile. 3. The thread goes on.
    threading.Timer(0.05, half[1].set).start()
    assert byname.open_call(packed)[0]() == 43
    importing.join()


def test_a_function_that_is_not_there_is_named(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = packed_from(module, "there")
    (tmp_path / f"{module}.py").write_text("nothing = 1  # and longer than before\n" * 3)
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, module)
    with pytest.raises(AttributeError, match=r"a worker has no greenroom_by_name\.there \(module "):
        byname.open_call(packed)


def test_a_module_that_names_what_it_lacks_in_its_own_way_does_not_hide_what_was_asked_for(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = packed_from(module, "there")
    (tmp_path / f"{module}.py").write_text(
        "def __getattr__(name):  # and longer than before\n    raise AttributeError(name)\n" * 2
    )
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, module)
    with pytest.raises(AttributeError, match=r"no greenroom_by_name\.there \(there\): it imports"):
        byname.open_call(packed)


def test_a_module_that_is_not_there_is_named_and_what_a_module_needs_is_not_mistaken_for_it(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = packed_from(module, "there")
    file = tmp_path / f"{module}.py"
    file.write_text("import greenroom_by_nobody  # and longer than before\n")
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, module)
    with pytest.raises(ModuleNotFoundError, match="No module named 'greenroom_by_nobody'"):
        byname.open_call(packed)
    file.unlink()
    importlib.invalidate_caches()
    with pytest.raises(ModuleNotFoundError, match=r"no greenroom_by_name\.there \(No module named"):
        byname.open_call(packed)


def test_what_a_module_raises_while_it_is_imported_is_raised_as_it_is(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = packed_from(module, "there")
    (tmp_path / f"{module}.py").write_text("None.nothing  # and longer than before\n" * 2)
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, module)
    with pytest.raises(AttributeError, match=r"^'NoneType' object has no attribute 'nothing'$"):
        byname.open_call(packed)
