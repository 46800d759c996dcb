"""What the text of one option becomes.

Each parser raises ``typer.BadParameter``, with the text and what was expected of it,
which is a usage error. That a number is in its option's range is checked in
``supervisor.options``, as for everybody.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import typer

from supervisor.checks import check_log_level, check_text
from supervisor.errors import OptionError

SHORTEST_INTERVAL: Final = 0.1

Parser = Callable[[str], object]


class _None:
    """The type of a value that somebody set to "none", as opposed to not setting it."""


NONE: Final = _None()


def seconds(text: str) -> float:
    """Return seconds, 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value >= 0:
        raise typer.BadParameter(f"{text!r}: expected seconds, 0 or more")
    return value


def patience(text: str) -> float:
    """Return seconds; infinity for "none", which means for ever."""
    if text.lower() == "none":
        return math.inf
    try:
        return seconds(text)
    except typer.BadParameter:
        sentence = f"{text!r}: expected seconds, 0 or more, or none: for ever"
        raise typer.BadParameter(sentence) from None


def patience_or_none(text: str) -> object:
    """Return seconds, or NONE for "none": an option that takes it for "for ever"."""
    value = patience(text)
    return NONE if value == math.inf else value


def rate(text: str) -> float:
    """Return how many a second, above 0."""
    value = number(text)
    if not value > 0:
        raise typer.BadParameter(f"{text!r}: expected a number above 0")
    return value


def interval(text: str) -> float:
    """Return the seconds between one look and the next."""
    value = number(text)
    if not SHORTEST_INTERVAL <= value < math.inf:
        raise typer.BadParameter(f"{text!r}: expected seconds, {SHORTEST_INTERVAL} or more")
    return value


def port(text: str) -> object:
    """Return a TCP port, or NONE for "none"."""
    if text.lower() == "none":
        return NONE
    if not text.isdecimal() or int(text) > 65535:
        raise typer.BadParameter(f"{text!r}: expected 0 to 65535 (0: any free one), or none")
    return int(text)


def text(given: str) -> str:
    """Return what can be sent: the bytes of an argument may be no UTF-8."""
    try:
        return check_text("it", given)
    except OptionError:
        raise typer.BadParameter(f"{given!r}: expected UTF-8") from None


def level(text: str) -> str:
    """Return a log level, in upper case."""
    try:
        return check_log_level("log_level", text)
    except OptionError as exc:
        raise typer.BadParameter(str(exc)) from exc


def number(text: str) -> float:
    """Return a number. Its range is the option's own affair."""
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r}: expected a number") from None


def count(text: str) -> int:
    """Return a whole number. Its range is the option's own affair."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r}: expected a whole number") from None


def or_none(parser: Parser) -> Parser:
    """Return a parser that takes "none" as well, for NONE."""

    def parse(text: str) -> object:
        if text.lower() == "none":
            return NONE
        try:
            return parser(text)
        except typer.BadParameter as exc:
            raise typer.BadParameter(f"{exc.message}, or none") from None

    return parse
