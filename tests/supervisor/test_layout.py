"""Where the objects lie that workers share, and that code which was moved does the same."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from supervisor.child.layout import TAKE_ROW, lay_together

ROOT = Path(__file__).parents[2]


def run(program: str) -> str:
    """Return what *program* prints, in an interpreter with its usual allocator."""
    environment = {**os.environ, "PYTHONMALLOC": "pymalloc", "PYTHONDEVMODE": ""}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# ── code ─────────────────────────────────────────────────────────────────────


def plain(a: int, b: int = 2, *rest: int, c: int = 3, **more: int) -> int:
    return a + b + sum(rest) + c + sum(more.values())


def make_counter() -> Callable[[], int]:
    count = 0

    def counter() -> int:
        nonlocal count
        count += 1
        return count

    return counter


def numbers(limit: int) -> Iterator[int]:
    yield from range(limit)


def outer(values: list[int]) -> list[int]:
    def inner(value: int) -> int:
        return 2 * value

    return [inner(each) for each in values]


class Shape:
    def __init__(self, side: int) -> None:
        self.side = side

    @property
    def area(self) -> int:
        return self.side**2

    @staticmethod
    def corners() -> int:
        return 4

    @classmethod
    def unit(cls) -> Shape:
        return cls(1)


def fails() -> None:
    raise LookupError("as before")


def nested(code: CodeType) -> list[CodeType]:
    return [each for each in code.co_consts if isinstance(each, CodeType)]


def test_functions_do_the_same_after_their_code_was_moved() -> None:
    counter = make_counter()
    assert counter() == 1
    moved: list[Any] = [plain, make_counter, counter, numbers, outer, fails, Shape.__init__]
    moved += [Shape.area.fget, Shape.corners, Shape.unit.__func__]  # type: ignore[attr-defined]
    before = [function.__code__ for function in moved]
    lay_together({id(code) for code in before} | {id(code) for code in nested(outer.__code__)})
    assert all(
        function.__code__ is not old and function.__code__ == old
        for function, old in zip(moved, before, strict=True)
        if function is not outer
    )
    assert plain(1, 2, 3, c=4, d=5) == 15
    assert plain(1) == 6
    assert counter() == 2, "a closure keeps what it has closed over"
    assert make_counter()() == 1
    assert list(numbers(3)) == [0, 1, 2]
    assert outer([1, 2]) == [2, 4]
    assert Shape(3).area == 9
    assert Shape.corners() == 4
    assert Shape.unit().side == 1
    with pytest.raises(LookupError, match="as before") as caught:
        fails()
    assert caught.traceback[-1].lineno + 1 == fails.__code__.co_firstlineno + 1


def test_code_that_was_not_named_stays_where_it_is() -> None:
    def named() -> None: ...

    def unnamed() -> None: ...

    kept = unnamed.__code__
    lay_together({id(named.__code__)})
    assert unnamed.__code__ is kept


def test_functions_that_share_their_code_go_on_sharing_it() -> None:
    first, second = make_counter(), make_counter()
    old = first.__code__
    lay_together({id(old)})
    assert first.__code__ is second.__code__
    assert first.__code__ is not old


# ── holes ────────────────────────────────────────────────────────────────────

HOLES = """
    from supervisor.child import layout

    LENGTH = 200 - 33  # with its head in the size class of 208 bytes

    heap = [bytes(LENGTH) for _ in range(20_000)]
    del heap[::50]  # one hole on every second page or so

    def pages():
        made = [bytes(LENGTH) for _ in range(15)]
        return len({id(each) >> 12 for each in made})

    print(pages(), end=" ")
    layout.fill_holes()
    print(pages())
"""


def test_new_objects_lie_beside_each_other_once_the_holes_are_filled() -> None:
    scattered, together = map(int, run(HOLES).split())
    assert scattered > 8
    assert together <= 2


def test_an_allocator_without_rows_does_not_keep_it_busy_for_ever() -> None:
    program = "from supervisor.child import layout\nlayout.fill_holes()\nprint('done')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONMALLOC": "malloc", "PYTHONDEVMODE": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


# ── the row of arenas ────────────────────────────────────────────────────────


def test_what_is_made_after_the_row_was_taken_lies_in_it() -> None:
    told = run(
        TAKE_ROW
        + textwrap.dedent(
            """
        from supervisor.child.layout import leave_row
        import asyncio, decimal, ssl  # three libraries among them
        made = [object() for _ in range(100_000)]
        with open("/proc/self/maps") as maps:
            ranges = [[int(end, 16) for end in line.split()[0].split("-")] for line in maps]
        within = lambda some: [sum(a <= id(each) < b for each in some) for a, b in ranges]
        kept = within(sys.greenroom_row)
        # 5 MiB: two huge pages at least, wherever it begins. The kernel may make two of it.
        rows = [number for number, count in enumerate(kept) if count >= 10]
        print(bool(rows))
        print(sum(within(made)[row] for row in rows) >= 0.9 * len(made))
        leave_row()
        print(hasattr(sys, "greenroom_row"))
        leave_row()
        """
        )
    )
    assert told.split() == ["True", "True", "False"]
