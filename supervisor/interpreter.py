"""What multiprocess tells a fresh interpreter, but for two things.

It has no place for either, so two functions of ``multiprocess.spawn`` are replaced, once
and for all:

* A program that was read from standard input has no file, though the interpreter says
  that its file is ``<stdin>``, and each child would run that. A main file that there never
  was is left out; also for children of others, which would only fail. (Taken from the
  main module while a child is made, the program itself would miss the name.)
* What a child is to do before it imports anything, for children of ours.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any, Final

from supervisor.travel import main_travels

_COMMAND: Final = "-c"  # what follows it on the command line is a program


class _Start(threading.local):
    """The child that this thread starts."""

    first = ""


_start = _Start()


@contextlib.contextmanager
def told(first: str = "") -> Iterator[None]:
    """Have the child that is started meanwhile told what it should be. Runs on: any thread.

    Args:
        first: the lines of a program that it runs before it imports anything.
    """
    _replace()
    _start.first = first
    try:
        yield
    finally:
        _start.first = ""


@functools.cache
def _replace() -> None:
    from multiprocess import spawn

    preparation, command_line = spawn.get_preparation_data, spawn.get_command_line

    def get_preparation_data(name: str) -> dict[str, Any]:
        data: dict[str, Any] = preparation(name)
        if not main_travels():
            data.pop("init_main_from_path", None)
        return data

    def get_command_line(**arguments: Any) -> list[str]:
        words: list[str] = command_line(**arguments)
        # Not the first word, which may be bytes. A frozen program has no such option.
        if _start.first and _COMMAND in words[1:]:
            program = words.index(_COMMAND, 1) + 1
            words[program] = f"{_start.first}\n{words[program]}"
        return words

    spawn.get_preparation_data, spawn.get_command_line = get_preparation_data, get_command_line
