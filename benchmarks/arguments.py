"""What the command lines' values may be, each told in one line where it is not that."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import math
from collections.abc import Callable

from benchmarks.drivers.registry import PEERS

Hook = Callable[..., object]


def count(text: str) -> int:
    """Return a whole number of at least 1.

    Raises:
        argparse.ArgumentTypeError: it is none. So do all functions here.
    """
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of at least 1")
    return number


def rate(text: str) -> float:
    """Return a finite number above 0."""
    number = _number(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0")
    return number


def share(text: str) -> float:
    """Return a number between 0 and 1, neither of them included."""
    number = _number(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected a number between 0 and 1, such as 0.01"
        )
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def hook(name: str) -> Hook:
    """Return the function that ``module:function`` names; its module is imported."""
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise argparse.ArgumentTypeError(f"{name!r}: expected MODULE:FUNCTION")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as exc:  # somebody's module: it may raise what it likes
        raise argparse.ArgumentTypeError(f"{name!r}: {type(exc).__name__}: {exc}") from exc
    if not callable(found):
        raise argparse.ArgumentTypeError(f"{name!r} is not a function")
    made: Hook = found
    return made


def modules(text: str) -> list[str]:
    """Return the names of modules that are there, of a list with commas; they are not imported."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        try:
            found = importlib.util.find_spec(name)
        except (Exception, SystemExit) as exc:  # the packages around it are imported
            raise argparse.ArgumentTypeError(f"{name!r}: {type(exc).__name__}: {exc}") from exc
        if found is None:
            raise argparse.ArgumentTypeError(f"{name!r}: there is no such module")
    return names


def peers(text: str) -> tuple[str, ...]:
    """Return the peers of a list with commas; ``none`` is the word for an empty one."""
    names = tuple(name.strip() for name in text.split(","))
    if names == ("none",):
        return ()
    for name in names:
        if name not in PEERS:
            raise argparse.ArgumentTypeError(
                f"no peer {name!r}; there are: {', '.join(PEERS)}; or none"
            )
    return names
