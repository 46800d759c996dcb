"""Logs as the command line writes them: everything through loguru, on stdout.

``start`` writes one JSON object a line, ``dev`` readable lines, coloured on a
terminal. Records of the standard library are handed to loguru with their own
time, module, line and function, since they describe the place that logged, which
may be in a worker. Such a record carries its worker's fields in
``record.greenroom`` and its exception as text in ``record.exc_text``.

What a worker says is a stranger's text. Nothing in it moves the cursor, changes
the colour or reverses the direction of a terminal: such characters are escaped. And
no text can pass for a record of its own: in JSON a line break is escaped, in the
readable form the lines that follow the first are indented.

Never ``enqueue=True``: loguru's queue is a multiprocessing one, with locks that a
fork can copy in the locked state.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import math
import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TextIO

import msgspec
from loguru import logger

if TYPE_CHECKING:  # these names exist in loguru's stub only
    from loguru import Message, Record

# Talkative at DEBUG about our own doings, and of no use to somebody who debugs an agent.
QUIET: Final = ("asyncio", "watchfiles")

# Always there, or with a place of their own; the rest of a record's fields follow.
FIXED: Final = ("timestamp", "level", "message", "logger", "module", "function", "line")

# What every LogRecord has; everything else came from ``extra=``.
_PLAIN_RECORD: Final = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    "greenroom",
}

_COLOURS: Final = {
    "DEBUG": "\x1b[36m",
    "INFO": "\x1b[32m",
    "WARNING": "\x1b[33m",
    "ERROR": "\x1b[31m",
    "CRITICAL": "\x1b[1;31m",
}
_DIM: Final = "\x1b[2m"
_RESET: Final = "\x1b[0m"

# Control characters but tab and line feed, and what changes the direction of text.
# JSON escapes those below 0x20 itself.
_UNSAFE: Final = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_INDENT: Final = "    "


def configure_logging(level: str, *, readable: bool, stream: TextIO | None = None) -> None:
    """Send everything that is logged in this process to *stream*.

    Takes the place of what loguru and the root logger did before.

    Args:
        level: the lowest level to write, in upper case.
        readable: for people; otherwise one JSON object a line.
        stream: where to; default stdout.
    """
    out = sys.stdout if stream is None else stream
    sink = readable_sink(out) if readable else json_sink(out)
    logger.remove()
    # diagnose would print the values of variables, secrets included.
    logger.add(sink, level=level, format="{message}", backtrace=False, diagnose=False)
    logging.basicConfig(handlers=[InterceptHandler()], level=level, force=True)
    logging.captureWarnings(True)
    for name in QUIET:
        if logging.getLogger(name).level == logging.NOTSET:
            logging.getLogger(name).setLevel(logging.WARNING)


class InterceptHandler(logging.Handler):
    """Hands records of the standard library to loguru, unchanged in what they say."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log *record* with loguru. Runs on: the thread that logged."""
        try:
            message = record.getMessage()
            # ``Level 25`` and the like: loguru knows a level by its name or not at all.
            level: str | int = record.levelname if record.levelname in _COLOURS else record.levelno
            logger.patch(lambda taken: _fill(taken, record)).log(level, message)
        except Exception:  # noqa: BLE001 - a bad format string must not end who logs
            self.handleError(record)


def _fill(taken: Record, record: logging.LogRecord) -> None:
    taken["time"] = dt.datetime.fromtimestamp(record.created, dt.timezone.utc)
    taken["name"] = record.name
    taken["module"] = record.module
    taken["function"] = record.funcName
    taken["line"] = record.lineno
    extra = {name: value for name, value in vars(record).items() if name not in _PLAIN_RECORD}
    extra.setdefault("pid", record.process)
    extra.update(getattr(record, "greenroom", None) or {})
    if record.exc_text:
        extra["exception"] = record.exc_text
    elif record.exc_info:
        extra["exception"] = "".join(traceback.format_exception(*record.exc_info)).rstrip()
    if record.stack_info:
        extra["stack"] = record.stack_info
    taken["extra"].update(extra)


