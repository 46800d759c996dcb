"""Where objects lie in memory, for processes that share it until one of them writes.

Whoever looks at an object writes its reference count, and the first write to a page
(4 KiB) after a fork copies the page. So what a worker costs, in memory and in time, is
the number of pages on which the objects lie that it looks at, and not their size:

* The code of a function lies among the code of its module, most of which never runs.
  Copied once more, in one go, the code that does run fills a few pages instead of one
  page for each function.
* Small objects come from arenas of 1 MiB, which the kernel maps where there is room:
  among the libraries that are loaded meanwhile. A huge page (``hugepages.py``) needs two in
  a row, at the right place. Taken before anything is imported, most lie in one row.
* Each size of object has pages of its own. The first of each that is made after the fork copies one.
* What a process frees leaves holes on pages everywhere, and what is made after the fork
  goes into them. Filled beforehand, new objects lie beside each other.

For the process that workers are forked from. Nothing depends on any of this but speed
and memory: an interpreter that lays out its heap otherwise gains less.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Collection
from types import CodeType, FunctionType
from typing import Final

_PAGE: Final = 4096

# How the interpreter's allocator rounds sizes, and the largest that it does not leave
# to malloc. Source: Objects/obmalloc.c.
_STEP: Final = 16
_LARGEST: Final = 512

# What an empty ``bytes`` takes (sys.getsizeof), and so the smallest size that one can fill.
_BYTES_HEAD: Final = 33
_SMALLEST: Final = 48

# Holes of one size that are filled at most; a heap of any age has some hundreds.
_MOST_FILLERS: Final = 2048

# Where the row of arenas is kept: nothing of ours is imported when it is taken.
_ROW: Final = "greenroom_row"

# How long the row is, in objects of 512 bytes: 16 MiB, which is what our modules, asyncio and
# multiprocess's need, and some more. Arenas that are not used are given back.
_ROW_LENGTH: Final = 16 * 2**20 // _LARGEST
_ARENA: Final = 2**20 // _LARGEST

# The first lines of a process that workers are forked from. Of all that fills the row two
# objects in each arena stay, so that none is given back.
TAKE_ROW: Final = f"""\
import sys
sys.{_ROW} = [bytes({_LARGEST - _BYTES_HEAD}) for _ in range({_ROW_LENGTH})][::{_ARENA // 2}]
"""

# What must not be freed: it would leave holes.
_kept: list[object] = []


def leave_row() -> None:
    """Give back what is left of the row. The rest is somebody's by now."""
    vars(sys).pop(_ROW, None)


def lay_together(used: Collection[int]) -> None:
    """Copy the code of functions onto pages of its own.

    Args:
        used: the ``id`` of each code object that runs.
    """
    functions = [
        each
        for each in gc.get_objects()
        if type(each) is FunctionType and id(each.__code__) in used
    ]
    copies: dict[int, CodeType] = {}

    def copy(code: CodeType) -> CodeType:
        if id(code) not in copies:
            constants = tuple(
                copy(each) if type(each) is CodeType and id(each) in used else each
                for each in code.co_consts
            )
            copies[id(code)] = code.replace(co_consts=constants)
        return copies[id(code)]

    for function in functions:
        _kept.append(function.__code__)
        function.__code__ = copy(function.__code__)


def fill_holes() -> None:
    """Fill what is free between small objects, so that the next ones lie in a row.

    Nothing happens where the interpreter was told to use another allocator, which has
    no rows.
    """
    for size in range(_SMALLEST, _LARGEST + 1, _STEP):
        fillers = _fillers(size)
        if fillers is None:
            return
        _kept.append(fillers)


def touch_sizes() -> None:
    """Have the page copied from which the next object of each size will be taken.

    For a worker that rehearses: the messages of jobs are of any length.
    """
    _ = [bytes(size - _BYTES_HEAD) for size in range(_SMALLEST, _LARGEST + 1, _STEP)]


def _fillers(size: int) -> list[bytes] | None:
    """Return what fills the holes of that many bytes; None if there is no end of them."""
    fillers: list[bytes] = []
    in_a_row = 0
    before = 0
    while in_a_row < _PAGE // size:
        if len(fillers) == _MOST_FILLERS:
            return None
        filler = bytes(size - _BYTES_HEAD)
        in_a_row = in_a_row + 1 if id(filler) == before + size else 0
        before = id(filler)
        fillers.append(filler)
    # The row that was found is where new objects are to go.
    del fillers[len(fillers) - in_a_row :]
    return fillers
