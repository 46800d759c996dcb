"""What one value may be, whoever was given it.

Options, arguments of calls and words on a command line come from people, and are
checked by the same functions, so that the complaint is always the same: the name,
the value, what is allowed. What several options must be *together* is checked where
they are known, in ``options.py``.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Final

from supervisor.errors import OptionError

# An id stands in each message about its job, in each record of the log, and in the title of a process.
_LONGEST_ID: Final = 1024

LOG_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def check_number(
    name: str, value: object, *, at_least: float = 0.0, above: float | None = None
) -> None:
    """Raise OptionError unless *value* is a number in range. Infinity is a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise OptionError(name, value, "a number")
    try:
        number = float(value)
    except OverflowError:
        raise OptionError(name, value, "a number that a float can hold") from None
    if math.isnan(number):
        raise OptionError(name, value, "a number")
    if above is not None and not value > above:
        raise OptionError(name, value, f"a number above {above:g}")
    if value < at_least:
        raise OptionError(name, value, f"a number of at least {at_least:g}")


def check_bool(name: str, value: object) -> None:
    """Raise OptionError unless *value* is True or False."""
    if not isinstance(value, bool):
        raise OptionError(name, value, "True or False")


def check_int(name: str, value: object, *, at_least: int = 0) -> None:
    """Raise OptionError unless *value* is a whole number in range."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise OptionError(name, value, "a whole number")
    if value < at_least:
        raise OptionError(name, value, f"a whole number of at least {at_least}")


def check_text(name: str, value: object) -> str:
    """Return *value* as a plain ``str``, or raise OptionError unless it can be sent as UTF-8.

    A member of a ``StrEnum``, or of any other subclass, is the text that it is made of.
    """
    if not isinstance(value, str):
        raise OptionError(name, value, "a string")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as exc:
            raise OptionError(name, value, "a string without lone surrogates") from exc
    return value if type(value) is str else str.__str__(value)


def check_id(name: str, value: object) -> str:
    """Return *value*, or raise OptionError unless it can name a job."""
    if value == "":
        raise OptionError(name, value, "text, or None for an id that is made up")
    text = check_text(name, value)
    if len(text) > _LONGEST_ID:
        raise OptionError(name, f"{text[:40]}…", f"text of at most {_LONGEST_ID} characters")
    return text


def check_pairs(name: str, value: object) -> dict[str, str]:
    """Return *value*, a mapping of texts to texts, as a plain dict, or raise OptionError."""
    if not isinstance(value, Mapping):
        raise OptionError(name, value, "a dict of strings")
    return {
        check_text(f"a name in {name}", key): check_text(f"{name}[{key!r}]", each)
        for key, each in value.items()
    }


def check_function(name: str, value: object, expected: str = "a function") -> None:
    """Raise OptionError unless *value* can be called and does something when it is."""
    if not callable(value):
        raise OptionError(name, value, expected)
    for each in (value, getattr(value, "__call__", None)):  # noqa: B004 - objects with a __call__
        if inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each):
            raise OptionError(
                name, value, f"{expected} without yield: with it, a call runs nothing"
            )


def check_hook(name: str, value: object, *, takes: str = "", or_nothing: bool = False) -> None:
    """Raise OptionError unless *value* is what :func:`check_function` takes, or None.

    Args:
        takes: what it is called with, such as ``"a JobRequest"``; empty if that is not checked.
        or_nothing: one without parameters is called without an argument.
    """
    if value is not None:
        check_function(name, value, "a function, or None")
        if takes:
            expected = f"a function that takes {takes}{', or nothing' * or_nothing}, or None"
            check_takes(name, value, expected, or_nothing=or_nothing)


def check_takes(name: str, value: object, expected: str, *, or_nothing: bool = False) -> None:
    """Raise OptionError if the function *value* cannot be called with one argument."""
    assert callable(value), "check_function comes first"
    try:
        # Its own: what a decorator wraps may have another than what is called.
        signature = inspect.signature(value, follow_wrapped=False)
    except ValueError:
        return  # some functions written in C do not tell
    if fits(signature, None) or (or_nothing and fits(signature)):
        return
    raise OptionError(name, value, expected)


def fits(signature: inspect.Signature, *arguments: object) -> bool:
    """Return whether what has this signature can be called with *arguments*."""
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def check_arguments(name: str, value: object) -> tuple[object, ...]:
    """Return *value*, the arguments of a call, as a tuple, or raise OptionError."""
    if isinstance(value, (str, bytes, bytearray)) or not isinstance(value, Iterable):
        raise OptionError(name, value, "a tuple of arguments")
    return tuple(value)


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise OptionError unless *value* is one of *choices*."""
    allowed = tuple(choices)
    if value not in allowed:
        raise OptionError(name, value, "one of " + ", ".join(allowed))


def check_log_level(name: str, value: object) -> str:
    """Return the level in upper case, or raise OptionError."""
    if not isinstance(value, str) or value.upper() not in LOG_LEVELS:
        raise OptionError(name, value, "one of " + ", ".join(LOG_LEVELS))
    return value.upper()