def fields_of(record: Record) -> dict[str, Any]:
    """Return what a record says, in the order in which it is written.

    A field of the caller that has the name of a fixed one gets a ``_`` behind it.
    """
    extra = dict(record["extra"])
    fields: dict[str, Any] = {
        "timestamp": _utc(record["time"]),
        "level": record["level"].name,
        "message": record["message"],
        "logger": record["name"],
        "module": record["module"],
        "function": record["function"],
        "line": record["line"],
        "pid": extra.pop("pid", None) or record["process"].id,
        "job_id": extra.pop("job_id", None),
        "room": extra.pop("room", None),
    }
    fields = {name: value for name, value in fields.items() if value is not None}
    exception = extra.pop("exception", None) or _exception_text(record)
    for name, value in extra.items():
        fields[f"{name}_" if name in FIXED else name] = value
    if exception:
        fields["exception"] = exception
    return fields


def _utc(moment: dt.datetime) -> str:
    return moment.astimezone(dt.timezone.utc).isoformat(timespec="microseconds")


def _exception_text(record: Record) -> str | None:
    raised = record["exception"]
    if raised is None or raised.type is None:
        return None
    lines = traceback.format_exception(raised.type, raised.value, raised.traceback)
    return "".join(lines).rstrip()


def json_sink(stream: TextIO) -> Callable[[Message], None]:
    """Return a sink that writes each record as one line of JSON, in UTF-8, in one write."""
    binary = getattr(stream, "buffer", None)

    def write(message: Message) -> None:
        line = json_line(fields_of(message.record))
        if binary is None:  # a stream of text only, such as StringIO
            stream.write(line.decode())
        else:
            binary.write(line)
        stream.flush()

    return write


def json_line(fields: dict[str, Any]) -> bytes:
    """Return *fields* as a line of JSON, whatever they are."""
    try:
        line = msgspec.json.encode(fields, enc_hook=repr)
    except Exception:  # noqa: BLE001 - fields are the caller's: odd keys, cycles, a repr that raises
        line = json.dumps(_plain(fields, depth=4)).encode()
    return _escape_in_json(line) + b"\n"


def _escape_in_json(line: bytes) -> bytes:
    if line.isascii() and b"\x7f" not in line:
        return line
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", line.decode()).encode()


def _harmless(text: str) -> str:
    """Return *text* as it may be shown on a terminal, in lines that are seen to belong together."""
    shown = _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return shown.replace("\n", "\n" + _INDENT)


def _plain(value: object, *, depth: int) -> object:
    """Return something like *value* that JSON can carry, whatever it is."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    try:
        if depth > 0 and isinstance(value, dict):
            return {str(key): _plain(each, depth=depth - 1) for key, each in value.items()}
        if depth > 0 and isinstance(value, (list, tuple, set, frozenset)):
            return [_plain(each, depth=depth - 1) for each in value]
        return repr(value)
    except Exception as exc:  # noqa: BLE001 - the caller's own __repr__ or __str__
        return f"<{type(value).__name__} whose repr raised {type(exc).__name__}>"


def readable_sink(stream: TextIO) -> Callable[[Message], None]:
    """Return a sink for people: time, level, logger, message, fields, exception."""
    coloured = wants_colour(stream)

    def write(message: Message) -> None:
        text = _readable(message.record, coloured=coloured)
        try:
            stream.write(text)
        except UnicodeEncodeError:  # a terminal that is not UTF-8
            encoding = getattr(stream, "encoding", None) or "ascii"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()

    return write


def _readable(record: Record, *, coloured: bool) -> str:
    fields = fields_of(record)
    exception = fields.pop("exception", None)
    level = _harmless(str(fields["level"]))
    clock = record["time"].astimezone().strftime("%H:%M:%S.%f")[:-3]
    message = _harmless(str(fields["message"]))
    rest = _harmless(
        " ".join(
            f"{name}={value}"
            for name, value in fields.items()
            if name not in FIXED and name != "pid"
        )
    )
    logger_name = _harmless(str(fields.get("logger")))
    if coloured:
        begin = f"{_DIM}{clock}{_RESET} {_COLOURS.get(level, '')}{level:<8}{_RESET}"
        line = f"{begin} {_DIM}{logger_name}{_RESET}  {message}"
        line += f"  {_DIM}{rest}{_RESET}" if rest else ""
    else:
        line = f"{clock} {level:<8} {logger_name}  {message}"
        line += f"  {rest}" if rest else ""
    return f"{line}\n{_INDENT}{_harmless(str(exception))}\n" if exception else f"{line}\n"


def wants_colour(stream: TextIO) -> bool:
    """Return whether to colour. Source: no-color.org and force-color.org, then the terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()
